"""What MLflow's pages find where a part of MLflow is off, and that MLflow's program still has the words by which that is done."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from roles.tracking.files import pages

GATEWAY = "/ajax-api/3.0/mlflow/gateway/secrets/list"
USER = "/ajax-api/2.0/mlflow/users/current"
INDEX = b"<!doctype html><html><head><title>MLflow</title></head><body></body></html>"


def ask(
    path: str, status: int, body: bytes = b"refused", method: str = "GET", **headers: str
) -> tuple[int, dict[bytes, bytes], bytes]:
    """What a client gets, where MLflow answers this in two pieces."""
    sent: list[Any] = []
    asked: list[Any] = []

    async def mlflow(scope: Any, _receive: Any, send: Any) -> None:
        asked.append(dict(scope["headers"]))
        start = [(b"content-length", str(len(body)).encode()), (b"etag", b"1"), (b"x-frame-options", b"SAMEORIGIN")]
        await send({"type": "http.response.start", "status": status, "headers": start})
        await send({"type": "http.response.body", "body": body[:5], "more_body": True})
        await send({"type": "http.response.body", "body": body[5:]})

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": given}
    asyncio.run(pages.Pages(mlflow)(scope, receive, send))
    assert b"if-none-match" not in asked[0] or path != "/"
    found = dict(sent[0]["headers"])
    whole = b"".join(message["body"] for message in sent[1:])
    assert int(found[b"content-length"]) == len(whole)
    return sent[0]["status"], found, whole


@pytest.mark.parametrize(("path", "status"), [(GATEWAY, 501), (USER, 404)])
def test_a_page_finds_nothing_where_a_part_is_off(path: str, status: int) -> None:
    assert ask(path, status)[::2] == (200, b"{}")


@pytest.mark.parametrize(
    ("path", "status", "method"),
    [
        (GATEWAY, 200, "GET"),
        (GATEWAY, 403, "GET"),
        (GATEWAY, 404, "GET"),
        (USER, 200, "GET"),
        (USER, 401, "GET"),
        (USER + "/permissions", 404, "GET"),
        # Who wants something done, and programs, are told that it is off.
        ("/ajax-api/3.0/mlflow/gateway/secrets/create", 501, "POST"),
        ("/api/3.0/mlflow/gateway/secrets/list", 501, "GET"),
        ("/ajax-api/3.0/mlflow/scorers/list", 501, "GET"),
    ],
)
def test_everything_else_is_told_as_it_is(path: str, status: int, method: str) -> None:
    assert ask(path, status, method=method)[::2] == (status, b"refused")


def test_the_first_page_comes_with_what_is_added_and_is_never_taken_from_before() -> None:
    status, headers, body = ask("/", 200, INDEX, if_none_match="1")
    assert status == 200
    assert body == INDEX.replace(b"</head>", pages.ADDED + b"</head>")
    assert headers[b"x-frame-options"] == b"SAMEORIGIN"
    assert b"etag" not in headers
    assert headers[b"cache-control"] == b"no-cache"


def test_what_is_no_page_of_html_stays_as_it_is() -> None:
    assert ask("/", 500, b'{"message": "no"}')[::2] == (500, b'{"message": "no"}')


@pytest.fixture(scope="module")
def program() -> str:
    """MLflow's program for browsers."""
    server = pytest.importorskip("mlflow.server")
    build = Path(server.__file__).parent / "js/build"
    assert b"</head>" in (build / "index.html").read_bytes()
    return "".join(path.read_text("utf-8") for path in sorted((build / "static/js").glob("*.js")))


def test_the_program_has_the_words_that_are_added(program: str) -> None:
    # It stores a key with its version behind it.
    assert "`${e}_v${t}`" in program
    for name in pages.SEEN:
        key, _, version = name.rpartition("_v")
        assert f'"{key}"' in program
        assert version == "1"
    assert 'key:"mlflow.assistant.fab.autoOpenedOnFirstLoad",version:1,' in program
    assert '"data-assistant-ui":"true"' in program
    assert '"mlflow.home.demo-banner.launch"' in program
    assert "data-component-id" in program
    assert {'[data-assistant-ui="true"]', 'div:has(> [data-component-id="mlflow.home.demo-banner.launch"])'} == set(
        pages.HIDDEN
    )


def test_the_program_asks_where_it_finds_nothing(program: str) -> None:
    for path in (GATEWAY, USER, "/ajax-api/2.0/mlflow/gateway-proxy", "/ajax-api/3.0/mlflow/assistant"):
        assert f'"{path[1:]}"' in program or f"{path[1:]}" in program
    assert "gateway_path" in program


def test_nothing_has_the_form_that_mlflow_gives_it() -> None:
    api = pytest.importorskip("mlflow.server.assistant.api")
    variables = yaml.safe_load((Path(__file__).parents[2] / "roles/edge/vars/main.yml").read_text())
    answers = {item["path"].rpartition("/")[2]: item["answer"] for item in variables["__edge_tracking_nothing"]}
    assert answers["config"] == json.loads(api.ConfigResponse().model_dump_json())
    assert answers["providers"] == json.loads(api.ProvidersResponse(providers=[], resolved=None).model_dump_json())
