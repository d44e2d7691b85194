#!/usr/bin/python
"""Look up registered MLflow models by alias over REST, and fetch the files of one version."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mlflow_model_version
short_description: Look up versions of registered MLflow models and fetch their files
description:
  - Asks the registry of an MLflow tracking server which version stands behind an alias and what is known of it.
    Needs neither MLflow nor any other package on the host.
  - With O(dest), fetches the files of one version through the tracking server's artifact proxy. The directory appears
    complete or not at all.
  - Everything that is wrong with the models asked for is reported in one message.
options:
  tracking_url:
    description: Address of the tracking server.
    type: str
    required: true
  username:
    description: User of the tracking server, where it asks for one.
    type: str
  password:
    description: Password of O(username).
    type: str
  ca_path:
    description: File with the certificates that O(tracking_url) is checked against, instead of the host's own.
    type: path
  timeout:
    description: Seconds that the tracking server may take for one answer.
    type: int
    default: 30
  models:
    description: The models to look up. The result has one item for each, in this order.
    type: list
    elements: dict
    required: true
    suboptions:
      model:
        description: Name of the registered model.
        type: str
        required: true
      alias:
        description: Alias of the version. One of O(models[].alias) and O(models[].version) is needed.
        type: str
      version:
        description: The version itself.
        type: str
      required:
        description: Whether a missing model or alias is an error. If not, its item says RV(versions[].found=false).
        type: bool
        default: true
  dest:
    description:
      - Directory that the files of the only item of O(models) are fetched to. One that exists is left as it is.
    type: path
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Look up what is to be served
  mlflow_model_version:
    tracking_url: http://127.0.0.1:5000
    models:
      - {model: iris, alias: champion}
      - {model: digits, alias: challenger, required: false}
  register: found

- name: Fetch one version
  mlflow_model_version:
    tracking_url: http://127.0.0.1:5000
    models:
      - {model: iris, version: "3"}
    dest: /tmp/iris-3
"""

RETURN = r"""
answers:
  description: Whether the tracking server answers at all.
  returned: failure
  type: bool
versions:
  description: What is known of each model, in the order of O(models).
  returned: success
  type: list
  elements: dict
  contains:
    found:
      description: Whether there is such a version.
      type: bool
    model:
      description: Name of the registered model.
      type: str
    alias:
      description: The alias that was asked for.
      type: str
    version:
      description: The version.
      type: str
    reason:
      description: Why there is none.
      type: str
    run_id:
      description: The run that logged it.
      type: str
    source:
      description: Where its files are, as the registry says.
      type: str
    artifact_uri:
      description: Where its files are, behind the artifact proxy.
      type: str
    tags:
      description: Tags of the version.
      type: dict
    aliases:
      description: All aliases of the version.
      type: list
    metrics:
      description: Metrics of its run.
      type: dict
    mlmodel:
      description: Text of its file MLmodel, which is YAML.
      type: str
    requirements:
      description: Lines of its requirements.txt without comments.
      type: list
    input_example:
      description: The request that it was logged with.
      type: dict
"""

import base64
import http
import http.client
import ipaddress
import json
import os
import re
import shutil
import ssl
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, cast

from ansible.module_utils.basic import AnsibleModule

# Larger ones are for the image only; they would travel through every result.
LARGEST_EXAMPLE = 64 * 1024
LARGEST_TEXT = 1024 * 1024
CHUNK = 1024 * 1024
ATTEMPTS = 3
# A requirement may be followed by its hashes, by no other option of pip.
OPTION = re.compile(r"(?:^|\s)(-{1,2}[A-Za-z][A-Za-z-]*)")
LOCAL = re.compile(r"^(?:\.{0,2}/|[\w.-]+/|file:)|@\s*file:")


class RegistryError(Exception):
    """What a person is told: the request cannot be carried out."""


class NoAnswerError(RegistryError):
    """Nobody answers at the server's address."""


class NotFoundError(RegistryError):
    """The server answers that it has no such thing."""


