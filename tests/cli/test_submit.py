"""Jobs on a real Ray cluster of this machine, through its job server."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from conftest import Cli
from lexray.cli import submit
from lexray.errors import ConfigError, LexrayError
from lexray.jobs.registry import JOBS
from lexray.release.manifest import Release
from lexray.runtime.config import read_yaml
from lexray.tables import delta
from local_cluster import Cluster, free_ports

pytestmark = pytest.mark.cluster

DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"
COMMANDS = ["run", "doctor", *JOBS]
PAPER = {"source_id": "NGC 300 ULX1", "bibcode": "2019MNRAS.488.5225V", "title": "Spin", "abstract": "It spins up."}


@pytest.fixture(scope="module")
def address(cluster: Cluster) -> str:
    return cluster.job_server


@pytest.fixture(scope="module")
def client(address: str) -> submit.JobSubmissionClient:
    return submit.connect(address)


@pytest.fixture
def papers(tmp_path: Path) -> Path:
    path = tmp_path / "papers.jsonl"
    path.write_text(json.dumps(PAPER) + "\n")
    return path


@pytest.fixture
def pipeline(tmp_path: Path, papers: Path) -> Path:
    path = tmp_path / "chain.yaml"
    path.write_text(
        f"""
workdir: {tmp_path}
tracking: {{uri: "sqlite:///{tmp_path}/mlflow.db"}}
steps:
  literature: {{inputs: [{papers}], out: "${{workdir}}/literature"}}
