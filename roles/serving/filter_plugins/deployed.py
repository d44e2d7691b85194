"""Filters about what runs beside what is declared: entries that cannot be served, services that nobody declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Labels = Mapping[str, str]
Services = Mapping[str, Labels]


def bad_services(checked: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The service of every entry that cannot be served as the registry is, with the reason.

    A challenger that does not exist is no mistake, and a server that is busy says nothing about a model.
    """
    return {
        entry["service"]: f"{entry['name']}: {found['problem']}"
        for entry, found in zip(wanted, checked, strict=True)
        if found["problem"] and not found.get("busy") and (found["found"] or entry["required"])
    }


def unknown_entries(
    checked: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]], services: Services
) -> list[str]:
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


def changes(
    rollout: Mapping[str, Any],
    deployments: Sequence[Mapping[str, Any]],
    failed: list[str],
    before: Services,
    *,
    dry: bool = False,
) -> str:
    """What a rollout did, or would do, in one line: `digits 1 -> 2 (2 replicas, 31 s), iris unchanged`."""
    said = [change(item, rollout, failed, before.get(item["service"]) or {}) for item in deployments]
    said += [
        f"{title(before.get(name) or {}, name)} {version(before.get(name) or {}) or ''} removed".replace("  ", " ")
        for name in rollout["removed"]
    ]
    moved = [text for text in said if not text.endswith("unchanged")]
    same = [text.removesuffix(" unchanged") for text in said if text.endswith("unchanged")]
    parts = moved + ([f"{', '.join(same)} unchanged"] if same else [])
    return ("A run would do: " if dry else "") + (", ".join(parts) or "nothing is served")


def change(item: Mapping[str, Any], rollout: Mapping[str, Any], failed: list[str], before: Labels) -> str:
    """What became of one entry."""
    name = item["name"] + (" (challenger)" if item.get("challenger") else "")
    state = rollout["services"].get(item["service"]) or {}
    old, new = version(before), str(item["version"])
    if item["service"] in failed:
        now = version(state.get("labels") or {}) if state else old
        what = f"{new} failed" if new else "failed"
        return f"{name} {what}, {f'{now} goes on' if now and state.get('serving', True) else 'is not served'}"
    if not state.get("changed"):
        return f"{name} unchanged"
    count = "1 replica" if item["replicas"] == 1 else f"{item['replicas']} replicas"
    took = f", {round(state['seconds'])} s" if "seconds" in state else ""
    way = f"{old} -> {new}" if old and old != new else f"{new} changed" if old else f"{new} is new"
    return f"{name} {way} ({count}{took})"


def version(labels: Labels) -> str:
    """The version that a service says it serves."""
    return labels.get("mlflow-anywhere.version", "")


def title(labels: Labels, service: str) -> str:
    """What a service is called by those who declared it."""
    return labels.get("mlflow-anywhere.name", service) + (" (challenger)" if service.endswith("--challenger") else "")


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Map filter names to functions, as Ansible asks for it."""
        return {
            "bad_services": bad_services,
            "changes": changes,
            "running_services": running_services,
            "undeclared": undeclared,
            "unknown_entries": unknown_entries,
        }
