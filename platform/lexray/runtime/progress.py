"""Progress on stderr: a bar on a terminal; elsewhere one line per step and a few in between."""

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars


class ProgressTask:
    """A count that grows towards a total."""

    def __init__(self, name: str, total: int | None, console: Console, bars: Bars | None) -> None:
        self._name, self._total, self._console, self._bars = name, total, console, bars
        self._done = 0
        self._spoke = time.monotonic()
        self._id = None if bars is None else bars.add_task(name, total=total)

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count `n` more; `note` is shown next to the count."""
        self._done += n
        if self._bars is not None and self._id is not None:
            self._bars.update(self._id, advance=n, description=f"{self._name}  {note}" if note else self._name)
        elif time.monotonic() - self._spoke > 5:  # a line now and then where there is no terminal to redraw
            self._spoke = time.monotonic()
            of = f"/{self._total}" if self._total else ""
            self._console.print(f"    {self._name} {self._done}{of} {note}".rstrip(), highlight=False)


class Progress:
    """Shows a person what jobs do."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, soft_wrap=True)

    def info(self, line: str) -> None:
        """Print a line."""
        self._console.print(line, highlight=False, markup=False)

    def warn(self, line: str) -> None:
        """Print a warning."""
        self._console.print(f"warning: {line}", style="yellow", highlight=False, markup=False)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Print a job's name as it starts, and how long it took when it ends."""
        start = time.monotonic()
        self.info(f"▸ {name}")
        yield
        self.info(f"  {name}: done in {time.monotonic() - start:.1f} s")

    @contextlib.contextmanager
    def task(self, name: str, total: int | None = None) -> Iterator[ProgressTask]:
        """Count something within a step."""
        if not self._console.is_terminal:
            yield ProgressTask(name, total, self._console, None)
            return
        columns = (TextColumn("    {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Bars(*columns, console=self._console, transient=True) as bars:
            yield ProgressTask(name, total, self._console, bars)
