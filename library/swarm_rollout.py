#!/usr/bin/python
"""Declare Docker Swarm services and wait until each runs what it declares, or say why not."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_rollout
short_description: Roll Docker Swarm services out and wait until their replicas are healthy
description:
  - Creates or updates services from specifications in the engine's own terms, so that whatever the engine has can be
    declared, a limit of processes for instance, which M(community.docker.docker_swarm_service) does not know.
  - Waits until all replicas of each service run the declared specification and are healthy and the engine has ended its
    watch over the update. Where that does not happen, the container's last words are returned, and what served before
    goes on serving.
  - A service that never had a healthy replica is removed, instead of restarting for ever.
  - An update of an earlier run that is still under way is awaited, not started again.
  - One service that fails leaves the others alone.
options:
  services:
    description: The services.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the service.
        type: str
        required: true
      spec:
        description:
          - The service as C(POST /services/create) of the engine's API takes it, without its name.
          - C(TaskTemplate.Networks[].Target) may be a name.
        type: dict
        required: true
      timeout:
        description: Seconds that its rollout may take, in place of O(timeout).
        type: int
  prune_labels:
    description:
      - Services with all these labels that are neither in O(services) nor in O(keep) are removed.
      - Nothing is removed without labels.
    type: dict
    default: {}
  keep:
    description: Names of services that are neither changed nor removed.
    type: list
    elements: str
    default: []
  registry:
    description: Address and port of a registry that the nodes get images from. Its credentials go to the nodes with each service.
    type: str
  username:
    description: User of O(registry).
    type: str
  password:
    description: Password of O(username). A label of the services tells a changed one.
    type: str
  timeout:
    description: Seconds that the rollout of one service may take.
    type: int
    default: 300
  give_up_after:
    description: So many failed tasks of one specification end the wait for it.
    type: int
    default: 3
  parallel:
    description: So many services are rolled out at the same time.
    type: int
    default: 3
  log_lines:
    description: Lines of a failed container's log that are returned.
    type: int
    default: 40
  history:
    description:
      - File on the host that remembers which services were ever healthy. One that never was is removed when its rollout fails, whatever interrupted
        the runs before. A missing file is begun with the services that are there.
    type: path
  slice:
    description: Seconds after which the module returns RV(unfinished) and RV(news), to be called again with O(resume). 0 is never.
    type: int
    default: 0
  resume:
    description: What an earlier call returned as RV(unfinished).
    type: dict
    default: {}
  fail:
    description: Whether a service that does not get healthy fails the task. If not, RV(failed_services) names it.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Serve the model
  swarm_rollout:
    services:
      - name: model-iris
        spec:
          Labels: {role: model}
          Mode: {Replicated: {Replicas: 2}}
          TaskTemplate:
            ContainerSpec: {Image: "model-iris:v3", ReadOnly: true}
            Resources: {Limits: {MemoryBytes: 536870912, Pids: 128}}
            Networks: [{Target: backend}]
          UpdateConfig: {Order: start-first, FailureAction: rollback, Monitor: 20000000000}
          EndpointSpec: {Mode: dnsrr}
    prune_labels: {role: model}
"""

RETURN = r"""
services:
  description: What became of each service, by name.
  returned: always
  type: dict
  contains:
    ok:
      description: Whether all replicas run what was declared.
      type: bool
    changed:
      description: Whether it was created or updated.
      type: bool
    reason:
      description: Why it does not run what was declared.
      type: str
    seconds:
      description: How long it took.
      type: float
    serving:
      description: Whether any healthy replica is there.
      type: bool
    image:
      description: Image of the specification now in force, empty where there is no service.
      type: str
    labels:
      description: Labels of the service now in force.
      type: dict
    logs:
      description: Last lines of the container that failed.
      type: str
    health:
      description: Answers of its last health checks.
      type: list
    errors:
      description: What the engine says of the tasks that failed.
      type: list
failed_services:
  description: Names of the services that do not run what was declared.
  returned: always
  type: list
kept:
  description: Image and labels of the services of O(keep) that are there, by name.
  returned: always
  type: dict
removed:
  description: Names of the services that were removed.
  returned: always
  type: list
unfinished:
  description: Where the rollout is, for the next call.
  returned: when O(slice) ended before the rollout
  type: dict
news:
  description: What became of the services since the last call, one line each.
  returned: when O(slice) is set
  type: list
"""

