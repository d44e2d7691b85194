"""Filter `misspelt`: variables that look like the platform's and are none, each with the one that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# What an inventory says for several roles at once.
SHARED = ("served_models", "serving_default_model")
# So much do two names have in common of which one may be a slip of the other.
CLOSE = 0.86
# What no role of this repository can be: Ansible's own variables, and what is internal.
NEVER = ("ansible_", "_")


@cache
def known(roles: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """The names of all variables of the roles in a directory, and what they begin with."""
    names = set(SHARED)
    prefixes = []
    for path in sorted(Path(roles).glob("*/meta/argument_specs.yml")):
        prefixes.append(f"{path.parents[1].name}_")
        specs = yaml.load(path.read_text(), Loader=Loader)["argument_specs"]  # noqa: S506 - a safe loader in either form
        for entry in specs.values():
            names |= set(entry.get("options") or {})
    return frozenset(names), tuple(prefixes)


def misspelt(given: Iterable[str], roles: str, foreign: Iterable[str] = ()) -> list[str]:
    """One line for each name that begins as a role's variables do, or is close to one, and is none. Those in `foreign` belong to somebody else."""
    names, prefixes = known(roles)
    lines = []
    for name in sorted(set(given) - names - set(foreign)):
        if name.startswith(NEVER):
            continue
        near = difflib.get_close_matches(name, names, n=1, cutoff=CLOSE)
        if near:
            lines.append(f"There is no variable {name}. Is {near[0]} meant?")
        elif name.startswith(prefixes):
            [nearest] = difflib.get_close_matches(name, names, n=1, cutoff=0)
            lines.append(f"There is no variable {name}. The nearest one is {nearest}.")
    return lines


class FilterModule:
    """The filter of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Map the filter's name to its function, as Ansible asks for it."""
        return {"misspelt": misspelt}
