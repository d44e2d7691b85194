"""The launcher of the tracking server: its decisions, and the names of MLflow that it relies on."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from roles.tracking.files import tracking_server as server

FILE = Path(__file__).parents[2] / "roles/tracking/files/tracking_server.py"


@pytest.mark.parametrize(
    ("found", "empty"), [(None, True), (None, False), ("head", False)], ids=["new", "creation interrupted", "same"]
)
def test_a_database_of_this_version_is_served(found: str | None, empty: bool) -> None:
    server.check_schema(found, "head", empty=empty)


@pytest.mark.parametrize("found", ["older", "newer"])
def test_a_database_of_another_version_is_refused_and_named(found: str) -> None:
    with pytest.raises(server.StartError, match=rf"revision {found}.*expects head.*Nothing was changed"):
        server.check_schema(found, "head", empty=False)


# In a process of its own, as the server does it: MLflow keeps engines and migrations in globals. An image of another version left what comes between.
OLDER = """
import sys, sqlalchemy, tracking_server
tracking_server.prepare_database(sys.argv[1], "mlflow-artifacts:/")
engine = sqlalchemy.create_engine(sys.argv[1])
with engine.begin() as connection:
    connection.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = '451aebb31d03'"))
    connection.execute(sqlalchemy.text("DROP TABLE webhooks"))
engine.dispose()
try:
    tracking_server.prepare_database(sys.argv[1], "mlflow-artifacts:/")
except tracking_server.StartError as error:
    print(error)
"""


def test_an_older_schema_is_not_migrated_in_silence(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    command = [sys.executable, "-c", OLDER, uri]
    ran = subprocess.run(command, cwd=FILE.parent, capture_output=True, text=True, check=True)
    assert "revision 451aebb31d03" in ran.stdout
    engine = sqlalchemy.create_engine(uri)
    assert "webhooks" not in sqlalchemy.inspect(engine).get_table_names()
    engine.dispose()


def test_experiments_are_asked_for_by_ids_that_are_text() -> None:
    """As SQL for psycopg 3, in a process of its own: MLflow's tables are changed for all that comes later."""
    program = (
        "import tracking_server\n"
        "from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg\n"
        "from mlflow.store.tracking.dbmodels.models import SqlExperiment\n"
        "tracking_server.take_experiment_ids_as_text()\n"
        "for asked in (SqlExperiment.experiment_id.in_(['2']), SqlExperiment.experiment_id == '2'):\n"
        "    made = asked.compile(dialect=PGDialect_psycopg(), compile_kwargs={'render_postcompile': True})\n"
        "    print(made, [process(value) for process, value in zip(made._bind_processors.values(), made.params.values())])\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=FILE.parent, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [
        "experiments.experiment_id IN (%(experiment_id_1_1)s::INTEGER) [2]",
        "experiments.experiment_id = %(experiment_id_1)s::INTEGER [2]",
    ]


def test_a_database_that_does_not_answer_is_an_error_after_the_wait() -> None:
    engine = sqlalchemy.create_engine("postgresql+psycopg://nobody@127.0.0.1:9/none")
    with pytest.raises(server.StartError, match=r"did not answer within 1 s.*127\.0\.0\.1"):
        server.wait_for_database(engine, seconds=1)


def test_secrets_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_CRYPTO_KEK_PASSPHRASE", "")
    (tmp_path / "environment.json").write_text(json.dumps({"MLFLOW_CRYPTO_KEK_PASSPHRASE": 'a@:/%#"'}))
    server.load_secrets(tmp_path / "environment.json")
    assert os.environ["MLFLOW_CRYPTO_KEK_PASSPHRASE"] == 'a@:/%#"'


def test_the_settings_are_those_that_mlflow_server_hands_on() -> None:
    import mlflow.environment_variables as variables

    settings = server.server_environment("postgresql://db", "/artifacts")
    assert settings["_MLFLOW_SERVER_FILE_STORE"] == settings["_MLFLOW_SERVER_REGISTRY_STORE"] == "postgresql://db"
    assert settings["_MLFLOW_SERVER_ARTIFACT_DESTINATION"] == "/artifacts"
    for name in ("_MLFLOW_SERVER_BOOT_ID", "_MLFLOW_SGI_NAME", "_MLFLOW_IN_JOB_EXECUTOR"):
        assert getattr(variables, name).name == name
        assert name in settings


async def mlflow(*_: Any) -> None:
    raise AssertionError("it was handed on")


def asked(question: Callable[[], object], times: int = 1) -> list[int]:
    """Statuses of GET /ready, one after the other."""
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        if "status" in message:
            statuses.append(message["status"])

    async def run() -> None:
        ready = server.Ready(mlflow, question)
        for _ in range(times):
            await ready({"type": "http", "path": "/ready"}, receive, send)

    asyncio.run(run())
    return statuses


def test_it_is_ready_while_the_database_answers(tmp_path: Path) -> None:
    assert asked(server.database_question(f"sqlite:///{tmp_path}/mlflow.db"), 2) == [200, 200]
    assert asked(server.database_question(f"sqlite:///{tmp_path}/no/mlflow.db"), 2) == [503, 503]


def test_a_database_that_hangs_is_told_before_the_edge_gives_up_and_asked_once() -> None:
    answer, questions = threading.Event(), 0

    def hang() -> None:
        nonlocal questions
        questions += 1
        answer.wait(30)

    began = time.monotonic()
    threading.Timer(2 * server.READY_SECONDS + 0.5, answer.set).start()
    assert asked(hang, 3) == [503, 503, 200]
    assert questions == 1
    assert server.READY_SECONDS < 1.1
    assert time.monotonic() - began < 20


def test_each_change_of_being_ready_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    answers = iter([True, False, False, False, True, True])

    def question() -> None:
        if not next(answers):
            raise ConnectionError("the database is starting up")

    with caplog.at_level("INFO"):
        assert asked(question, 6) == [200, 503, 503, 503, 200, 200]
    assert [record.message for record in caplog.records if "eady" in record.message] == [
        "Not ready: the database is starting up",
        "Ready again",
    ]