import base64
import hashlib
import http
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.engine import Engine as Api
from ansible.module_utils.engine import EngineError, frames, socket_path

if TYPE_CHECKING:
    from collections.abc import Callable

JSON = dict[str, Any]
# Holds the digest of the declared specification: a rolled back service carries its predecessor's.
SPEC_LABEL = "mlflow-anywhere.spec"
UNDER_WAY = ("updating", "rollback_started")
ENDED_BADLY = ("failed", "rejected")
POLL_SECONDS = 0.5
# How long a rollback that this module asked for may take.
ROLLBACK_SECONDS = 60
# An answer that asking again does not change, as the program of the health check prints it, and so many of them in a row end the wait.
DEFINITE = re.compile(r"1: HTTP/1\.[01] (?:4(?!08|25|29)[0-9]{2}|50[01])\b")
DEFINITE_ANSWERS = 3
# What the number means that a container or its health check ended with.
EXIT_CODES = {
    "-1": "no answer in time",
    "125": "the engine could not start it",
    "126": "its command cannot be run",
    "127": "its command was not found",
    "132": "crashed: this processor lacks an instruction that it needs",
    "134": "crashed: it aborted itself",
    "137": "killed, probably out of memory",
    "139": "crashed: it used memory that is not its own, as code does that was compiled or pickled for another Python",
    "143": "ended from outside",
}
# How much of a health check's answer is shown: its head says which answer it was, its tail names the exception.
HEAD, TAIL = 150, 900
HEALTH_ANSWERS = 2
LONGEST_SHOWN = 120


class Engine(Protocol):
    """What the rollout asks of a Docker engine."""

    def services(self) -> list[JSON]:
        """All services."""
        ...

    def service(self, service_id: str) -> JSON | None:
        """One service, None if it is gone."""
        ...

    def tasks(self, service_id: str) -> list[JSON]:
        """The tasks of a service, the newest first."""
        ...

    def networks(self) -> dict[str, str]:
        """The id of each network by its name."""
        ...

    def create(self, spec: JSON) -> str:
        """Create a service and return its id."""
        ...

    def update(self, service_id: str, version: int, spec: JSON) -> bool:
        """Put a specification into force; False if somebody else was faster."""
        ...

    def remove(self, service_id: str) -> None:
        """Remove a service."""
        ...

    def logs(self, service_id: str, container_id: str, lines: int) -> str:
        """The last lines of a container."""
        ...

    def health(self, container_id: str) -> list[str]:
        """The answers of the last health checks of a container."""
        ...


class DockerEngine:
    """A Docker engine, over its socket."""

    def __init__(self, api: Api, login: dict[str, str] | None = None) -> None:
        self._api = api
        self._headers = (
            {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(login).encode()).decode()} if login else {}
        )

    def services(self) -> list[JSON]:
        """Return all services."""
        return list(self._api.get("/services") or [])

    def service(self, service_id: str) -> JSON | None:
        """Return one service, None if it is gone."""
        found: JSON | None = self._api.get(f"/services/{service_id}")
        return found

    def tasks(self, service_id: str) -> list[JSON]:
        """Return the tasks of a service, the newest first."""
        chosen = urlencode({"filters": json.dumps({"service": [service_id]})})
        return sorted(self._api.get(f"/tasks?{chosen}") or [], key=lambda task: str(task["CreatedAt"]), reverse=True)

    def networks(self) -> dict[str, str]:
        """Return the id of each network by its name."""
        return {network["Name"]: network["Id"] for network in self._api.get("/networks")}

    def create(self, spec: JSON) -> str:
        """Create a service and return its id; somebody else may have done so."""
        try:
            return str(self._api.post("/services/create", spec, self._headers)["ID"])
        except EngineError as error:
            if error.status != http.HTTPStatus.CONFLICT:
                raise
            return str(self._api.get(f"/services/{spec['Name']}")["ID"])

    def update(self, service_id: str, version: int, spec: JSON) -> bool:
        """Put a specification into force; False if somebody else was faster."""
        try:
            self._api.post(f"/services/{service_id}/update?version={version}", spec, self._headers)
        except EngineError as error:
            if "out of sequence" in str(error):
                return False
            raise
        return True

    def remove(self, service_id: str) -> None:
        """Remove a service; somebody else may have done so."""
        try:
            self._api.ask("DELETE", f"/services/{service_id}")
        except EngineError as error:
            if error.status != http.HTTPStatus.NOT_FOUND:
                raise

    def logs(self, service_id: str, container_id: str, lines: int) -> str:
        """Return the last lines of a container on this host, of the service where it is on another one."""
        wanted = f"logs?stdout=1&stderr=1&tail={lines}"
        try:
            raw = self._api.ask("GET", f"/containers/{container_id}/{wanted}")
        except EngineError:
            raw = self._api.ask("GET", f"/services/{service_id}/{wanted}")
        return "".join(text for _, text in frames(raw))

    def health(self, container_id: str) -> list[str]:
        """Return the answers of the last health checks of a container on this host."""
        try:
            state = json.loads(self._api.ask("GET", f"/containers/{container_id}/json"))["State"]
        except EngineError:
            return []
        return [
            f"{entry['ExitCode']}: {shortened(entry['Output'].strip())}"
            for entry in (state.get("Health") or {}).get("Log") or []
        ]


