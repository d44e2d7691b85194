#!/usr/bin/python
"""Check a running platform from outside, as its clients see it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: platform_smoke
short_description: Check a running platform as its clients see it
description:
  - Asks the tracking server a question that needs its database, fetches the page of the UI, and sends every model that is declared its own
    input example. Changes nothing. Needs no package on the host.
  - Fails when a check fails, and names all that did.
options:
  tracking_url:
    description: Address of the MLflow UI and API.
    type: str
    required: true
  models_url:
    description: Address of all models.
    type: str
    required: true
  models:
    description: Names of the models that must answer.
    type: list
    elements: str
    default: []
  username:
    description: User of the tracking server, where it asks for one.
    type: str
    default: ""
  password:
    description: Password of that user.
    type: str
    default: ""
  key:
    description: API key for the models, where they ask for one.
    type: str
    default: ""
  timeout:
    description: Seconds that one answer may take.
    type: int
    default: 30
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Check what clients see
  platform_smoke:
    tracking_url: http://localhost:5000
    models_url: http://localhost:8000
    models: [iris, digits]
"""

RETURN = r"""
mlflow_version:
  description: Version of the tracking server.
  returned: success
  type: str
models:
  description: What the edge says of each model, with the answer to its input example.
  returned: success
  type: list
  elements: dict
checks:
  description: Every check in one line, with its milliseconds.
  returned: always
  type: list
  elements: str
"""

import base64
import json
import time
import urllib.error
import urllib.request
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule

# What a server says that cannot answer right now, and the seconds that are waited for it.
BUSY = (429, 503)
PATIENCE = 30


class Answer(NamedTuple):
    """Status, headers (names in lower case) and body of an HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


class SmokeError(Exception):
    """A check did not find what it looked for."""


def request(
    url: str, timeout: int, data: Any = None, headers: dict[str, str] | None = None, patience: int = PATIENCE
) -> Answer:
    """GET `url`, or POST `data` to it as JSON; raise SmokeError when nothing answers."""
    body = None if data is None else json.dumps(data).encode()
    ask = urllib.request.Request(  # noqa: S310 - the address comes from the inventory
        url, data=body, headers={"Content-Type": "application/json", **(headers or {})}
    )
    try:
        with urllib.request.urlopen(ask, timeout=timeout) as response:  # noqa: S310
            return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, response.read())
    except urllib.error.HTTPError as error:
        answer = Answer(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())
        said = answer.headers.get("retry-after", "")
        # Who says when to come back is asked again then.
        if answer.status in BUSY and said.isdigit() and int(said) <= patience:
            time.sleep(int(said))
            return request(url, timeout, data, headers, patience - max(1, int(said)))
        return answer
    except OSError as error:
        message = f"{url} does not answer: {error}"
        raise SmokeError(message) from error


def expect(answer: Answer, url: str) -> Answer:
    """Return `answer` if its status is 200; else raise SmokeError with the beginning of its body."""
    if answer.status != 200:  # noqa: PLR2004 - HTTP's own number
        message = f"{url} answers {answer.status}: {answer.body[:300].decode(errors='replace')}"
        raise SmokeError(message)
    return answer


def signed_in(username: str, password: str, key: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the headers for the tracking server and those for the models."""
    basic = base64.b64encode(f"{username}:{password}".encode()).decode()
    return ({"Authorization": f"Basic {basic}"} if username else {}, {"Authorization": f"Bearer {key}"} if key else {})


def check_tracking(url: str, timeout: int, headers: dict[str, str] | None = None) -> str:
    """Check the API, its database, a browser's cross-origin header and the UI; return MLflow's version."""
    search = f"{url}/api/2.0/mlflow/experiments/search"
    found = expect(request(search, timeout, {"max_results": 1}, {"Origin": url, **(headers or {})}), search).json()
    if "experiments" not in found:
        message = f"{search} answers without experiments: {found}"
        raise SmokeError(message)
    page = expect(request(f"{url}/", timeout, headers=headers), f"{url}/")
    if b"<title>MLflow</title>" not in page.body:
        message = f"{url}/ is not the page of MLflow's UI: {page.body[:200].decode(errors='replace')}"
        raise SmokeError(message)
    return expect(request(f"{url}/version", timeout, headers=headers), f"{url}/version").body.decode().strip()


def check_model(url: str, name: str, timeout: int, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """Send the model its own input example; return what the edge says of it and what it answered."""
    base = f"{url}/models/{name}"
    listed = expect(request(f"{url}/models", timeout, headers=headers), f"{url}/models").json()
    entry = next((item for item in listed if item["name"] == name), None)
    if entry is None:
        message = f"{url}/models does not list {name}: {listed}"
        raise SmokeError(message)
    known = expect(request(f"{base}/metadata", timeout, headers=headers), f"{base}/metadata").json()
    if known.get("input_example") is None:
        answer = expect(request(f"{base}/ping", timeout, headers=headers), f"{base}/ping")
        prediction = "no input example was logged, it answers /ping"
    else:
        answer = expect(request(f"{base}/invocations", timeout, known["input_example"], headers), f"{base}/invocations")
        prediction = answer.json()["predictions"]
    if known.get("predict_example") is not None:
        expect(request(f"{base}/predict", timeout, known["predict_example"], headers), f"{base}/predict")
    named = answer.headers.get("x-model-name"), answer.headers.get("x-model-version")
    if named != (name, entry["version"]):
        message = f"{base} should be {name} version {entry['version']}, its answer names {named[0]} version {named[1]}"
        raise SmokeError(message)
    return {**entry, "prediction": prediction}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "tracking_url": {"type": "str", "required": True},
            "models_url": {"type": "str", "required": True},
            "models": {"type": "list", "elements": "str", "default": []},
            "username": {"type": "str", "default": ""},
            "password": {"type": "str", "default": "", "no_log": True},
            "key": {"type": "str", "default": "", "no_log": True},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    timeout = module.params["timeout"]
    tracking, models = (module.params[name].rstrip("/") for name in ("tracking_url", "models_url"))
    user, client = signed_in(*(module.params[name] for name in ("username", "password", "key")))
    checks: list[str] = []
    failures: list[str] = []

    def run(what: str, check: Any, *arguments: Any) -> Any:
        start = time.monotonic()
        try:
            return check(*arguments)
        except (SmokeError, ValueError, KeyError) as error:
            failures.append(f"{what}: {error}")
            return None
        finally:
            checks.append(f"{what}: {(time.monotonic() - start) * 1000:.0f} ms")

    version = run("tracking server", check_tracking, tracking, timeout, user)
    served = [run(f"model {name}", check_model, models, name, timeout, client) for name in module.params["models"]]
    if failures:
        module.fail_json(msg="What clients see is not as it should be:\n" + "\n".join(failures), checks=checks)
    module.exit_json(changed=False, mlflow_version=version, models=served, checks=checks)


if __name__ == "__main__":
    main()
