"""The manifests: `kubectl kustomize` renders them, and they are what KubeRay's definitions ask for."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from conftest import SHARED_DATA
from lexray.jobs.registry import REGISTRY
from lexray.runtime import pipeline
from lexray.runtime.config import parse, read_yaml
from lexray.serve.config import ServeConfig

ROOT = Path(__file__).parents[2]
OVERLAYS = [
    "k8s/base",
    *sorted(str(path.parent.relative_to(ROOT)) for path in ROOT.glob("k8s/overlays/*/kustomization.yaml")),
]
KUBERAY = ("RayCluster", "RayJob", "RayService")
Manifest = dict[str, Any]


@pytest.fixture(scope="module", params=OVERLAYS)
def rendered(request: pytest.FixtureRequest) -> list[Manifest]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip(
            "kubectl is not installed (Debian's package kubernetes-client has it; `make test` installs it with apt)"
        )
    done = subprocess.run([kubectl, "kustomize", request.param], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def one(manifests: list[Manifest], kind: str) -> Manifest:
    found = [manifest for manifest in manifests if manifest["kind"] == kind]
    assert len(found) == 1, f"{len(found)} of kind {kind}"
    return found[0]


def cluster_spec(manifest: Manifest) -> Manifest:
    key = {"RayCluster": "spec", "RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}[manifest["kind"]]
    return dict(manifest["spec"] if key == "spec" else manifest["spec"][key])


def ray_pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """(kind, pod) of every head and every group of workers."""
    for kind in KUBERAY:
        spec = cluster_spec(one(manifests, kind))
        for group in [spec["headGroupSpec"], *spec.get("workerGroupSpecs", [])]:
            yield kind, group["template"]["spec"]


def all_pods(manifests: list[Manifest]) -> list[Manifest]:
    return [pod for _, pod in ray_pods(manifests)] + [one(manifests, "RayJob")["spec"]["submitterPodTemplate"]["spec"]]


def environment(manifests: list[Manifest]) -> dict[str, str]:
    maps = [manifest for manifest in manifests if manifest["kind"] == "ConfigMap"]
    return dict(next(m["data"] for m in maps if m["metadata"]["name"].startswith("lexray-environment-")))


@pytest.mark.parametrize("kind", KUBERAY)
def test_kuberay_would_accept_them(rendered: list[Manifest], kind: str) -> None:
    path = SHARED_DATA / "kuberay-crds" / f"ray.io_{kind.lower()}s.yaml"
    if not path.is_file():
        pytest.skip("KubeRay's definitions lie beside the project, in ../shared/data/kuberay-crds, and are absent here")
    definition = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    manifest = one(rendered, kind)
    version = manifest["apiVersion"].removeprefix("ray.io/")
    schema = next(v["schema"]["openAPIV3Schema"] for v in definition["spec"]["versions"] if v["name"] == version)
    _closed(schema)

    errors = [
        f"{error.json_path}: {error.message}" for error in jsonschema.Draft4Validator(schema).iter_errors(manifest)
    ]

    assert not errors


def _closed(schema: Manifest) -> None:
    """Refuse keys that the schema does not name: a cluster would drop them without a word."""
    if (
        "properties" in schema
        and not schema.get("x-kubernetes-preserve-unknown-fields")
        and schema.get("type") == "object"
    ):
        if schema["properties"].keys() - {"apiVersion", "kind", "metadata"}:
            schema.setdefault("additionalProperties", False)
        for inner in schema["properties"].values():
            _closed(inner)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            _closed(schema[key])
    # Kubernetes takes numbers and strings for these.
    if schema.pop("x-kubernetes-int-or-string", False):
        schema["type"] = ["integer", "string"]
        schema.pop("anyOf", None)


def test_every_config_map_and_claim_that_a_pod_names_exists(rendered: list[Manifest]) -> None:
    there = {(m["kind"], m["metadata"]["name"]) for m in rendered}
    for pod in all_pods(rendered):
        assert ("ServiceAccount", pod["serviceAccountName"]) in there
        for volume in pod.get("volumes", []):
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in there
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in there
        for container in pod["containers"]:
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounted <= {volume["name"] for volume in pod.get("volumes", [])}
            for source in container.get("envFrom", []):
                if "configMapRef" in source:
                    assert ("ConfigMap", source["configMapRef"]["name"]) in there
    assert {m["metadata"].get("namespace") for m in rendered if m["kind"] != "Namespace"} == {"lexray"}


def test_pods_are_bounded_unprivileged_and_watched(rendered: list[Manifest]) -> None:
    for pod in all_pods(rendered):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
            for kind in ("requests", "limits"):
                assert {"cpu", "memory"} <= container["resources"][kind].keys()
    for kind, pod in ray_pods(rendered):
        for container in pod["containers"]:
            assert container["livenessProbe"]["exec"]["command"]
            # KubeRay makes that of a service's pods.
            assert ("readinessProbe" in container) == (kind != "RayService")


def test_nothing_phones_home_and_no_secret_is_written_down(rendered: list[Manifest]) -> None:
    values = environment(rendered)
    assert values["RAY_USAGE_STATS_ENABLED"] == "0"
    assert values["VLLM_NO_USAGE_STATS"] == values["DO_NOT_TRACK"] == values["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert values["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert not [m for m in rendered if m["kind"] == "Secret"]
    assert not [name for name in values if any(word in name for word in ("KEY", "TOKEN", "PASSWORD", "SECRET"))]
    for pod in all_pods(rendered):
        for variable in (v for container in pod["containers"] for v in container.get("env", [])):
            assert "secretKeyRef" in variable["valueFrom"]


def test_the_jobs_pipeline_is_in_its_config_map_and_valid(
    rendered: list[Manifest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program, command, path, *options = one(rendered, "RayJob")["spec"]["entrypoint"].split()
    assert (program, command) == ("lexray", "run")
    for name, value in environment(rendered).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    configs = next(m["data"] for m in rendered if m["metadata"]["name"].startswith("lexray-configs-"))
    file = tmp_path / Path(path).name
    file.write_text(configs[file.name])
    for pod in (pod for kind, pod in ray_pods(rendered) if kind == "RayJob"):
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts["configs"] == str(Path(path).parent)

    overrides = [option for option in options if option != "--set"]
    config = parse(pipeline.PipelineConfig, read_yaml(str(file), overrides))
    steps = pipeline.plan_steps(config, REGISTRY)

    release = next(step.config.out for step in steps if step.job.name == "index")
    assert (
        yaml.safe_load(one(rendered, "RayService")["spec"]["serveConfigV2"])["applications"][0]["args"]["release"]
        == release
    )
    assert all(step.config.out.startswith("/data/") for step in steps)  # the volume's mount


def test_the_service_builds_lexrays_application(rendered: list[Manifest]) -> None:
    spec = one(rendered, "RayService")["spec"]
    parsed = ServeDeploySchema.model_validate(yaml.safe_load(spec["serveConfigV2"]))
    application = parsed.applications[0]
    module, _, name = application.import_path.partition(":")

    assert (module, name) == ("lexray.serve.kubernetes", "build")
    config = parse(ServeConfig, application.args)
    assert config.requests_per_minute > 0  # it listens beyond its machine
    head = spec["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert next(v for v in head["env"] if v["name"] == "LEXRAY_API_KEYS")["valueFrom"]["secretKeyRef"]["name"]


def test_the_builder_takes_the_manifests_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Serve calls it: it makes the builder's argument from the manifest's mapping.

    Serve's own function does that, and no public one: `serve run` would start the service.
    """
    from ray.serve._private.api import call_user_app_builder_with_args_if_necessary

    from lexray.serve.kubernetes import build

    manifest = yaml.safe_load((ROOT / "k8s/base/rayservice.yaml").read_text())
    arguments = yaml.safe_load(manifest["spec"]["serveConfigV2"])["applications"][0]["args"]
    monkeypatch.setenv("LEXRAY_API_KEYS", "one,two")

    application = call_user_app_builder_with_args_if_necessary(build, arguments)

    assert application._bound_deployment.num_replicas == arguments["replicas"]


def test_gpus_are_asked_for_where_the_overlay_says_so(rendered: list[Manifest], request: pytest.FixtureRequest) -> None:
    is_gpu = "gpu" in request.node.callspec.params["rendered"]
    for kind, pod in ray_pods(rendered):
        container = pod["containers"][0]
        is_worker = container["name"] == "ray-worker"
        wants = container["resources"]["limits"].get("nvidia.com/gpu")
        assert wants == ("1" if is_gpu and is_worker and kind != "RayService" else None)
        assert container["image"].endswith("-gpu" if is_gpu else "-cpu")
