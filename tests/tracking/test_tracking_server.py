"""The launcher of the tracking server: its decisions, and the names of MLflow that it relies on."""

import json
import os
import subprocess
import sys
from pathlib import Path

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


def prepare(uri: str) -> str:
    """Prepare a database in a process of its own, as the server does: MLflow keeps engines and migrations in globals. Returns the error."""
    program = (
        "import sys, tracking_server\n"
        "try:\n"
        "    tracking_server.prepare_database(sys.argv[1], 'mlflow-artifacts:/')\n"
        "except tracking_server.StartError as error:\n"
        "    print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, uri], cwd=FILE.parent, capture_output=True, text=True, check=True
    )
    return ran.stdout


def test_an_older_schema_is_not_migrated_in_silence(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert prepare(uri) == ""
    engine = sqlalchemy.create_engine(uri)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = '451aebb31d03'"))
        connection.execute(sqlalchemy.text("DROP TABLE webhooks"))
    assert "revision 451aebb31d03" in prepare(uri)
    assert "webhooks" not in sqlalchemy.inspect(engine).get_table_names()
    engine.dispose()


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
