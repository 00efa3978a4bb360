"""What can be said of images and stack without an engine; `docker/run-stack` runs them."""

import os
import re
import signal
import stat
import subprocess
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement

from .conftest import REPOSITORY

DOCKER = REPOSITORY / "docker"
NODE = DOCKER / "sweep-node"


def run(*words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SWEEP"))}
    return subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=environment | variables,
    )


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


def test_what_listens_for_people_does_so_on_this_machine_alone(compose):
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_password_or_token_is_written_anywhere_but_in_files_of_secrets(compose):
    for name, service in compose["services"].items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN", variable):
                assert str(value).startswith("/run/secrets/"), f"{name}: {variable}"
            assert not re.search(r"://[^/@]*:[^/@]*@", str(value)), f"{name}: {variable} has a password in it"
        for secret in service.get("secrets", []):
            assert secret in compose["secrets"]
    assert {"postgres_password"} == set(compose["services"]["mlflow"]["secrets"])
    assert {"ray_token"} == set(compose["services"]["worker"]["secrets"])  # trials never talk to the ledger
    assert "docker/secrets" in (REPOSITORY / ".dockerignore").read_text().split()
    assert "/secrets/" in (DOCKER / ".gitignore").read_text().split()


def test_the_sweep_starts_when_all_that_it_needs_is_well(compose):
    services = compose["services"]
    assert services["sweep"]["depends_on"].keys() == {"postgres", "mlflow", "head", "worker"}
    for service in services.values():
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in services[needed]