def shortened(text: str) -> str:
    """Return a long text without its middle."""
    return text if len(text) <= HEAD + TAIL else f"{text[:HEAD]} ... {text[-TAIL:]}"


def in_words(text: str) -> str:
    """Return what the engine says of a task or a health check, with what its exit code means."""
    found = re.search(r"non-zero exit \((-?[0-9]+)\)", text) or re.match(r"(-?[0-9]+):", text)
    words = EXIT_CODES.get(found[1], "") if found else ""
    # Quoted line breaks are those of a traceback.
    lines = text.replace("\\r\\n", "\n").replace("\\n", "\n")
    return f"{lines.rstrip(' :')} ({words})" if words else lines


class History:
    """The ids of the services that were ever healthy, in a file of the host."""

    def __init__(self, path: str | None) -> None:
        self.path = Path(path) if path else None
        self.known: list[str] | None = None
        if self.path:
            try:
                self.known = [str(item) for item in json.loads(self.path.read_text())]
            except (OSError, ValueError, TypeError):
                self.known = None

    def begin(self, existing: list[str]) -> None:
        """Begin a history where there is none: nobody knows what served before, so all did."""
        if self.path and self.known is None:
            self._write(self.path, existing)

    def never_served(self, service_id: str) -> bool | None:
        """Tell whether a service was never healthy, None if nobody knows."""
        return None if self.known is None else service_id not in self.known

    def keep(self, served: list[str], existing: list[str]) -> None:
        """Remember those that served, and forget those that are gone."""
        known = sorted({item for item in [*(self.known or []), *served] if item in existing})
        if self.path and known != self.known:
            self._write(self.path, known)

    def _write(self, path: Path, known: list[str]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".new")
        partial.write_text(json.dumps(sorted(known)) + "\n")
        partial.rename(path)
        self.known = sorted(known)


def completed_spec(name: str, spec: JSON, networks: dict[str, str]) -> JSON:
    """Return the specification as the engine keeps it: with name, network ids and a label with its digest."""
    result: JSON = json.loads(json.dumps(spec)) | {"Name": name}
    for network in result["TaskTemplate"].get("Networks") or []:
        network["Target"] = networks.get(network["Target"], network["Target"])
    digest = hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()
    result["Labels"] = (result.get("Labels") or {}) | {SPEC_LABEL: digest}
    return result


def is_in_force(wanted: Any, actual: Any) -> bool:
    """Tell whether everything that is wanted is so; the engine adds defaults and leaves out what is empty."""
    if isinstance(wanted, dict):
        return all(
            is_in_force(value, actual.get(key) if isinstance(actual, dict) else None) for key, value in wanted.items()
        )
    if isinstance(wanted, list) and wanted:
        return isinstance(actual, list) and len(wanted) == len(actual) and all(map(is_in_force, wanted, actual))
    return bool(wanted == actual or (not wanted and not actual))


