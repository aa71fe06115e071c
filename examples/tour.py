"""A tour of a release in service: start it, hand it an observation and a sentence, show what it says, stop it.

    python examples/tour.py build/demo

The argument is the demo's folder, with ``release/`` and ``archive/events/`` in it.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lexray import Client
from lexray.api import EventsResponse, Source
from lexray.client import ServiceError

SENTENCE = "a young star whose corona flares, with a fast rise and a slow decay"
START_S = 180.0
console = Console(soft_wrap=True, highlight=False)


def main(folder: Path) -> int:
    """Give the tour; the service's exit code is ours."""
    release, files = folder / "release", sorted((folder / "archive" / "events").glob("*.fits"))
    if not (release / "manifest.json").is_file() or not files:
        console.print(f"{folder}: no release or no event files here; 'lexray run configs/demo.yaml' makes both")
        return 1
    with serving(release) as (process, url), Client(url) as client:
        said = client.release()
        console.rule(f"release {said.release}: {said.counts['sources']} sources")
        # The file with the most photons has the most to show.
        path = max(files, key=lambda file: file.stat().st_size)
        show_observation(path, client.embed_events(path, k=3))
        show_sources(f"“{SENTENCE}”", client.search(SENTENCE, k=3))
        show_how_to(release, path)
    return int(process.returncode)


@contextlib.contextmanager
def serving(release: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`lexray serve` on a free port, from when it answers until it has ended after SIGTERM."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "lexray.cli", "serve", str(release), "--port", str(port)]
    # A key in the environment would lock the service, and the tour shows calls without one.
    process = subprocess.Popen(command, env={k: v for k, v in os.environ.items() if k != "LEXRAY_API_KEYS"})
    try:
        wait_until_healthy(process, url)
        yield process, url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def wait_until_healthy(process: subprocess.Popen[bytes], url: str) -> None:
    """Ask /healthz until it answers."""
    deadline = time.monotonic() + START_S
    with Client(url) as client:
        while True:
            if process.poll() is not None:
                raise SystemExit(process.returncode)
            try:
                client.health()
                return
            except ServiceError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)


def show_observation(path: Path, answer: EventsResponse) -> None:
    """What the service says of an event file."""
    console.print(Text(f"\nAn observation: {path.name}", style="bold"))
    bands = ", ".join(f"{band.counts} in {band.band}" for band in answer.counts)
    console.print(f"  {answer.n_events} photons in {answer.exposure / 1000:.1f} ks: {bands}")
    if answer.classes:
        likely = ", ".join(f"{name} {100 * p:.0f} %" for name, p in list(answer.classes.items())[:3])
        console.print(f"  it may be: {likely}")
    for name, estimate in list(answer.properties.items())[:4]:
        error = "" if estimate.sigma is None else f" ± {estimate.sigma:.2g}{' dex' if estimate.log10 else ''}"
        console.print(f"  {name.replace('_', ' ')}: {estimate.value:.3g}{error}")
    show_sources("it", answer.nearest)


def show_sources(title: str, sources: list[Source]) -> None:
    """A table of what was found."""
    console.print(Text(f"\nSources nearest to {title}", style="bold"))
    table = Table("score", "source", "class", "what the literature says", box=None, padding=(0, 2))
    for source in sources:
        summary = textwrap.shorten(source.summary or "(no paper)", 110, placeholder=" …")
        table.add_row(f"{source.score:.2f}", Text(source.source_id), source.source_class or "", Text(summary))
    Console(width=160, highlight=False).print(table)


def show_how_to(release: Path, path: Path) -> None:
    """How to come back and ask more."""
    console.print(Text("\nHow to go on", style="bold"))
    lines = f"""
      the report: {release.parent / "evaluation" / "report.html"}
      MLflow:     mlflow ui --backend-store-uri sqlite:///{release.parent / "mlflow.db"}

      source .venv/bin/activate
      lexray serve {release}     then open its page: http://127.0.0.1:8000/

      curl -s http://127.0.0.1:8000/v1/search -H 'Content-Type: application/json' \\
           -d '{{"text": "{SENTENCE}", "k": 5}}'
      curl -s http://127.0.0.1:8000/v1/events/embeddings -F file=@{path}

      python -c "import lexray; print(lexray.Client('http://127.0.0.1:8000').search('a pulsating neutron star')[0])"
    """
    console.print(Text(textwrap.indent(textwrap.dedent(lines).strip("\n"), "  ")))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python examples/tour.py FOLDER")
    raise SystemExit(main(Path(sys.argv[1])))