"""
    )
    return path


@pytest.mark.scale
def test_a_submitted_pipeline_runs_on_the_cluster_and_its_answer_comes_back(
    cli: Cli, address: str, tmp_path: Path, scale: float
) -> None:
    """Ray Data and Ray Train as a submitted job: of the demo's steps those that lead to the autodecoder.

    At full size all steps; vLLM's place takes hf. What the demo must reach on a machine of its own: test_demo.py.
    """
    whole = scale == 1
    demo = read_yaml(str(DEMO), [f"workdir={tmp_path}"])
    names = list(demo["steps"]) if whole else ["simulate", "ingest", "train_autodecoder"]
    steps = {name: demo["steps"][name] for name in names}
    steps["simulate"]["sources"] = 100 if whole else 40
    steps["train_autodecoder"] |= {"splitnet": {"epochs": 2}, "workers": 1}
    if whole:
        steps["embed"]["engine"] = "hf"
        steps["train_alignment"]["epochs"] = 2
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump({**demo, "steps": steps}, sort_keys=False))

    done = cli("submit", "run", "demo.yaml", "--address", address, "--json", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "▸ ingest" in done.stderr  # the job's own log was shown
    answer = json.loads(done.stdout)["steps"]
    assert list(answer) == list(steps)
    assert answer["ingest"]["counts"]["detections"] == answer["simulate"]["counts"]["files"]
    assert (tmp_path / "autodecoder" / "autodecoder.safetensors").is_file()
    if not whole:
        return
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert metrics["heldout_gain.autodecoder"] < metrics["heldout_gain.true_rate"]
    assert metrics["retrieval.n_sources"] > 0
    assert "<html" in (tmp_path / "evaluation" / "report.html").read_text()
    release = Release.open(tmp_path / "release")
    assert release.manifest.counts["xray"] == answer["project"]["counts"]["detections"]


def test_a_wrong_key_ends_with_the_jobs_exit_code(client: submit.JobSubmissionClient, papers: Path) -> None:
    arguments = ["literature", str(papers), "--out", str(papers.parent / "out"), "--set", "radus=2"]
    shown: list[str] = []

    ended = submit.follow(client, submit.submit(client, arguments, COMMANDS), shown.append)

    assert (ended.status, ended.exit_code) == ("FAILED", 2)
    assert "did you mean 'radius'?" in ended.log
    assert "".join(shown) == ended.log
    assert ended.answer is None


def test_a_relative_path_is_refused_on_a_cluster(client: submit.JobSubmissionClient, pipeline: Path) -> None:
    submitted = submit.submit(client, ["run", str(pipeline), "--set", "workdir=here"], COMMANDS)

    ended = submit.follow(client, submitted, lambda _: None)

    assert ended.exit_code == 2
    assert "step 'literature'" in ended.log
    assert "'here/literature' is a relative path" in ended.log


def test_a_wheel_brings_its_own_lexray_and_variables_are_passed_on(
    client: submit.JobSubmissionClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "lexray-9-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("lexray/__init__.py", "")
        archive.writestr("lexray/cli/__init__.py", "")
        archive.writestr(
            "lexray/cli/__main__.py",
            "import os, sys\nprint(sys.argv[1:], os.environ['SENT'], os.environ['KEPT'])\nsys.exit(3)\n",
        )
    monkeypatch.setenv("KEPT", "kept")

    submitted = submit.submit(client, ["train", "autodecoder"], COMMANDS, str(wheel), ["SENT=a b", "KEPT"])
    ended = submit.follow(client, submitted, lambda _: None)

    assert "['train', 'autodecoder'] a b kept" in ended.log
    assert ended.exit_code == 3


def test_interrupting_stops_following_and_not_the_job(
    address: str, client: submit.JobSubmissionClient, papers: Path
) -> None:
    out = papers.parent / "out"
    command = [sys.executable, "-m", "lexray.cli", "submit", "literature", papers, "--out", out, "--address", address]
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True, env=os.environ)
    assert process.stderr is not None
    first = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()

    assert process.wait(timeout=60) == 130
    assert "the job goes on. Look again with: lexray jobs lexray-literature-" in rest
    submitted = first.split()[1]
    assert submit.follow(client, submitted, lambda _: None).status == "SUCCEEDED"
    assert delta.is_table(str(out))


def test_jobs_lists_what_was_submitted(
    cli: Cli, address: str, client: submit.JobSubmissionClient, tmp_path: Path
) -> None:
    submitted = cli.json("submit", "literature", "--no-wait", "--address", address)["submission_id"]
    submit.follow(client, submitted, lambda _: None)

    listed = {
        job["submission_id"]: job for job in json.loads(cli("jobs", "--address", address, "--json").stdout)["jobs"]
    }

    assert listed[submitted]["status"] == "FAILED"  # it has neither inputs nor out
    assert listed[submitted]["exit_code"] == 2
    assert listed[submitted]["command"] == "literature"


def test_an_unknown_job_is_named_at_once(client: submit.JobSubmissionClient) -> None:
    with pytest.raises(LexrayError, match="lexray-nothing"):
        submit.follow(client, "lexray-nothing", lambda _: None)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (["literatur"], {}, "did you mean 'literature'"),
        (["train", "autodecodr"], {}, "did you mean 'train autodecoder'"),
        ([], {}, "cannot submit 'nothing'"),
        (["run", "absent.yaml"], {}, "absent.yaml: no such configuration file"),
        (["literature", "--config=absent.yaml"], {}, "no such configuration file"),
        (["doctor"], {"wheel": "absent.whl"}, "--wheel absent.whl: not a wheel"),
        (["doctor"], {"environment": ["LEXRAY_IS_NOT_SET"]}, "give it as LEXRAY_IS_NOT_SET=VALUE"),
    ],
)
def test_wrong_submissions_are_refused_before_anything_is_sent(
    client: submit.JobSubmissionClient, arguments: list[str], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        submit.submit(client, arguments, COMMANDS, **options)  # type: ignore[arg-type]


def test_an_argument_may_be_longer_than_a_path() -> None:
    class Server:
        def submit_job(self, entrypoint: str, **_: object) -> str:
            return entrypoint

    query = "SELECT " + ", ".join(f"column_{i}" for i in range(1000))
    sent = submit.submit(Server(), ["fetch", "csc", f"--adql={query}", query], COMMANDS)  # type: ignore[arg-type]
    assert sent.count(query) == 2


def test_the_given_address_wins_over_the_environments(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    assert isinstance(submit.list_submissions(submit.connect(address)), list)
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:9"


def test_an_address_where_nothing_listens_is_one_clear_error() -> None:
    with pytest.raises(LexrayError, match="no Ray job server answers"):
        submit.connect(f"http://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(ConfigError, match="HTTP address"):
        submit.connect("ray://127.0.0.1:10001")
