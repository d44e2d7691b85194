"""Fixtures: an account in the double, and a way to run a module against it over HTTP."""

import importlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args

from tests.cloud.double import TOKEN, Cloud, served

Run = Callable[..., dict[str, Any]]
TAG = "mlflow-anywhere:mlflow"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKvuTb/f10T99ecOzF7HsgKJDQ1MUApZzFPiLNlYDsiD operator"


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


@pytest.fixture
def url(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    # Proxies of the machine that runs the tests have nothing to do with it.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("DIGITALOCEAN_TOKEN", raising=False)
    with served(cloud) as address:
        yield address


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the module would have slept; it goes on at once."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


@pytest.fixture
def run(url: str, naps: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a module against the double; gives its result."""
    assert naps == []

    def call(module_name: str, /, *, check: bool = False, **parameters: Any) -> dict[str, Any]:
        module = importlib.import_module(f"library.{module_name}")
        given = {"api_url": url, "api_token": TOKEN, "_ansible_check_mode": check, **parameters}
        warned: list[str] = []
        # Where Ansible itself is loaded beside the module, it would print them instead.
        monkeypatch.setattr(basic.AnsibleModule, "warn", lambda _, text: warned.append(text))
        with patch_module_args({key: value for key, value in given.items() if value is not None}):
            basic._ANSIBLE_PROFILE = "legacy"
            with pytest.raises(SystemExit):
                module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result | {"warnings": warned}

    return call
