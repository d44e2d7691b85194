"""Settings of the prediction API: one environment variable each, SERVING_ and the field's name."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

PREFIX = "SERVING_"
LIMITS = {
    "port": (0, 65535),
    "workers": (1, 256),
    "max_body": (1, 2**40),
    "max_rows": (0, 2**40),
    "queue": (1, 2**20),
    "timeout": (0.01, 3600.0),
    "body_timeout": (0.01, 3600.0),
    "hang_timeout": (0.01, 86400.0),
}


class SettingsError(Exception):
    """An environment variable has no usable value; the message names it."""


@dataclass(frozen=True)
class Settings:
    """All settings, with the values they have when nothing is set."""

    # Directory of the MLflow model: holds the MLmodel file.
    model_path: Path = Path("/opt/model")
    # Address and port to listen on; port 0 takes a free one and logs it.
    host: str = "0.0.0.0"  # noqa: S104 - inside a container, reached through the edge alone
    port: int = 8080
    # Name of the model in URLs, in /v2/models/NAME and in X-Model-Name.
    name: str = "model"
    # Registered name, alias, version and run that the model was exported from.
    model: str = ""
    alias: str = ""
    version: str = ""
    run_id: str = ""
    # Metrics of the training run: a JSON object of numbers.
    metrics: dict[str, float] = field(default_factory=dict)
    # What people call the model's classes: a JSON object of texts, by the class as text.
    labels: dict[str, str] = field(default_factory=dict)
    # Whether loading the model unpickles something or runs code of its own.
    pickle: bool = True
    # Digest of the image that the server runs in.
    image: str = ""
    # Worker processes that share the loaded model and the port.
    workers: int = 1
    # Largest body in bytes; four times as much is held over all requests of a worker.
    max_body: int = 64 * 1024 * 1024
    # Most rows in one body; 0 leaves that to the size of the body.
    max_rows: int = 0
    # Most requests that wait for the model, per worker; the next one is answered 429.
    queue: int = 1024
    # Seconds until a prediction that has not come is answered 504.
    timeout: float = 30.0
    # Seconds that a client may take to send its body as a whole; bodies.py has the least rate.
    body_timeout: float = 30.0
    # Seconds after which a model that gives no answer makes /health 503.
    hang_timeout: float = 120.0
    # Whether each request is logged; the edge does that already.
    access_log: bool = False
    # Path at which clients reach this server, for links: /models/NAME.
    root_path: str = ""
    # Address of MLflow's pages, for links to the version and its run.
    mlflow_url: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the environment; an empty variable is as good as none. Raises SettingsError."""
        found: dict[str, Any] = {}
        for item in fields(cls):
            variable = PREFIX + item.name.upper()
            text = environment.get(variable, "").strip()
            if not text:
                continue
            try:
                found[item.name] = READERS[str(item.type)](text)
            except ValueError as error:
                raise SettingsError(f"{variable}={text!r}: {error}") from None
            low, high = LIMITS.get(item.name, (None, None))
            if low is not None and high is not None and not low <= found[item.name] <= high:
                raise SettingsError(f"{variable}={text!r}: expected a number from {low} to {high}")
        if "name" not in found and found.get("model"):
            found["name"] = found["model"]
        return cls(**found)


def _flag(text: str) -> bool:
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise ValueError("expected true or false")
    return values[text.lower()]


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("expected an integer") from None


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("expected a number") from None
    if not math.isfinite(value):
        raise ValueError("expected a number")
    return value


def _metrics(text: str) -> dict[str, float]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict) or not all(isinstance(number, int | float) for number in value.values()):
        raise ValueError("expected a JSON object of numbers")
    return {str(name): float(number) for name, number in value.items()}


def _texts(text: str) -> dict[str, str]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ValueError("expected a JSON object of texts")
    return value


# By the field's annotation, which is a string here.
READERS: Mapping[str, Callable[[str], Any]] = {
    "str": str,
    "int": _integer,
    "float": _number,
    "bool": _flag,
    "Path": Path,
    "dict[str, float]": _metrics,
    "dict[str, str]": _texts,
}
