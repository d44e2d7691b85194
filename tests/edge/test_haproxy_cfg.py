"""haproxy.cfg as the role renders it: what must be in it, and what must not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.templates import ROLES, text_renderer

from .conftest import MODELS, Render


def section(config: str, title: str) -> str:
    """The lines of one section."""
    match = re.search(rf"^{re.escape(title)}\b.*?(?=^\S|\Z)", config, re.MULTILINE | re.DOTALL)
    assert match, f"there is no section {title!r}"
    return match.group()


@pytest.fixture(scope="module")
def config(render: Render) -> str:
    return render("haproxy.cfg.j2")


def test_every_model_has_a_backend_of_its_own(config: str) -> None:
    backends = re.findall(r"^backend (\S+) from base", config, re.MULTILINE)
    assert backends == ["tracking", "model-digits", "model-digits--challenger", "model-iris"]
    assert " mlflow-anywhere-model-iris:8080 " in section(config, "backend model-iris")
    assert " mlflow-anywhere-model-digits--challenger:8080 " in section(config, "backend model-digits--challenger")


def test_who_hangs_is_out_of_rotation_within_three_seconds(config: str) -> None:
    """Just after an answer it stops: the next check is one interval away, and each has to time out."""
    backends = [name for name in re.findall(r"^backend (\S+) from base", config, re.MULTILINE) if name != "clients"]
    for backend in backends:
        text = section(config, f"backend {backend}")
        usual = re.search(r"timeout check (\d+)ms", section(config, "defaults base"))
        own = re.search(r"timeout check (\d+)ms", text) or usual
        check = re.search(r" check inter (\d+)ms fastinter (\d+)ms .*? fall (\d+) ", text)
        assert own, backend
        assert check, backend
        timeout, (inter, fast, fall) = int(own[1]), map(int, check.groups())
        assert inter + timeout + (fall - 1) * (fast + timeout) <= 3000, backend


def test_there_are_slots_for_old_and_new_replicas(config: str) -> None:
    for name, slots in (("iris", 4), ("digits", 6)):
        assert f"server-template m {slots} " in section(config, f"backend model-{name}")


def test_a_challenger_gets_its_share_only_while_it_is_healthy(config: str) -> None:
    rule = "if { var(txn.model) -m str digits } { nbsrv(model-digits--challenger) gt 0 } { rand(100) lt 10 }"
    assert f"use_backend model-digits--challenger {rule}" in config
    assert "model-iris--challenger" not in config


def test_every_port_is_bound_once(config: str) -> None:
    # Where clients come in, the kernel's short patience with servers does not hold.
    bound = re.findall(r"^  bind (.*)$", config, re.MULTILINE)
    assert bound == [":5000 tcp-ut 30s", ":8000 tcp-ut 30s", ":9201 tcp-ut 30s", ":8404"]


def test_a_port_of_its_own_belongs_to_its_model(config: str) -> None:
    assert "set-var(txn.model) str(digits) if { dst_port 9201 } !{ path_beg /models/ }" in config
    assert "dst_port 8000" in config


def test_without_a_default_model_no_path_stands_without_a_name(render: Render) -> None:
    config = render("haproxy.cfg.j2", serving_default_model="")
    assert "acl bare" not in config
    assert "dst_port 8000" not in config


def test_only_the_engine_mlflow_lacks_paths(config: str, render: Render) -> None:
    assert "acl plain var(txn.model) -m str iris\n" in config
    assert "acl plain" not in render("haproxy.cfg.j2", served_models=[MODELS[1]])


def test_without_models_everything_else_works(render: Render) -> None:
    config = render("haproxy.cfg.j2", served_models=[], serving_default_model="")
    assert "served_models is empty" in config
    assert "backend model-" not in config
    assert "backend tracking from base" in config


def test_nothing_is_sent_to_mlflow_twice(config: str) -> None:
    tracking = section(config, "backend tracking")
    assert "disable-l7-retry unless METH_GET" in tracking
    assert re.findall(r"retry-on (.*)", tracking) == ["conn-failure"]
    assert "option http-server-close" in tracking
    assert "redispatch" not in tracking


def test_predictions_may_be_sent_to_another_server(config: str) -> None:
    model = section(config, "backend model-iris")
    assert "retry-on conn-failure empty-response 503" in model
    assert "option redispatch" in model


def test_ready_is_who_can_ask_the_database(config: str) -> None:
    tracking = section(config, "backend tracking")
    assert "meth GET uri /ready" in tracking
    assert "http-check expect status 200" in tracking


@pytest.mark.parametrize(
    "path",
    ["/ajax-api/3.0/mlflow/assistant", "/ajax-api/3.0/jobs", "/api/3.0/jobs", "/metrics", "/docs", "/openapi.json"],
)
def test_what_mlflow_should_not_show_is_denied(config: str, path: str) -> None:
    tracking = section(config, "frontend tracking")
    assert re.search(
        rf"^  acl tracking_denied var\(txn.path\) -m (beg|str) .*{re.escape(path)}( |$)", tracking, re.MULTILINE
    )
    assert re.search(r"^  http-request return status 403 .* if  tracking_denied$", tracking, re.MULTILINE)
    assert "url_dec,regsub(//+,/,g),lower" in section(config, "defaults public")


def test_limits_follow_their_variables(render: Render) -> None:
    limits = {"edge_model_max_body": 1024, "edge_model_timeout": 7, "edge_header_timeout": 3, "edge_client_share": 50}
    config = render("haproxy.cfg.j2", **limits)
    assert "{ req.body_size gt 1024 }" in section(config, "frontend models")
    assert "set-var(txn.most) int(10737418240) if  METH_PUT" in section(config, "frontend tracking")
    assert "{ sc2_conn_cur gt 50 }" in section(config, "backend model-iris")
    assert "{ sc2_conn_cur gt 100 }" in section(config, "backend model-digits")
    assert "timeout server 7s" in section(config, "defaults base")
    assert "timeout http-request 3s" in section(config, "defaults base")
    assert config.count("wait-for-body time 3s") == 2
    assert "did not answer within 7 seconds" in config


def test_no_server_means_503_with_retry_after(config: str) -> None:
    for line in re.findall(r"http-error status 503.*", config):
        assert line.endswith("hdr Retry-After 5")
    for backend in ("tracking", "model-iris", "model-digits", "model-digits--challenger"):
        assert "http-error status 503" in section(config, f"backend {backend}")


def test_clients_cannot_say_who_they_are(config: str) -> None:
    public = section(config, "defaults public")
    assert public.index("del-header ^(forwarded|x-forwarded-.*|x-real-ip)$") < public.index(
        "set-header X-Forwarded-For %[src]"
    )


def test_only_known_host_names_are_served(render: Render) -> None:
    public = section(
        render("haproxy.cfg.j2", platform_host_name="ML.example.com", platform_bind_address="10.0.0.5"),
        "defaults public",
    )
    assert "host_only,lower -m str ml.example.com 10.0.0.5 localhost 127.0.0.1 [::1] edge }" in public


def test_the_internal_port_tells_clients_nothing(config: str) -> None:
    assert "prometheus-exporter" not in section(config, "frontend models") + section(config, "frontend tracking")
    assert "prometheus-exporter" in section(config, "frontend internal")


def test_versions_are_not_in_the_configuration(config: str) -> None:
    assert "map_str(/edge/versions.map,none)" in config


def test_messages_are_json(config: str) -> None:
    import json

    bodies = re.findall(r"lf-string '(\{.*?\})'", config)
    assert len(bodies) > 15
    for body in bodies:
        assert {"error_code", "message"} <= set(json.loads(body))


PUBLIC = {
    "platform_public_addresses": ["0.0.0.0"],
    "platform_public_names": ["ml.example.com", "198.51.100.7", "2001:db8::7"],
    "platform_auth": True,
    "edge_tls": "acme",
}


def test_the_public_port_has_the_same_rules_as_those_of_the_host(render: Render, tmp_path: Path) -> None:
    config = render("haproxy.cfg.j2", **PUBLIC, platform_secrets_dir=str(tmp_path))

    def rules(title: str) -> list[str]:
        lines = [
            line.replace("!to_models", "").replace("to_models", "") for line in section(config, title).splitlines()[1:]
        ]
        return [
            " ".join(line.split()).removesuffix(" if") for line in lines if not line.lstrip().startswith(("#", "bind"))
        ]

    own = rules("frontend tracking") + rules("frontend models")
    missing = [line for line in own if line not in rules("frontend everybody")]
    # What the roots of own ports and the default model are for has no place on a port that MLflow shares, which counts guesses by address.
    elsewhere = r"dst_port|\bbare\b|typed_port|\{ path / \}|guess|sc_gpc_rate\(0|sc-inc-gpc\(0"
    assert [line for line in missing if not re.search(elsewhere, line)] == []


def test_names_of_the_public_addresses_are_allowed_hosts(render: Render, tmp_path: Path) -> None:
    config = render("haproxy.cfg.j2", **PUBLIC, platform_secrets_dir=str(tmp_path))
    assert "ml.example.com 198.51.100.7 [2001:db8::7] }" in section(config, "defaults public")


def test_without_public_addresses_there_is_no_tls(config: str) -> None:
    assert " ssl " not in config
    assert "frontend everybody" not in config
    assert "frontend plain" not in config


@pytest.mark.parametrize("auth", [True, False])
def test_who_signs_in_is_asked_where_the_inventory_says_so(render: Render, tmp_path: Path, auth: bool) -> None:
    config = render("haproxy.cfg.j2", platform_auth=auth, platform_secrets_dir=str(tmp_path))
    assert ("status 401" in section(config, "frontend tracking")) == auth
    assert ("status 401" in section(config, "frontend models")) == auth


def test_the_edge_and_mlflow_know_the_same_origins() -> None:
    names = {"platform_public_names": ["ml.example.com", "2001:db8::1"], "platform_https_port": 8443}
    expected = [
        "http://localhost:5000",
        "http://127.0.0.1:5000",
        "https://ml.example.com:8443",
        "https://[2001:db8::1]:8443",
    ]
    extra = {"tracking_extra_origins": ["https://wiki.example.com"], **names}
    allowed = [*expected, "https://wiki.example.com"]
    told = text_renderer("tracking", **extra)("{{ __tracking_environment.MLFLOW_SERVER_CORS_ALLOWED_ORIGINS }}")
    assert told.split(",") == allowed
    rule = text_renderer("edge", **extra)("{{ __platform_tracking_origins | join(' ') }}")
    assert rule.split() == allowed
    assert "__platform_tracking_origins" in (ROLES / "edge/templates/haproxy_tracking.j2").read_text()
