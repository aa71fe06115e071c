"""The Ray session of a process: one is shared by all the jobs that run in it."""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator

import ray
from ray.util.queue import Queue

from lexray.runtime import ray_internals
from lexray.runtime.config import RayConfig
from lexray.runtime.environment import capture_stderr
from lexray.runtime.progress import ProgressTask


@contextlib.contextmanager
def session(config: RayConfig) -> Iterator[None]:
    """Join the running session, the cluster of `config.address` or RAY_ADDRESS, or start a local one and end it after.

    Raises
    ------
    ConnectionError
        If the named cluster does not answer.
    """
    if ray.is_initialized():
        yield
        return
    ray_internals.quiet("session")
    address = config.address or os.environ.get("RAY_ADDRESS")
    logging_options = {"log_to_driver": False, "logging_level": logging.WARNING, "configure_logging": True}
    if address:
        ray.init(address=address, **logging_options)
    else:
        with capture_stderr():
            ray.init(
                address="local",  # without it Ray would join whatever cluster was started on this machine last
                # vLLM's engine, the stages around it and training workers hold a CPU each; with fewer they would wait.
                num_cpus=config.num_cpus or max(os.cpu_count() or 1, 4),
                include_dashboard=False,
                **logging_options,
            )
    # Ray's own bars and logs would be mixed with ours.
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    for name in ("ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def relay_progress(task: ProgressTask) -> Iterator[Queue]:
    """Queue that workers put ``(n, note)`` into, to advance a task that the driver shows."""
    queue = Queue(actor_options={"num_cpus": 0})

    def drain() -> None:
        while (item := queue.get()) is not None:
            task.advance(*item)

    thread = threading.Thread(target=drain, name="progress", daemon=True)
    thread.start()
    try:
        yield queue
    finally:
        queue.put(None)
        thread.join()
        queue.shutdown()
