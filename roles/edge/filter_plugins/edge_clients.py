"""Filter `edge_client_problems`: every mistake in the list of clients, in one pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)
NAME_RULE = "1 to 32 lower case letters and digits, single dashes between them"
NAME_LIMIT = 32
SHA256 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
KEY_RULE = f"the name of a key, {NAME_RULE}, or a mapping sha256 with 64 hexadecimal digits"
# The edge knows this client by itself.
RESERVED = "operator"


def good_name(value: object) -> bool:
    """Whether it may name a client or a key."""
    return isinstance(value, str) and len(value) <= NAME_LIMIT and bool(NAME.fullmatch(value))


def hash_of(key: object) -> str | None:
    """The hash that a key is given by; None where it is not given by one."""
    if isinstance(key, Mapping) and set(key) == {"sha256"} and SHA256.fullmatch(str(key["sha256"])):
        return str(key["sha256"]).lower()
    return None


def problems_of(label: str, client: Mapping[str, Any], models: list[str]) -> Iterable[str]:
    """What is wrong with one client, apart from the others."""
    name = client["name"]
    if not good_name(name) or name == RESERVED:
        yield f"{label}: name is {name!a}. Allowed: {NAME_RULE}, and not {RESERVED}."
    for model in client["models"]:
        if model != "*" and model not in models:
            yield f"{label}: there is no model {model!a}. Allowed: '*', {', '.join(models)} (served_models)."
    for key in client["keys"]:
        if not good_name(key) and hash_of(key) is None:
            # What was meant for a key may be one.
            yield f"{label}: one of its keys is neither a name nor a hash. Allowed: {KEY_RULE}."
    rate = client.get("rate")
    if rate is not None and int(rate) < 0:
        yield f"{label}: rate is {rate}. Allowed: 0 (no limit) or more requests per second."


def edge_client_problems(clients: list[Mapping[str, Any]], models: list[str]) -> list[str]:
    """Return a sentence for every mistake."""
    problems: list[str] = []
    names: set[str] = set()
    keys: dict[str, str] = {}
    for index, client in enumerate(clients):
        label = f"edge_api_clients[{index}] ({client['name']!a})"
        problems += problems_of(label, client, models)
        if client["name"] in names:
            problems.append(f"{label}: another client has this name. Allowed: one entry for each, with all its keys.")
        names.add(client["name"])
        for key in client["keys"]:
            # A generated key is a client's own: a-b with c and a with b-c would share a file's name, but for the underscore between them.
            known = hash_of(key) or (f"{client['name']}_{key}" if isinstance(key, str) else "")
            if known and known in keys:
                problems.append(f"{label}: a key of it is also one of {keys[known]}. Allowed: every key once.")
            keys[known] = label
    return problems


class FilterModule:
    """Filters of this role."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        """Map filter names to functions, as Ansible asks for it."""
        return {"edge_client_problems": edge_client_problems}
