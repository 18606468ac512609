"""Cluster files say what Ray, Kubernetes, Docker and dure itself accept, in the versions that are pinned."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import jsonschema
import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
CLUSTER = REPOSITORY / "cluster"
KUBERAY = sorted((CLUSTER / "kuberay").glob("*.yaml"))
DOCKERFILES = sorted((CLUSTER / "docker").glob("*.Dockerfile"))
PINNED = dict(
    line.split("==")
    for line in (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if "==" in line
)


def closed(required: str = "", **properties: object) -> dict:
    """A schema of an object with these keys and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


TEXT, WHOLE, YES = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
QUANTITY = {"type": "string", "pattern": r"^\d+(\.\d+)?(m|[KMGT]i?)?$"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
RESOURCES = {"type": "object", "additionalProperties": QUANTITY, "required": ["cpu", "memory"]}
SECRET = closed("secretKeyRef", secretKeyRef=closed("name key", name=TEXT, key=TEXT, optional=YES))
CONTAINER = closed(
    "name image resources env securityContext volumeMounts",
    name=TEXT,
    image=TEXT,
    resources=closed("requests limits", requests=RESOURCES, limits=RESOURCES),
    ports={
        "type": "array",
        "items": closed("name containerPort", name={**TEXT, "maxLength": 15}, containerPort=WHOLE),
    },
    env={"type": "array", "items": closed("name", name=TEXT, value=TEXT, valueFrom=SECRET)},
    securityContext=closed(
        allowPrivilegeEscalation={"const": False},
        capabilities=closed("drop", drop={"type": "array", "items": TEXT}),
    ),
    volumeMounts={
        "type": "array",
        "items": closed("name mountPath", name=TEXT, mountPath=TEXT, readOnly=YES),
    },
)
VOLUME = closed(
    "name",
    name=TEXT,
    persistentVolumeClaim=closed("claimName", claimName=TEXT, readOnly=YES),
    emptyDir=closed(medium={"enum": ["", "Memory"]}, sizeLimit=QUANTITY),
)
POD = closed(
    "containers volumes terminationGracePeriodSeconds securityContext",
    terminationGracePeriodSeconds=WHOLE,
    securityContext=closed(
        "runAsNonRoot",
        runAsNonRoot={"const": True},
        runAsUser={"type": "integer", "minimum": 1},
        fsGroup=WHOLE,
        seccompProfile=closed("type", type={"enum": ["RuntimeDefault", "Localhost", "Unconfined"]}),
    ),
    tolerations={
        "type": "array",
        "items": closed(key=TEXT, operator={"enum": ["Exists", "Equal"]}, value=TEXT, effect=TEXT),
    },
    containers={"type": "array", "minItems": 1, "items": CONTAINER},
    volumes={"type": "array", "items": VOLUME},
)
TEMPLATE = closed("spec", spec=POD, metadata={"type": "object"})
CLUSTER_SPEC = closed(
    "rayVersion headGroupSpec workerGroupSpecs",
    rayVersion=TEXT,
    enableInTreeAutoscaling=YES,
    autoscalerOptions=closed(idleTimeoutSeconds=WHOLE),
    headGroupSpec=closed(
        "rayStartParams template", serviceType=TEXT, rayStartParams=TEXTS, template=TEMPLATE
    ),
    workerGroupSpecs={
        "type": "array",
        "minItems": 1,
        "items": closed(
            "groupName replicas minReplicas maxReplicas rayStartParams template",
            groupName=TEXT,
            replicas=WHOLE,
            minReplicas=WHOLE,
            maxReplicas=WHOLE,
            rayStartParams=TEXTS,
            template=TEMPLATE,
        ),
    },
)
HEAD = {"apiVersion": TEXT, "kind": TEXT, "metadata": closed("name", name={**TEXT, "maxLength": 47})}
SCHEMAS = {
    ("ray.io/v1", "RayCluster"): closed("metadata spec", **HEAD, spec=CLUSTER_SPEC),
    ("ray.io/v1", "RayJob"): closed(
        "metadata spec",
        **HEAD,
        spec=closed(
            "entrypoint rayClusterSpec",
            entrypoint=TEXT,
            runtimeEnvYAML=TEXT,
            backoffLimit=WHOLE,
            shutdownAfterJobFinishes=YES,
            ttlSecondsAfterFinished=WHOLE,
            rayClusterSpec=CLUSTER_SPEC,
        ),
    ),
    ("v1", "PersistentVolumeClaim"): closed(
        "metadata spec",
        **HEAD,
        spec=closed(
            "accessModes resources",
            accessModes={
                "type": "array",
                "items": {"enum": ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"]},
            },
            resources=closed("requests", requests=closed("storage", storage=QUANTITY)),
        ),
    ),
}
"""The parts of Kubernetes' and KubeRay's schemas that the manifests use; any other key is a mistake."""


def documents(file: Path) -> list[dict]:
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))


