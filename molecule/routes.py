"""Every route of MLflow's server, taken from its own tables, and what a client gets that asks for all of them."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

from instance import Instance

PROBE = (Path(__file__).parent / "shared" / "files" / "probe.py").read_text()
TRACKING = "mlflow-anywhere-tracking"

# The application as the server builds it, but with users in a file: the tables of Flask, and those of FastAPI in front of it.
PROGRAM = r"""
import json, os, pathlib, tempfile
place = pathlib.Path(tempfile.mkdtemp())
(place / "auth.ini").write_text(f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = sqlite:///{place}/auth.db\n")
os.environ |= {"MLFLOW_AUTH_CONFIG_PATH": str(place / "auth.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY": "x", "_MLFLOW_SGI_NAME": "uvicorn",
               "MLFLOW_AUTH_ADMIN_USERNAME": "admin", "MLFLOW_AUTH_ADMIN_PASSWORD": "only for the table"}
from mlflow.server import app as flask_app
from mlflow.server.auth import create_app
app = create_app()
found = {(method, rule.rule) for rule in flask_app.url_map.iter_rules() for method in rule.methods}
for included in app.routes:
    for route in getattr(included, "effective_route_contexts", list)():
        found |= {(method, route.path) for method in route.methods}
print(json.dumps(sorted(found)))
"""

# Open to everybody by MLflow's own decision: whether it lives, what it is called with, the page's files, and what it can do (no data, no secrets).
PUBLIC = {
    "/health",
    "/static-files/<path:path>",
    "/api/3.0/mlflow/server-info",
    "/ajax-api/3.0/mlflow/server-info",
}


# By instance: the server loads all of itself to say it, for ten seconds.
_TABLES: dict[str, list[tuple[str, str]]] = {}


def table(instance: Instance) -> list[tuple[str, str]]:
    """Method and rule of every route; HEAD and OPTIONS go with the others."""
    if instance.name not in _TABLES:
        _TABLES[instance.name] = _asked(instance)
    return list(_TABLES[instance.name])


def _asked(instance: Instance) -> list[tuple[str, str]]:
    command = f"docker exec --interactive {TRACKING} python - 2>/dev/null"
    output = instance.sh(f"echo {base64.b64encode(PROGRAM.encode()).decode()} | base64 --decode | {command}")
    found = json.loads(output.strip().splitlines()[-1])
    rules = {rule for _, rule in found}
    # One of each table: MLflow has hundreds.
    assert {"/api/2.0/mlflow/runs/get", "/v1/traces", "/ajax-api/3.0/jobs/"} <= rules, rules
    return [(method, rule) for method, rule in found if method not in {"HEAD", "OPTIONS"}]


def path(rule: str, values: dict[str, str] | None = None) -> str:
    """A path that the rule matches, with these values for its variables, or 1."""
    return re.sub(
        r"<(?:[^<>]*:)?(\w+)>|\{(\w+)(?::\w+)?\}", lambda found: (values or {}).get(found[1] or found[2], "1"), rule
    )


def statuses(
    instance: Instance, url: str, requests: list[tuple[str, str]], headers: dict[str, str] | None = None
) -> list[int]:
    """The status that a client on the instance's machine gets for each request."""
    wanted = json.dumps({"url": url, "requests": requests, "headers": headers or {}})
    sent = base64.b64encode(wanted.encode()).decode()
    program = base64.b64encode(PROBE.encode()).decode()
    # By a file: hundreds of paths are more than a command line holds.
    instance.sh(f"echo {program} | base64 --decode > /run/probe.py")
    for start in range(0, len(sent), 60000):
        instance.sh(f"echo {sent[start : start + 60000]} {'>>' if start else '>'} /run/probe.b64")
    found: list[int] = json.loads(
        instance.sh("base64 --decode --ignore-garbage /run/probe.b64 | python3 /run/probe.py")
    )
    return found


def basic(name: str, password: str) -> dict[str, str]:
    """The header of somebody who signs in."""
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}
