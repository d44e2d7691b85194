"""A database that hangs, moves or holds another schema."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from instance import Instance, wait_until
from postgres.database import AWKWARD, NETWORK, login, sql
from postgres.database import CONTAINER as DATABASE
from tracking.clients import CONTAINER, address, client, ready, starts


def health(instance: Instance) -> str:
    """What the engine says about the health of the tracking server."""
    return str(instance.inspect(CONTAINER)[0]["State"]["Health"]["Status"])


def test_is_unhealthy_while_the_database_hangs_and_comes_back_by_itself(instance: Instance) -> None:
    began = starts(instance)
    instance.sh(f"docker pause {DATABASE}")
    try:
        wait_until(lambda: health(instance) == "unhealthy", 60, "it still says that it is healthy")
        assert instance.http(address(instance) + "/health").status == 200
    finally:
        instance.sh(f"docker unpause {DATABASE}")
    assert wait_until(lambda: ready(instance), 15, "it is not healthy again") <= 15
    assert starts(instance) == began


def test_finds_a_database_that_vanished_from_the_network_and_came_back(instance: Instance) -> None:
    began = starts(instance)
    # Connections end without a word: nobody is left to say goodbye.
    instance.sh(f"docker network disconnect --force {NETWORK} {DATABASE}")
    try:
        wait_until(lambda: health(instance) == "unhealthy", 60, "it still says that it is healthy")
    finally:
        instance.sh(f"docker network connect --alias postgres {NETWORK} {DATABASE}")
    wait_until(lambda: ready(instance), 30, "it is not healthy again")
    statuses = [
        instance.http(
            f"{address(instance)}/api/2.0/mlflow/experiments/search",
            {"max_results": 1},
            headers={"Host": "localhost"},
            timeout=5,
        ).status
        for _ in range(20)
    ]
    assert statuses == [200] * 20
    assert starts(instance) == began


@pytest.fixture(params=["451aebb31d03", "ffffffffffff"], ids=["older", "newer"])
def other_schema(instance: Instance, request: pytest.FixtureRequest) -> Iterator[str]:
    """The database as another version of MLflow left it: its revision, and a table of ours is missing."""
    ours = sql(instance, "SELECT version_num FROM alembic_version")
    sql(
        instance,
        f"UPDATE alembic_version SET version_num = '{request.param}'; ALTER TABLE webhook_events RENAME TO away",
    )
    yield request.param
    sql(
        instance,
        f"UPDATE alembic_version SET version_num = '{ours}'; ALTER TABLE IF EXISTS away RENAME TO webhook_events",
    )
    instance.sh(f"docker restart {CONTAINER}")
    wait_until(lambda: ready(instance), 90, "the tracking server is not back")


def schema(instance: Instance) -> str:
    """All tables and columns, and the revision."""
    columns = "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
    return sql(instance, f"{columns}; SELECT version_num FROM alembic_version")


def test_a_schema_of_another_version_is_refused_untouched_and_reported(instance: Instance, other_schema: str) -> None:
    before = schema(instance)
    instance.sh(f"docker restart {CONTAINER}")
    message = f"The database is at schema revision {other_schema}, this MLflow expects"
    wait_until(lambda: message in instance.logs(CONTAINER, 20), 60, "it said nothing about the schema")
    deployed = instance.play("converge.yml", tracking_start_timeout=10)
    assert deployed.returncode != 0
    assert message in deployed.stdout
    assert "Nothing was changed" in deployed.stdout
    assert schema(instance) == before


def test_a_password_with_awkward_characters_replaces_the_old_one(instance: Instance, secrets: dict[str, str]) -> None:
    instance.converge(postgres_password=AWKWARD)
    assert login(instance, AWKWARD, at="loopback") == "in"
    assert "password authentication failed" in login(instance, secrets["postgres_password"], at="loopback")
    assert client(instance, "log_run.py")["note"] == "written by a client"
    assert instance.leaks({"password": AWKWARD}) == {}
    instance.converge()
    assert client(instance, "log_run.py")["note"] == "written by a client"
