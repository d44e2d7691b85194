"""A misspelt variable is named with the one that was probably meant; what belongs to somebody else is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from roles.platform.filter_plugins.misspelt import known, misspelt

ROLES = str(Path(__file__).parents[2] / "roles")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("platform_traking_port", "platform_tracking_port"),
        ("plattform_tracking_port", "platform_tracking_port"),
        ("platform-tracking-port", "platform_tracking_port"),
        ("serve_models", "served_models"),
        ("served_model", "served_models"),
        ("Served_models", "served_models"),
        ("serving_defualt_model", "serving_default_model"),
        ("serving_treads", "serving_threads"),
        ("training_retrian", "training_retrain"),
        ("edge_tls_", "edge_tls"),
        ("postgre_password", "postgres_password"),
        ("teardown_dta", "teardown_data"),
    ],
)
def test_the_nearest_name_is_named(name: str, meant: str) -> None:
    [line] = misspelt([name], ROLES)
    assert f"There is no variable {name}." in line
    assert meant in line


def test_what_begins_as_a_role_does_is_judged_even_if_nothing_is_near() -> None:
    [line] = misspelt(["tracking_qqqqqqqqqqqqqqqq"], ROLES)
    assert "The nearest one is tracking_" in line


@pytest.mark.parametrize(
    "name",
    [
        "app_port",
        "ansible_host",
        "ansible_traking_port",
        "__serving_found",
        "nginx_version",
        "my_served",
        "droplet",
        "x",
        "model",
    ],
)
def test_names_of_others_are_left_alone(name: str) -> None:
    assert misspelt([name], ROLES) == []


def test_names_that_only_look_so_can_be_declared() -> None:
    assert misspelt(["docker_users", "docker_edition"], ROLES, ["docker_users"]) != []
    assert misspelt(["docker_users"], ROLES, ["docker_users"]) == []


def test_every_variable_of_a_role_is_known() -> None:
    names, _ = known(ROLES)
    assert len(names) > 150
    assert misspelt(names, ROLES) == []