def cluster_of(file: Path) -> dict:
    spec = documents(file)[0]["spec"]
    return spec.get("rayClusterSpec", spec)


def pods(file: Path) -> list[dict]:
    groups = [cluster_of(file)["headGroupSpec"], *cluster_of(file)["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


@pytest.mark.parametrize("file", KUBERAY, ids=lambda file: file.name)
def test_every_manifest_keeps_to_its_schema(file: Path) -> None:
    for document in documents(file):
        schema = SCHEMAS[document["apiVersion"], document["kind"]]
        jsonschema.Draft202012Validator(schema).validate(document)


def test_the_schema_finds_a_key_at_a_wrong_place() -> None:
    document = documents(KUBERAY[0])[0]
    cluster_of(KUBERAY[0])
    document["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["shmSize"] = "1Gi"
    with pytest.raises(jsonschema.ValidationError, match="shmSize"):
        jsonschema.validate(document, SCHEMAS["ray.io/v1", "RayCluster"])


@pytest.mark.parametrize("file", KUBERAY, ids=lambda file: file.name)
def test_pods_have_time_to_save_room_to_exchange_and_what_they_ask_for(file: Path) -> None:
    for pod in pods(file):
        assert pod["terminationGracePeriodSeconds"] >= 120
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
        for container in pod["containers"]:
            assert container["resources"]["requests"] == container["resources"]["limits"]
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert set(mounts) == {"/shared", "/dev/shm"}
            assert set(mounts.values()) <= set(volumes)
            # Secrets come by reference: no value stands here.
            assert all("value" not in each for each in container["env"])
            assert {each["name"] for each in container["env"]} == {"WANDB_API_KEY", "HF_TOKEN"}


@pytest.mark.parametrize("file", KUBERAY, ids=lambda file: file.name)
def test_workers_come_and_go_and_the_dashboard_stays_inside(file: Path) -> None:
    cluster = cluster_of(file)
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert {document["kind"] for document in documents(file)} <= {
        "RayCluster",
        "RayJob",
        "PersistentVolumeClaim",
    }
    assert cluster["enableInTreeAutoscaling"]
    for group in cluster["workerGroupSpecs"]:
        assert 1 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        # A trial of the profile fits a worker, whole times.
        from dure.config import load_profile

        have = group["template"]["spec"]["containers"][0]["resources"]["requests"]
        profile = load_profile("dgx")
        trials = int(have["nvidia.com/gpu"]) / profile.gpus_per_worker
        assert trials * profile.cpus_per_worker <= float(have["cpu"])


def test_the_shared_volume_is_the_one_that_is_claimed_and_every_node_may_write_to_it() -> None:
    claims = [each for file in KUBERAY for each in documents(file) if each["kind"] == "PersistentVolumeClaim"]
    assert [claim["spec"]["accessModes"] for claim in claims] == [["ReadWriteMany"]]
    for file in KUBERAY:
        for pod in pods(file):
            used = [
                each["persistentVolumeClaim"]["claimName"]
                for each in pod["volumes"]
                if "persistentVolumeClaim" in each
            ]
            assert used == [claims[0]["metadata"]["name"]]


def test_both_manifests_describe_the_same_cluster() -> None:
    job, cluster = (
        cluster_of(CLUSTER / "kuberay" / "rayjob.yaml"),
        cluster_of(CLUSTER / "kuberay" / "raycluster.yaml"),
    )
    assert job == cluster


def test_every_image_is_of_the_pinned_ray_and_has_a_dockerfile() -> None:
    images = [container["image"] for file in KUBERAY for pod in pods(file) for container in pod["containers"]]
    images.append(
        yaml.safe_load((CLUSTER / "ray" / "dgx.yaml").read_text(encoding="utf-8"))["docker"]["image"]
    )
    for image in images:
        kind = re.fullmatch(rf"\S+/dure:ray{re.escape(PINNED['ray'])}-(cpu|cuda)", image)
        assert kind, image
        assert (CLUSTER / "docker" / f"{kind[1]}.Dockerfile").is_file()
    for file in KUBERAY:
        assert cluster_of(file)["rayVersion"] == PINNED["ray"]


def test_rays_own_validator_takes_the_dgx_cluster() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((CLUSTER / "ray" / "dgx.yaml").read_text(encoding="utf-8"))
    workers = len(config["provider"]["worker_ips"])
    assert (config["min_workers"], config["max_workers"]) == (workers, workers)
    validate_config(prepare_config(config))
    head = " ".join(config["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in head


def test_rays_command_line_takes_the_commands_of_the_dgx_cluster() -> None:
    from ray.scripts.scripts import cli

    config = yaml.safe_load((CLUSTER / "ray" / "dgx.yaml").read_text(encoding="utf-8"))
    lines = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    commands = [part.strip() for line in lines for part in line.split(";") if part.strip().startswith("ray ")]
    assert len(commands) == 4
    for command in commands:
        _, verb, *words = shlex.split(command)
        cli.commands[verb].make_context(verb, words)


def dure_commands() -> list[list[str]]:
    found = []
    for file in [*KUBERAY, CLUSTER / "ray" / "dgx.yaml"]:
        for line in file.read_text(encoding="utf-8").splitlines():
            if "dure submit" in line:
                found.append(shlex.split(line.partition(" -- ")[2]))
    for file in KUBERAY:
        entrypoint = documents(file)[0]["spec"].get("entrypoint")
        if entrypoint:
            words = shlex.split(entrypoint)
            assert words[0] == "dure"
            found.append(words[1:])
    return found


@pytest.mark.parametrize("words", dure_commands(), ids=" ".join)
def test_every_command_is_one_of_dures(words: list[str]) -> None:
    from dure.cli import main

    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        pytest.raises(SystemExit) as end,
    ):
        main([*words, "--dry-run"])
    assert not end.value.code


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_a_dockerfile_copies_what_there_is_by_pinned_versions_and_runs_as_nobody_special(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    ignored = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (REPOSITORY / source).exists(), source
            assert f"!{source}" in ignored, "the builder does not get it"
    assert re.findall(r"torch==(\S+)", text) == [PINNED["torch"]]
    assert f"ray{PINNED['ray']}" in text
    installs = re.findall(r"pip install (.+)", text)
    assert all(re.search(r"torch==|-c constraints\.txt|--no-deps \.", install) for install in installs), (
        installs
    )
    assert "DS_BUILD_OPS=0" in text
    users = re.findall(r"^USER (\S+)$", text, re.MULTILINE)
    assert users
    assert users[-1] not in ("0", "root")
    assert not re.search(r"(?i)^(env|arg) .*(key|token|secret|password)", text, re.MULTILINE)
    assert all(
        re.search(r"python:3\.1[1-9]-slim-\w+", line)
        for line in re.findall(r"^FROM (.+)$", text, re.MULTILINE)
    )
