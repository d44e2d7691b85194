#!/usr/bin/python
"""Keep overlay networks that lead nowhere, and put a container on them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: internal_networks
short_description: Keep internal overlay networks of a Docker Swarm, and put a container on them
description:
  - Creates what is missing of some attachable overlay networks that lead nowhere but to each other's members. Each takes the next free /24 of a pool,
    so that their addresses tell them from all other networks. The first /24 of the pool is left for another use.
  - Puts a running container on all of them without interrupting it. A worker learns of a network that a manager has just made only then, and waits for it.
  - Takes the container off networks of the same labels that are no longer wanted, and removes them where the host is a manager.
options:
  networks:
    description: Names of the networks.
    type: list
    elements: str
    required: true
  labels:
    description: Labels of the networks, which tell them from all others.
    type: dict
    required: true
  pool:
    description: IPv4 network, /24 or larger, out of which they take their addresses.
    type: str
    required: true
  container:
    description: Name of the container that is put on the networks. One that is not there is no error.
    type: str
    default: ""
  prune:
    description: Whether networks with these labels that are not in O(networks) are left and removed.
    type: bool
    default: false
  timeout:
    description: Seconds to wait for a network that is to come, and for the last members of one that is to go.
    type: int
    default: 60
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Give each model a network of its own, and the edge a way to it
  internal_networks:
    networks: [model-iris, model-flowers]
    labels: {role: model}
    pool: 10.118.0.0/16
    container: edge
"""

RETURN = r"""
created:
  description: Networks that were created.
  returned: always
  type: list
joined:
  description: Networks that the container was put on.
  returned: always
  type: list
removed:
  description: Networks that the container left, or that were removed.
  returned: always
  type: list
"""

import http
import ipaddress
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.engine import Engine, EngineError, socket_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JSON = dict[str, Any]
PREFIX = 24
POLL_SECONDS = 0.5


class NetworkError(Exception):
    """The networks cannot be made what they should be."""


def subnets(network: JSON) -> list[ipaddress.IPv4Network]:
    """Return the IPv4 addresses of a network."""
    configured = (network.get("IPAM") or {}).get("Config") or []
    texts = [str(config["Subnet"]) for config in configured if config.get("Subnet")]
    return [ipaddress.IPv4Network(text, strict=False) for text in texts if ":" not in text]


def free(pool: str, taken: list[ipaddress.IPv4Network]) -> Iterator[ipaddress.IPv4Network]:
    """Yield the free /24s of a pool but the first."""
    parts = ipaddress.IPv4Network(pool).subnets(new_prefix=PREFIX)
    next(parts)
    for part in parts:
        if not any(part.overlaps(other) for other in taken):
            yield part


class Networks:
    """The networks as the engine knows them, and what is to be changed."""

    def __init__(self, api: Any, params: JSON, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self.api = api
        self.params = params
        self.clock = clock
        self.sleep = sleep
        self.wanted: list[str] = params["networks"]
        self.known: dict[str, JSON] = {network["Name"]: network for network in api.get("/networks") or []}
        swarm = (api.get("/info") or {}).get("Swarm") or {}
        self.manager = bool(swarm.get("ControlAvailable"))

    def missing(self) -> list[str]:
        """The networks to create; a worker creates none."""
        for name in self.wanted:
            if name in self.known and not self.known[name].get("Internal"):
                raise NetworkError(
                    f"there is a network {name} that leads to others. Remove it (docker network rm {name}), then repeat"
                )
        return [name for name in self.wanted if name not in self.known] if self.manager else []

    def create(self, names: list[str]) -> None:
        """Create networks, each with the next free addresses."""
        taken = [subnet for network in self.known.values() for subnet in subnets(network)]
        places = free(self.params["pool"], taken)
        for name in names:
            place = next(places, None)
            if place is None:
                raise NetworkError(
                    f"the pool {self.params['pool']} (platform_internal_pool) has no /24 left for {name}."
                    " Serve fewer models, or build the platform anew with a larger pool"
                )
            self.api.post(
                "/networks/create",
                {
                    "Name": name,
                    "Driver": "overlay",
                    "Scope": "swarm",
                    "Internal": True,
                    "Attachable": True,
                    "Labels": self.params["labels"],
                    "IPAM": {"Driver": "default", "Config": [{"Subnet": str(place)}]},
                },
            )

    def member_of(self) -> set[str] | None:
        """The networks that the container is on; None where it is not there."""
        name = self.params["container"]
        found = self.api.get(f"/containers/{quote(name)}/json") if name else None
        return None if found is None else set((found.get("NetworkSettings") or {}).get("Networks") or {})

    def join(self, names: list[str]) -> None:
        """Put the container on networks, which a worker may not have heard of yet."""
        until = self.clock() + self.params["timeout"]
        for name in names:
            while True:
                try:
                    self.api.post(f"/networks/{quote(name)}/connect", {"Container": self.params["container"]})
                    break
                except EngineError as error:
                    if "already exists in network" in str(error):
                        break
                    # On a busy host a manager may take longer than the engine waits.
                    early = error.status == http.HTTPStatus.NOT_FOUND or "attaching to network failed" in str(error)
                    if not early or self.clock() > until:
                        raise
                self.sleep(POLL_SECONDS)

    def surplus(self) -> list[str]:
        """The networks with the labels that nobody wants any more."""
        labels = self.params["labels"].items()
        return sorted(
            name
            for name, network in self.known.items()
            if self.params["prune"] and name not in self.wanted and labels <= (network.get("Labels") or {}).items()
        )

    def remove(self, names: list[str], member: set[str]) -> None:
        """Leave networks, and remove them as soon as their last members are gone; a network that stays in use stays."""
        for name in names:
            if name in member:
                self.api.post(
                    f"/networks/{quote(name)}/disconnect", {"Container": self.params["container"], "Force": True}
                )
        until = self.clock() + self.params["timeout"]
        for name in names if self.manager else []:
            while not self.removed(name) and self.clock() < until:
                self.sleep(POLL_SECONDS)

    def removed(self, name: str) -> bool:
        """Remove a network; tell whether it is gone."""
        try:
            self.api.ask("DELETE", f"/networks/{quote(name)}")
        except EngineError as error:
            return bool(error.status == http.HTTPStatus.NOT_FOUND)
        return True


def converge(
    api: Any,
    params: JSON,
    *,
    check_mode: bool,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> JSON:
    """Bring the networks to what is declared, or only tell what would change, and return the module's result."""
    networks = Networks(api, params, clock, sleep)
    missing = networks.missing()
    member = networks.member_of()
    joining = [name for name in networks.wanted if member is not None and name not in member]
    surplus = networks.surplus()
    if not check_mode:
        networks.create(missing)
        networks.join(joining)
        networks.remove(surplus, member or set())
    return {
        "changed": bool(missing or joining or surplus),
        "created": missing,
        "joined": joining,
        "removed": surplus,
    }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "networks": {"type": "list", "elements": "str", "required": True},
            "labels": {"type": "dict", "required": True},
            "pool": {"type": "str", "required": True},
            "container": {"type": "str", "default": ""},
            "prune": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**converge(Engine(socket_path()), module.params, check_mode=module.check_mode))
    except (EngineError, NetworkError) as error:
        module.fail_json(msg=f"The internal networks cannot be made: {error}")


if __name__ == "__main__":
    main()
