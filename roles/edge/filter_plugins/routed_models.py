"""Filter `routed_models`: what the edge routes, which is what runs and what is declared besides."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

Model = dict[str, Any]
# What of a model decides how it is routed.
KEYS = ("name", "service", "engine", "replicas", "port")
NEEDED = ("name", "service", "engine", "replicas")


def entry_of(labels: Mapping[str, str]) -> Model | None:
    """What a service of a model says of itself, None if it is none or was made by an earlier release that said less."""
    try:
        entry = json.loads(labels.get("mlflow-anywhere.entry", ""))
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and all(entry.get(key) for key in NEEDED) else None


def routed_models(
    declared: list[Model],
    services: Mapping[str, Mapping[str, str]],
    platform_name: str = "mlflow-anywhere",
    reserved_ports: Iterable[int] = (),
    bad: Iterable[str] = (),
) -> list[Model]:
    """Every model that runs as it runs, and every other one that is declared, by name. One of `bad` services that does not run gets no route.

    So a route ends when its service is gone, changes when its service has changed, and the order of the list decides nothing.
    """
    running = {
        name: entry
        for name, labels in services.items()
        if labels.get("mlflow-anywhere.platform") == platform_name and (entry := entry_of(labels))
    }
    refused = set(bad)
    models = {
        model["service"]: routed(model, model["challenger"], model["challenger_service"])
        for model in declared
        if model["service"] not in refused
    }
    for name, entry in running.items():
        second = f"{name}--challenger"
        if not entry.get("challenger"):
            models[name] = routed(entry, running.get(second), second)
    return without_twins([models[name] for name in sorted(models)], declared, set(reserved_ports))


def model_networks(routes: list[Model], declared: list[Model], bad: Iterable[str] = ()) -> list[str]:
    """The networks that models need, each named like its service: of all that is routed, and of challengers that are about to start."""
    names = {model["service"] for model in routes} | {model["challenger_service"] for model in routes}
    names |= {model["challenger_service"] for model in declared if model["challenger"]} - set(bad)
    return sorted(name for name in names if name)


def routed(model: Model, challenger: Model | None, service: str | None) -> Model:
    """What of a model the edge needs to know."""
    percent = (challenger or {}).get("percent")
    return {key: model.get(key) for key in KEYS} | {
        "challenger": {"percent": percent} if percent else None,
        "challenger_service": service if percent else None,
    }


def without_twins(models: list[Model], declared: list[Model], reserved: set[int]) -> list[Model]:
    """The models, each port once: who declares it has it, and what merely runs gives it up."""
    named = {model["service"]: model["port"] for model in declared}
    taken = set(reserved)
    for name, port in named.items():
        if any(model["service"] == name and model["port"] == port for model in models):
            taken.add(port)
    kept = []
    for model in models:
        port = model["port"]
        if port and port in taken and named.get(model["service"]) != port:
            kept.append(model | {"port": None})
            continue
        kept.append(model)
        taken.add(port)
    return kept


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        return {"model_networks": model_networks, "routed_models": routed_models}
