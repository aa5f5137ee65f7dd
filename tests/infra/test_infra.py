"""The cluster files, the Makefile and CONTRIBUTING: every path, version, command and config key in them is real.

Nothing here starts a cluster: Ray checks its own file against its own schema, Kubernetes' files are checked for what must agree.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.__main__ import main
from jobs.config.parameters import parameters
from jobs.config.run import Run
from stages import STAGES

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HOME = "/opt/gristmill"  # of the image


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((INFRA / name).read_text()))


def commands() -> dict[str, list[str]]:
    """Return the words after `python -m jobs` in each file."""
    job = shlex.split(documents("kuberay-job.yaml")[0]["spec"]["entrypoint"])
    pod = documents("kuberay-nightly.yaml")[1]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    nightly = pod["containers"][0]["args"]
    comment = re.sub(r"\n#\s*", " ", (INFRA / "ray-cluster.yaml").read_text())
    shell = re.search(r"-m jobs (.*?)'", comment)
    assert shell
    words = {"kuberay-job.yaml": job, "kuberay-nightly.yaml": nightly[nightly.index("--") + 1 :]}
    for line in words.values():
        assert line[:3] == ["python", "-m", "jobs"]
    return {name: line[3:] for name, line in words.items()} | {"ray-cluster.yaml": shlex.split(shell[1])}


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    templates = [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]
    return [container for template in templates for container in template["spec"]["containers"]]


@pytest.mark.parametrize("name", ["kuberay-job.yaml", "kuberay-nightly.yaml", "ray-cluster.yaml"])
def test_commands_name_real_commands_recipes_and_keys(name: str) -> None:
    command, recipe, *rest = commands()[name]
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert (ROOT / recipe.removeprefix(HOME + "/")).is_file()
    assert set(rest[::2]) == {"--set"}
    for override in rest[1::2]:
        top, *inner = override.partition("=")[0].split(".")
        if top == "run":
            assert inner[0] in parameters(Run)
        elif top == "source":
            assert inner[1] in parameters(STAGES[inner[0]])
        else:
            assert top == "output"


def test_ray_accepts_its_cluster_file() -> None:
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    config = documents("ray-cluster.yaml")[0]
    validate_config(fillout_defaults(config))
    assert config["head_node_type"] in config["available_node_types"]
    assert config["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    for start in (config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]):
        assert "RAY_AUTH_MODE=token" in start
    target = re.search(r"make (\S+)", config["setup_commands"][-1])
    assert target and target[1].replace(".venv", "$(VENV)") + ":" in (ROOT / "Makefile").read_text()


def test_kubernetes_files_agree_with_the_project() -> None:
    job, (cluster, nightly) = documents("kuberay-job.yaml")[0], documents("kuberay-nightly.yaml")
    assert (job["apiVersion"], job["kind"]) == (cluster["apiVersion"], "RayJob") == ("ray.io/v1", "RayJob")
    assert (nightly["apiVersion"], nightly["kind"]) == ("batch/v1", "CronJob")
    specs = [job["spec"]["rayClusterSpec"], cluster["spec"]]
    pinned = re.search(r"ray\[default\]==(\d+\.\d+)", " ".join(PROJECT["optional-dependencies"]["pipeline"]))
    assert pinned
    pod = nightly["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    for spec in specs:
        assert spec["rayVersion"].startswith(pinned[1] + ".")
        assert spec["authOptions"] == {"mode": "token"}
    (submit,) = pod["containers"]
    given = {each["name"]: each for each in submit["env"]}
    assert given["RAY_AUTH_MODE"]["value"] == "token"
    # KubeRay names the secret with the token after the cluster.
    assert given["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": cluster["metadata"]["name"], "key": "auth_token"}
    for container in [*containers(specs[0]), *containers(specs[1]), *pod["containers"]]:
        assert container["image"] == f"gristmill:{PROJECT['version']}"
    # KubeRay names the head's service after the cluster.
    assert f"--address=http://{cluster['metadata']['name']}-head-svc:8265" in pod["containers"][0]["args"]


def test_the_image_copies_what_is_there() -> None:
    text = (INFRA / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for word in line.split()]
    assert {"gristmill", "pipeline", "stages", "jobs", "pyproject.toml"} <= set(copied)
    for path in copied:
        assert (ROOT / path).exists(), path
    assert f"WORKDIR {HOME}" in text and f"PYTHONPATH={HOME}" in text
    assert set(re.findall(r"'\.\[(\w+)\]'", text)) <= set(PROJECT["optional-dependencies"])
    assert f"--tag gristmill:{PROJECT['version']}" in text
    assert re.search(r"FROM python:(\S+)-slim", text)


def test_make_runs_what_is_there() -> None:
    text = (ROOT / "Makefile").read_text()
    recipes = re.findall(r"jobs/recipes/\S+\.yaml", text)
    assert len(recipes) >= 3
    for path in recipes:
        assert (ROOT / path).is_file(), path
    for module in re.findall(r"\$\(PY\) -m (\w+(?:\.\w+)*)", text):
        assert importlib.util.find_spec(module), module
    for extra in re.findall(r"'\.\[([\w,]+)\]'", text):
        assert set(extra.split(",")) <= set(PROJECT["optional-dependencies"])
    for command in ("make check", "make test"):
        assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_contributing_points_at_what_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = {word for word in re.findall(r"`([\w./]+)`", text) if "/" in word and word != "jobs/COMMAND.py"}
    assert len(paths) > 20
    for path in paths:
        assert (ROOT / path).exists(), path
