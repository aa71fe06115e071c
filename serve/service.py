"""The deployment: one process that holds a release and answers HTTP itself, so that a request is a single hop."""

import asyncio
import contextlib
import io
import logging
import os
from collections.abc import Iterator

import torch
from fastapi import FastAPI
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.exceptions import RayServeException

from lexray.errors import LexrayError, last_line
from lexray.events.eventlist import EventList
from lexray.release.aligned import load_aligned
from lexray.serve.app import create_app
from lexray.serve.config import ServeConfig
from lexray.serve.engine import EncodedEvents, ServingEngine, TextVector

APPLICATION = "lexray"


@serve.ingress()
class Replica:
    """A replica.

    Parameters
    ----------
    config : ServeConfig
    keys : tuple of str
        API keys; none asks for no key.
    """

    def __init__(self, config: ServeConfig, keys: tuple[str, ...]) -> None:
        torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // config.replicas))
        self._config = config
        self._keys = keys
        self._engine = ServingEngine(load_aligned(config.release))
        self._engine.warm()

    def __serve_build_asgi_app__(self) -> FastAPI:
        # A caller's requests spread over the replicas, each of which counts its own.
        rate = self._config.requests_per_minute / self._config.replicas
        return create_app(self._engine, self, self._config.limits, self._keys, rate)

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.004)  # type: ignore[untyped-decorator]
    async def embed_text(self, texts: list[str]) -> list[TextVector]:
        """Vectors of the texts that came at the same time."""
        return await asyncio.to_thread(self._engine.embed_texts, texts)

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.01)  # type: ignore[untyped-decorator]
    async def encode_events(self, events: list[EventList]) -> list[EncodedEvents]:
        """Vectors and rates of the event lists that came at the same time."""
        return await asyncio.to_thread(self._engine.encode_events, events)


def application(config: ServeConfig, keys: tuple[str, ...]) -> serve.Application:
    """The application for `serve.run`."""
    return serve.deployment(
        Replica,
        name="service",
        num_replicas=config.replicas,
        max_ongoing_requests=256,  # of a replica; more wait in HAProxy
        graceful_shutdown_wait_loop_s=0.2,
    ).bind(config, keys)


@contextlib.contextmanager
def deployed(config: ServeConfig, keys: tuple[str, ...], is_own_cluster: bool) -> Iterator[None]:
    """Run the application on the Ray session of this process, and take it away again.

    Raises
    ------
    LexrayError
        If it does not start.
    """
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # each step of Serve's is a line of INFO
    serve.start(http_options=HTTPOptions(host=config.host, port=config.port))
    try:
        try:
            serve.run(application(config, keys), name=APPLICATION, route_prefix="/")
        except (RuntimeError, RayServeException) as error:
            raise LexrayError(f"the service did not start: {_cause(error)}") from None
        yield
    finally:
        if not is_own_cluster:
            serve.delete(APPLICATION)
        # On a shared cluster Serve keeps running for other applications.
        if is_own_cluster or not serve.status().applications:
            # Ray prints on stdout that the controller, which ends itself here, is dead.
            with contextlib.redirect_stdout(io.StringIO()):
                serve.shutdown()


def _cause(error: Exception) -> str:
    """Last line of what the replica said, for Serve's own error says only that it failed."""
    message = str(error)
    application = serve.status().applications.get(APPLICATION)
    for deployment in application.deployments.values() if application else ():
        message = deployment.message or message
    return last_line(message) or type(error).__name__
