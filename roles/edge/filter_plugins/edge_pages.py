"""Filters `edge_pages` and `with_declared`: what the pages and tables of the edge say about every deployed model."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

# Keys of a catalogue entry that clients see in /models; /metadata has the second row besides.
PUBLIC = ("name", "model", "alias", "version", "engine", "replicas")
DETAILS = ("run_id", "signature", "input_example", "predict_example", "metrics", "pickle", "labels")
# Paths of every model, and of the engine `api`.
PATHS = ("invocations", "ping", "health", "version", "metadata", "docs", "openapi.json")
API_PATHS = ("predict", "v2")
# Longest example that a page shows, and what a model takes on the page besides.
EXAMPLE_LIMIT = 4000
PAGE_SHARE = 1700
PAGE_FRAME = 10240
# What a model takes on a page of so many that only names, versions and reasons fit.
PAGE_BRIEF = 900
# What the page says of a model that is not served; the run says the rest.
PROBLEM_LIMIT = 300


def compact(value: object, *, short: bool = False) -> str:
    """One line of JSON; NaN and Infinity, which JSON lacks, become null. `short` leaves out spaces, and the .0 of whole numbers."""

    def plain(item: object) -> object:
        if isinstance(item, Mapping):
            return {str(key): plain(inner) for key, inner in item.items()}
        if isinstance(item, list | tuple):
            return [plain(inner) for inner in item]
        if isinstance(item, float) and not math.isfinite(item):
            return None
        return int(item) if short and isinstance(item, float) and item.is_integer() else item

    return json.dumps(plain(value), allow_nan=False, separators=(",", ":") if short else None)


def first_row(example: object) -> object:
    """The example with its first row alone, which is as good to begin with."""
    if isinstance(example, Mapping):
        split = example.get("dataframe_split")
        if isinstance(split, Mapping) and isinstance(split.get("data"), Sequence):
            kept = {key: value for key, value in split.items() if key != "index"}
            return {**example, "dataframe_split": {**kept, "data": list(split["data"][:1])}}
        for key in ("inputs", "instances", "dataframe_records"):
            if isinstance(example.get(key), list):
                return {**example, key: example[key][:1]}
    return example


def entry(raw: Mapping[str, Any], own_url: str | None, default_model: str) -> dict[str, Any]:
    """What GET /models says about one model."""
    public = {key: raw.get(key) for key in PUBLIC}
    if public["version"] is not None:
        public["version"] = str(public["version"])
    base = f"/models/{raw['name']}"
    paths = PATHS + (API_PATHS if raw["engine"] == "api" else ())
    urls = {path.removesuffix(".json"): f"{base}/{path}" for path in paths}
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


def question(raw: Mapping[str, Any], limit: int) -> tuple[str, str]:
    """The path that a first request goes to, and its body: the first row of the model's example, or nothing if that is too long."""
    path, example = "invocations", raw.get("input_example")
    if raw["engine"] == "api" and raw.get("predict_example") is not None:
        path, example = "predict", raw["predict_example"]
    if example is None:
        return path, ""
    forms = (compact(first_row(example)), compact(first_row(example), short=True))
    return path, next((form for form in forms if len(form) <= limit), "")


def curl(raw: Mapping[str, Any], url: str, path: str, body: str) -> tuple[str, str]:
    """A command line that asks the model for a prediction, and what has to be said of it."""
    model = f"{url}/models/{raw['name']}"
    command = f"curl {shlex.quote(f'{model}/{path}')} -H 'Content-Type: application/json' -d"
    if body:
        return f"{command} {shlex.quote(body)}", ""
    if raw.get("input_example") is not None or raw.get("predict_example") is not None:
        key = "predict_example" if path == "predict" else "input_example"
        reader = shlex.quote(f"import json, sys; print(json.dumps(json.load(sys.stdin)['{key}']))")
        return f"curl -s {shlex.quote(f'{model}/metadata')} | python3 -c {reader} | {command} @-", ""
    shape = tensor_shape(raw)
    if len(shape) == 2 and shape[0] == -1 and shape[1] > 0:  # noqa: PLR2004 - rows and values
        maker = shlex.quote(f'import json; print(json.dumps({{"inputs": [[0] * {shape[1]}]}}))')
        return f"python3 -c {maker} | {command} @-", "The model was logged without an example: this asks with zeros."
    return (
        f"{command} @request.json",
        "The model was logged without an example: write your request into the file request.json.",
    )


def tensor_shape(raw: Mapping[str, Any]) -> Sequence[int]:
    """The shape of the model's only input, if that is a tensor."""
    inputs = (raw.get("signature") or {}).get("inputs") or []
    only = inputs[0] if len(inputs) == 1 and "name" not in inputs[0] else {}
    return only.get("tensor-spec", {}).get("shape") or ()


def with_declared(catalogue: object, declared: Sequence[Mapping[str, Any]], reasons: Mapping[str, str]) -> object:
    """The catalogue, and what is declared besides and not served; `reasons` says by name why a model is not served as declared."""
    if not isinstance(catalogue, list | tuple) or not all(isinstance(raw, Mapping) for raw in catalogue):
        # The filter `edge_pages` says what is wrong with it.
        return catalogue
    known = {raw.get("name") for raw in catalogue}
    missing = [{**raw, "served": False} for raw in declared if raw["name"] not in known]
    return [{**raw, "problem": reasons.get(raw.get("name", ""), "")} for raw in [*catalogue, *missing]]


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
    share = (room - PAGE_FRAME) // max(1, len(catalogue))
    brief = share < PAGE_SHARE
    # A model's own page has room for its example.
    limit = EXAMPLE_LIMIT if brief else min(EXAMPLE_LIMIT, share - PAGE_SHARE)
    if share < PAGE_BRIEF:
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
        for key in ("input_example", "predict_example", "signature", "metrics", "labels"):
            if len(compact(metadata)) <= room:
                break
            metadata[key] = None
        path, body = question(raw, limit)
        command, hint = curl(raw, url, path, body)
        pages.append(
            {
                "item": public,
                "metadata": compact(metadata),
                "curl": command,
                "hint": hint,
                "body": body,
                "metrics": raw.get("metrics") or {},
                "served": raw.get("served", True),
                "problem": str(raw.get("problem", ""))[:PROBLEM_LIMIT],
                "brief": brief,
            }
        )
    return pages


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        return {"edge_pages": edge_pages, "with_declared": with_declared}