class Registry:
    """The part of MLflow's REST interface that this module needs."""

    def __init__(
        self,
        url: str,
        credentials: tuple[str, str] | None = None,
        ca_path: str | None = None,
        timeout: float = 30,
        pause: float = 1,
    ) -> None:
        """Keep the address and the credentials; nothing is asked yet."""
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.pause = pause
        self._headers = {"Accept": "application/json"}
        if credentials:
            token = base64.b64encode(":".join(credentials).encode()).decode()
            self._headers["Authorization"] = f"Basic {token}"
        handlers: list[urllib.request.BaseHandler] = []
        if self.url.startswith("https:"):
            handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca_path)))
        if _is_loopback(urllib.parse.urlsplit(self.url).hostname or ""):
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def open(self, path: str, query: dict[str, str] | None = None) -> http.client.HTTPResponse:
        """Send a GET request and return the answer, unread."""
        url = self.url + path + ("?" + urllib.parse.urlencode(query) if query else "")
        for attempt in range(1, ATTEMPTS + 1):
            try:
                request = urllib.request.Request(url, headers=self._headers)  # noqa: S310 - main() lets only http(s) through
                return cast("http.client.HTTPResponse", self._opener.open(request, timeout=self.timeout))
            except urllib.error.HTTPError as error:
                if error.code in (502, 503, 504) and attempt < ATTEMPTS:
                    time.sleep(self.pause)
                    continue
                raise self._refusal(url, error) from error
            except (OSError, http.client.HTTPException) as error:
                if attempt < ATTEMPTS:
                    time.sleep(self.pause)
                    continue
                reason = getattr(error, "reason", error)
                raise NoAnswerError(
                    f"The tracking server at {self.url} does not answer: {reason}. Start it: make up"
                ) from error
        raise AssertionError  # pragma: no cover - the last attempt returns or raises

    def _refusal(self, url: str, error: urllib.error.HTTPError) -> RegistryError:
        text = error.read(LARGEST_TEXT).decode(errors="replace")
        try:
            answer = json.loads(text)
            code, message = str(answer.get("error_code", "")), str(answer.get("message", text))
        except (ValueError, AttributeError):
            code, message = "", text.strip()[:300]
        if error.code in (401, 403):
            return RegistryError(f"The tracking server at {self.url} refuses the user ({error.code}): {message}")
        # An unknown alias is an "invalid parameter" to MLflow.
        missing = (
            error.code == http.HTTPStatus.NOT_FOUND
            or code == "RESOURCE_DOES_NOT_EXIST"
            or ("alias" in message and "not found" in message)
        )
        return (NotFoundError if missing else RegistryError)(f"{url} answers {error.code}: {message}")

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Return the JSON answer of one call of the REST interface."""
        with self.open(f"/api/2.0/mlflow/{path}", query) as response:
            return cast("dict[str, Any]", json.load(response))

    def artifact(self, directory: str, name: str, largest: int = LARGEST_TEXT) -> str | None:
        """Return the text of a small file below `directory`, None if there is none or it is too large."""
        try:
            with self.open(
                "/api/2.0/mlflow-artifacts/artifacts/" + urllib.parse.quote(f"{directory}/{name}")
            ) as response:
                content = response.read(largest + 1)
        except NotFoundError:
            return None
        return None if len(content) > largest else content.decode(errors="replace")

    def names(self) -> list[str]:
        """Return the names of all registered models."""
        names: list[str] = []
        token = ""
        while True:
            query = {"max_results": "1000"} | ({"page_token": token} if token else {})
            answer = self.get("registered-models/search", **query)
            names += [model["name"] for model in answer.get("registered_models", [])]
            token = answer.get("next_page_token", "")
            if not token:
                return sorted(names)

    def versions(self, model: str) -> list[str]:
        """Return the newest versions of a model, each with its validation status."""
        quoted = model.replace("'", "\\'")
        answer = self.get(
            "model-versions/search", filter=f"name='{quoted}'", max_results="10", order_by="version_number DESC"
        )
        return [
            f"{item['version']} ({_pairs(item.get('tags')).get('validation_status', 'no status')})"
            for item in answer.get("model_versions", [])
        ]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _pairs(items: list[dict[str, Any]] | None) -> dict[str, Any]:
    return {item["key"]: item.get("value") for item in items or []}


def set_alias(url: str, model: str, alias: str, version: str) -> str:
    """Return the command that points an alias at a version."""
    return f"MLFLOW_TRACKING_URI={url} python -c \"import mlflow; mlflow.MlflowClient().set_registered_model_alias('{model}', '{alias}', '{version}')\""


def artifact_path(uri: str) -> str:
    """Return the path behind the artifact proxy of `mlflow-artifacts:/path` or `mlflow-artifacts://host/path`."""
    parts = urllib.parse.urlsplit(uri)
    path = urllib.parse.unquote(parts.path).strip("/")
    if parts.scheme != "mlflow-artifacts" or not path or ".." in path.split("/"):
        raise RegistryError(
            f"The files of this version are at {uri}, not behind the tracking server's artifact proxy (mlflow-artifacts:/...). "
            "Log the model again with the tracking server's own artifact store."
        )
    return path


def requirement_lines(text: str) -> list[str]:
    """Return the requirements of a requirements.txt, continuation lines joined, comments left out."""
    joined = text.replace("\r\n", "\n").replace("\\\n", " ")
    lines = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.split("\n"))
    return [" ".join(line.split()) for line in lines if line]


def requirement_problems(lines: list[str]) -> list[str]:
    """Return what an image must not be built with: options of pip other than hashes, and local files."""
    problems = []
    for line in lines:
        options = sorted({option for option in OPTION.findall(line) if option != "--hash"})
        if options:
            problems.append(f"the option {options[0]} in {line!r}")
        elif LOCAL.search(line):
            problems.append(f"the local file {line!r}")
    return problems


def look_up(registry: Registry, model: str, alias: str | None, version: str | None) -> dict[str, Any]:
    """Return what the registry knows of one version; RegistryError says what is wrong with it, and how it is mended."""
    try:
        if version:
            answer = registry.get("model-versions/get", name=model, version=version)
        else:
            answer = registry.get("registered-models/alias", name=model, alias=alias or "")
    except NotFoundError as error:
        raise NotFoundError(_missing(registry, model, alias, version)) from error
    found = answer["model_version"]
    number = str(found["version"])
    tags = _pairs(found.get("tags"))
    what = f"version {number} of {model}" + (f" (alias {alias})" if alias else "")
    other = set_alias(registry.url, model, alias or "champion", "VERSION")
    if found.get("status", "READY") != "READY":
        raise RegistryError(
            f"{what} is not ready to be served: its status is {found['status']}. Wait for READY, or choose another version: {other}"
        )
    if tags.get("validation_status") == "failed":
        raise RegistryError(
            f"{what} has validation_status=failed and is not served. Versions: {', '.join(registry.versions(model))}. Choose another one: {other}"
        )
    uri = str(registry.get("model-versions/get-download-uri", name=model, version=number)["artifact_uri"])
    try:
        directory = artifact_path(uri)
    except RegistryError as error:
        raise RegistryError(f"{what}: {error}") from error
    mlmodel = registry.artifact(directory, "MLmodel")
    if mlmodel is None:
        raise RegistryError(
            f"{what} has no file MLmodel at {uri}: its files are gone or were never logged. Choose another version: {other}"
        )
    requirements = requirement_lines(registry.artifact(directory, "requirements.txt") or "")
    refused = requirement_problems(requirements)
    if refused:
        raise RegistryError(
            f"The requirements.txt of {what} holds {'; '.join(refused)}. Allowed are packages with versions and hashes: they come from the package index "
            "of the host's own configuration. Log the model again with pip_requirements=[...]."
        )
    example = registry.artifact(directory, "serving_input_example.json", LARGEST_EXAMPLE)
    return {
        "found": True,
        "model": model,
        "alias": alias,
        "version": number,
        "run_id": found.get("run_id") or "",
        "source": found.get("source") or "",
        "artifact_uri": uri,
        "tags": tags,
        "aliases": sorted(found.get("aliases") or []),
        "metrics": _metrics(registry, found.get("run_id") or ""),
        "mlmodel": mlmodel,
        "requirements": requirements,
        "input_example": _json_or_none(example),
    }


def _metrics(registry: Registry, run_id: str) -> dict[str, float]:
    if not run_id:
        return {}
    try:
        return _pairs(registry.get("runs/get", run_id=run_id)["run"].get("data", {}).get("metrics"))
    except NotFoundError:
        # The run may be deleted; the version lives on.
        return {}


def _json_or_none(text: str | None) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None


def _missing(registry: Registry, model: str, alias: str | None, version: str | None) -> str:
    try:
        answer = registry.get("registered-models/get", name=model)["registered_model"]
    except NotFoundError:
        known = registry.names()
        return (
            f"The registry at {registry.url} has no model {model!r}. Known models: {', '.join(known) or 'none yet'}. "
            f"Register one: MLFLOW_TRACKING_URI={registry.url} python -c \"import mlflow; mlflow.register_model('models:/MODEL_ID', '{model}')\""
        )
    if version:
        return f"The model {model!r} has no version {version}. Versions: {', '.join(registry.versions(model)) or 'none yet'}."
    aliases = sorted(f"{item['alias']} (version {item['version']})" for item in answer.get("aliases") or [])
    return (
        f"The model {model!r} has no alias {alias!r}. Its aliases: {', '.join(aliases) or 'none yet'}; "
        f"its versions: {', '.join(registry.versions(model)) or 'none yet'}. Set it: {set_alias(registry.url, model, alias or '', 'VERSION')}"
    )


def listing(registry: Registry, directory: str) -> list[tuple[str, int | None]]:
    """Return the relative path and size of every file below `directory`."""
    files: list[tuple[str, int | None]] = []
    pending = [""]
    while pending:
        below = pending.pop()
        with registry.open(
            "/api/2.0/mlflow-artifacts/artifacts", {"path": f"{directory}/{below}".rstrip("/")}
        ) as response:
            entries = json.load(response).get("files", [])
        for entry in entries:
            name = str(entry["path"])
            if not re.fullmatch(r"[^/\\\x00]+", name) or name in (".", ".."):
                raise RegistryError(
                    f"The tracking server lists a file with the name {name!r} in {directory!r}; it is not fetched."
                )
            path = f"{below}/{name}".lstrip("/")
            if entry.get("is_dir"):
                pending.append(path)
            else:
                size = entry.get("file_size")
                files.append((path, None if size is None else int(size)))
    return sorted(files)


def fetch(registry: Registry, directory: str, dest: Path) -> int:
    """Fetch all files below `directory` to `dest`, which appears complete or not at all; return their bytes."""
    files = listing(registry, directory)
    if not files:
        raise RegistryError(f"There are no files at {directory} behind {registry.url}.")
    dest.parent.mkdir(parents=True, exist_ok=True)
    needed, free = sum(size or 0 for _, size in files), shutil.disk_usage(dest.parent).free
    if needed > free:
        raise RegistryError(
            f"The model has {needed} bytes, {dest.parent} has room for {free}. Make room, for instance: docker image prune"
        )
    for left_over in dest.parent.glob(f".{dest.name}-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{dest.name}-", dir=dest.parent))
    try:
        total = 0
        for name, size in files:
            target = partial / name
            target.parent.mkdir(parents=True, exist_ok=True)
            total += _fetch_file(registry, f"{directory}/{name}", target, size)
        for path in [partial, *partial.rglob("*")]:
            # Whatever the umask: the container's user reads them, nobody writes.
            path.chmod(0o755 if path.is_dir() else 0o644)
        partial.rename(dest)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return total


def _fetch_file(registry: Registry, path: str, target: Path, size: int | None) -> int:
    count = 0
    with (
        registry.open("/api/2.0/mlflow-artifacts/artifacts/" + urllib.parse.quote(path)) as response,
        target.open("wb") as file,
    ):
        try:
            while chunk := response.read(CHUNK):
                count += file.write(chunk)
        except (OSError, http.client.HTTPException) as error:
            raise RegistryError(f"Fetching {path} broke off after {count} bytes: {error}") from error
    if size is not None and count != size:
        raise RegistryError(f"{path} has {size} bytes in the listing, {count} arrived.")
    return count


def run(module: AnsibleModule) -> dict[str, Any]:
    """Carry out what the module was called for and return its result."""
    params = module.params
    credentials = (params["username"], params["password"] or "") if params["username"] else None
    registry = Registry(params["tracking_url"], credentials, params["ca_path"], params["timeout"])
    versions: list[dict[str, Any]] = []
    problems: list[str] = []
    for item in params["models"]:
        try:
            versions.append(look_up(registry, item["model"], item["alias"], item["version"]))
        except NoAnswerError:
            raise
        except RegistryError as error:
            if isinstance(error, NotFoundError) and not item["required"]:
                versions.append({"found": False, "model": item["model"], "alias": item["alias"], "reason": str(error)})
            elif str(error) not in problems:
                problems.append(str(error))
    if problems:
        raise RegistryError("\n".join(problems))
    if not params["dest"]:
        return {"changed": False, "versions": versions}
    dest = Path(params["dest"])
    if dest.is_dir():
        return {"changed": False, "versions": versions}
    if not module.check_mode:
        fetch(registry, artifact_path(versions[0]["artifact_uri"]), dest)
    return {"changed": True, "versions": versions}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "tracking_url": {"type": "str", "required": True},
            "username": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "ca_path": {"type": "path"},
            "timeout": {"type": "int", "default": 30},
            "models": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "model": {"type": "str", "required": True},
                    "alias": {"type": "str"},
                    "version": {"type": "str"},
                    "required": {"type": "bool", "default": True},
                },
                "required_one_of": [("alias", "version")],
                "mutually_exclusive": [("alias", "version")],
            },
            "dest": {"type": "path"},
        },
        supports_check_mode=True,
    )
    if not re.match(r"https?://[^/]", module.params["tracking_url"]):
        module.fail_json(
            msg=f"tracking_url is {module.params['tracking_url']!r}; it must be an http:// or https:// address."
        )
    if module.params["dest"] and len(module.params["models"]) != 1:
        module.fail_json(msg="dest takes the files of one model; models has " + str(len(module.params["models"])))
    os.umask(0o022)
    try:
        result = run(module)
    except RegistryError as error:
        module.fail_json(msg=str(error), answers=not isinstance(error, NoAnswerError))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
