"""The tour of the README on a whole platform: every block of it, in its order, answers what stands below it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from instance import Instance, wait_until

ROOT = Path(__file__).parents[3]
TOUR = ROOT.joinpath("README.md").read_text().partition("\n## The tour\n")[2].partition("\n## ")[0]
SERVE = "../../playbooks/serve.yml"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MNIST = "training/data/mnist/t10k-images-idx3-ubyte.gz"
HOME = "/srv/tour"
# Commands that others show: the client's environment, training, removal.
ELSEWHERE = ("python3 -m venv", "make train", "make down")
# The machine of a reader has a client in an environment of its own; here an image of the platform's is it.
CLIENT = f"docker run --rm --network host --volume {HOME}:{HOME} --workdir /tmp mlflow-anywhere/runtime:3.17.2 python"


@dataclass(frozen=True)
class Step:
    """A block to run or to write, and the block that says what comes of it."""

    language: str
    text: str
    result: str


def steps() -> Iterator[Step]:
    """The blocks of the tour; one that follows a block at once is its result, unless it is to be run itself."""
    found = list(FENCE.finditer(TOUR))
    results = {
        after.start()
        for before, after in pairwise(found)
        if TOUR[before.end() : after.start()].strip() == "" and before[1] in {"", "python"} and not runs(after)
    }
    for block, after in zip(found, [*found[1:], None], strict=True):
        if block.start() not in results:
            yield Step(block[1], block[2], after[2] if after and after.start() in results else "")


def runs(block: re.Match[str]) -> bool:
    return block[1] in {"python", "yaml"} or block[2].startswith(("curl", "make", "docker", "python3", "printf"))


def same(answer: Any, said: Any) -> bool:
    """Whether an answer is what the page says: numbers nearly, texts exactly, without the version."""
    if isinstance(said, dict) and isinstance(answer, dict):
        return answer.keys() == said.keys() and all(
            key == "version" or same(answer[key], value) for key, value in said.items()
        )
    if isinstance(said, list) and isinstance(answer, list):
        return len(answer) == len(said) and all(map(same, answer, said))
    if isinstance(said, float):
        return bool(answer == pytest.approx(said, abs=0.02))
    return bool(answer == said)


def changes(output: str) -> str:
    """The line of a run that says what changed, without seconds, and without the model that is served here besides."""
    return re.sub(r", \d+ s\)", ")", output.strip().splitlines()[-1]).replace("flowers, ", "")


class Reader:
    """Who follows the tour on the instance."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        scenario = yaml.safe_load(Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"], "molecule.yml").read_text())
        self.models: list[dict[str, Any]] = scenario["provisioner"]["inventory"]["group_vars"]["all"]["served_models"]
        self.done: list[str] = []

    def follow(self, step: Step) -> None:
        """Do what one block says, and compare."""
        first = step.text.split(maxsplit=1)[0]
        if step.language == "yaml":
            self.models += yaml.safe_load(step.text)
        elif step.language == "python":
            self.program(step)
        elif step.text.startswith(ELSEWHERE):
            return
        elif step.text == "make serve\n":
            self.serve(step)
        elif step.text.startswith("docker images"):
            self.run_alone(step.text)
        elif first in {"curl", "python3", "printf"}:
            self.ask(step)
        else:
            raise AssertionError(f"no reader knows what to do with {step.text!r}")
        self.done.append(first)

    def ask(self, step: Step) -> None:
        """A command line for a client of the models."""
        answer = self.instance.sh(f"cd {HOME}\n{step.text}")
        if not step.result.startswith("{"):
            assert [line.rpartition(":")[0] for line in answer.split()] == [
                line.rpartition(":")[0] for line in step.result.split()
            ]
            return
        # This one is served here besides.
        answer = answer.replace("/models/flowers/, ", "").replace('"flowers", ', "")
        assert same(json.loads(answer), json.loads(step.result)), answer

    def program(self, step: Step) -> None:
        """A script of a data scientist; the one that trains is run again as the text says, with other parameters."""
        if '"C": 0.01' in step.text:
            self.trains = step.text
        said = self.python(step.text)
        for line in step.result.splitlines():
            # Runs have names and ids of their own.
            assert line.partition(" run ")[0].partition("/#/")[0] in said
        if "set_registered_model_alias" in step.text and '"champion", "2"' not in step.text:
            assert self.python(self.trains.replace('"C": 0.01', '"C": 1.0')).count("Created version '2'") == 1

    def python(self, program: str) -> str:
        """Run a script, and return all that it says."""
        self.instance.sh(f"cat >{HOME}/script.py <<'END_OF_SCRIPT'\n{program}\nEND_OF_SCRIPT")
        return self.instance.sh(f"{CLIENT} {HOME}/script.py 2>&1")

    def serve(self, step: Step) -> None:
        """Put live what is declared, and compare what the run says at its end."""
        ran = self.instance.play(SERVE, served_models=self.models)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert changes(step.result) == changes(ran.stdout), ran.stdout

    def run_alone(self, commands: str) -> None:
        """The image of a model, without the platform."""
        images, run = commands.splitlines()
        tag = self.instance.sh(f"{images} --format '{{{{.Tag}}}}'").split()[0]
        self.instance.sh(run.replace("TAG", tag).replace("docker run", "docker run --detach --name alone"))
        try:
            wait_until(lambda: self.instance.http("http://127.0.0.1:8080/ping").status == 200, 60, "no answer")
        finally:
            self.instance.sh("docker rm --force alone")


def test_every_block_of_the_tour_answers_what_the_page_says(instance: Instance) -> None:
    reader = Reader(instance)
    # As the page says for a bare Debian, without what the machine has already.
    instance.sh("apt-get update -qq && apt-get install -y -qq curl >/dev/null 2>&1")
    instance.sh(f"mkdir -p {HOME}/{Path(MNIST).parent} && chmod 777 {HOME}")
    subprocess.run(["docker", "cp", ROOT / MNIST, f"{instance.name}:{HOME}/{MNIST}"], check=True, capture_output=True)
    for step in steps():
        reader.follow(step)
    assert len(reader.done) > 15
    # The machine as it was.
    ran = instance.play(SERVE, served_models=reader.models[:-1])
    assert ran.returncode == 0, ran.stdout + ran.stderr
    models = "http://127.0.0.1:5000/api/2.0/mlflow/registered-models/delete"
    assert instance.http(models, {"name": "basic_lr_iris_model"}, method="DELETE").status == 200