class Rollout:
    """The way of one service to its declared specification, taken in steps that do not block."""

    def __init__(
        self, engine: Engine, spec: JSON, current: JSON | None, options: JSON, clock: Callable[[], float]
    ) -> None:
        """Remember what is wanted and what there is; nothing is changed yet."""
        self.engine = engine
        self.name = str(spec["Name"])
        self.spec = spec
        if current:
            # How often its tasks were replaced by force, to empty a host for instance, is nothing to undo.
            self.spec["TaskTemplate"].setdefault("ForceUpdate", self._forced(current))
        self.replicas = int(((spec.get("Mode") or {}).get("Replicated") or {}).get("Replicas", 1))
        self.options = options
        self.clock = clock
        self.history: History = options["memory"]
        self.begun = False
        self.running = 0
        self.started = clock()
        self.service_id = str(current["ID"]) if current else ""
        self.sent = False
        self.created = False
        self.seen: set[str] = set()
        self.rollback_until = 0.0
        self.evidence: JSON = {"logs": "", "health": [], "errors": []}
        self.reason = ""
        self.result: JSON | None = None

    def differs(self, service: JSON | None) -> bool:
        """Tell whether another specification than the declared one is in force."""
        return service is None or not is_in_force(self.spec, service["Spec"])

    # What a later call needs to go on. The clock is the host's, so it tells the same time there.
    KEPT = ("service_id", "sent", "created", "begun", "started", "rollback_until", "evidence", "reason", "result")

    def state(self) -> JSON:
        """Return what `resume` takes."""
        kept: JSON = {name: getattr(self, name) for name in self.KEPT}
        return kept | {"seen": sorted(self.seen), "forced": self.spec["TaskTemplate"].get("ForceUpdate")}

    def resume(self, state: JSON) -> None:
        """Go on where another call was."""
        for name in self.KEPT:
            setattr(self, name, state[name])
        self.seen = set(state["seen"])
        if state["forced"] is not None:
            self.spec["TaskTemplate"]["ForceUpdate"] = state["forced"]

    def start(self) -> None:
        """Begin; the time starts to count."""
        if self.begun:
            return
        self.begun = True
        self.started = self.clock()
        if self.service_id:
            # Tasks that failed before this run are no evidence against it.
            self.seen = {
                task["ID"] for task in self.engine.tasks(self.service_id) if task["Status"]["State"] in ENDED_BADLY
            }

    def step(self) -> bool:
        """Look at the service, do what is due, and tell whether the rollout has ended."""
        service = self.engine.service(self.service_id) if self.service_id else None
        state = str(((service or {}).get("UpdateStatus") or {}).get("State", ""))
        late = self.clock() - self.started > self.timeout
        if service is None:
            self.service_id = self.engine.create(self.spec)
            self.sent = self.created = True
            return False
        differs = self.differs(service)
        if self.rollback_until:
            return self._rolling_back(service, state)
        if differs and not self.sent:
            # What an interrupted run began ends first: its predecessor stays the one to return to.
            if state in UNDER_WAY and not late:
                return False
            self.sent = self._update(service, self.spec)
            return False
        if differs:
            return self._engine_rolled_back(service, state, late=late)
        return self._settle(service, state, late=late)

    def _engine_rolled_back(self, service: JSON, state: str, *, late: bool) -> bool:
        self._gather(every=True)
        if state == "rollback_started" and not late:
            return False
        message = str((service.get("UpdateStatus") or {}).get("Message", ""))
        self.reason = self.reason or f"it did not get healthy, and the engine rolled it back ({state}: {message})"
        if self._running(service) == 0 and self.history.never_served(self.service_id):
            return self._remove()
        self._end(service, self.reason)
        return True

    def _settle(self, service: JSON, state: str, *, late: bool) -> bool:
        running = self.running = self._running(service)
        if state in ("paused", "rollback_paused") and not self.sent:
            # An earlier update stopped half-way; the same specification again takes it up.
            self.spec["TaskTemplate"]["ForceUpdate"] = self._forced(service) + 1
            self.sent = self._update(service, self.spec)
            return False
        if running >= self.replicas and state not in UNDER_WAY:
            self._end(service, "")
            return True
        failures = self._gather()
        answers = self._definite()
        if answers >= DEFINITE_ANSWERS and not late:
            self.reason = f"it gave a definite answer {answers} times that is no prediction, {running} of {self.replicas} replicas are healthy"
            return self._give_up(service, running, failing=True)
        if state in UNDER_WAY and not late:
            # The engine counts the failures of an update itself and rolls back.
            return False
        if late:
            self.reason = f"{running} of {self.replicas} replicas are healthy after {self.timeout} seconds"
        elif state in ("paused", "rollback_paused"):
            self.reason = f"the engine stopped the update: {service['UpdateStatus'].get('Message', '')}"
        elif failures >= self.options["give_up_after"]:
            self.reason = f"its containers failed {failures} times, {running} of {self.replicas} replicas are healthy"
        else:
            return False
        return self._give_up(service, running, failing=failures >= self.options["give_up_after"])

    def _give_up(self, service: JSON, running: int, *, failing: bool) -> bool:
        never = self.history.never_served(self.service_id)
        if service.get("PreviousSpec") and self.sent and not (never and running == 0):
            self._update(service, service["PreviousSpec"])
            self.rollback_until = self.clock() + ROLLBACK_SECONDS
            return False
        if never is None:
            never = failing and not self._was_updated(service)
        if running == 0 and (self.created or never):
            return self._remove()
        self._end(service, self.reason)
        return True

    def _remove(self) -> bool:
        # Nothing of it ever served: it would only restart for ever.
        self._words_of_the_living()
        self.engine.remove(self.service_id)
        self.reason += "; it never served and was removed"
        self._end(None, self.reason)
        return True

    @property
    def timeout(self) -> int:
        """Seconds that this service has."""
        return int(self.options.get("timeouts", {}).get(self.name) or self.options["timeout"])

    def _definite(self) -> int:
        """Count the last answers of a starting replica that asking again does not change."""
        most = 0
        for task in self.engine.tasks(self.service_id):
            container = str((task["Status"].get("ContainerStatus") or {}).get("ContainerID", ""))
            if (
                task["Status"]["State"] == "starting"
                and container
                and _same_task(task["Spec"], self.spec["TaskTemplate"])
            ):
                count = 0
                for line in reversed(self.engine.health(container)):
                    if not DEFINITE.match(line):
                        break
                    count += 1
                most = max(most, count)
        return most

    def _rolling_back(self, service: JSON, state: str) -> bool:
        if (state in UNDER_WAY or self._running(service) < self.replicas) and self.clock() < self.rollback_until:
            return False
        self._end(service, f"{self.reason}; it was rolled back")
        return True

    @staticmethod
    def _was_updated(service: JSON) -> bool:
        """Tell whether the service ever had another specification."""
        return bool(service.get("UpdateStatus") or service.get("PreviousSpec"))

    @staticmethod
    def _forced(service: JSON) -> int:
        return int(service["Spec"]["TaskTemplate"].get("ForceUpdate") or 0)

    def _update(self, service: JSON, spec: JSON) -> bool:
        return self.engine.update(self.service_id, int(service["Version"]["Index"]), spec)

    def _running(self, service: JSON) -> int:
        """Count the replicas that run the specification in force; the engine calls a task running when it is healthy."""
        template = service["Spec"]["TaskTemplate"]
        tasks = self.engine.tasks(self.service_id)
        return sum(
            task["Status"]["State"] == "running"
            and task.get("DesiredState") == "running"
            and _same_task(task["Spec"], template)
            for task in tasks
        )

    def _gather(self, *, every: bool = False) -> int:
        """Keep the last words of the tasks that failed, and count them."""
        failed = [task for task in self.engine.tasks(self.service_id) if task["Status"]["State"] in ENDED_BADLY]
        failed = [
            task
            for task in failed
            if _same_task(task["Spec"], self.spec["TaskTemplate"]) and (every or task["ID"] not in self.seen)
        ]
        if failed and failed[0]["ID"] != self.evidence.get("task"):
            status = failed[0]["Status"]
            container = str((status.get("ContainerStatus") or {}).get("ContainerID", ""))
            self.evidence = {
                "task": failed[0]["ID"],
                "logs": self.engine.logs(self.service_id, container, self.options["log_lines"]) if container else "",
                "health": self.engine.health(container)[-HEALTH_ANSWERS:] if container else [],
                "errors": list(
                    dict.fromkeys(str(task["Status"].get("Err") or task["Status"].get("Message")) for task in failed)
                ),
            }
        return len(failed)

    def _end(self, service: JSON | None, reason: str) -> None:
        spec = service["Spec"] if service else {}
        if reason and service:
            self._words_of_the_living()
        self.result = {
            "ok": not reason,
            "changed": self.sent,
            "reason": reason,
            "seconds": round(self.clock() - self.started, 1),
            "serving": bool(service and self._running(service)),
            "image": spec.get("TaskTemplate", {}).get("ContainerSpec", {}).get("Image", ""),
            "labels": spec.get("Labels") or {},
            "logs": self.evidence["logs"],
            "health": [in_words(line) for line in self.evidence["health"]],
            "errors": [in_words(line) for line in self.evidence["errors"]],
        }

    def news(self) -> str:
        """Return where this service is, in one line."""
        seconds = round(self.clock() - self.started)
        if self.result is None:
            return f"{self.name}: {self.running} of {self.replicas} replicas are healthy after {seconds} s"
        words = "fails" if self.result["reason"] else "is done"
        return f"{self.name} {words} after {round(self.result['seconds'])} s"

    def _words_of_the_living(self) -> None:
        """Keep the log of a task that never ended but never got healthy either."""
        if self.evidence["logs"]:
            return
        for task in self.engine.tasks(self.service_id):
            container = str((task["Status"].get("ContainerStatus") or {}).get("ContainerID", ""))
            if (
                task["Status"]["State"] != "running"
                and container
                and _same_task(task["Spec"], self.spec["TaskTemplate"])
            ):
                self.evidence["logs"] = self.engine.logs(self.service_id, container, self.options["log_lines"])
                self.evidence["health"] = self.engine.health(container)[-HEALTH_ANSWERS:]
                return
        waiting = [
            str(task["Status"].get("Err") or task["Status"].get("Message"))
            for task in self.engine.tasks(self.service_id)[:1]
        ]
        self.evidence["errors"] = self.evidence["errors"] or waiting


