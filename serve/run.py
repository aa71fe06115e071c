"""`lexray serve`: start a release's service, wait until it is told to stop, and leave nothing behind."""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator

import httpx

from lexray.errors import LexrayError
from lexray.release.manifest import Release
from lexray.runtime.progress import Progress
from lexray.serve.config import ServeConfig, api_keys
from lexray.serve.session import free_ports, ray_session

_READY_TIMEOUT_S = 120.0
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(config: ServeConfig, progress: Progress) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises
    ------
    LexrayError
        If the release does not open, the port is taken, or the service does not come up.
    """
    release = Release.open(config.release)
    keys = api_keys(config)
    config = config.model_copy(update={"release": str(release.path), "port": _checked_port(config.host, config.port)})
    if not keys and not config.is_loopback:
        progress.warn(
            f"listening on {config.host} without API keys: whoever reaches it may use it (see --api-key-file)"
        )
    progress.info(f"▸ serve release {release.id}")
    with _stop_signal() as stop, ray_session(config, progress) as is_own_cluster:
        _listen(stop)  # again: Ray takes SIGTERM for itself when it starts
        from lexray.serve.service import deployed  # Serve must not be imported before its settings are made

        if stop.is_set():
            return
        with deployed(config, keys, is_own_cluster):
            url = f"http://{'127.0.0.1' if config.host == '0.0.0.0' else config.host}:{config.port}"
            if _wait_until_ready(url, release.id, stop):
                _announce(url, release, bool(keys), progress)
            stop.wait()
            progress.info("  serve: stopping")
    progress.info("  serve: stopped")


def _listen(stop: threading.Event) -> None:
    """Let both signals set `stop`, whoever had them."""
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda *_: stop.set())


@contextlib.contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
    _listen(stop)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _checked_port(host: str, port: int) -> int:
    if port == 0:
        return free_ports(1, host)[0]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise LexrayError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from None
    return port


def _wait_until_ready(url: str, release: str, stop: threading.Event) -> bool:
    """Whether the service answers, asked until it does or we are told to stop."""
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while not stop.is_set():
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/healthz", timeout=5).headers.get("X-Lexray-Release") == release:
                return True
        if time.monotonic() > deadline:
            raise LexrayError(f"{url} did not answer within {_READY_TIMEOUT_S:g} s")
        stop.wait(0.1)
    return False


def _announce(url: str, release: Release, has_keys: bool, progress: Progress) -> None:
    n_sources, needed = release.manifest.counts.get("sources", 0), "API key" if has_keys else "no API key"
    for line in (
        f"release {release.id}: {n_sources} sources; {needed} needed",
        f"page          {url}/",
        f"API           {url}/openapi.json",
        "Ctrl-C, or SIGTERM, stops it",
    ):
        progress.info(f"  {line}")
