"""Users of MLflow as they and their operator see them."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import routes
from instance import Answer, Instance
from postgres.database import sql
from tracking.clients import address, starts

Ask = Callable[..., Answer]
# A name that the server knows; the tests use the address of its container.
HOST = {"Host": "tracking:5000"}
WELL_KNOWN = ["password1234", "password", "admin", "mlflow", "changeme", "123456789012", ""]
ANA_AND_BEN: list[dict[str, Any]] = [
    {"name": "ana", "experiments": {"shared": "READ"}, "models": {"dev.shared": "EDIT"}},
    {"name": "ben"},
]
MORE = [{**ANA_AND_BEN[0], "experiments": {"shared": "EDIT"}}]


def create(ask: Ask, user: str, name: str) -> str:
    answer = ask(user, "experiments/create", {"name": name})
    if answer.status == 200:
        return str(answer.json()["experiment_id"])
    found = ask("admin", f"experiments/get-by-name?experiment_name={name}")
    assert found.status == 200, answer.body
    return str(found.json()["experiment"]["experiment_id"])


def test_the_admin_signs_in_and_nobody_by_a_well_known_password(ask: Ask) -> None:
    assert ask("admin", "users/list").status == 200
    assert {word: ask("admin", "users/list", password=word or " ").status for word in WELL_KNOWN} == dict.fromkeys(
        WELL_KNOWN, 401
    )


def test_every_route_wants_a_user(instance: Instance, figure: Callable[[str], None]) -> None:
    """Taken from the server's own tables: none of them answers who does not sign in, or with a wrong password.

    A wrong password takes the server a tenth of a second, so some routes of each part are asked with one; tests/tracking asks all.
    """
    asked = [(method, rule) for method, rule in routes.table(instance) if rule not in routes.PUBLIC]
    parts = {(method, *rule.split("/")[1:4]): (method, rule) for method, rule in asked}
    url = address(instance)
    for chosen, headers in ((asked, {}), (list(parts.values()), routes.basic("admin", "password1234"))):
        requests = [(method, routes.path(rule)) for method, rule in chosen]
        found = routes.statuses(instance, url, requests, {**HOST, **headers})
        refused = {401, 403}
        assert [(status, *route) for status, route in zip(found, chosen, strict=True) if status not in refused] == []
    figure(
        f"{len(asked)} routes of the tracking server without a password, {len(parts)} with a wrong one: 401 from each"
    )


def test_what_is_public_is_named(instance: Instance) -> None:
    public = [(method, routes.path(rule)) for method, rule in routes.table(instance) if rule in routes.PUBLIC]
    found = routes.statuses(instance, address(instance), public, HOST)
    assert {status for status in found if status in {401, 403}} == set()


def test_one_user_does_not_see_the_other_s_work(ask: Ask) -> None:
    """Runs, their spelling in camel case, artifacts, traces, and the ways of the UI; tests/tracking/test_other_user.py asks every route."""
    mine = create(ask, "ana", f"ana-{time.time_ns()}")
    run = ask("ana", "runs/create", {"experiment_id": mine}).json()["run"]["info"]["run_id"]
    assert ask("ana", f"runs/get?run_id={run}").status == 200
    artifact = f"/api/2.0/mlflow-artifacts/artifacts/{mine}/{run}/artifacts/secret.txt"
    assert ask("ana", artifact, "of ana", method="PUT").status == 200
    denied = {
        f"runs/get?run_id={run}": None,
        f"/ajax-api/2.0/mlflow/runs/get?run_id={run}": None,
        f"/ajax-api/2.0/mlflow/runs/get?run_uuid={run}": None,
        f"artifacts/list?run_id={run}": None,
        f"/ajax-api/2.0/mlflow/artifacts/list?run_id={run}": None,
        f"/get-artifact?run_id={run}&path=secret.txt": None,
        f"/ajax-api/2.0/mlflow/get-artifact?run_id={run}&path=secret.txt": None,
        artifact: None,
        f"experiments/get?experiment_id={mine}": None,
        f"metrics/get-history?run_id={run}&metric_key=x": None,
        "runs/log-metric": {"run_id": run, "key": "x", "value": 1, "timestamp": 1},
        "runs/log-batch": {"run_id": run, "metrics": []},
        "runs/set-tag": {"run_id": run, "key": "x", "value": "y"},
        "runs/delete": {"run_id": run},
        "experiments/delete": {"experiment_id": mine},
        "runs/update": {"run_id": run, "run_name": "x"},
    }
    assert {path: ask("ben", path, body).status for path, body in denied.items()} == dict.fromkeys(denied, 403)
    # Another spelling is none that this MLflow takes, and must not be a way past the check.
    camel = ask("ben", f"runs/get?runId={run}")
    assert (camel.status in {400, 403}, run in camel.body) == (True, False)
    assert ask("ben", artifact, "of ben", method="PUT").status == 403
    assert ask("ana", artifact).body == "of ana"
    found = ask("ben", "experiments/search", {"max_results": 1000}).json().get("experiments", [])
    assert mine not in [item["experiment_id"] for item in found]
    # MLflow names everybody to everybody, as those who may be asked for a review; what they may do it tells admins alone.
    roster = {user["username"]: user["roles"] for user in ask("ben", "users/list").json()["users"]}
    assert {"ana", "ben"} <= set(roster)
    assert roster["ana"] == []


def test_grants_are_what_the_inventory_says(instance: Instance, ask: Ask) -> None:
    shared = create(ask, "admin", "shared")
    assert ask("ana", f"experiments/get?experiment_id={shared}").status == 403
    first = instance.converge()
    assert "ana: READ on experiment" in first.output
    assert ask("ana", f"experiments/get?experiment_id={shared}").status == 200
    assert ask("ana", "runs/create", {"experiment_id": shared}).status == 403
    assert ask("ben", f"experiments/get?experiment_id={shared}").status == 403

    started = starts(instance)
    second = instance.converge(tracking_users=MORE)
    assert "ben: removed" in second.output
    assert ask("ana", "runs/create", {"experiment_id": shared}).status == 200
    assert ask("ben", "experiments/search", {"max_results": 1}).status == 401, "a removed user is let in"
    assert starts(instance) == started, "the server was restarted for it"


def test_a_changed_password_is_the_only_one_at_once(instance: Instance, ask: Ask, secrets: dict[str, str]) -> None:
    new: dict[str, Any] = {
        "platform_admin_password": "Of the vault: @:/%#?&+=$! 1",
        "tracking_user_passwords": {"ana": "a new one of ana's"},
        "tracking_users": MORE,
    }
    before = {name: secrets[name] for name in ("admin_password", "tracking_user_ana")}
    assert ask("admin", "users/list").status == 200
    ran = instance.converge(**new)
    assert "admin: password changed" in ran.output
    assert not [value for value in (*before.values(), new["platform_admin_password"]) if str(value) in ran.output]
    assert ask("admin", "users/list", password=before["admin_password"]).status == 401
    assert ask("admin", "users/list", password=str(new["platform_admin_password"])).status == 200
    assert ask("ana", "experiments/search", {"max_results": 1}, password="a new one of ana's").status == 200
    assert ask("ana", "experiments/search", {"max_results": 1}, password=before["tracking_user_ana"]).status == 401
    # Neither these passwords nor these grants are set a second time.
    assert instance.converge(**new).changed == 0
    assert instance.converge().changed > 0
    assert ask("admin", "users/list").status == 200


def test_signing_in_costs_little(instance: Instance, secrets: dict[str, str], figure: Callable[[str], None]) -> None:
    program = (
        "import http.client, sys, time\n"
        "connection = http.client.HTTPConnection(sys.argv[1])\n"
        "for _ in range(201):\n"
        "    began = time.perf_counter()\n"
        "    connection.request('GET', '/api/2.0/mlflow/experiments/get?experiment_id=0', headers={'Authorization': sys.argv[2], 'Host': 'tracking:5000'})\n"
        "    answer = connection.getresponse()\n"
        "    assert answer.read() and answer.status == 200\n"
        "    print(time.perf_counter() - began)\n"
    )
    header = routes.basic("admin", secrets["admin_password"])["Authorization"]
    host = address(instance).removeprefix("http://")
    lines = instance.sh(f"python3 -c \"{program}\" {host} '{header}'").split()[1:]
    times = sorted(1000 * float(line) for line in lines)
    figure(f"an authenticated GET: median {statistics.median(times):.1f} ms, p95 {times[190]:.1f} ms (target 20 ms)")


def test_ready_needs_no_user_and_says_the_truth(instance: Instance) -> None:
    url = address(instance)
    assert instance.http(f"{url}/ready").json() == {"ready": True}
    instance.sh("docker pause mlflow-anywhere-postgres")
    try:
        assert instance.http(f"{url}/ready").status == 503
    finally:
        instance.sh("docker unpause mlflow-anywhere-postgres")
    assert instance.http(f"{url}/ready").status == 200


def test_secrets_stand_in_no_readable_place(instance: Instance, secrets: dict[str, str]) -> None:
    assert {"admin_password", "tracking_user_ana"} <= set(secrets)
    assert instance.leaks(secrets) == {}
    hashes = sql(instance, "SELECT password_hash FROM users WHERE username = 'admin'")
    assert re.match(r"(scrypt|pbkdf2):", hashes)