def test_no_gpu_is_offered_twice_and_none_stays_idle_for_want_of_processors(compose):
    def merged(base, other):
        """As Compose merges files: mappings key by key, everything else by replacement."""
        return {
            **base,
            **{
                key: merged(base[key], value) if key in base and isinstance(value, dict) else value
                for key, value in other.items()
            },
        }

    services = merged(compose, yaml.safe_load((DOCKER / "compose.cuda.yaml").read_text()))["services"]
    with_gpus = [name for name, service in services.items() if "deploy" in service]
    assert with_gpus == ["worker"]
    worker = services["worker"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    # Each container of the service would count all of them as its own.
    assert worker["scale"] == 1
    (cpus,) = (re.fullmatch(r"--num-cpus=\$\{WORKER_CPUS:-(\d+)\}", word) for word in worker["command"][1:])
    assert int(cpus[1]) >= 8
    for name in ("head", "worker", "sweep"):
        assert services[name]["build"] == {**compose["services"][name]["build"], "target": "cuda"}
        assert services[name]["secrets"] == compose["services"][name]["secrets"]


def test_what_ray_starts_without_a_gpu_sees_none_in_every_place_that_starts_nodes():
    name = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"
    assert re.search(rf"^ +{name}=1\b", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert f"export {name}=1" in (REPOSITORY / "launch" / "slurm" / "sweep.sbatch").read_text()


def test_every_volume_is_named_and_every_node_sees_the_same_ones(compose):
    services = compose["services"]
    assert services["head"]["volumes"] == services["worker"]["volumes"] == services["sweep"]["volumes"]
    used = {mount.split(":")[0] for service in services.values() for mount in service.get("volumes", [])}
    assert compose["volumes"].keys() <= used | {"data"}


def test_the_lock_has_all_that_the_images_need():
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    lock = {Requirement(line).name.lower().replace("_", "-") for line in lines if "==" in line}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["cluster"]]
    assert {Requirement(line).name.lower() for line in wanted} <= lock
    assert {"aiohttp-cors", "grpcio", "virtualenv"} <= lock  # what ray[default] adds to ray[tune]


def test_no_image_runs_as_root_and_each_has_a_health_check():
    text = (DOCKER / "Dockerfile").read_text()
    stages = {
        words[-1]: body for words, body in ((part.split("\n")[0].split(), part) for part in text.split("\nFROM ")[1:])
    }
    assert "ARG BASE_IMAGE=" in text.split("\nFROM ")[0]
    for target in ("cpu", "cuda", "mlflow", "postgres"):
        assert re.search(r"^USER (sweeps|postgres)$", stages[target], flags=re.MULTILINE), target
    for stage in ("node", "mlflow", "postgres"):
        assert "\nHEALTHCHECK " in stages[stage]
        assert "\nENTRYPOINT " in stages[stage]
    # The server's page that shows sweeps comes with the project.
    assert "--app-name sweeps" in (DOCKER / "mlflow-server").read_text()
    assert "COPY --from=project /install /opt/venv" in stages["mlflow"]
    # Dependencies come before the sources, so that a change of the sources builds in seconds.
    assert "COPY segda" not in stages["cpu-dependencies"] + stages["cuda-dependencies"]


def test_secrets_are_made_once_and_only_their_owner_reaches_them(tmp_path):
    script = tmp_path / "make-secrets"
    script.write_text((DOCKER / "make-secrets").read_text())
    assert run("bash", script).returncode == 0
    folder = tmp_path / "secrets"
    before = {file.name: file.read_text() for file in folder.iterdir()}
    assert before.keys() == {"postgres_password", "ray_token"}
    assert all(len(value) == 64 for value in before.values())
    assert len(set(before.values())) == 2
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert run("bash", script).returncode == 0
    assert {file.name: file.read_text() for file in folder.iterdir()} == before


def test_a_node_without_words_explains_itself_and_without_a_token_refuses():
    done = run(NODE)
    assert done.returncode == 2
    assert "usage: sweep-node ROLE" in done.stdout
    for variables in ({"RAY_AUTH_MODE": "disabled"}, {}):
        done = run(NODE, "head", **variables)
        assert done.returncode == 2
        assert "RAY_AUTH_MODE must be 'token'" in done.stderr
    done = run(NODE, "worker", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH="/nowhere/token")
    assert done.returncode == 2
    assert "no token: name a file" in done.stderr


def test_a_sweep_joins_without_cpus_and_hands_its_words_on(programs, calls, tmp_path, monkeypatch):
    programs("ray", "exit 0")
    programs("start-or-resume", 'echo "passfile $(cat "$PGPASSFILE")" >> "$CALLS"; exit 75')
    password = tmp_path / "password"
    password.write_text("a:b\\c")
    done = run(
        *(NODE, "sweep", "demo.yaml", "--store", "/store"),
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN="secret",
        RAY_HEAD="far:1234",
        POSTGRES_PASSWORD_FILE=str(password),
        TMPDIR=str(tmp_path),
    )
    assert done.returncode == 75, done.stderr
    assert calls() == [
        "ray health-check --address far:1234",
        "ray start --address=far:1234 --num-cpus=0 --num-gpus=0 --object-store-memory=268435456 --disable-usage-stats",
        "start-or-resume demo.yaml --store /store --address auto",
        "passfile *:*:*:*:a\\:b\\\\c",  # as libpq reads it
    ]
    passfile = next(tmp_path.glob("pgpass.*"))
    assert stat.S_IMODE(passfile.stat().st_mode) == 0o600  # libpq ignores one that others may read


def test_stop_ends_the_sweep_and_waits_until_it_has(tmp_path):
    ended = tmp_path / "ended"
    script = f"trap 'sleep 0.5; touch {ended}; exit 75' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.1; done"
    with subprocess.Popen(["bash", "-c", script]) as sweep:
        try:
            while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
                pass
            # Its parent must take note of its end, as a container's first process does.
            stop = subprocess.Popen([str(NODE), "stop"], env={**os.environ, "SWEEP_PID_FILE": str(tmp_path / "pid")})
            assert sweep.wait(timeout=20) == 75
            assert stop.wait(timeout=20) == 0
            assert ended.exists()
        finally:
            sweep.send_signal(signal.SIGKILL)
    assert run(NODE, "stop", SWEEP_PID_FILE=str(tmp_path / "pid")).returncode == 0  # nothing is left to stop
