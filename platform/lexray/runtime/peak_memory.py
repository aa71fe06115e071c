"""Peak memory of a process and everything that it started, Ray's workers of a local session among them."""

import contextlib
import threading

import psutil


class PeakMemory:
    """Highest memory in use while the block runs, sampled once a second.

    Each process's private memory counts, and shared memory counts once: every worker maps Ray's object store.

    Attributes
    ----------
    gib : float
    """

    def __init__(self, interval: float = 1.0) -> None:
        self._interval = interval
        self._highest = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    @property
    def gib(self) -> float:
        self._look()
        return round(self._highest / 2**30, 3)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(self._interval):
            self._look()

    def _look(self) -> None:
        this = psutil.Process()
        infos = []
        for process in (this, *this.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # it has ended meanwhile
                infos.append(process.memory_info())
        shared = [getattr(info, "shared", 0) for info in infos]
        own = sum(info.rss for info in infos) - sum(shared)
        self._highest = max(self._highest, own + max(shared, default=0))
