"""What a user finds who asks every route of the server for what belongs to another one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import routes
from instance import Answer, Instance
from tracking.clients import address

Ask = Callable[..., Answer]
HOST = {"Host": "tracking:5000"}
# Fewer answers would mean that the questions are not those of the routes.
ENOUGH = 20


def made(answer: Answer) -> Any:
    """What came of something that ana may do."""
    assert answer.status == 200, answer.body
    return answer.json() if answer.body else {}


def work(ask: Ask, secret: str) -> dict[str, Any]:
    """Ana's work of every kind, with the secret in it and in none of its names: what to ask for to get or to change it."""
    number = time.time_ns()
    experiment = made(ask("ana", "experiments/create", {"name": f"work-{number}"}))["experiment_id"]
    made(ask("ana", "experiments/set-experiment-tag", {"experiment_id": experiment, "key": "note", "value": secret}))
    run = made(ask("ana", "runs/create", {"experiment_id": experiment}))["run"]["info"]["run_id"]
    made(ask("ana", "runs/set-tag", {"run_id": run, "key": "note", "value": secret}))
    made(ask("ana", "runs/log-parameter", {"run_id": run, "key": "note", "value": secret}))
    artifact = f"{experiment}/{run}/artifacts/note.txt"
    made(ask("ana", f"/api/2.0/mlflow-artifacts/artifacts/{artifact}", secret, method="PUT"))
    logged = {"experiment_id": experiment, "name": "net", "params": [{"key": "note", "value": secret}]}
    model_id = made(ask("ana", "logged-models", logged))["model"]["info"]["model_id"]
    model = f"ana.{number}"
    made(ask("ana", "registered-models/create", {"name": model, "description": secret}))
    source = f"mlflow-artifacts:/{experiment}/{run}/artifacts"
    made(ask("ana", "model-versions/create", {"name": model, "source": source, "run_id": run, "description": secret}))
    made(ask("ana", "registered-models/alias", {"name": model, "alias": "champion", "version": "1"}))
    trace = f"tr-{number:032x}"
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
    info = {"trace_id": trace, "trace_location": place, "request_time": "2026-01-01T00:00:00Z", "state": "OK"}
    made(ask("ana", "/api/3.0/mlflow/traces", {"trace": {"trace_info": {**info, "request_preview": secret}}}))
    dataset = {"name": f"set-{number}", "experiment_ids": [experiment], "tags": json.dumps({"note": secret})}
    dataset_id = made(ask("ana", "/api/3.0/mlflow/datasets/create", dataset))["dataset"]["dataset_id"]
    return {
        "experiment_id": experiment,
        "experiment_ids": [experiment],
        "run_id": run,
        "run_uuid": run,
        "run_ids": [run],
        "name": model,
        "version": "1",
        "alias": "champion",
        "model_id": model_id,
        "model_ids": [model_id],
        "path": "note.txt",
        "artifact_path": artifact,
        "trace_id": trace,
        "request_id": trace,
        "trace_ids": [trace],
        "trace_request_ids": [trace],
        "request_ids": [trace],
        "locations": [place],
        "dataset_id": dataset_id,
        "key": "note",
        "metric_key": "note",
        "value": "of another one",
        "max_results": 100,
        "new_name": f"taken.{number}",
        # What would make its sender more than he is.
        "username": "ben",
        "permission": "MANAGE",
        "is_admin": True,
        "resource_type": "experiment",
        "resource_id": experiment,
    }


def sweep(instance: Instance, user: str, password: str, wanted: dict[str, Any], secret: str) -> dict[str, int]:
    """Ask every route for it, in the path, the query and the body; the routes whose answers hold the secret, with their status."""
    plain = {name: value for name, value in wanted.items() if isinstance(value, str | int)}
    lists = {name: value for name, value in wanted.items() if isinstance(value, list) and isinstance(value[0], str)}
    query = urlencode({**plain, **lists}, doseq=True)
    # What only reads comes first: the owner's questions end with the removal of all that is asked for.
    table = sorted(routes.table(instance), key=lambda route: route[0] != "GET")
    paths = {name: str(value) for name, value in plain.items()}
    requests = [(method, f"{routes.path(rule, paths)}?{query}") for method, rule in table]
    # To everybody a password of one's own may be changed; it stays the same.
    body = json.dumps({**wanted, "password": password})
    found = routes.answers(
        instance, address(instance), requests, {**HOST, **routes.basic(user, password)}, body, secret
    )
    assert {status for status, _ in found} - {401, 0}, "nobody was let in"
    return {f"{method} {rule}": status for (method, rule), (status, holds) in zip(table, found, strict=True) if holds}


def state(ask: Ask, wanted: dict[str, Any]) -> list[str]:
    """All of ana's work, as she sees it."""
    trace = wanted["trace_id"]
    paths = [
        f"experiments/get?experiment_id={wanted['experiment_id']}",
        f"runs/get?run_id={wanted['run_id']}",
        f"/api/2.0/mlflow-artifacts/artifacts/{wanted['artifact_path']}",
        f"logged-models/{wanted['model_id']}",
        f"registered-models/get?name={wanted['name']}",
        f"model-versions/get?name={wanted['name']}&version=1",
        f"/api/3.0/mlflow/traces/{trace}",
        f"/api/3.0/mlflow/datasets/{wanted['dataset_id']}",
    ]
    return [ask("ana", path).body for path in paths]


def test_no_route_gives_one_user_the_other_s_work(
    instance: Instance, ask: Ask, secrets: dict[str, str], figure: Callable[[str], None]
) -> None:
    secret = f"canary-{time.time_ns()}"
    wanted = work(ask, secret)
    before = state(ask, wanted)
    assert [path for path in before if secret not in path] == []
    passwords = {name: secrets[f"tracking_user_{name}"] for name in ("ana", "ben")}
    told = sweep(instance, "ben", passwords["ben"], wanted, secret)
    assert told == {}
    assert state(ask, wanted) == before
    assert ask("ben", f"runs/get?run_id={wanted['run_id']}").status == 403
    # MLflow names everybody to everybody, as those who may be asked for a review; what they may do it tells admins alone.
    roster = {user["username"]: user["roles"] for user in made(ask("ben", "users/list"))["users"]}
    assert {"ana", "ben"} <= set(roster)
    assert roster["ana"] == []
    # The same questions, asked by her whose work it is: they are the ones that are answered.
    own = sweep(instance, "ana", passwords["ana"], wanted, secret)
    assert len(own) >= ENOUGH, own
    after = state(ask, wanted)
    assert [kept for kept, was in zip(after, before, strict=True) if kept == was] == []
    figure(
        f"every route asked for another user's work: 0 answers hold it, nothing changed; its owner gets it from {len(own)}"
    )