def _same_task(task: JSON, template: JSON) -> bool:
    """Tell whether a task was made from a template, whatever the engine added to it."""
    parts = ("ContainerSpec", "Resources")
    return all(is_in_force(template.get(part) or {}, task.get(part) or {}) for part in parts)


def roll_out(
    rollouts: list[Rollout],
    parallel: int,
    sleep: Callable[[float], None] = time.sleep,
    until: Callable[[], bool] = lambda: False,
) -> list[Rollout]:
    """Take all services to their end, a few at the same time; return those that changed, once one has or `until` says so."""
    waiting = [rollout for rollout in rollouts if rollout.result is None and not rollout.begun]
    active = [rollout for rollout in rollouts if rollout.result is None and rollout.begun]
    ended: list[Rollout] = []
    while waiting or active:
        while waiting and len(active) < parallel:
            active.append(waiting.pop(0))
            active[-1].start()
        going = [rollout for rollout in active if not rollout.step()]
        ended += [
            rollout for rollout in active if rollout.result and (rollout.result["changed"] or rollout.result["reason"])
        ]
        active = going
        if (active or waiting) and until():
            return ended + active
        # Right after it became free, a place is taken by the next one.
        if active and not (waiting and len(active) < parallel):
            sleep(POLL_SECONDS)
    return ended


