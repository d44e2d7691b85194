"""MLflow's own route table against the paths that the edge lets through."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

DEFAULTS: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "roles/edge/defaults/main.yml").read_text())
# Parts of MLflow that are not for clients: they run code, call other servers, make users or tell about the server.
NOT_FOR_CLIENTS = re.compile(
    r"/(jobs|assistant|invoke|gateway-proxy|demo|signup|mcp|docs|redoc|openapi\.json|metrics|ready)(/|$)|^/gateway/"
)
# Where a word of these is data and no part of the server.
METRICS = re.compile(r"^/(ajax-)?api/[23]\.0/mlflow/(metrics|traces/metrics|runs/[a-z-]*metric)(/|$)")
# Not used by clients and pages of this release.
UNUSED = re.compile(r"^/build/|^/(ajax-)?api/2\.0mlflow/|^/console")


def passes(path: str) -> bool:
    """Whether the edge sends a path on."""
    allowed = path in DEFAULTS["edge_tracking_allowed_paths"] or path.startswith(
        tuple(DEFAULTS["edge_tracking_allowed_prefixes"])
    )
    denied = path.lower() in DEFAULTS["edge_tracking_denied_paths"] or path.lower().startswith(
        tuple(DEFAULTS["edge_tracking_denied_prefixes"])
    )
    return allowed and not denied


def routers(routes: Any) -> Iterator[str]:
    """Paths of FastAPI's routes, those of included routers too."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from (route.include_context.prefix + path for path in routers(inner.routes))
        elif hasattr(route, "path"):
            yield route.path


@pytest.fixture(scope="module")
def table() -> list[str]:
    """Every route of the tracking server, its parameters replaced by a letter."""
    server = pytest.importorskip("mlflow.server")
    fastapi = pytest.importorskip("mlflow.server.fastapi_app")
    found = {rule.rule for rule in server.app.url_map.iter_rules()} | set(routers(fastapi.app.routes)) - {""}
    return sorted({re.sub(r"<[^>]*>|\{[^}]*\}", "x", path) for path in found})


def test_every_part_of_mlflow_is_decided_on(table: list[str]) -> None:
    assert len(table) > 300
    refused = [path for path in table if not passes(path)]
    assert [path for path in refused if not NOT_FOR_CLIENTS.search(path) and not UNUSED.search(path)] == []


def test_nothing_that_is_not_for_clients_passes(table: list[str]) -> None:
    assert [path for path in table if passes(path) and NOT_FOR_CLIENTS.search(path) and not METRICS.search(path)] == []
