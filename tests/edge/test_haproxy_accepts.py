"""HAProxy itself, of the version in the image of the edge, reads haproxy.cfg in every shape that the variables give it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from roles.certificate.files import selfsigned
from tests.checkers import accepted, refused

from .conftest import FILES, MODELS, TABLES, Render

CLIENTS = [
    {"name": "web", "models": ["iris"], "keys": ["k1", {"sha256": "ab" * 32}]},
    {"name": "all", "models": ["*"], "keys": ["k2"], "rate": 5},
]
AUTH = {"platform_auth": True, "edge_api_clients": CLIENTS}
PUBLIC = {
    **AUTH,
    "platform_public_addresses": ["0.0.0.0", "::"],
    "platform_public_names": ["ml.example.com", "198.51.100.7", "2001:db8::7"],
}
SHAPES: dict[str, dict[str, Any]] = {
    "as in the inventory": {},
    "no models": {"served_models": [], "serving_default_model": ""},
    "no default model": {"serving_default_model": ""},
    "the engine mlflow alone": {"served_models": MODELS[:1], "serving_default_model": "iris"},
    "the engine api alone": {"served_models": MODELS[1:]},
    "many models": {
        "served_models": [
            {"name": f"m{number}", "port": 9000 + number, "engine": ("api", "mlflow")[number % 2], "replicas": 9}
            for number in range(120)
        ],
        "serving_default_model": "m7",
        # As the edge asks for it when its pages outgrow the usual one.
        "edge_buffer_size": 2**19,
    },
    "challengers of both engines": {
        "served_models": [{"name": name, "engine": name, "challenger": {"percent": 50}} for name in ("api", "mlflow")],
        "serving_default_model": "",
    },
    "other ports and addresses": {
        "platform_tracking_port": 5001,
        "platform_models_port": 8001,
        "platform_bind_address": "::1",
        "platform_host_name": "ML.example.com",
    },
    "another name": {"platform_name": "ml2", "edge_tracking_address": "tracking2:5000"},
    "limits": {
        "edge_max_connections": 10,
        "edge_model_max_connections": 1,
        "edge_buffer_size": 16384,
        "edge_model_max_body": 1024,
        "edge_tracking_max_body": 2**40,
        "edge_model_timeout": 3600,
        "edge_header_timeout": 1,
        "edge_drain_timeout": 1,
    },
    "sign-in": AUTH,
    "sign-in without clients": {"platform_auth": True},
    "public, selfsigned": {**PUBLIC, "edge_tls": "selfsigned"},
    "public, files": {**PUBLIC, "edge_tls": "files", "platform_https_port": 8443, "platform_http_port": 8080},
    "public, acme": {**PUBLIC, "edge_tls": "acme"},
    "public without models": {**PUBLIC, "edge_tls": "acme", "served_models": [], "edge_api_clients": []},
    "public with rates": {
        **PUBLIC,
        "edge_tls": "files",
        "edge_client_rate": 0,
        "edge_address_rate": 1,
        "edge_address_connections": 1,
        "edge_failed_logins": 1,
        "edge_hsts_seconds": 0,
    },
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A certificate with its chain and key in one file, as the role `certificate` leaves it from each of its sources."""
    place = tmp_path_factory.mktemp("certificate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selfsigned, "STATE", place)
        patch.setattr(selfsigned, "CERTIFICATE", place / "edge.pem")
        patch.setattr(sys, "argv", ["selfsigned.py", "always", "ml.example.com"])
        selfsigned.main()
    return (place / "edge.pem").read_text()


def written(render: Render, place: Path, shape: dict[str, Any], certificate: str) -> str:
    """Write the directory of the edge as the role does; gives the configuration."""
    given = {**shape, "platform_secrets_dir": str(place / "secrets"), "edge_catalogue": "{{ __edge_empty_catalogue }}"}
    for name in (*FILES, *(TABLES if shape.get("platform_auth") else ())):
        (place / name).write_text(render(f"{name}.j2", **given))
    if shape.get("edge_tls"):
        (place / "certificates").mkdir()
        (place / "certificates/edge.pem").write_text(certificate)
    config = render("haproxy.cfg.j2", **given)
    (place / "candidate.cfg").write_text(config)
    return config


@pytest.mark.parametrize("shape", SHAPES)
def test_haproxy_accepts_every_shape(render: Render, tmp_path: Path, certificate: str, shape: str) -> None:
    written(render, tmp_path, SHAPES[shape], certificate)
    said = accepted("haproxy", "-c", "-f", "/edge/candidate.cfg", places={"/edge": tmp_path})
    # The program is set apart from every network, the engine's name server included.
    warnings = [line for line in said.splitlines() if "[WARNING]" in line and "can't connect socket" not in line]
    assert warnings == []


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("default_backend tracking", "default_backend trucking", "trucking"),
        ("-m str iris", "-m strr iris", "strr"),
        ("map_str(/edge/grants.map)", "map_str(/edge/grunts.map)", "grunts.map"),
        ("crt /edge/certificates/edge.pem", "crt /edge/certificates/egde.pem", "egde.pem"),
    ],
)
def test_haproxy_refuses_a_mistake(
    render: Render, tmp_path: Path, certificate: str, right: str, wrong: str, said: str
) -> None:
    """The net holds: names, words, tables and certificates are looked at."""
    config = written(render, tmp_path, SHAPES["public, acme"], certificate)
    assert right in config
    (tmp_path / "candidate.cfg").write_text(config.replace(right, wrong))
    assert said in refused("haproxy", "-c", "-f", "/edge/candidate.cfg", places={"/edge": tmp_path})


def test_haproxy_accepts_the_configuration_of_a_way_out(tmp_path: Path) -> None:
    config = (Path(__file__).parents[2] / "roles/edge/files/egress.cfg").read_text()
    for name, value in {"PORTS": ":443,:5432", "FROM": "10.118.0.0/16", "HOST": "db.example.com"}.items():
        config = config.replace(f"${{EGRESS_{name}}}", value)
    (tmp_path / "candidate.cfg").write_text(config)
    said = accepted("haproxy", "-c", "-f", "/edge/candidate.cfg", places={"/edge": tmp_path})
    assert [line for line in said.splitlines() if "[WARNING]" in line and "can't connect socket" not in line] == []
