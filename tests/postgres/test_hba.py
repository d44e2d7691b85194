"""Who may sign in to the database, and from where."""

from __future__ import annotations

from tests.templates import renderer

RULES = renderer("postgres")


def rules(**given: object) -> list[list[str]]:
    lines = RULES("pg_hba.conf.j2", **given).splitlines()
    return [line.split() for line in lines if line and not line.startswith("#")]


def test_the_tracking_server_alone_is_asked_for_a_password() -> None:
    assert rules() == [
        ["local", "all", "all", "trust"],
        ["host", "all", "all", "127.0.0.1/32", "scram-sha-256"],
        ["host", "all", "all", "mlflow-anywhere-tracking.mlflow-anywhere-database", "scram-sha-256"],
    ]


def test_further_clients_are_named() -> None:
    names = [
        rule[3] for rule in rules(postgres_clients=["a", "b"], platform_database_network="net") if rule[0] == "host"
    ]
    assert names == ["127.0.0.1/32", "a.net", "b.net"]
