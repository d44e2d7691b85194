"""Bad input: one clear message that names variable, value, what is allowed and the way out, and no change."""

from __future__ import annotations

from typing import Any

import pytest
from instance import Instance

REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown key": (
        {"served_models": [{"name": "iris", "aliass": "x"}]},
        ["served_models[0] ('iris'): there is no key 'aliass'", "Allowed: name, model, alias", "Edit served_models in"],
    ),
    "wrong type": (
        {"served_models": [{"name": "iris", "replicas": "two"}]},
        ["served_models[0] ('iris'): replicas is 'two'", "Allowed: 1 to"],
    ),
    "two models on one port": (
        {"served_models": [{"name": "a", "port": 9300}, {"name": "b", "port": 9300}]},
        ["served_models[1] ('b'): port 9300 belongs to served_models[0] ('a')"],
    ),
    "a model on the port of the tracking server": (
        {"served_models": [{"name": "a", "port": 5000}]},
        ["served_models[0] ('a')", "5000"],
    ),
    "a default model that is not served": (
        {"served_models": [{"name": "a"}], "serving_default_model": "b"},
        ['serving_default_model is "b"', "(a)"],
    ),
    "type of a role's variable": ({"tracking_workers": "many"}, ["tracking_workers", "many", "int"]),
    "engine too old": ({"docker_minimum_version": "99"}, ["99 or newer is needed", "apt-get install --only-upgrade"]),
    "too little disk": ({"docker_minimum_disk": 99999999}, ["docker_minimum_disk is 99999999 MiB", "docker system df"]),
    "too little memory": ({"docker_minimum_memory": 99999999}, ["docker_minimum_memory is 99999999 MiB", "swapon"]),
    "short password": ({"postgres_password": "short"}, ["postgres_password"]),
    "name that breaks SQL": ({"postgres_user": 'x"; DROP'}, ["postgres_user", "lower-case letters"]),
    "unknown key of the artifact store": (
        {"platform_secure_logging": False, "tracking_s3": {"bucket": "b", "key": "k"}},
        ["tracking_s3", "endpoint_url"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_before_anything_changes(instance: Instance, case: str) -> None:
    variables, words = REFUSED[case]
    message = instance.refusal(**variables)
    assert [word for word in words if word not in message] == [], message


def test_a_taken_port_is_named_with_its_process(instance: Instance) -> None:
    instance.sh("systemd-run --quiet --unit squatter python3 -m http.server 8000 --bind 127.0.0.1")
    try:
        instance.sh("for i in $(seq 50); do ss -ltn | grep -q 127.0.0.1:8000 && exit; sleep 0.1; done; exit 1")
        message = instance.refusal()
        assert "Port 8000 on 127.0.0.1 is taken by process" in message
        assert "python3 -m http.server 8000" in message
        assert "platform_models_port (8000)" in message
        # Another port is a way out.
        assert instance.converge(platform_models_port=8001).changed == 0
    finally:
        instance.sh("systemctl stop squatter")


def test_an_unsupported_distribution_without_an_engine_is_refused(instance: Instance) -> None:
    instance.sh("systemctl stop docker.socket docker")
    try:
        message = instance.refusal(docker_distributions={"Debian": ["99"]})
        assert "Debian 12" in message
        assert '"99"' in message
        assert "Install Docker 20.10 or newer yourself" in message
        assert instance.converge().changed == 0
    finally:
        instance.sh("systemctl start docker")


def test_nothing_was_made(instance: Instance) -> None:
    assert instance.containers() == []
    assert instance.sh("ls /var/lib/mlflow-anywhere 2>/dev/null || true") == ""
