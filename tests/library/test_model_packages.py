"""The module model_packages: what needs no package index, and which image has a model's packages already."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args

from library import model_packages as module

RUNTIME = "mlflow==3.17.2 scikit-learn==1.9.1 typing-extensions==4.16.0"


@pytest.mark.parametrize(
    "requirements",
    [
        [],
        ["mlflow==3.17.2"],
        ["scikit_learn==1.9.1", "Typing.Extensions == 4.16.0"],
        ["mlflow==3.17.2 --hash=sha256:1 --hash sha256:2"],
    ],
)
def test_what_the_runtime_image_has(requirements: list[str]) -> None:
    assert module.fulfils(RUNTIME, requirements)


@pytest.mark.parametrize(
    "line",
    [
        "mlflow==3.17.1",
        "numpy==1.0",
        "mlflow",
        "mlflow>=3",
        "mlflow[auth]==3.17.2",
        "mlflow==3.17.2; python_version<'3'",
        "mlflow==3.*",
    ],
)
def test_what_it_has_not_or_only_uv_can_tell(line: str) -> None:
    assert not module.fulfils(RUNTIME, ["scikit-learn==1.9.1", line])
    assert not module.fulfils("", ["mlflow==3.17.2"])


def test_the_key_stands_for_runtime_and_requirements() -> None:
    assert module.key_of("sha256:1", ["a==1", "b==2"], []) == module.key_of("sha256:1", ["b==2", "a==1"], [])
    different: list[tuple[str, list[str], list[str]]] = [
        ("sha256:1", ["a==1"], []),
        ("sha256:2", ["a==1"], []),
        ("sha256:1", [], []),
        ("sha256:1", ["a==1"], ["a==1"]),
    ]
    assert len({module.key_of(*parts) for parts in different}) == 4


class Handler(BaseHTTPRequestHandler):
    """An engine with a runtime image and images of two versions with the same packages."""

    label: ClassVar[str] = ""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        answer: Any = None
        if parts.path == "/images/ours/runtime%3A1/json":
            answer = {"Id": "sha256:r", "Config": {"Labels": {"mlflow-anywhere.packages": RUNTIME}}}
        elif parts.path == "/images/json":
            filters = json.loads(parse_qs(parts.query)["filters"][0])
            assert filters["dangling"] == ["false"]
            there = filters["label"] == [f"mlflow-anywhere.added-packages={self.label}"]
            answer = [{"Id": "sha256:old", "Created": 1}, {"Id": "sha256:new", "Created": 2}] if there else []
        text = json.dumps(answer).encode()
        self.send_response(404 if answer is None else 200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def ask(
    listen: Callable[[type[BaseHTTPRequestHandler]], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., dict[str, Any]]:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{listen(Handler)}")
    monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy")

    def asked(*requirements: str, runtime: str = "ours/runtime:1") -> dict[str, Any]:
        with patch_module_args({"runtime": runtime, "requirements": list(requirements)}), pytest.raises(SystemExit):
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return asked


def test_the_runtime_image_has_all(ask: Callable[..., dict[str, Any]]) -> None:
    result = ask("mlflow==3.17.2")
    assert (result["changed"], result["key"], result["image"]) == (False, "", "")


def test_the_newest_image_with_the_same_packages_is_found(ask: Callable[..., dict[str, Any]]) -> None:
    Handler.label = ""
    key = module.key_of("sha256:r", ["numpy==1.0"], [])
    assert (ask("numpy==1.0")["key"], ask("numpy==1.0")["image"]) == (key, "")
    Handler.label = key
    assert ask("numpy==1.0")["image"] == "sha256:new"


def test_a_runtime_image_that_is_not_there_is_named(ask: Callable[..., dict[str, Any]]) -> None:
    result = ask("mlflow==3.17.2", runtime="ours/runtime:2")
    assert result["failed"]
    assert "there is no image ours/runtime:2" in result["msg"]
