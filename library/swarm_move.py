#!/usr/bin/python
"""Move the replicas of Docker Swarm services between nodes without a moment that has fewer of them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_move
short_description: Move replicas of services off a node, or back onto one
description:
  - Draining a node by its availability alone ends its replicas before others have started. This module has them replaced first, so that clients notice
    nothing, even those of a service with one replica.
  - The engine never moves a replica that runs. This module evens them out, after a host came back for instance, by starting one more and taking one
    from the fullest node.
options:
  state:
    description:
      - V(vacated), no replica runs on O(node) and none is started there.
      - V(active), O(node) may run replicas.
      - V(even), no node has two replicas of a service more than another one that may run it.
    type: str
    choices: [vacated, active, even]
    required: true
  node:
    description: Id of the node.
    type: str
  labels:
    description: Services with all these labels are moved with care. What else runs on a vacated node, the engine moves by itself.
    type: dict
    required: true
  timeout:
    description: Seconds that the move of one service may take.
    type: int
    default: 300
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Take a host out of service
  swarm_move:
    state: vacated
    node: "{{ node_id }}"
    labels: {role: model}
"""

RETURN = r"""
moved:
  description: Names of the services whose replicas moved.
  returned: always
  type: list
  elements: str
"""

import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.engine import Engine, EngineError, socket_path

if TYPE_CHECKING:
    from collections.abc import Callable

JSON = dict[str, Any]
POLL_SECONDS = 0.5
UNDER_WAY = ("updating", "rollback_started")
# The engine writes a service as well, while it updates it.
ATTEMPTS = 10


class MoveError(Exception):
    """The replicas cannot be moved."""


def may_run(node: JSON, service: JSON) -> bool:
    """Tell whether the engine may start a replica of a service on a node, as far as state and labels say."""
    if node["Status"]["State"] != "ready" or node["Spec"]["Availability"] != "active":
        return False
    labels = node["Spec"].get("Labels") or {}
    facts = {f"node.labels.{key}": value for key, value in labels.items()}
    facts |= {
        "node.id": node["ID"],
        "node.role": node["Spec"]["Role"],
        "node.hostname": node["Description"]["Hostname"],
    }
    for constraint in (service["Spec"]["TaskTemplate"].get("Placement") or {}).get("Constraints") or []:
        equal = "!=" not in constraint
        key, _, value = constraint.partition("==" if equal else "!=")
        if (facts.get(key.strip()) == value.strip()) != equal:
            return False
    return True


