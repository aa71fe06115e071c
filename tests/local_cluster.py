"""A Ray cluster of one machine with its job server, as `ray start --head` makes it, on ports that nobody else has."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx


@dataclass(frozen=True)
class Cluster:
    """Where a cluster is reached: its job server over HTTP, and the cluster itself by Ray's drivers."""

    job_server: str
    address: str


def free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def local_cluster(num_cpus: int = 4) -> Iterator[Cluster]:
    """A cluster that ends with the block."""
    # Short, since Ray makes sockets below it; its own, so that no other process takes this cluster for the machine's.
    folder = tempfile.mkdtemp(prefix="lr-", dir="/tmp")
    gcs, dashboard, agent, agent_grpc, client, metrics = free_ports(6)
    command = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--head",
        "--block",
        "--node-ip-address=127.0.0.1",
        f"--port={gcs}",
        "--include-dashboard=true",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent}",
        f"--dashboard-agent-grpc-port={agent_grpc}",
        f"--ray-client-server-port={client}",
        f"--metrics-export-port={metrics}",
        f"--num-cpus={num_cpus}",
        f"--temp-dir={folder}",
        "--disable-usage-stats",
    ]
    environment = {**os.environ, "RAY_TMPDIR": folder, "RAY_AUTH_MODE": "disabled"}
    # A node that gets SIGTERM waits 30 s for others to take over its work, and there are none.
    environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = "0"
    # The cluster runs `python` from the PATH: the same one as here.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    log = Path(folder) / "start.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=environment, cwd=folder, start_new_session=True
        )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        _wait(process, f"{address}/api/version", log)
        yield Cluster(address, f"127.0.0.1:{gcs}")
    finally:
        # A session of its own holds the head and all that it started, jobs' drivers included.
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    transport = httpx.HTTPTransport(retries=0)
    with httpx.Client(transport=transport, timeout=5) as client:
        for _ in range(600):
            with contextlib.suppress(httpx.TransportError):
                if client.get(url).status_code == 200:
                    return
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.2)
                break
    raise RuntimeError(f"the cluster did not start: {log.read_text()[-2000:]}")
