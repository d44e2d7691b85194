"""What the edge routes: what runs, as it runs, and what is declared besides."""

from __future__ import annotations

import json
from typing import Any

from filter_plugins.served_models import served_models
from roles.edge.filter_plugins.routed_models import model_networks, routed_models

Services = dict[str, dict[str, str]]
PLATFORM = "mlflow-anywhere"


def declared(*entries: dict[str, Any]) -> list[dict[str, Any]]:
    return served_models(list(entries))


def service(name: str, platform: str = PLATFORM, **entry: Any) -> Services:
    """A service as the role serving labels it."""
    full = f"{PLATFORM}-model-{name}"
    said: dict[str, Any] = {
        "name": name,
        "service": full,
        "engine": "mlflow",
        "replicas": 1,
        "port": None,
        "challenger": False,
    } | entry
    return {said["service"]: {"mlflow-anywhere.platform": platform, "mlflow-anywhere.entry": json.dumps(said)}}


def by_name(models: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {model["name"]: model for model in models}


def test_without_services_what_is_declared_is_routed() -> None:
    iris, digits = routed_models(declared({"name": "iris"}, {"name": "digits", "port": 9201}), {})[::-1]
    assert (iris["name"], iris["port"], digits["name"], digits["port"]) == ("iris", None, "digits", 9201)


def test_what_runs_keeps_its_route_whatever_the_list_says() -> None:
    services = service("digits", port=9201, replicas=2, engine="api") | service("old")
    before = routed_models(
        declared({"name": "digits", "port": 9201, "replicas": 2, "engine": "api"}, {"name": "old"}), services
    )
    reduced = routed_models(declared({"name": "digits", "model": "digits@champion"}), services)
    assert reduced == before


def test_the_order_of_the_list_decides_nothing() -> None:
    one, two = {"name": "a"}, {"name": "b"}
    assert routed_models(declared(one, two), {}) == routed_models(declared(two, one), {})


def test_a_model_is_routed_in_the_same_way_before_and_after_it_runs() -> None:
    entry = {"name": "digits", "engine": "api", "replicas": 2, "port": 9201, "challenger": {"percent": 10}}
    challenger = service("digits", service=f"{PLATFORM}-model-digits--challenger", challenger=True, percent=10)
    running = service("digits", engine="api", replicas=2, port=9201) | challenger
    assert routed_models(declared(entry), {}) == routed_models(declared(entry), running)


def test_a_challenger_that_does_not_run_is_not_routed_beside_one_that_does() -> None:
    entry = {"name": "digits", "challenger": {"percent": 10}}
    [model] = routed_models(declared(entry), service("digits"))
    assert (model["challenger"], model["challenger_service"]) == (None, None)


def test_a_challenger_has_its_network_before_it_starts_and_while_it_runs() -> None:
    name, second = f"{PLATFORM}-model-digits", f"{PLATFORM}-model-digits--challenger"
    entry, plain = declared({"name": "digits", "challenger": {"percent": 10}}), declared({"name": "digits"})
    running = service("digits") | service("digits", service=second, challenger=True, percent=10)
    routes = routed_models(entry, service("digits"))
    assert model_networks(routes, entry) == [name, second]
    assert model_networks(routes, entry, bad=[second]) == [name]
    assert model_networks(routed_models(plain, running), plain) == [name, second]
    assert model_networks(routed_models(plain, service("digits")), plain) == [name]


def test_a_challenger_runs_on_until_its_service_is_gone() -> None:
    challenger = service("digits", service=f"{PLATFORM}-model-digits--challenger", challenger=True, percent=30)
    [model] = routed_models(declared({"name": "digits"}), service("digits") | challenger)
    assert model["challenger"] == {"percent": 30}
    assert model["challenger_service"] == f"{PLATFORM}-model-digits--challenger"


def test_services_of_others_and_of_releases_that_said_less_are_not_routed() -> None:
    services = service("other", platform="another")
    services |= {
        "x": {"mlflow-anywhere.platform": PLATFORM},
        "y": {"mlflow-anywhere.platform": PLATFORM, "mlflow-anywhere.entry": "{"},
    }
    services |= {"z": {"mlflow-anywhere.platform": PLATFORM, "mlflow-anywhere.entry": '{"name": "z"}'}}
    assert [model["name"] for model in routed_models(declared({"name": "a"}), services)] == ["a"]


def test_a_port_has_one_model_which_is_who_declares_it() -> None:
    models = by_name(routed_models(declared({"name": "new", "port": 9201}, {"name": "old"}), service("old", port=9201)))
    assert (models["new"]["port"], models["old"]["port"]) == (9201, None)


def test_the_platforms_own_ports_are_never_a_models() -> None:
    [model] = routed_models(declared({"name": "a"}), service("a", port=5000), reserved_ports=[5000])
    assert model["port"] is None


def test_two_models_that_run_on_one_port_do_not_both_have_it() -> None:
    services = service("a", port=9201) | service("b", port=9201)
    models = by_name(routed_models(declared({"name": "a"}, {"name": "b", "port": 9201}), services))
    assert (models["a"]["port"], models["b"]["port"]) == (None, 9201)
    models = by_name(routed_models(declared({"name": "a"}, {"name": "b"}), services))
    assert (models["a"]["port"], models["b"]["port"]) == (9201, None)


def test_what_cannot_be_served_gets_no_route_and_loses_none() -> None:
    entries = declared({"name": "a"}, {"name": "b", "port": 9202})
    bad = [model["service"] for model in entries]
    assert by_name(routed_models(entries, service("a"), bad=bad)).keys() == {"a"}
    assert routed_models(entries, service("a"), bad=bad) == routed_models(entries[:1], service("a"))