class Mover:
    """What is asked of a manager, and the moves."""

    def __init__(self, api: Any, params: JSON, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self.api = api
        self.params = params
        self.clock = clock
        self.sleep = sleep

    def services(self) -> list[JSON]:
        """The services that are moved with care, by name."""
        wanted = self.params["labels"].items()
        found = [
            service
            for service in self.api.get("/services") or []
            if wanted <= (service["Spec"].get("Labels") or {}).items()
            and "Replicated" in (service["Spec"].get("Mode") or {})
        ]
        return sorted(found, key=lambda service: str(service["Spec"]["Name"]))

    def running(self, service_id: str) -> Counter[str]:
        """How many healthy replicas of a service each node runs that are to go on."""
        chosen = urlencode({"filters": json.dumps({"service": [service_id]})})
        return Counter(
            str(task["NodeID"])
            for task in self.api.get(f"/tasks?{chosen}") or []
            if task["Status"]["State"] == "running" and task["DesiredState"] == "running"
        )

    def change(self, service_id: str, change: Callable[[JSON], None]) -> None:
        """Change the specification of a service; the credentials that it has stay."""
        for attempt in range(ATTEMPTS):
            service = self.api.get(f"/services/{service_id}")
            change(service["Spec"])
            options = urlencode({"version": service["Version"]["Index"], "registryAuthFrom": "spec"})
            try:
                self.api.post(f"/services/{service_id}/update?{options}", service["Spec"])
            except EngineError as error:
                if "out of sequence" not in str(error) or attempt == ATTEMPTS - 1:
                    raise
                self.sleep(POLL_SECONDS)
            else:
                return

    def settle(self, service: JSON, replicas: int, node: str = "") -> None:
        """Wait until so many replicas are healthy, none of them on `node`, and no update is under way."""
        name = service["Spec"]["Name"]
        until = self.clock() + self.params["timeout"]
        while True:
            state = str(((self.api.get(f"/services/{service['ID']}") or {}).get("UpdateStatus") or {}).get("State", ""))
            counts = self.running(service["ID"])
            if state not in UNDER_WAY and counts.total() == replicas and not counts[node]:
                return
            if state in ("paused", "rollback_paused", "rollback_completed") and node:
                raise MoveError(f"{name} does not get healthy elsewhere ({state}); its replicas stay where they are")
            if self.clock() > until:
                raise MoveError(
                    f"{counts.total()} of {replicas} replicas of {name} are healthy after {self.params['timeout']} seconds"
                )
            self.sleep(POLL_SECONDS)

    def node(self) -> JSON:
        """The node that the task names."""
        found: JSON | None = self.api.get(f"/nodes/{self.params['node']}")
        if found is None:
            raise MoveError(f"the Swarm has no node {self.params['node']}")
        return found

    def set_availability(self, availability: str) -> bool:
        """Say what the engine may do with the node; tell whether that is new."""
        node = self.node()
        if node["Spec"]["Availability"] == availability:
            return False
        spec = node["Spec"] | {"Availability": availability}
        self.api.post(f"/nodes/{node['ID']}/update?{urlencode({'version': node['Version']['Index']})}", spec)
        return True

    def vacate(self, *, check_mode: bool) -> tuple[bool, list[str]]:
        """Have all replicas of a node started elsewhere, then end those that are there."""
        node = self.node()
        here = [service for service in self.services() if self.running(service["ID"])[node["ID"]]]
        names = [str(service["Spec"]["Name"]) for service in here]
        if node["Spec"]["Availability"] == "drain" and not here:
            return False, []
        others = [other for other in self.api.get("/nodes") if other["ID"] != node["ID"]]
        for service in here:
            if not any(may_run(other, service) for other in others):
                raise MoveError(f"no other host may run {service['Spec']['Name']}; nothing was changed")
        if check_mode:
            return True, names
        # Nothing new is started here, and what is here goes on.
        self.set_availability("pause")

        def replace(spec: JSON) -> None:
            template = spec["TaskTemplate"]
            template["ForceUpdate"] = int(template.get("ForceUpdate") or 0) + 1

        for service in here:
            self.change(service["ID"], replace)
            self.settle(service, int(service["Spec"]["Mode"]["Replicated"]["Replicas"]), node["ID"])
        self.set_availability("drain")
        return True, names

    def even(self, *, check_mode: bool) -> tuple[bool, list[str]]:
        """Even the replicas of each service out."""
        moved = []
        for service in self.services():
            replicas = int(service["Spec"]["Mode"]["Replicated"]["Replicas"])
            allowed = [node["ID"] for node in self.api.get("/nodes") if may_run(node, service)]
            for _ in range(replicas):
                counts = self.running(service["ID"])
                shares = [counts[node] for node in allowed]
                if counts.total() != replicas or not shares or max(shares) - min(shares) < 2:  # noqa: PLR2004
                    break
                moved.append(str(service["Spec"]["Name"]))
                if check_mode:
                    break
                self.scale(service, replicas + 1)
                self.scale(service, replicas)
        return bool(moved), sorted(set(moved))

    def scale(self, service: JSON, replicas: int) -> None:
        """Run so many replicas."""

        def set_replicas(spec: JSON) -> None:
            spec["Mode"]["Replicated"]["Replicas"] = replicas

        self.change(service["ID"], set_replicas)
        self.settle(service, replicas)


def move(
    api: Any,
    params: JSON,
    *,
    check_mode: bool,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> JSON:
    """Do what the task asks for and return the module's result."""
    mover = Mover(api, params, clock, sleep)
    if params["state"] == "active":
        changed = mover.node()["Spec"]["Availability"] != "active"
        if changed and not check_mode:
            mover.set_availability("active")
        return {"changed": changed, "moved": []}
    changed, moved = (mover.vacate if params["state"] == "vacated" else mover.even)(check_mode=check_mode)
    return {"changed": changed, "moved": moved}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["vacated", "active", "even"], "required": True},
            "node": {"type": "str"},
            "labels": {"type": "dict", "required": True},
            "timeout": {"type": "int", "default": 300},
        },
        required_if=[("state", "vacated", ["node"]), ("state", "active", ["node"])],
        supports_check_mode=True,
    )
    try:
        module.exit_json(**move(Engine(socket_path()), module.params, check_mode=module.check_mode))
    except (EngineError, MoveError) as error:
        module.fail_json(msg=f"The replicas cannot be moved: {error}")


if __name__ == "__main__":
    main()
