"""The servers that are compared: how each is started, asked and silenced, tuned as its own documentation advises."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.machine import CACHE, ROOT
from bench.serving import models

PROGRAMS = Path(__file__).with_name("peers")
# What batching peers may hold back a request to wait for others. One that waits longer answers a lone client later still.
WINDOW = 0.001
BATCH_REQUESTS = 128
BATCH_ROWS = 1000


@dataclass(frozen=True)
class Start:
    """One way to start a peer."""

    model: str
    port: int
    workers: int = 1
    quiet: bool = False


@dataclass(frozen=True)
class Peer:
    """A server; `environment` names the directory it is installed in and its requirements, `package` what gives it its version."""

    name: str
    title: str
    tuning: str
    environment: str
    package: str
    form: str
    path: str
    health: str
    command: Callable[[Start], list[str]]
    variables: Callable[[Start], Mapping[str, str]] = field(default=lambda _: {})
    tensors: bool = True

    @property
    def place(self) -> Path:
        """Its environment."""
        return CACHE / self.environment

    @property
    def bin(self) -> Path:
        """The programs of its environment."""
        return self.place / "bin"

    @property
    def requirements(self) -> Path:
        """Its locked requirements."""
        return PROGRAMS / f"{self.environment}.txt"

    def argv(self, start: Start) -> list[str]:
        """The command that starts it."""
        program, *arguments = self.command(start)
        return [str(self.bin / program), *arguments]

    def environ(self, start: Start) -> dict[str, str]:
        """The environment it is started in: no package of this program's, and nothing that calls home."""
        kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
        place = models.directory(start.model)
        return {
            **kept,
            "PATH": f"{self.bin}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "BENCH_MODEL": str(place / "model.joblib"),
            "BENCH_MLFLOW_MODEL": str(place / "mlflow"),
            "BENCH_COLUMNS": str(place / "columns.json"),
            "BENCH_QUIET": "1" if start.quiet else "",
            "BENCH_WORKERS": str(start.workers),
            "BENCH_PORT": str(start.port),
            "BENCH_WINDOW": str(WINDOW),
            "BENCH_BATCH_REQUESTS": str(BATCH_REQUESTS),
            # One core: more threads for linear algebra would only wait for each other.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "1",
            "BENTOML_DO_NOT_TRACK": "true",
            "BENTOML_HOME": str(CACHE / "serving" / "bentoml"),
            **self.variables(start),
        }

    def version(self) -> str:
        """The version that is installed, empty if none is."""
        found = sorted((self.place / "lib").glob(f"python*/site-packages/{self.package}-*.dist-info"))
        return found[0].name.removesuffix(".dist-info").partition("-")[2] if found else ""


def uvicorn(program: str, start: Start, *options: str) -> list[str]:
    """Serve one of the programs of this directory."""
    quiet = ["--no-access-log"] if start.quiet else []
    command = ["uvicorn", "--app-dir", str(PROGRAMS), f"{program}:app", "--host", "127.0.0.1"]
    return [*command, "--port", str(start.port), "--workers", str(start.workers), *quiet, *options]


def stock_command(start: Start) -> list[str]:
    """The command of MLflow's documentation."""
    model = str(models.directory(start.model) / "mlflow")
    workers = ["--workers", str(start.workers)] if start.workers > 1 else []
    return ["mlflow", "models", "serve", "-m", model, "-p", str(start.port), "--env-manager", "local", *workers]


def mlserver_settings(start: Start) -> dict[str, str]:
    """MLServer's settings; a pool of workers pays only for models that take long."""
    return {
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": str(start.port),
        "MLSERVER_GRPC_PORT": str(start.port + 1000),
        "MLSERVER_METRICS_PORT": str(start.port + 2000),
        "MLSERVER_PARALLEL_WORKERS": str(start.workers if start.workers > 1 else 0),
        "MLSERVER_DEBUG": "false" if start.quiet else "true",
    }


