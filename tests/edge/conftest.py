"""Render the role's templates from its defaults, without a host."""

from __future__ import annotations

import pytest

from tests.templates import Render, renderer

__all__ = ["FILES", "MODELS", "TABLES", "Render", "render"]

MODELS = [
    {"name": "iris"},
    {
        "name": "digits",
        "engine": "api",
        "replicas": 2,
        "port": 9201,
        "challenger": {"alias": "challenger", "percent": 10},
    },
]

# What the edge reads besides its configuration.
FILES = (
    "models.json",
    "index.html",
    "missing.html",
    "pages.js",
    "style.css",
    "versions.map",
    "metadata.map",
    "docs.map",
)
TABLES = ("keys.map", "grants.map", "rates.map")


@pytest.fixture(scope="session")
def render() -> Render:
    """Text of a template of the role for the given variables."""
    return renderer("edge", served_models=MODELS, serving_default_model="digits", __edge_reasons={})