def converge(
    engine: Engine,
    params: JSON,
    *,
    check_mode: bool,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> JSON:
    """Bring the services to what is declared, or only tell what would change, and return the module's result."""
    current = {service["Spec"]["Name"]: service for service in engine.services()}
    networks = engine.networks()
    history = History(params.get("history"))
    resumed = params.get("resume") or {}
    options = params | {
        "memory": history,
        "timeouts": {item["name"]: item.get("timeout") for item in params["services"]},
    }
    rollouts = [
        Rollout(engine, completed_spec(item["name"], item["spec"], networks), current.get(item["name"]), options, clock)
        for item in params["services"]
    ]
    for rollout in rollouts:
        if rollout.name in resumed:
            rollout.resume(resumed[rollout.name])
    due = {rollout.name for rollout in rollouts if rollout.differs(current.get(rollout.name))}
    wanted = {item["name"] for item in params["services"]} | set(params["keep"])
    labels = params["prune_labels"]
    surplus = sorted(
        name
        for name, service in current.items()
        if labels and name not in wanted and labels.items() <= (service["Spec"].get("Labels") or {}).items()
    )
    # A later call has nothing to compare with: what it finds is what the first one did.
    diff = [
        _difference(rollout, current.get(rollout.name)) for rollout in rollouts if rollout.name in due and not resumed
    ]
    diff += [
        {"before_header": name, "after_header": name, "before": f"service {name}\n", "after": ""} for name in surplus
    ]
    if check_mode:
        services: JSON = {
            rollout.name: {"ok": True, "changed": rollout.name in due, "reason": "", "labels": rollout.spec["Labels"]}
            for rollout in rollouts
        }
    else:
        history.begin([service["ID"] for service in current.values()])
        end = clock() + (params.get("slice") or 0)
        moved = roll_out(rollouts, params["parallel"], sleep, lambda: bool(params.get("slice")) and clock() >= end)
        news = [rollout.news() for rollout in moved] if params.get("slice") else []
        if any(rollout.result is None for rollout in rollouts):
            return {
                "changed": True,
                "unfinished": {rollout.name: rollout.state() for rollout in rollouts},
                "news": news,
                "diff": diff,
            }
        for name in surplus:
            engine.remove(current[name]["ID"])
        services = {rollout.name: rollout.result for rollout in rollouts}
        served = [rollout.service_id for rollout in rollouts if rollout.result and rollout.result["serving"]]
        history.keep(served, [service["ID"] for service in engine.services()])
    return {
        "changed": bool(surplus) or any(service["changed"] for service in services.values()),
        "services": services,
        "failed_services": [name for name, service in services.items() if not service["ok"]],
        "removed": surplus,
        "kept": {name: _in_force(current[name]) for name in params["keep"] if name in current},
        "diff": diff,
    }


def _in_force(service: JSON) -> JSON:
    spec = service["Spec"]
    return {"image": spec["TaskTemplate"]["ContainerSpec"]["Image"], "labels": spec.get("Labels") or {}}


def _difference(rollout: Rollout, current: JSON | None) -> JSON:
    def shown(spec: JSON) -> str:
        return json.dumps(brief(spec), indent=2, sort_keys=True) + "\n"

    before = _only(rollout.spec, current["Spec"]) if current else {}
    return {
        "before_header": rollout.name,
        "after_header": rollout.name,
        "before": shown(before) if current else "",
        "after": shown(rollout.spec),
    }


def brief(value: Any) -> Any:
    """Return a specification for a person: of a long text its beginning, and what tells it from another one."""
    if isinstance(value, dict):
        return {key: brief(item) for key, item in value.items()}
    if isinstance(value, list):
        return [brief(item) for item in value]
    if not isinstance(value, str) or len(value) <= LONGEST_SHOWN:
        return value
    digest = hashlib.sha256(value.encode()).hexdigest()[:12]
    return f"{value[:60]}... ({len(value)} characters, SHA-256 {digest})"


def _only(wanted: Any, actual: Any) -> Any:
    """Return the part of `actual` that `wanted` speaks of."""
    if isinstance(wanted, dict) and isinstance(actual, dict):
        return {key: _only(value, actual[key]) for key, value in wanted.items() if key in actual}
    return actual


def explained(name: str, service: JSON) -> str:
    """Return what a person needs to know of a service that does not run what was declared."""
    parts = [f"{name}: {service['reason']}.", *(f"  {error}" for error in service["errors"])]
    parts += [f"  health check {line}" for line in service["health"]]
    return "\n".join([*parts, *(f"  | {line}" for line in service["logs"].splitlines())])


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "services": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "spec": {"type": "dict", "required": True},
                    "timeout": {"type": "int"},
                },
            },
            "prune_labels": {"type": "dict", "default": {}},
            "keep": {"type": "list", "elements": "str", "default": []},
            "registry": {"type": "str"},
            "username": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "timeout": {"type": "int", "default": 300},
            "give_up_after": {"type": "int", "default": 3},
            "parallel": {"type": "int", "default": 3},
            "log_lines": {"type": "int", "default": 40},
            "history": {"type": "path"},
            "slice": {"type": "int", "default": 0},
            "resume": {"type": "dict", "default": {}},
            "fail": {"type": "bool", "default": True},
        },
        required_together=[("registry", "username", "password")],
        supports_check_mode=True,
    )
    login = None
    if module.params["registry"]:
        login = {key: str(module.params[key]) for key in ("username", "password")}
        login["serveraddress"] = str(module.params["registry"])
    try:
        result = converge(DockerEngine(Api(socket_path()), login), module.params, check_mode=module.check_mode)
    except EngineError as error:
        module.fail_json(msg=f"The services cannot be rolled out: {error}")
    failed = result.get("failed_services")
    if failed and module.params["fail"]:
        module.fail_json(msg="\n".join(explained(name, result["services"][name]) for name in failed), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
