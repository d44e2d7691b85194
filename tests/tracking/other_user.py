"""What a user gets of another one's work by every route of MLflow's server, and whether it changes any; writes DIRECTORY/found.json.

A program of its own, because MLflow's server takes its settings from the environment and keeps them in its modules.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

# Stands in everything that ana makes, and in no request of ben's.
SECRET = "what-ana-knows"
TRACE = "tr-0123456789abcdef0123456789abcdef"
USERS = {name: f"the password of {name}" for name in ("ana", "ben")}
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
# Open to everybody by MLflow's own decision, as in molecule/routes.py.
PUBLIC = {
    "/health",
    "/static-files/<path:path>",
    "/api/3.0/mlflow/server-info",
    "/ajax-api/3.0/mlflow/server-info",
}


def application(place: Path) -> tuple[Any, list[tuple[str, str]]]:
    """MLflow's application with both users and databases in files, and method and rule of its routes, those that read first."""
    from mlflow.server import constants

    uri, settings = f"sqlite:///{place}/mlflow.db", place / "auth.ini"
    settings.write_text(
        f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = sqlite:///{place}/auth.db\nauth_cache_ttl_seconds = 600\n"
    )
    os.environ |= {
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
        "MLFLOW_AUTH_ADMIN_PASSWORD": "the password of admin",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "x",
        "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
        "MLFLOW_SERVER_ENABLE_GRAPHQL_AUTH": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ENABLE_AI_GATEWAY": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HOME": str(place),
        "_MLFLOW_SGI_NAME": "uvicorn",
        constants.BACKEND_STORE_URI_ENV_VAR: uri,
        constants.REGISTRY_STORE_URI_ENV_VAR: uri,
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: str(place / "artifacts"),
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
    }
    from mlflow.server import app as flask_app
    from mlflow.server import auth
    from mlflow.server.handlers import initialize_backend_stores

    app: Any = auth.create_app()
    initialize_backend_stores(uri, uri, "mlflow-artifacts:/")
    for name, password in USERS.items():
        auth.store.create_user(name, password)
    cheapen(f"{place}/auth.db")
    found = {(method, rule.rule) for rule in flask_app.url_map.iter_rules() for method in rule.methods or ()}
    for included in app.routes:
        for route in getattr(included, "effective_route_contexts", list)():
            found |= {(method, route.path) for method in route.methods}
    # An example of MLflow's own, half a minute of work that has nothing of other users.
    table = [route for route in found if route[0] in METHODS and not route[1].endswith("/demo/generate")]
    os.environ["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] = "http://localhost:5000"
    sys.path.insert(0, str(Path(__file__).parents[2] / "roles/tracking/files"))
    import tracking_server

    app = tracking_server.guarded(app, signs_in=True)
    return app, sorted(table, key=lambda route: (METHODS.index(route[0]), route[1]))


def cheapen(database: str) -> None:
    """Passwords are kept under a hash that is made in no time: each wrong one would take a tenth of a second."""
    import werkzeug.security

    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for name, password in USERS.items():
            digest = werkzeug.security.generate_password_hash(password, "pbkdf2:sha256:1")
            connection.execute("UPDATE users SET password_hash = ? WHERE username = ?", (digest, name))


class Client:
    """Asks the server as a user, with a password of one's own choice, or as nobody."""

    def __init__(self, port: int, user: str, password: str = "") -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.headers = {"Content-Type": "application/json"}
        if user:
            told = f"{user}:{password or USERS[user]}"
            self.headers["Authorization"] = "Basic " + base64.b64encode(told.encode()).decode()

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        return self.send(method, path, body if body is None or isinstance(body, str) else json.dumps(body))

    def send(self, method: str, path: str, body: Any, **headers: str) -> tuple[int, str]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, body, self.headers | named)
        answer = self.connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")

    def make(self, path: str, body: Any, method: str = "POST") -> Any:
        status, text = self.ask(method, path, body)
        if status != http.HTTPStatus.OK:
            sys.exit(f"{method} {path}: {status} {text}")
        return json.loads(text or "{}")


