"""Peak memory of a process and everything that it started, Ray's workers of a local session among them."""

import threading
from pathlib import Path
from types import TracebackType

_PROC = Path("/proc")
_KIB_PER_GIB = 2**20


class PeakMemory:
    """Highest memory in use while the block runs, sampled once a second.

    Each process's private memory counts, and shared memory counts once: every worker maps Ray's object store.

    Attributes
    ----------
    gib : float or None
        None where the system has no ``/proc`` (it is not Linux).
    """

    def __init__(self, interval: float = 1.0) -> None:
        self._interval = interval
        self._highest = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    @property
    def gib(self) -> float | None:
        self._look()
        return round(self._highest / _KIB_PER_GIB, 3) if self._highest else None

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(self._interval):
            self._look()

    def _look(self) -> None:
        statuses = _statuses()
        tree = _descendants(statuses, Path("/proc/self").resolve().name) if statuses else []
        own = sum(_kib(statuses[pid], "RssAnon") for pid in tree)
        shared = max((_kib(statuses[pid], "RssShmem") for pid in tree), default=0)
        self._highest = max(self._highest, own + shared)


def _statuses() -> dict[str, dict[str, str]]:
    """``/proc/PID/status`` of every process that can be read, by process id."""
    found = {}
    for folder in _PROC.glob("[0-9]*"):
        try:
            lines = (folder / "status").read_text().splitlines()
        except OSError:  # ended since we listed it
            continue
        found[folder.name] = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return found


def _descendants(statuses: dict[str, dict[str, str]], root: str) -> list[str]:
    children: dict[str, list[str]] = {}
    for pid, status in statuses.items():
        children.setdefault(status["PPid"].strip(), []).append(pid)
    tree, pending = [], [root]
    while pending:
        pid = pending.pop()
        tree.append(pid)
        pending += children.get(pid, [])
    return [pid for pid in tree if pid in statuses]


def _kib(status: dict[str, str], key: str) -> int:
    return int(status.get(key, "0 kB").split()[0])
