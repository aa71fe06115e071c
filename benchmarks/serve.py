"""What the service costs: requests a second and latency, with and without HAProxy.

    python benchmarks/serve.py RELEASE [--seconds 10] [--out benchmarks/results/serve.json]

wrk (Debian's package) asks a running `lexray serve` for /healthz, which is a handler that does nothing, for the vector
of a sentence and for a search by vector, with 1 and with 32 connections. Bare uvicorn with the same application, but
without Ray Serve, is the yardstick.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from lexray.release.manifest import Release
from lexray.serve.session import free_ports

BARE = """
import sys, uvicorn
from lexray.release.aligned import load_aligned
from lexray.serve.app import create_app
from lexray.serve.config import Limits
from lexray.serve.engine import ServingEngine
import asyncio, torch
torch.set_num_threads(int(sys.argv[3]))
engine = ServingEngine(load_aligned(sys.argv[1])); engine.warm()
class Direct:
    async def embed_text(self, text): return (await asyncio.to_thread(engine.embed_texts, [text]))[0]
    async def embed_events(self, events): return (await asyncio.to_thread(engine.embed_events, [events]))[0]
uvicorn.run(create_app(engine, Direct(), Limits()), port=int(sys.argv[2]), log_level="error", access_log=False)
"""


@contextlib.contextmanager
def running(command: list[str], url: str) -> Iterator[None]:
    """A server, from when it answers until it has ended."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 180
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(command[:4])}: did not come up")
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/healthz").is_success:
                    break
            time.sleep(0.2)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def wrk(url: str, connections: int, seconds: int, body: dict[str, object] | None) -> dict[str, float]:
    """One run of wrk; latencies in ms."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        if body is not None:
            script.write('wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n')
            script.write(f"wrk.body = [==[{json.dumps(body)}]==]\n")
            script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script.name, url]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if wrong or rate is None:
        raise SystemExit(f"{url}: {output}")
    found = {"requests_per_second": float(rate[1])}
    for percentile in ("50", "99"):
        match = re.search(rf"{percentile}%\s+([\d.]+)(us|ms|s)\b", output)
        assert match is not None
        found[f"p{percentile}_ms"] = round(float(match[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[match[2]], 3)
    return found


def measure(url: str, dimension: int, seconds: int) -> dict[str, dict[str, float]]:
    """All requests at both loads."""
    requests: dict[str, tuple[str, dict[str, object] | None]] = {
        "healthz": ("/healthz", None),
        "embeddings": ("/v1/embeddings", {"input": "a young star with fast flares", "model": "lexray"}),
        "search_by_vector": ("/v1/search", {"vector": [1.0] * dimension, "k": 10}),
    }
    found = {}
    for name, (path, body) in requests.items():
        for connections in (1, 32):
            wrk(url + path, connections, 2, body)  # warm
            found[f"{name}_{connections}_connections"] = wrk(url + path, connections, seconds, body)
            print(f"  {name:<18} {connections:>2} connections  {found[f'{name}_{connections}_connections']}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", nargs="?", default="build/demo/release", help="by default what `make demo` made")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "serve.json")
    arguments = parser.parse_args()
    release = Release.open(arguments.release)
    dimension = release.manifest.dimension
    results: dict[str, object] = {
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "load_before": round(os.getloadavg()[0], 2),
        "release_vectors": release.manifest.counts.get("vectors"),
        "seconds_each": arguments.seconds,
    }
    serve = [sys.executable, "-m", "lexray.cli", "serve", str(release.path), "--port"]
    ways = {
        "haproxy": lambda port: [*serve, str(port)],
        "no_haproxy": lambda port: [*serve, str(port), "--set", "haproxy=false"],
        "bare_uvicorn": lambda port: [sys.executable, "-c", BARE, str(release.path), str(port), str(os.cpu_count())],
    }
    for name, command in ways.items():
        port = free_ports(1)[0]
        print(name)
        with running(command(port), f"http://127.0.0.1:{port}"):
            results[name] = measure(f"http://127.0.0.1:{port}", dimension, arguments.seconds)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {arguments.out}")


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