def work(ana: Client) -> dict[str, str]:
    """Make something of every kind; return how it is called."""
    experiment = ana.make("/api/2.0/mlflow/experiments/create", {"name": "churn"})["experiment_id"]
    ana.make(
        "/api/2.0/mlflow/experiments/set-experiment-tag", {"experiment_id": experiment, "key": "t", "value": SECRET}
    )
    tags = [{"key": "t", "value": SECRET}]
    run = ana.make("/api/2.0/mlflow/runs/create", {"experiment_id": experiment, "tags": tags})["run"]["info"]["run_id"]
    ana.make("/api/2.0/mlflow/runs/log-metric", {"run_id": run, "key": "loss", "value": 0.123454321, "timestamp": 1})
    artifact = f"{experiment}/{run}/artifacts/file.txt"
    ana.make(f"/api/2.0/mlflow-artifacts/artifacts/{artifact}", SECRET, "PUT")
    ana.make("/api/2.0/mlflow/registered-models/create", {"name": "iris", "description": SECRET})
    source = f"mlflow-artifacts:/{experiment}/{run}/artifacts"
    version = {"name": "iris", "source": source, "run_id": run, "description": SECRET}
    ana.make("/api/2.0/mlflow/model-versions/create", version)
    ana.make("/api/2.0/mlflow/registered-models/alias", {"name": "iris", "alias": "champion", "version": "1"})
    logged = {"experiment_id": experiment, "name": SECRET}
    model = ana.make("/api/2.0/mlflow/logged-models", logged)["model"]["info"]["model_id"]
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
    moment = "2026-01-01T00:00:00Z"
    trace = {
        "trace_id": TRACE,
        "trace_location": location,
        "request_time": moment,
        "execution_duration": "1s",
        "state": "OK",
        "tags": {"t": SECRET},
        "request_preview": SECRET,
    }
    ana.make("/api/3.0/mlflow/traces", {"trace": {"trace_info": trace}})
    assessment = {
        "assessment_name": "quality",
        "trace_id": TRACE,
        "source": {"source_type": "HUMAN", "source_id": "ana"},
        "feedback": {"value": SECRET},
        "create_time": moment,
        "last_update_time": moment,
    }
    said = ana.make(f"/api/3.0/mlflow/traces/{TRACE}/assessments", {"assessment": assessment})
    dataset = ana.make("/api/3.0/mlflow/datasets/create", {"name": SECRET, "experiment_ids": [experiment]})
    scorer = {"experiment_id": experiment, "name": "judge", "serialized_scorer": json.dumps({"name": SECRET})}
    ana.make("/api/3.0/mlflow/scorers/register", scorer)
    return {
        "experiment_id": experiment,
        "experiment_name": "churn",
        "run_id": run,
        "run_uuid": run,
        "name": "iris",
        "version": "1",
        "alias": "champion",
        "model_id": model,
        "trace_id": TRACE,
        "request_id": TRACE,
        "assessment_id": said["assessment"]["assessment_id"],
        "dataset_id": dataset["dataset"]["dataset_id"],
        "scorer_name": "judge",
        "metric_key": "loss",
        "artifact": artifact,
    }


def request(method: str, rule: str, names: dict[str, str]) -> tuple[str, dict[str, Any] | None]:
    """Path and body that name ana's work in every way that some route understands."""

    def fill(match: re.Match[str]) -> str:
        inside = match[0].strip("<>{}")
        name = inside.split(":")[-1 if match[0].startswith("<") else 0]
        return names["artifact"] if "artifacts/" in rule and "path" in name else names.get(name, "1")

    path = re.sub(r"<[^>]*>|\{[^}]*\}", fill, rule)
    # What would make its sender more than he is.
    more = {"username": "ben", "permission": "MANAGE", "is_admin": True, "resource_type": "experiment"}
    every = {f"{key.removesuffix('s')}s": [value] for key, value in names.items() if key.endswith("_id")}
    one = {**names, "path": "file.txt", "key": "t", "value": "of ben", "max_results": 100}
    if method == "GET":
        return f"{path}?{urlencode({**one, **every}, doseq=True)}", None
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": names["experiment_id"]}}
    query = f'{{mlflowGetRun(input: {{runId: "{names["run_id"]}"}}) {{run {{data {{tags {{key value}}}}}}}}}}'
    return path, {
        **one,
        **more,
        **every,
        "resource_id": names["experiment_id"],
        # To everybody a password of one's own may be changed; it stays the same.
        "password": USERS["ben"],
        "query": query,
        "locations": [location],
        "new_name": "of ben",
        "description": "of ben",
    }


