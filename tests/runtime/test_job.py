"""What every job shares: when it is skipped, what it refuses, what it says."""

import io
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import Field
from rich.console import Console

from lexray.errors import ConfigError
from lexray.runtime.config import JobConfig
from lexray.runtime.job import Job, JobContext, JobReport, JobResult, execute, is_up_to_date
from lexray.runtime.progress import Progress
from lexray.tables import delta
from lexray.tables.quarantine import Refusal
from lexray.tables.schemas import SUMMARIES


class CountConfig(JobConfig):
    inputs: list[str] = Field(description="text files")
    unit: str = Field("lines", description="lines or words")
    refuse: int = Field(0, description="inputs to refuse")
    stop_after: str = Field("", description="where to be interrupted")


def _count(config: CountConfig, context: JobContext) -> JobResult:
    """A job with a table as its output: a row a file."""
    texts = [Path(path).read_text() for path in config.inputs]
    counts = [len(text.splitlines() if config.unit == "lines" else text.split()) for text in texts]
    with context.progress.task("files", total=len(texts)) as task:
        task.advance(len(texts))
    if config.stop_after == "reading":
        raise KeyboardInterrupt
    rows = pa.table({"source_id": config.inputs, "n_papers": counts})
    delta.write(config.out, "summaries", SUMMARIES, rows)
    if config.stop_after == "commit":
        raise KeyboardInterrupt
    refusals = [Refusal(f"folder/{i}.txt", "empty", "it is empty") for i in range(config.refuse)]
    return JobResult({"files": len(texts)}, {"lines": float(sum(counts))}, refusals=refusals, accepted=len(texts))


def _copy(config: CountConfig, context: JobContext) -> JobResult:
    """A job with a folder as its output."""
    folder = Path(config.out)
    folder.mkdir(exist_ok=True)
    (folder / "model.txt").write_text(config.unit)
    if config.stop_after == "model":
        raise KeyboardInterrupt
    (folder / "beside.txt").write_text(config.unit)
    return JobResult(outputs=[str(folder / "beside.txt")])


COUNT = Job("count", CountConfig, _count, ("inputs",), ("inputs",))
COPY = Job("copy", CountConfig, _copy, ("inputs",), ("inputs",))


class JobBench:
    """A job, its input and what it said."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "input.txt"
        self.file.write_text("one two\nthree\n")
        self.out = folder / "out"
        self.said = io.StringIO()

    def config(self, **values: object) -> CountConfig:
        return CountConfig(**{"inputs": [str(self.file)], "out": str(self.out), **values})

    def __call__(self, job: Job[CountConfig] = COUNT, **values: object) -> JobReport:
        return execute(job, self.config(**values), Progress(Console(file=self.said, soft_wrap=True)))


@pytest.fixture
def bench(tmp_path: Path) -> JobBench:
    return JobBench(tmp_path)


def test_a_job_that_is_up_to_date_is_skipped_and_named(bench: JobBench) -> None:
    first, second = bench(), bench()

    assert (first.skipped, second.skipped) == (False, True)
    assert second.counts == first.counts == {"files": 1}
    assert second.mlflow_run == first.mlflow_run is not None
    assert first.version == delta.version(str(bench.out))
    assert first.inputs == {str(bench.file): delta.version(str(bench.file))}
    assert "count: up to date, nothing to do" in bench.said.getvalue()
    assert is_up_to_date(COUNT, bench.config())


def test_what_is_new_or_changed_is_done_again(bench: JobBench) -> None:
    bench()
    assert not bench(unit="words").skipped
    assert delta.read(str(bench.out))["n_papers"].to_pylist() == [3]
    bench.file.write_text("one\ntwo\nthree\nfour\n")
    assert not bench(unit="words").skipped
    assert bench(unit="words").skipped
    assert not bench(unit="words", force=True).skipped


def test_where_it_runs_does_not_matter_to_what_it_writes(bench: JobBench) -> None:
    bench()
    assert bench(ray={"num_cpus": 3}, tracking={"experiment": "other"}, max_bad_fraction=0.1).skipped


@pytest.mark.parametrize("stage", ["reading", "commit"])
def test_an_interrupted_job_is_not_up_to_date(bench: JobBench, stage: str) -> None:
    bench()
    with pytest.raises(KeyboardInterrupt):
        bench(unit="words", stop_after=stage)

    # The table holds the former version or the new one, whole; neither passes for the other.
    kept = {"reading": [2], "commit": [3]}[stage]
    assert delta.read(str(bench.out))["n_papers"].to_pylist() == kept
    assert is_up_to_date(COUNT, bench.config()) == (stage == "reading")
    assert not is_up_to_date(COUNT, bench.config(unit="words"))
    bench()
    assert delta.read(str(bench.out))["n_papers"].to_pylist() == [2]


def test_a_folder_half_written_is_never_up_to_date(bench: JobBench) -> None:
    bench(COPY)
    assert bench(COPY).skipped
    with pytest.raises(KeyboardInterrupt):
        bench(COPY, unit="words", stop_after="model")
    assert not is_up_to_date(COPY, bench.config())


def test_an_output_that_was_deleted_is_made_again(bench: JobBench) -> None:
    bench(COPY)
    (bench.out / "beside.txt").unlink()
    assert not bench(COPY).skipped
    assert (bench.out / "beside.txt").exists()


def test_too_many_refused_is_exit_code_3_by_the_limit_of_now(bench: JobBench) -> None:
    assert bench(refuse=3).exit_code == 3  # 75 %
    again = bench(refuse=3, max_bad_fraction=0.8)
    assert (again.skipped, again.exit_code, again.refused_fraction) == (True, 0, 0.75)
    assert bench(refuse=3).exit_code == 3


def test_a_few_refused_is_a_warning(bench: JobBench) -> None:
    assert bench(refuse=1).exit_code == 0
    said = " ".join(bench.said.getvalue().split())
    assert f"warning: count: refused 1 of 2 inputs: 0.txt: it is empty; see {bench.out}.quarantine" in said
    quarantined = {"file": "folder/0.txt", "stage": "count", "reason": "empty", "detail": "it is empty", "part": 0}
    assert delta.read(f"{bench.out}.quarantine").to_pylist() == [quarantined]
    bench(force=True)
    assert delta.read(f"{bench.out}.quarantine").num_rows == 0, "an earlier run's refusals do not outlive it"


def test_a_relative_path_is_refused_only_on_a_cluster(
    bench: JobBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bench(out="here").out == str(tmp_path / "here")
    with pytest.raises(ConfigError, match="'here' is a relative path, which on a cluster"):
        bench(out="here", ray={"address": "head:6379"})
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with pytest.raises(ConfigError, match=r"'input.txt' is a relative path"):
        bench(inputs=["input.txt"])
