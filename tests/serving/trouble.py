"""A model that does what it is told: the code of a model, which MLflow copies into it."""

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow

MEGABYTE = 1 << 20


def fail() -> str:
    raise RuntimeError("secret-detail in /opt/secret.py")


def hog() -> str:
    """Take memory until there is none."""
    most = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 300 * MEGABYTE, most[1]))
    try:
        taken = []
        while True:
            taken.append(bytes(8 * MEGABYTE))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, most)


def spin() -> str:
    while True:
        pass


def die(number: int) -> str:
    os.kill(os.getpid(), number)
    return "dead"


def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "rested"


WAYS: dict[str, Callable[[], Any]] = {
    "pid": lambda: str(os.getpid()),
    "fail": fail,
    "quit": sys.exit,
    "hog": hog,
    "exit": lambda: os._exit(9),
    "killed": lambda: die(signal.SIGKILL),
    "nap": lambda: nap(0.05),
    "sleep": lambda: nap(float(os.environ["SLEEP"])),
    "hang": lambda: nap(3600),
    "spin": spin,
    # Holds the interpreter, so that nothing else of the process runs.
    "freeze": lambda: ctypes.PyDLL(None).sleep(3600),
    "object": object,
}


class Trouble(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Obeys the word in each row; keeps a tally of what it did in the file that the environment names."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> list[Any]:  # noqa: ARG002
        """Return what came of each word."""
        done = [WAYS[word]() for word in model_input["word"]]
        if tally := os.environ.get("TALLY"):
            with Path(tally).open("a") as file:
                file.write(".")
        return done


mlflow.models.set_model(Trouble())
