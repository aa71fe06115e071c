"""The chain: checked before it starts, one session and one MLflow run, skipping what is up to date."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from mlflow.tracking import MlflowClient
from rich.console import Console

from conftest import Cli
from lexray.errors import ConfigError
from lexray.inference.autodecoder import REFERENCE, resolve_autodecoder
from lexray.jobs.registry import JOBS, REGISTRY, load_job
from lexray.runtime import pipeline
from lexray.runtime.config import parse, read_yaml
from lexray.runtime.pipeline import PipelineConfig, PipelineReport, StepError
from lexray.runtime.progress import Progress
from lexray.tables import delta

ROOT = Path(__file__).parents[2]
PAPERS = [
    {"source_id": "NGC 300 ULX1", "bibcode": "2019MNRAS.488.5225V", "title": "Spin", "abstract": "It spins up fast."},
    {"source_id": "M82", "bibcode": "2010ApJ...710L.137F", "title": "M82", "abstract": "It is luminous and varies."},
]
Values = dict[str, object]


@pytest.fixture
def values(tmp_path: Path) -> Values:
    """Three steps of real jobs that need no model."""
    papers = tmp_path / "papers.jsonl"
    papers.write_text("".join(json.dumps(paper) + "\n" for paper in PAPERS))
    return {
        "workdir": str(tmp_path),
        "tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db"},
        "steps": {
            "simulate": {"out": "${workdir}/archive", "sources": 2},
            "literature": {"inputs": [str(papers)], "out": "${workdir}/literature"},
            "again": {"job": "literature", "inputs": [str(papers)], "n_parts": 4, "out": "${workdir}/again"},
        },
    }


@pytest.fixture
def run(tmp_path: Path, values: Values) -> Callable[..., PipelineReport]:
    file = tmp_path / "chain.yaml"

    def run(*overrides: str, said: io.StringIO | None = None, **options: object) -> PipelineReport:
        file.write_text(yaml.safe_dump(values, sort_keys=False))
        config = parse(PipelineConfig, read_yaml(str(file), overrides), file.name)
        steps = pipeline.plan_steps(config, REGISTRY, **options)  # type: ignore[arg-type]
        return pipeline.run(config, steps, Progress(Console(file=said or io.StringIO(), soft_wrap=True)))

    return run


Run = Callable[..., PipelineReport]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
class TestRunning:
    def test_steps_run_in_their_order_and_are_skipped_and_named_the_second_time(self, run: Run, tmp_path: Path) -> None:
        said = io.StringIO()
        first, second = run(), run(said=said)

        assert list(first.steps) == ["simulate", "literature", "again"]
        assert [step.skipped for step in first.steps.values()] == [False] * 3
        assert [step.skipped for step in second.steps.values()] == [True] * 3
        assert (first.exit_code, first.failed_step) == (0, None)
        assert first.steps["literature"].counts["papers"] == len(PAPERS)
        assert set(delta.part_files(str(tmp_path / "again"))) <= set(range(4))
        assert "[3/3] again" in said.getvalue()
        assert said.getvalue().count("up to date") == 3
        assert first.peak_memory_gib > 0.05

    def test_a_changed_key_runs_its_step_alone(self, run: Run) -> None:
        run()
        report = run("steps.again.n_parts=2")
        assert {name: step.skipped for name, step in report.steps.items()} == {
            "simulate": True,
            "literature": True,
            "again": False,
        }

    def test_force_runs_every_step(self, run: Run) -> None:
        run()
        assert not any(step.skipped for step in run("force=true").steps.values())

    def test_parts_of_the_chain(self, run: Run) -> None:
        assert list(run(until="literature").steps) == ["simulate", "literature"]
        assert list(run(only=["again", "simulate"]).steps) == ["simulate", "again"]

    def test_each_jobs_run_nests_under_the_pipelines(self, run: Run, tmp_path: Path) -> None:
        report = run()
        client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
        parent = client.get_run(report.mlflow_run)
        for step in report.steps.values():
            found = client.get_run(step.mlflow_run)
            assert found.data.tags["mlflow.parentRunId"] == report.mlflow_run
            assert found.info.status == "FINISHED"
        assert parent.info.run_name == "pipeline"
        assert parent.data.metrics.keys() >= {f"seconds/{name}" for name in report.steps}

    def test_a_failing_step_ends_the_run_by_its_name(self, run: Run, tmp_path: Path) -> None:
        with pytest.raises(StepError, match=r"step 'literature' failed \(exit code 2\): .*/nowhere") as caught:
            run("steps.literature.inputs=[/nowhere]")

        assert caught.value.exit_code == 2
        assert not (tmp_path / "again").exists()
        client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
        experiment = client.get_experiment_by_name("lexray").experiment_id
        statuses = {r.info.run_name: r.info.status for r in client.search_runs([experiment])}
        assert statuses == {"pipeline": "FAILED", "simulate": "FINISHED", "literature": "FAILED"}

    def test_a_step_that_refused_too_much_ends_the_run_with_3(self, run: Run, values: Values, tmp_path: Path) -> None:
        files = tmp_path / "files"
        files.mkdir()
        (files / "text.fits").write_text("not FITS")
        steps = values["steps"]
        assert isinstance(steps, dict)
        values["steps"] = {"ingest": {"inputs": [str(files)], "out": "${workdir}/events"}, **steps}

        report = run()

        assert (report.exit_code, report.failed_step, list(report.steps)) == (3, "ingest", ["ingest"])
        assert delta.read(str(tmp_path / "events.quarantine")).num_rows == 1
        assert run("steps.ingest.max_bad_fraction=1").exit_code == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"literatur": {}}, "steps.literatur: there is no job 'literatur', did you mean 'literature'?"),
        (
            {"x": {"job": "train autodecodr"}},
            "steps.x: there is no job 'train_autodecodr', did you mean 'train_autodecoder'?",
        ),
        (
            {"literature": {"inputs": [], "out": "x", "radus": 1}},
            "steps.literature: unknown key 'radus', did you mean 'radius'?",
        ),
        ({"literature": {"out": "x"}}, "steps.literature: missing key 'inputs'"),
        ({"literature": {"inputs": [], "out": "x", "ray": {}}}, "steps.literature.ray: set 'ray' at the top"),
        ({}, "steps: the pipeline has none"),
    ],
)
def test_wrong_steps_are_named_before_anything_runs(change: Values, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pipeline.plan_steps(parse(PipelineConfig, {"workdir": "w", "steps": change}), REGISTRY)
    assert message in str(caught.value)


def test_a_wrong_key_in_the_last_step_is_exit_2_and_nothing_was_done(cli: Cli, values: Values, tmp_path: Path) -> None:
    file = tmp_path / "chain.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))

    done = cli.process("run", file, "--set", "steps.again.n_prts=2")

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == ["lexray: steps.again: unknown key 'n_prts', did you mean 'n_parts'?"]
    assert not (tmp_path / "archive").exists()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_the_command_prints_a_table_and_one_json_object(cli: Cli, values: Values, tmp_path: Path) -> None:
    file = tmp_path / "chain.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))

    done = cli("run", file, "--json", "--only", "literature")

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["exit_code"] == 0
    assert report["steps"]["literature"]["out"] == str(tmp_path / "literature")
    assert any(line.split()[:2] == ["literature", "done"] for line in done.stderr.splitlines())


def test_an_unknown_step_is_named() -> None:
    config = parse(PipelineConfig, {"workdir": "w", "steps": {"simulate": {"out": "x"}}})
    with pytest.raises(ConfigError, match="no step 'simulat', did you mean 'simulate'"):
        pipeline.plan_steps(config, REGISTRY, until="simulat")
    with pytest.raises(ConfigError, match="no step 'ingest'"):
        pipeline.plan_steps(config, REGISTRY, only=["ingest"])


def _shipped(name: str, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> list[pipeline.PipelineStep]:
    for variable in [v for v in os.environ if v.startswith("LEXRAY_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("LEXRAY_EVENTS", "/data/events")
    monkeypatch.setenv("LEXRAY_LITERATURE", "/data/papers.jsonl")
    return pipeline.plan_steps(
        parse(PipelineConfig, read_yaml(str(ROOT / "configs" / name), overrides), name), REGISTRY
    )


def test_the_demo_is_the_whole_way(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = _shipped(
        "demo.yaml", monkeypatch, "workdir=/w", 'steps.ingest.inputs=["${workdir}/archive/events","/real"]'
    )
    # The first asks an archive on the network, the second made what the training begins with, `encode` writes the
    # rates, the others are questions of their own.
    beside = {"fetch csc", "train reference", "rates", "tune", "evaluate autodecoder"}
    assert [step.name for step in steps] == [name.replace(" ", "_") for name in JOBS if name not in beside]
    assert steps[0].config.sources == 600  # type: ignore[attr-defined]
    assert steps[1].config.inputs == ["/w/archive/events", "/real"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["demo.yaml", "cluster.yaml"])
def test_every_step_reads_what_an_earlier_one_wrote(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    steps = _shipped(name, monkeypatch)
    written: list[str] = ["/data", resolve_autodecoder(REFERENCE)]
    for step in steps:
        for key in step.job.inputs:
            paths = getattr(step.config, key) or []
            for path in [paths] if isinstance(paths, str) else paths:
                assert any(path == known or path.startswith(f"{known}/") for known in written), (
                    f"{step.name}.{key}: {path}"
                )
        for path in (step.config.out, *(getattr(step.config, key) for key in step.job.outputs)):
            assert path not in written
            written.append(path)


def test_the_cluster_spreads_as_its_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as inner:
        steps = {step.name: step.config for step in _shipped("cluster.yaml", inner)}
        assert steps["encode"].workers == 4  # type: ignore[attr-defined]
        assert steps["train_alignment"].use_gpu is False  # type: ignore[attr-defined]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    for variable, value in {
        "LEXRAY_EVENTS": "/e",
        "LEXRAY_LITERATURE": "/l",
        "LEXRAY_TABLES": "s3://bucket/tables",
        "LEXRAY_WORKERS": "8",
        "LEXRAY_TRAIN_GPU": "true",
        "LEXRAY_LABELS": "/labels.parquet",
    }.items():
        monkeypatch.setenv(variable, value)
    config = parse(PipelineConfig, read_yaml(str(ROOT / "configs" / "cluster.yaml")))
    steps = {step.name: step.config for step in pipeline.plan_steps(config, REGISTRY)}
    assert steps["encode"].workers == 8  # type: ignore[attr-defined]
    assert steps["encode"].events == "s3://bucket/tables/events"  # type: ignore[attr-defined]
    assert steps["encode"].autodecoder == "/data/lexray/autodecoder"  # type: ignore[attr-defined]
    assert steps["train_alignment"].use_gpu is True  # type: ignore[attr-defined]
    assert steps["index"].labels == "/labels.parquet"  # type: ignore[attr-defined]


def test_every_command_of_a_job_finds_it() -> None:
    for name in JOBS:
        job = load_job(name)
        assert job.name == name
        assert set(job.positional) <= job.config.model_fields.keys()
        assert all(key in job.config.model_fields or hasattr(job.config, key) for key in job.inputs)
