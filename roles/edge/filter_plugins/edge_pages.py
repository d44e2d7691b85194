"""Filter `edge_pages`: what the pages and tables of the edge say about every deployed model."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

# Keys of a catalogue entry that clients see in /models; /metadata has the second row besides.
PUBLIC = ("name", "model", "alias", "version", "engine", "replicas")
DETAILS = ("run_id", "signature", "input_example", "predict_example", "metrics", "pickle")
# Paths of every model, and of the engine `api`.
PATHS = ("invocations", "ping", "health", "version", "metadata", "docs", "openapi.json")
API_PATHS = ("predict", "v2")
# Longest example that a page shows, and what a model takes on the page besides.
EXAMPLE_LIMIT = 4000
PAGE_SHARE = 1600
PAGE_FRAME = 8192


def compact(value: object) -> str:
    """One line of JSON; NaN and Infinity, which JSON lacks, become null."""

    def plain(item: object) -> object:
        if isinstance(item, Mapping):
            return {str(key): plain(inner) for key, inner in item.items()}
        if isinstance(item, list | tuple):
            return [plain(inner) for inner in item]
        if isinstance(item, float) and not math.isfinite(item):
            return None
        return item

    return json.dumps(plain(value), allow_nan=False)


def entry(raw: Mapping[str, Any], own_url: str | None, default_model: str) -> dict[str, Any]:
    """What GET /models says about one model."""
    public = {key: raw.get(key) for key in PUBLIC}
    if public["version"] is not None:
        public["version"] = str(public["version"])
    base = f"/models/{raw['name']}"
    paths = PATHS + (API_PATHS if raw["engine"] == "api" else ())
    urls = {path.removesuffix(".json"): f"{base}/{path}" for path in paths}
    if raw["engine"] == "api":
        # The model's own page; its links are relative, so the slash at the end matters.
        urls["page"] = f"{base}/"
    return {
        **public,
        "challenger": raw.get("challenger"),
        "default": raw["name"] == default_model,
        "url": f"{base}/",
        "own_url": own_url,
        "urls": urls,
    }


def curl(raw: Mapping[str, Any], url: str, limit: int) -> str:
    """A command line that asks the model for a prediction."""
    path, example = "invocations", raw.get("input_example")
    if raw["engine"] == "api" and raw.get("predict_example") is not None:
        path, example = "predict", raw["predict_example"]
    body = compact(example) if example is not None else ""
    data = shlex.quote(body) if body and len(body) <= limit else "@request.json"
    address = shlex.quote(f"{url}/models/{raw['name']}/{path}")
    return f"curl {address} -H 'Content-Type: application/json' -d {data}"


def edge_pages(
    catalogue: object,
    url: str,
    own_url: str,
    default_model: str = "",
    buffer_size: int = 81920,
) -> list[dict[str, Any]]:
    """Per model: its public entry, its metadata as one line of JSON, and an example. Nothing outgrows the edge's buffer."""
    if not isinstance(catalogue, list | tuple):
        raise AnsibleFilterError(
            f"edge_catalogue is {str(catalogue)[:60]!r}. Allowed: a list of mappings, one per model."
        )
    room = buffer_size * 7 // 8
    limit = min(EXAMPLE_LIMIT, (room - PAGE_FRAME) // max(1, len(catalogue)) - PAGE_SHARE)
    if limit < 0:
        raise AnsibleFilterError(
            f"edge_catalogue has {len(catalogue)} models, more than one buffer of {buffer_size} bytes describes."
            " Raise edge_buffer_size in inventory/<name>/group_vars/all/ and run the same command again."
        )
    pages = []
    for raw in catalogue:
        if not isinstance(raw, Mapping) or not {"name", "engine"} <= set(raw):
            raise AnsibleFilterError(
                f"edge_catalogue holds {str(raw)[:60]!r}. Allowed: mappings with at least name and engine."
            )
        public = entry(raw, own_url.replace("PORT", str(raw["port"])) if raw.get("port") else None, default_model)
        metadata = {**public, **{key: raw.get(key) for key in DETAILS}}
        # The largest parts go first, until the rest fits.
        for key in ("input_example", "predict_example", "signature", "metrics"):
            if len(compact(metadata)) <= room:
                break
            metadata[key] = None
        example = curl(raw, url, limit)
        pages.append(
            {"item": public, "metadata": compact(metadata), "curl": example, "metrics": raw.get("metrics") or {}}
        )
    return pages


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        return {"edge_pages": edge_pages}
