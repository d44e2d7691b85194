"""The image of a model and the cage of its packages, as the role declares them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.templates import renderer, text_renderer, variables

TASKS = Path(__file__).parents[2] / "roles/serving/tasks"

# What would give a container more than the cage does.
WEAKENS = {"user", "read_only", "cap_drop", "cap_add", "capabilities", "security_opts", "privileged"}


@pytest.fixture(scope="module")
def dockerfile() -> list[str]:
    return renderer("serving", __platform_fleet=False)("Dockerfile.j2").splitlines()


def tasks(name: str) -> dict[str, Any]:
    """The tasks of a file by their names, those in blocks included."""
    found: dict[str, Any] = {}
    waiting = list(yaml.safe_load((TASKS / name).read_text()))
    while waiting:
        task = waiting.pop()
        found[task["name"]] = task
        for part in ("block", "rescue", "always"):
            waiting += task.get(part, [])
    return found


def test_nothing_that_could_load_a_package_runs_as_root_once_the_packages_are_there(dockerfile: list[str]) -> None:
    place = dockerfile.index("COPY packages /opt/model-packages")
    assert [line for line in dockerfile[:place] if line.startswith("RUN")] == []
    runs = [line for line in dockerfile[place:] if line.startswith("RUN")]
    assert all(line.startswith('RUN ["/usr/bin/python3", "-I", "-S", ') for line in runs)
    assert not [line for line in dockerfile if line.startswith("ADD")]
    assert [line for line in dockerfile if line.startswith("USER")][-1] == dockerfile[-1] == "USER mlflow"


def test_the_packages_of_a_model_come_before_those_of_the_runtime_image(dockerfile: list[str]) -> None:
    (path,) = (line for line in dockerfile if line.startswith("ENV PATH="))
    assert path.split()[1] == "PATH=/opt/model-packages/bin:/opt/model-env/bin:$PATH"
    # A program of the runtime image names that image's Python: both engines are modules, which the model's Python finds.
    commands = [engine["command"][:2] for engine in variables("serving")["__serving_engines"].values()]
    assert commands == [["python", "-m"], ["python", "-m"]]


@pytest.mark.parametrize("file", ["build.yml", "packages.yml"])
def test_no_image_of_a_model_is_built_with_a_network(file: str) -> None:
    builds = [task["image_build"] for task in tasks(file).values() if "image_build" in task]
    # That of Debian's packages has nothing of a model: a Dockerfile of ours alone.
    holding = [build for build in builds if build.keys() != {"ref", "dockerfile"}]
    assert holding
    assert all(build["network"] == "none" for build in holding)
    theirs = [item for build in holding for item in build["files"] if "remote_src" in item]
    assert theirs
    assert all(item["follow"] is False for item in theirs)


def test_the_source_of_the_packages_is_put_into_the_dockerfile(dockerfile: list[str]) -> None:
    """What the task replaces is there, once."""
    assert (
        "replace('COPY packages', 'COPY --from='"
        in tasks("build.yml")["Build the image {{ __serving_item.image }}"]["image_build"]["dockerfile"]
    )
    assert "\n".join(dockerfile).count("COPY packages") == 1


def test_the_cage_gives_nothing() -> None:
    cage = variables("serving")["__serving_cage"]
    assert cage["user"] == "{{ platform_uid }}"
    assert cage["read_only"] is True
    assert cage["cap_drop"] == ["ALL"]
    assert cage["security_opts"] == ["no-new-privileges"]
    assert {"memory", "memory_swap", "pids_limit"} <= cage.keys()
    assert "privileged" not in cage
    found = tasks("packages.yml")
    fetch, unpack = (
        found[name]["community.docker.docker_container"]
        for name in (
            "Fetch the wheels of {{ __serving_item.model }}",
            "Unpack the wheels of {{ __serving_item.model }}",
        )
    )
    assert found["Fetch and unpack them"]["module_defaults"] == {
        "community.docker.docker_container": "{{ __serving_cage }}"
    }
    assert fetch["networks"] == [{"name": "{{ platform_name }}-packages"}]
    assert "network_mode" not in fetch
    assert fetch["volumes"] == ["{{ __serving_files }}/wheels:/fetched"]
    assert unpack["network_mode"] == "none"
    assert unpack["volumes"] == [
        "{{ __serving_files }}/wheels:/fetched:ro",
        "{{ __serving_files }}/packages:/opt/model-packages",
    ]
    for step in (fetch, unpack):
        assert step["command"][:4] == ["/usr/bin/python3", "-I", "-S", "-c"]
        assert not step.keys() & WEAKENS


def test_the_proxies_of_the_host_reach_the_step_that_fetches_alone() -> None:
    render = text_renderer("serving", ansible_facts={"env": {"HTTPS_PROXY": "http://p", "HOME": "/root"}})
    assert render("{{ __serving_proxies | to_json }}") == '{"HTTPS_PROXY": "http://p"}'
    found = tasks("packages.yml")
    assert (
        "__serving_proxies"
        in found["Fetch the wheels of {{ __serving_item.model }}"]["community.docker.docker_container"]["env"]
    )
    assert "__serving_proxies" not in str(found["Unpack the wheels of {{ __serving_item.model }}"])


def test_the_runtime_image_says_what_it_has(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(
        "# by uv\na-b==1.0 \\\n    --hash=sha256:1 \\\n    --hash=sha256:2\nc==2 ; sys_platform == 'win32' \\\n    --hash=sha256:3\nd==3\n"
    )
    rendered = renderer("runtime_image")("Dockerfile.j2", runtime_image_requirements=str(lock))
    assert 'LABEL mlflow-anywhere.packages="a-b==1.0 d==3"\n' in rendered


def test_a_source_is_built_in_the_cage_and_writes_to_bounded_memory_alone() -> None:
    found = tasks("sources.yml")
    steps = {
        name: task["community.docker.docker_container"]
        for name, task in found.items()
        if "community.docker.docker_container" in task
    }
    fetch, keeper, build, collect = (
        steps[name] for name in ("Fetch the sources", "Keep it", "Build the sources", "Collect the wheels")
    )
    assert fetch["networks"] == [{"name": "{{ platform_name }}-packages"}]
    for step in (keeper, build, collect):
        assert step["network_mode"] == "none"
        assert "networks" not in step
    # What executes a package writes nothing that outlives it, and what copies what it left executes nothing of it.
    assert build["volumes"] == ["{{ __serving_files }}/wheels:/fetched:ro", "{{ platform_name }}-built:/built"]
    assert keeper["volumes"] == ["{{ platform_name }}-built:/built:ro"]
    assert collect["volumes"] == ["{{ __serving_files }}/wheels:/fetched", "{{ platform_name }}-built:/built:ro"]
    assert build["log_options"] == {"max-size": "1m", "max-file": "1"}
    volume = found["Make room in memory for the builds"]["community.docker.docker_volume"]["driver_options"]
    assert volume["type"] == "tmpfs"
    assert {"size=512m", "nr_inodes=100k", "nosuid", "nodev"} <= set(volume["o"].split(","))
    weakens = WEAKENS | {"image", "memory", "memory_swap", "pids_limit"}
    assert not any(step.keys() & weakens for step in steps.values())