def state(ana: Client, names: dict[str, str]) -> list[tuple[int, str]]:
    """All of ana's work as she sees it."""
    experiment, run = names["experiment_id"], names["run_id"]
    paths = [
        f"/api/2.0/mlflow/experiments/get?experiment_id={experiment}",
        f"/api/2.0/mlflow/runs/get?run_id={run}",
        f"/api/2.0/mlflow/artifacts/list?run_id={run}",
        f"/api/2.0/mlflow-artifacts/artifacts/{names['artifact']}",
        "/api/2.0/mlflow/registered-models/get?name=iris",
        "/api/2.0/mlflow/model-versions/get?name=iris&version=1",
        f"/api/2.0/mlflow/logged-models/{names['model_id']}",
        f"/api/3.0/mlflow/traces/{TRACE}",
        f"/api/3.0/mlflow/datasets/{names['dataset_id']}",
        f"/api/3.0/mlflow/scorers/list?experiment_id={experiment}",
    ]
    return [ana.ask("GET", path) for path in paths]


def chains(ben: Client, names: dict[str, str]) -> dict[str, list[tuple[int, str]]]:
    """What ben writes here to read or change ana's work there; answers of each step."""
    experiment, run = names["experiment_id"], names["run_id"]
    folder = f"mlflow-artifacts:/{experiment}/{run}/artifacts"
    own = ben.make("/api/2.0/mlflow/experiments/create", {"name": "of ben"})["experiment_id"]
    mine = ben.make("/api/2.0/mlflow/runs/create", {"experiment_id": own})["run"]["info"]["run_id"]
    ben.make("/api/2.0/mlflow/registered-models/create", {"name": "ben"})
    found: dict[str, list[tuple[int, str]]] = {}
    for source in (
        folder,
        f"{folder}/",
        f"runs:/{run}",
        "models:/iris/1",
        "models:/iris@champion",
        f"models:/{names['model_id']}",
    ):
        for extra in ({}, {"run_id": mine}, {"run_id": run}):
            made = ben.ask("POST", "/api/2.0/mlflow/model-versions/create", {"name": "ben", "source": source, **extra})
            version = json.loads(made[1]).get("model_version", {}).get("version", "1") if made[0] == 200 else "1"
            read = ben.ask("GET", f"/model-versions/get-artifact?name=ben&version={version}&path=file.txt")
            found[f"version {source} {extra}"] = [made, read]
    trace = "tr-fedcba9876543210fedcba9876543210"
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": own}}
    info = {"trace_id": trace, "trace_location": location, "request_time": "2026-01-01T00:00:00Z", "state": "OK"}
    aims = f"mlflow-artifacts:/{experiment}/traces/{TRACE}/artifacts"
    made = ben.ask(
        "POST", "/api/3.0/mlflow/traces", {"trace": {"trace_info": info | {"tags": {"mlflow.artifactLocation": aims}}}}
    )
    found["trace with a location"] = [made]
    ben.make("/api/3.0/mlflow/traces", {"trace": {"trace_info": info}})
    for prefix in ("/api/3.0", "/ajax-api/3.0", "/api/2.0", "/ajax-api/2.0"):
        tag = ben.ask(
            "PATCH", f"{prefix}/mlflow/traces/{trace}/tags", {"key": "mlflow.artifactLocation", "value": aims}
        )
        read = ben.ask("GET", f"/ajax-api/2.0/mlflow/get-trace-artifact?request_id={trace}")
        found[f"tag {prefix}"] = [tag, read]
    for key in ("artifact_location", "artifactLocation"):
        for place in (
            folder,
            f"/artifacts/{experiment}",
            f"{folder}/../x",
            f"{folder}/%2e%2e",
            "s3://b/x",
            "file:///etc",
        ):
            made = ben.ask("POST", "/api/2.0/mlflow/experiments/create", {"name": f"{key} {place}", key: place})
            steps = [made]
            if made[0] == 200:
                there = ben.make("/api/2.0/mlflow/runs/create", json.loads(made[1]))["run"]["info"]["run_id"]
                steps.append(
                    ben.ask("POST", f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={there}&path=evil.txt", "of ben")
                )
                steps.append(ben.ask("GET", f"/api/2.0/mlflow/artifacts/list?run_id={there}"))
                steps.append(ben.ask("GET", f"/get-artifact?run_id={there}&path=../../{run}/artifacts/file.txt"))
            found[f"location {key} {place}"] = steps
    return found


def kept(ana: Client, names: dict[str, str]) -> dict[str, int]:
    """Writes of the owner herself to the files of a registered version, and one beside them."""
    path, run = names["artifact"], names["run_id"]
    folder = path.rpartition("/")[0]
    api, ajax = "/api/2.0/mlflow-artifacts", "/ajax-api/2.0/mlflow-artifacts"
    return {
        "put": ana.send("PUT", f"{api}/artifacts/{path}", "another")[0],
        "put ajax": ana.send("PUT", f"{ajax}/artifacts/{path}", "another")[0],
        "put encoded": ana.send("PUT", f"{api}/artifacts/{path.replace('.txt', '%252etxt')}", "another")[0],
        "delete": ana.send("DELETE", f"{api}/artifacts/{path}", None)[0],
        "delete the folder above": ana.send("DELETE", f"{api}/artifacts/{folder.rpartition('/')[0]}", None)[0],
        "multipart": ana.ask("POST", f"{api}/mpu/create/{folder}", {"path": "file.txt", "num_parts": 1})[0],
        "upload": ana.ask("POST", f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run}&path=file.txt", "another")[0],
        "new": ana.send("PUT", f"{api}/artifacts/{folder}/new.txt", "new")[0],
    }


def main(place: Path) -> None:
    """Serve, let ana work, and ben try everything."""
    import uvicorn

    app, table = application(place)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", timeout_keep_alive=600))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    ana, ben = Client(port, "ana"), Client(port, "ben")
    names = work(ana)
    before = state(ana, names)
    asked = [(method, rule, *request(method, rule, names)) for method, rule in table]
    seen = [
        rule
        for method, rule, path, body in asked
        if (method == "GET" or rule == "/graphql") and SECRET in ana.ask(method, path, body)[1]
    ]
    closed = [route for route in asked if route[1] not in PUBLIC]
    strangers = {"nobody": Client(port, ""), "a wrong password": Client(port, "ben", "password1234")}
    let_in = [
        [who, method, rule, status]
        for who, stranger in strangers.items()
        for method, rule, path, body in closed
        if (status := stranger.ask(method, path, body)[0])
        not in {http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN}
    ]
    answers = [(method, rule, *ben.ask(method, path, body)) for method, rule, path, body in asked]
    denied = sum(status == http.HTTPStatus.FORBIDDEN for _, _, status, _ in answers)
    steps = chains(ben, names)
    answers += [("chain", what, *answer) for what, each in steps.items() for answer in each]
    told = [[method, rule, status] for method, rule, status, text in answers if SECRET in text]
    chained = {what: [answer[0] for answer in each] for what, each in steps.items()}
    after = state(ana, names)
    result = {
        "chains": chained,
        "kept": kept(ana, names),
        "routes": len(table),
        "let in": let_in,
        "seen": seen,
        "told": told,
        "denied": denied,
    }
    (place / "found.json").write_text(json.dumps({**result, "before": before, "after": after}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
