"""The RayJob manifest against the schema of KubeRay's RayJob (ray.io/v1), as far as it uses it.

The schema is written from the operator's resource definition (release 1.5) with one rule added: a field that is not listed is an
error, because the API server would drop it without a word.
"""

import copy

import jsonschema
import pytest
import yaml

from .conftest import REPOSITORY

MANIFEST = REPOSITORY / "launch" / "kubernetes" / "rayjob.yaml"


def fields(required: tuple[str, ...] = (), /, **properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def many(item: object) -> dict[str, object]:
    return {"type": "array", "items": item}


TEXT, NUMBER, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
QUANTITY = {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"}
QUANTITIES = {"type": "object", "additionalProperties": QUANTITY}
KEY = fields(("name", "key"), name=TEXT, key=TEXT)
CONTAINER = fields(
    ("name", "image"),
    name=TEXT,
    image=TEXT,
    securityContext=fields(allowPrivilegeEscalation=FLAG, capabilities=fields(drop=many(TEXT))),
    ports=many(fields(("containerPort",), name=TEXT, containerPort=NUMBER)),
    env=many(fields(("name",), name=TEXT, value=TEXT, valueFrom=fields(secretKeyRef=KEY))),
    lifecycle=fields(preStop=fields(exec=fields(("command",), command=many(TEXT)))),
    resources=fields(requests=QUANTITIES, limits=QUANTITIES),
    volumeMounts=many(fields(("name", "mountPath"), name=TEXT, mountPath=TEXT, readOnly=FLAG)),
)
POD = fields(
    ("spec",),
    spec=fields(
        ("containers",),
        terminationGracePeriodSeconds=NUMBER,
        securityContext=fields(
            runAsNonRoot=FLAG,
            runAsUser=NUMBER,
            runAsGroup=NUMBER,
            fsGroup=NUMBER,
            seccompProfile=fields(("type",), type={"enum": ["RuntimeDefault", "Localhost", "Unconfined"]}),
        ),
        containers={**many(CONTAINER), "minItems": 1},
        volumes=many(
            fields(
                ("name",),
                name=TEXT,
                persistentVolumeClaim=fields(("claimName",), claimName=TEXT, readOnly=FLAG),
                emptyDir=fields(medium={"enum": ["", "Memory"]}, sizeLimit=QUANTITY),
            )
        ),
    ),
)
RAYJOB = fields(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=fields(("name",), name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,45}[a-z0-9])?$"}),
    spec=fields(
        entrypoint=TEXT,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        backoffLimit=NUMBER,
        shutdownAfterJobFinishes=FLAG,
        ttlSecondsAfterFinished=NUMBER,
        submitterConfig=fields(backoffLimit=NUMBER),
        rayClusterSpec=fields(
            ("headGroupSpec",),
            rayVersion=TEXT,
            authOptions=fields(mode={"enum": ["disabled", "token"]}),
            headGroupSpec=fields(("rayStartParams", "template"), rayStartParams=TEXTS, template=POD),
            workerGroupSpecs=many(
                fields(
                    ("groupName", "maxReplicas", "minReplicas", "rayStartParams", "template"),
                    groupName=TEXT,
                    replicas=NUMBER,
                    minReplicas=NUMBER,
                    maxReplicas=NUMBER,
                    rayStartParams=TEXTS,
                    template=POD,
                )
            ),
        ),
    ),
)


@pytest.fixture(scope="module")
def manifest():
    return yaml.safe_load(MANIFEST.read_text())


def pods(manifest):
    cluster = manifest["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_the_manifest_follows_the_schema(manifest):
    jsonschema.Draft202012Validator.check_schema(RAYJOB)
    jsonschema.validate(manifest, RAYJOB)


def test_the_schema_sees_a_misspelled_field_and_a_wrong_type(manifest):
    wrong = copy.deepcopy(manifest)
    wrong["spec"]["backofLimit"] = 3
    with pytest.raises(jsonschema.ValidationError, match="backofLimit"):
        jsonschema.validate(wrong, RAYJOB)
    wrong = copy.deepcopy(manifest)
    wrong["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0  # parameters are strings
    with pytest.raises(jsonschema.ValidationError, match="is not of type 'string'"):
        jsonschema.validate(wrong, RAYJOB)


def test_every_mount_has_its_volume_and_the_store_has_the_same_path_everywhere(manifest):
    for pod in pods(manifest):
        names = {volume["name"] for volume in pod["volumes"]}
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts.keys() == names
        assert mounts["store"] == "/store"
    assert "--store /store" in manifest["spec"]["entrypoint"]


def test_nobody_is_root_and_every_secret_comes_from_a_secret(manifest):
    for pod in pods(manifest):
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            for variable in container.get("env", []):
                assert ("valueFrom" in variable) == any(word in variable["name"] for word in ("PASSWORD", "TOKEN"))
                assert (
                    "@" not in variable.get("value", "") or ":" not in variable["value"].split("://")[1].split("@")[0]
                )
    assert manifest["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_a_head_that_is_taken_away_has_time_to_end_the_sweep_and_the_job_goes_on_in_a_new_cluster(manifest):
    head = pods(manifest)[0]
    assert head["containers"][0]["lifecycle"]["preStop"]["exec"]["command"] == ["sweep-node", "stop"]
    assert head["terminationGracePeriodSeconds"] >= 120
    assert manifest["spec"]["backoffLimit"] > 0
    assert manifest["spec"]["submitterConfig"]["backoffLimit"] == 0
    assert manifest["spec"]["entrypoint"].startswith("start-or-resume ")


def test_the_manifest_names_the_ray_of_the_lock(manifest):
    locked = next(
        line for line in (REPOSITORY / "requirements.lock").read_text().splitlines() if line.startswith("ray==")
    )
    assert manifest["spec"]["rayClusterSpec"]["rayVersion"] == locked.removeprefix("ray==")