def mlserver_command(start: Start) -> list[str]:
    """Serve a directory with the settings of one model."""
    place = CACHE / "serving" / "mlserver" / start.model
    place.mkdir(parents=True, exist_ok=True)
    settings = {
        "name": "model",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "max_batch_size": BATCH_REQUESTS,
        "max_batch_time": WINDOW,
        "parameters": {"uri": str(models.directory(start.model) / "model.joblib")},
    }
    (place / "model-settings.json").write_text(json.dumps(settings))
    return ["mlserver", "start", str(place)]


def bentoml_command(start: Start) -> list[str]:
    """Serve the service of this directory."""
    where = ["--working-dir", str(PROGRAMS), "--host", "127.0.0.1", "--port", str(start.port)]
    return ["bentoml", "serve", "bento_service:Model", *where]


def ours_settings(start: Start) -> dict[str, str]:
    """The settings of serving/."""
    return {
        "PYTHONPATH": str(ROOT),
        "SERVING_MODEL_PATH": str(models.directory(start.model) / "mlflow"),
        "SERVING_NAME": start.model,
        "SERVING_HOST": "127.0.0.1",
        "SERVING_PORT": str(start.port),
        "SERVING_WORKERS": str(start.workers),
    }


STOCK, OURS, FLOOR = "stock", "ours", "floor"
PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            STOCK,
            "`mlflow models serve`",
            "as it is, with uvloop and httptools",
            "stock",
            "mlflow",
            "scoring",
            "/invocations",
            "/ping",
            stock_command,
            lambda start: {"UVICORN_ACCESS_LOG": "false"} if start.quiet else {},
        ),
        Peer(
            "fastapi-mlflow",
            "fastapi-mlflow",
            "on uvicorn with uvloop and httptools; named columns only",
            "fastapi-mlflow",
            "fastapi_mlflow",
            "mlflow_records",
            "/predictions",
            "/docs",
            lambda start: uvicorn("fastapi_mlflow_app", start),
            tensors=False,
        ),
        Peer(
            "mlserver",
            "MLServer (sklearn)",
            f"batches of {BATCH_REQUESTS} requests within {WINDOW * 1000:g} ms, no worker pool",
            "mlserver",
            "mlserver",
            "inference",
            "/v2/models/model/infer",
            "/v2/models/model/ready",
            mlserver_command,
            mlserver_settings,
        ),
        Peer(
            "bentoml",
            "BentoML",
            f"adaptive batches of up to {BATCH_ROWS:,} rows, one worker",
            "bentoml",
            "bentoml",
            "array",
            "/predict",
            "/readyz",
            bentoml_command,
            lambda _: {"BENCH_BATCH_ROWS": str(BATCH_ROWS)},
        ),
        Peer(
            "litserve",
            "LitServe",
            f"batches of {BATCH_REQUESTS} requests within {WINDOW * 1000:g} ms, one worker",
            "litserve",
            "litserve",
            "arrays",
            "/predict",
            "/health",
            lambda _: ["python", str(PROGRAMS / "litserve_app.py")],
        ),
        Peer(
            "fastapi",
            "FastAPI, as most people write it",
            "pydantic model, numpy, `def`; uvicorn with uvloop and httptools",
            "fastapi",
            "fastapi",
            "records",
            "/predict",
            "/health",
            lambda start: uvicorn("fastapi_app", start),
        ),
        Peer(
            OURS,
            "this engine",
            "as the platform starts it",
            "ours",
            "uvicorn",
            "scoring",
            "/invocations",
            "/ping",
            lambda _: ["python", "-m", "serving"],
            ours_settings,
        ),
        Peer(
            FLOOR,
            "do-nothing endpoint",
            "plain ASGI on uvicorn with uvloop and httptools, reads the body, no log",
            "ours",
            "uvicorn",
            "anything",
            "/invocations",
            "/ping",
            lambda start: uvicorn("floor", start, "--no-access-log", "--loop", "uvloop", "--http", "httptools"),
        ),
    )
}
RIVALS = [name for name in PEERS if name not in {OURS, FLOOR}]


def uv() -> str:
    """The uv beside this interpreter, else the one in the path."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else "uv"
