"""Filters about what runs beside what is declared: entries that cannot be served, services that nobody declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Labels = Mapping[str, str]
Services = Mapping[str, Labels]


def bad_services(checked: list[Mapping[str, Any]], wanted: list[Mapping[str, Any]]) -> dict[str, str]:
    """The service of every entry that cannot be served as the registry is, with the reason. A challenger that does not exist is no mistake."""
    return {
        entry["service"]: f"{entry['name']}: {found['problem']}"
        for entry, found in zip(wanted, checked, strict=True)
        if found["problem"] and (found["found"] or entry["required"])
    }


def unknown_entries(checked: list[Mapping[str, Any]], wanted: list[Mapping[str, Any]], services: Services) -> list[str]:
    """The names of the entries that name what is neither in the registry nor served: mistakes in the list itself.

    What is served and then goes from the registry is that model's failure, as all is that the registry holds.
    """
    return [
        entry["name"]
        for entry, found in zip(wanted, checked, strict=True)
        if not found["found"] and entry["required"] and not serves(services.get(entry["service"]) or {}, entry)
    ]


def serves(labels: Labels, entry: Mapping[str, Any]) -> bool:
    """Whether a service runs what the entry names."""
    return all(labels.get(f"mlflow-anywhere.{key}") == entry[key] for key in ("model", "alias"))


def undeclared(services: Services, labels: Labels, declared: list[str]) -> list[str]:
    """The names of the services with these labels that are not declared."""
    return sorted(
        name for name, found in services.items() if set(labels.items()) <= set(found.items()) and name not in declared
    )


def running_services(rollout: Mapping[str, Any]) -> dict[str, Labels]:
    """The labels of the services that are there after a rollout."""
    states = {**rollout["kept"], **rollout["services"]}
    return {name: state["labels"] for name, state in states.items() if state.get("labels")}


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Map filter names to functions, as Ansible asks for it."""
        return {
            "bad_services": bad_services,
            "running_services": running_services,
            "undeclared": undeclared,
            "unknown_entries": unknown_entries,
        }
