#!/usr/bin/python
"""Look up registered MLflow models by alias over REST, and fetch the files of one version."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mlflow_model_version
short_description: Look up versions of registered MLflow models and fetch their files
description:
  - Asks the registry of an MLflow tracking server which version stands behind an alias and what is known of it.
    Needs neither MLflow nor any other package on the host.
  - What the registry holds is not trusted. What is wrong with one model is said in its item and leaves the others alone.
  - With O(records), computes the SHA-256 of the files of a version that has no record yet. With O(dest), fetches them through the tracking server's artifact
    proxy and compares. The directory appears complete or not at all. The digest is then kept in O(records) and, as the tag
    C(mlflow-anywhere.sha256), in the registry.
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
  patience:
    description: Seconds that a server is waited for that answers that it cannot answer right now, over all questions. Its Retry-After is followed.
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
  records:
    description: Directory on the host that keeps the digests of all files of each version that was fetched. Left out, nothing is digested.
    type: path
  sha256:
    description: Digest that the files fetched to O(dest) must have.
    type: str
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
      - {model: digits, alias: challenger}
    records: /var/lib/mlflow-anywhere/models
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
    problem:
      description: Why there is none, or why it must not be served; empty where all is well.
      type: str
    busy:
      description: Whether the problem is that the server could not answer right now. Absent where there is none.
      type: bool
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
      description: Lines of its requirements.txt without comments, each C(name[extras]==version) with its hashes.
      type: list
    input_example:
      description: The request that it was logged with.
      type: dict
    sha256:
      description: Digest of all its files.
      type: str
    code_files:
      description: Files that may be unpickled or run when it is loaded.
      type: list
"""

import base64
import hashlib
import http
import http.client
import ipaddress
import itertools
import json
import math
import os
import re
import shutil
import ssl
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

from ansible.module_utils.basic import AnsibleModule

# Larger ones are for the image only; they would travel through every result.
LARGEST_EXAMPLE = 64 * 1024
LARGEST_TEXT = 1024 * 1024
LARGEST_ANSWER = 16 * 1024 * 1024
DEEPEST_EXAMPLE = 32
CHUNK = 1024 * 1024
ATTEMPTS = 3
MOST_FILES = 10_000
MOST_DIRECTORIES = 1_000
LONGEST_PATH = 1_000
# The metrics stand in one environment variable of the container.
MOST_METRICS = 200
LONGEST_METRIC = 250

# What a requirements.txt may hold: names of PEP 508 with versions of PEP 440, and hashes. Every repetition has its bound.
MOST_REQUIREMENTS = 1_000
LONGEST_REQUIREMENT = 16 * 1024
SHOWN = 120
MOST_SHOWN = 10
NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?"
NUMBER = r"[0-9]{1,18}"
VERSION = (
    rf"(?:{NUMBER}!)?{NUMBER}(?:\.{NUMBER}){{0,15}}"
    rf"(?:[-_.]?(?:alpha|a|beta|b|preview|pre|c|rc)(?:[-_.]?{NUMBER})?)?"
    rf"(?:-{NUMBER}|[-_.]?(?:post|rev|r)(?:[-_.]?{NUMBER})?)?"
    rf"(?:[-_.]?dev(?:[-_.]?{NUMBER})?)?"
    r"(?:\+[a-z0-9]{1,40}(?:[-_.][a-z0-9]{1,40}){0,7})?"
)
REQUIREMENT = re.compile(
    rf"(?P<name>{NAME})[ \t]*(?:\[[ \t]*(?P<extras>{NAME}(?:[ \t]*,[ \t]*{NAME}){{0,31}})[ \t]*\])?"
    rf"[ \t]*==[ \t]*(?P<version>{VERSION})(?P<hashes>(?:[ \t]+--hash=sha256:[0-9a-f]{{64}}){{0,200}})",
    re.ASCII | re.IGNORECASE,
)

EXAMPLE = "serving_input_example.json"
# The tag of a version that holds the digest of its files.
SHA256_TAG = "mlflow-anywhere.sha256"

# Files that no loader unpickles or runs, by their endings; every other file counts as code.
HARMLESS = (".json", ".yaml", ".yml", ".txt", ".md", ".csv", ".skops", ".onnx", ".onnx.data", ".ubj", ".xgb", ".lgb")
HARMLESS_NAMES = ("MLmodel", "LICENSE")
ZIP = b"PK\x03\x04"
# What a pickle starts with, as it is and compressed with gzip, bzip2, xz, zlib, lz4 and zstd, or in an archive.
CODE_STARTS = (
    *(b"\x80" + bytes([protocol]) for protocol in range(1, 6)),
    b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x5d\x00\x00", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x04\x22\x4d\x18",
    b"\x28\xb5\x2f\xfd", b"\x7fELF", b"7z\xbc\xaf", ZIP,
)  # fmt: skip


class RegistryError(Exception):
    """What a person is told: the request cannot be carried out. Names the version that it is about, if that is known."""

    version = ""


class NoAnswerError(RegistryError):
    """Nobody answers at the server's address."""


class BusyError(RegistryError):
    """Something in front of the server answers that it cannot answer."""


class SignInError(RegistryError):
    """The server does not know the user."""


class NotFoundError(RegistryError):
    """The server answers that it has no such thing."""


class MissingError(RegistryError):
    """The registry has no such model, alias or version."""


class TooLargeError(RegistryError):
    """An answer or a file is larger than it may be."""


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
        # Seconds that are left to wait, over all requests, for a server that says that it cannot answer right now.
        self.patience = 0.0
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

    def open(
        self, path: str, query: dict[str, str] | None = None, body: dict[str, str] | None = None
    ) -> http.client.HTTPResponse:
        """Send a GET request, or POST what `body` holds, and return the answer, unread."""
        url = self.url + path + ("?" + urllib.parse.urlencode(query) if query else "")
        for attempt in itertools.count(1):
            try:
                request = urllib.request.Request(url, headers=self._headers)  # noqa: S310 - main() lets only http(s) through
                if body is not None:
                    request.data = json.dumps(body).encode()
                    request.add_header("Content-Type", "application/json")
                return cast("http.client.HTTPResponse", self._opener.open(request, timeout=self.timeout))
            except urllib.error.HTTPError as error:
                if error.code in (502, 503, 504) and self._waits(error, attempt):
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

    def _waits(self, error: urllib.error.HTTPError, attempt: int) -> bool:
        """Wait before the next question to a server that cannot answer right now; False where it was asked often enough."""
        said = error.headers.get("Retry-After", "")
        seconds = float(said) if re.fullmatch("[0-9]{1,4}", said) else self.pause
        if attempt < ATTEMPTS:
            seconds = min(seconds, self.pause)
        elif seconds > self.patience or self.patience <= 0:
            return False
        else:
            self.patience -= max(seconds, 1)
        error.close()
        time.sleep(seconds)
        return True

    def _refusal(self, url: str, error: urllib.error.HTTPError) -> RegistryError:
        text = error.read(LARGEST_TEXT).decode(errors="replace")
        try:
            answer = json.loads(text)
            code, message = str(answer.get("error_code", "")), str(answer.get("message", text))
        except (ValueError, AttributeError, RecursionError):
            code, message = "", text.strip()
        message = shown(message, 500)
        if error.code in (401, 403):
            kind = SignInError if error.code == http.HTTPStatus.UNAUTHORIZED else RegistryError
            return kind(f"The tracking server at {self.url} refuses the user ({error.code}): {message}")
        if error.code in (502, 503, 504):
            return BusyError(f"{url} answers {error.code}: {message}")
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
            return parsed(_read(response, LARGEST_ANSWER), path)

    def post(self, path: str, **body: str) -> None:
        """Send one call of the REST interface that changes something."""
        with self.open(f"/api/2.0/mlflow/{path}", body=body) as response:
            _read(response, LARGEST_ANSWER)

    def artifact(self, directory: str, name: str, largest: int = LARGEST_TEXT) -> bytes | None:
        """Return a small file below `directory`, None if there is none; RegistryError if it is larger."""
        path = f"{directory}/{name}"
        try:
            with self.open("/api/2.0/mlflow-artifacts/artifacts/" + urllib.parse.quote(path)) as response:
                return _read(response, largest)
        except NotFoundError:
            return None
        except TooLargeError:
            raise TooLargeError(f"its file {name} has more than {largest} bytes") from None

    def listed(self, directory: str) -> list[Any]:
        """Return the entries of a directory of artifacts."""
        with self.open("/api/2.0/mlflow-artifacts/artifacts", {"path": directory}) as response:
            return _list(parsed(_read(response, LARGEST_ANSWER), f"the list of {directory}").get("files"))

    def names(self) -> list[str]:
        """Return the names of all registered models."""
        names: list[str] = []
        token = ""
        while True:
            query = {"max_results": "1000"} | ({"page_token": token} if token else {})
            answer = self.get("registered-models/search", **query)
            names += [_text(model, "name") for model in _list(answer.get("registered_models"))]
            token = _text(answer, "next_page_token")
            if not token:
                return sorted(names)

    def versions(self, model: str) -> list[str]:
        """Return the newest versions of a model, each with its validation status."""
        quoted = model.replace("'", "\\'")
        answer = self.get(
            "model-versions/search", filter=f"name='{quoted}'", max_results="10", order_by="version_number DESC"
        )
        return [
            f"{_text(item, 'version')} ({_pairs(item).get('validation_status', 'no status')})"
            for item in _list(answer.get("model_versions"))
        ]


def shown(text: str, longest: int = SHOWN) -> str:
    """Return text as a message shows it: one line of printable characters, not too long."""
    plain = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[:longest])
    return plain + ("..." if len(text) > longest else "")


def _read(response: http.client.HTTPResponse, largest: int) -> bytes:
    try:
        content = response.read(largest + 1)
    except (OSError, http.client.HTTPException) as error:
        raise RegistryError(f"An answer of the tracking server broke off: {error}") from error
    if len(content) > largest:
        raise TooLargeError(f"An answer of the tracking server has more than {largest} bytes, which is too large")
    return content


def parsed(content: bytes, what: str) -> dict[str, Any]:
    """Return the JSON object in `content`, whose texts are all Unicode; RegistryError if there is none."""
    try:
        answer = json.loads(content)
        # Half of a surrogate pair is no text: nothing that is made of it could be written.
        json.dumps(answer, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"The tracking server's answer to {what} is no JSON: {error}") from error
    if not isinstance(answer, dict):
        raise RegistryError(f"The tracking server's answer to {what} is no JSON object")
    return answer


def _dict(item: Any, key: str) -> dict[str, Any]:
    value = item.get(key) if isinstance(item, dict) else None
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(item: Any, key: str) -> str:
    value = item.get(key) if isinstance(item, dict) else None
    return value if isinstance(value, str) else ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _pairs(item: Any) -> dict[str, str]:
    tags = _list(item.get("tags")) if isinstance(item, dict) else []
    return {_text(tag, "key"): _text(tag, "value") for tag in tags}


def set_alias(url: str, model: str, alias: str, version: str) -> str:
    """Return the command that points an alias at a version."""
    return f"MLFLOW_TRACKING_URI={url} python -c \"import mlflow; mlflow.MlflowClient().set_registered_model_alias('{model}', '{alias}', '{version}')\""


def artifact_path(uri: str) -> str:
    """Return the path behind the artifact proxy of `mlflow-artifacts:/path` or `mlflow-artifacts://host/path`."""
    try:
        parts = urllib.parse.urlsplit(uri)
    except ValueError:
        parts = urllib.parse.urlsplit("")
    path = urllib.parse.unquote(parts.path).strip("/")
    if parts.scheme != "mlflow-artifacts" or not path or ".." in path.split("/") or not path.isprintable():
        raise RegistryError(
            f"its files are at {shown(uri) or 'no address'}, not behind the tracking server's artifact proxy (mlflow-artifacts:/...)"
        )
    return path


def requirements_of(text: str) -> list[str]:
    """Return the requirements of a requirements.txt, one line each; RegistryError names the lines that an image is not built with."""
    lines: list[str] = []
    problems: list[str] = []
    joined = ""
    for line in [*text.replace("\r\n", "\n").split("\n"), ""]:
        statement = re.sub(r"(^|[ \t])#.*$", "", line)
        joined += statement.removesuffix("\\") + " "
        if statement.endswith("\\"):
            continue
        if requirement := joined.strip(" \t"):
            match = REQUIREMENT.fullmatch(requirement) if len(requirement) <= LONGEST_REQUIREMENT else None
            if match:
                lines.append(_requirement(match))
            else:
                problems.append(f"'{shown(requirement)}'")
        joined = ""
    if len(lines) > MOST_REQUIREMENTS:
        problems.append(f"{len(lines)} packages, where {MOST_REQUIREMENTS} are allowed")
    if problems:
        more = len(problems) - MOST_SHOWN
        raise RegistryError("; ".join(problems[:MOST_SHOWN]) + (f"; {more} more" if more > 0 else ""))
    return lines


def _requirement(match: re.Match[str]) -> str:
    extras = re.sub(r"[ \t]", "", match["extras"] or "")
    return (
        match["name"]
        + (f"[{extras}]" if extras else "")
        + "=="
        + " ".join([match["version"], *match["hashes"].split()])
    )


@dataclass(frozen=True)
class Manifest:
    """All files of one version, each with its bytes and its SHA-256, and those that may be code."""

    files: dict[str, tuple[int, str]]
    code_files: list[str]

    @property
    def sha256(self) -> str:
        """Digest of all files."""
        lines = (json.dumps([name, *self.files[name]]) for name in sorted(self.files))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def is_code(name: str, start: bytes) -> bool:
    """Tell whether a file may be unpickled or run when its model is loaded; one of an unknown kind may."""
    base = name.rpartition("/")[2]
    if base not in HARMLESS_NAMES and not base.lower().endswith(HARMLESS):
        return True
    if base.lower().endswith(".skops"):
        return not start.startswith(ZIP)
    return start.startswith(CODE_STARTS)


class Records:
    """What this host remembers of the versions that it fetched, which nobody can change in the registry."""

    def __init__(self, directory: str | None) -> None:
        """Keep the directory; without one nothing is remembered."""
        self.directory = Path(directory) if directory else None

    def path(self, found: dict[str, Any]) -> Path | None:
        """Return the file that the record of a version has."""
        if self.directory is None:
            return None
        key = json.dumps([found["model"], found["version"], found["source"], found["artifact_uri"]])
        name = re.sub(r"[^a-z0-9]+", "-", found["model"].lower())[:60].strip("-")
        return self.directory / f"{name}-v{found['version']}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"

    def read(self, found: dict[str, Any]) -> Manifest | None:
        """Return what is remembered of a version, None if nothing is."""
        path = self.path(found)
        try:
            record = json.loads(path.read_text()) if path else None
        except FileNotFoundError:
            return None
        except ValueError:
            raise RegistryError(
                f"The record {path} is damaged. Remove it, and the files are taken as they are now."
            ) from None
        if record is None:
            return None
        return Manifest({name: (int(size), sha) for name, (size, sha) in record["files"].items()}, record["code_files"])

    def write(self, found: dict[str, Any], manifest: Manifest) -> None:
        """Remember a version."""
        path = self.path(found)
        if path is None or path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = path.with_suffix(".new")
        content = {"sha256": manifest.sha256, "code_files": manifest.code_files, "files": manifest.files}
        partial.write_text(json.dumps(content, indent=1) + "\n")
        partial.rename(path)


def look_up(registry: Registry, item: dict[str, Any], records: Records, *, whole: bool = True) -> dict[str, Any]:
    """Return what the registry knows of one version; RegistryError says what is wrong with it, and how it is mended.

    Without `whole`, the files of a version that this host does not know are not digested.
    """
    model, alias, version = item["model"], item["alias"], item["version"]
    try:
        if version:
            answer = registry.get("model-versions/get", name=model, version=version)
        else:
            answer = registry.get("registered-models/alias", name=model, alias=alias or "")
    except NotFoundError as error:
        raise MissingError(_missing(registry, model, alias, version)) from error
    entry = _dict(answer, "model_version")
    number = _text(entry, "version")
    if not re.fullmatch(r"[0-9]{1,18}", number):
        raise RegistryError(f"The registry's answer for {model} has no version: {shown(repr(entry))}")
    found = {
        "found": True,
        "problem": "",
        "model": model,
        "alias": alias,
        "version": number,
        "run_id": _text(entry, "run_id") if re.fullmatch(r"[\w-]{1,64}", _text(entry, "run_id"), re.ASCII) else "",
        "source": _text(entry, "source"),
        "artifact_uri": "",
        "tags": _pairs(entry),
        "aliases": sorted(name for name in _list(entry.get("aliases")) if isinstance(name, str)),
    }
    what = f"version {number} of {model}" + (f" (alias {alias})" if alias else "")
    other = f"Choose another version: {set_alias(registry.url, model, alias or 'champion', 'VERSION')}"
    try:
        _check_status(registry, found, _text(entry, "status"), f"{what} %s. {other}")
        return found | _contents(registry, found, f"{what}: %s. Log the model again. {other}", records, whole=whole)
    except RegistryError as error:
        error.version = number
        raise


def _check_status(registry: Registry, found: dict[str, Any], status: str, message: str) -> None:
    if status not in ("READY", ""):
        raise RegistryError(message % f"is not ready to be served: its status is {shown(status)}. Wait for READY")
    if found["tags"].get("validation_status") == "failed":
        others = ", ".join(registry.versions(found["model"]))
        raise RegistryError(message % f"has validation_status=failed and is not served. Versions: {others}")


def _contents(
    registry: Registry, found: dict[str, Any], message: str, records: Records, *, whole: bool
) -> dict[str, Any]:
    answer = registry.get("model-versions/get-download-uri", name=found["model"], version=found["version"])
    uri = _text(answer, "artifact_uri")
    try:
        directory = artifact_path(uri)
        small = {name: registry.artifact(directory, name) for name in ("MLmodel", "requirements.txt")}
        example = _example(registry, directory)
        mlmodel = _mlmodel(small["MLmodel"], uri)
        requirements = _requirements(small["requirements.txt"])
    except (NoAnswerError, BusyError, SignInError):
        raise
    except RegistryError as error:
        raise RegistryError(message % error) from error
    found = found | {"artifact_uri": uri}
    manifest = records.read(found)
    if manifest is None and whole:
        manifest = examine(registry, directory, listing(registry, directory))
        compare(manifest, found, records)
    if manifest is not None:
        _compare_small(manifest, small | {EXAMPLE: example}, found, records)
    return {
        "artifact_uri": uri,
        "metrics": _metrics(registry, found["run_id"]),
        "mlmodel": mlmodel,
        "requirements": requirements,
        "input_example": example_of(example),
        "sha256": manifest.sha256 if manifest else "",
        "code_files": manifest.code_files if manifest else [],
    }


def _mlmodel(content: bytes | None, uri: str) -> str:
    if content is None:
        raise RegistryError(f"it has no file MLmodel at {shown(uri)}: its files are gone or were never logged")
    return _decoded(content, "MLmodel")


def _decoded(content: bytes | None, name: str) -> str:
    try:
        return (content or b"").decode()
    except UnicodeDecodeError as error:
        raise RegistryError(f"its file {name} is no UTF-8 text: {error}") from error


def _requirements(content: bytes | None) -> list[str]:
    try:
        return requirements_of(_decoded(content, "requirements.txt"))
    except RegistryError as error:
        raise RegistryError(
            f"its requirements.txt is refused: {error}. Allowed are lines of the form name[extras]==version, with --hash=sha256:... if wanted; "
            "no addresses, paths, options, ranges or markers. Log it with pip_requirements=[...] of exact versions"
        ) from error


def _example(registry: Registry, directory: str) -> bytes | None:
    try:
        return registry.artifact(directory, EXAMPLE, LARGEST_EXAMPLE)
    except TooLargeError:
        return None


def example_of(content: bytes | None) -> dict[str, Any] | None:
    """Return an input example whose values are all JSON, None where it is none or too deep to be handed on."""

    def finite(text: str) -> float | None:
        return float(text) if math.isfinite(float(text)) else None

    def deep(value: Any, left: int) -> bool:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return left == 0 or any(deep(item, left - 1) for item in inner)

    try:
        # Missing values are NaN to MLflow, which is no JSON.
        example = json.loads(content or b"", parse_constant=lambda _: None, parse_float=finite)
        json.dumps(example, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return example if isinstance(example, dict) and not deep(example, DEEPEST_EXAMPLE) else None


def compare(manifest: Manifest, found: dict[str, Any], records: Records, expected: str = "") -> None:
    """Refuse files that are not those that this host or the registry remembers, or that this run saw first."""
    record = records.read(found)
    known = {
        f"the record {records.path(found)}": record.sha256 if record else "",
        f"the tag {SHA256_TAG}": found["tags"].get(SHA256_TAG, ""),
        "what this run saw first": expected,
    }
    for where, sha256 in known.items():
        if sha256 and sha256 != manifest.sha256:
            names = sorted(set(manifest.files) | set(record.files)) if record else []
            changed = [name for name in names if record and manifest.files.get(name) != record.files.get(name)]
            _refuse_files(found, records, f"{manifest.sha256}, {where} has {shown(sha256)}", changed)


def _compare_small(manifest: Manifest, small: dict[str, bytes | None], found: dict[str, Any], records: Records) -> None:
    for name, content in small.items():
        known = manifest.files.get(name, (0, ""))[1]
        now = "" if content is None else hashlib.sha256(content).hexdigest()
        # An example that is too large to be read here is compared when it is fetched.
        if now != known and (name != EXAMPLE or now):
            _refuse_files(found, records, f"{now or 'gone'}, the record has {known or 'none'}", [name])


def _refuse_files(found: dict[str, Any], records: Records, digests: str, changed: list[str]) -> NoReturn:
    names = f" Changed: {', '.join(map(shown, changed[:5]))}." if changed else ""
    raise RegistryError(
        f"The files of version {found['version']} of {found['model']} are not those that were checked first: SHA-256 is {digests}.{names} "
        f"Log the model again as a new version and set the alias to it. If the change is meant, remove the tag {SHA256_TAG} of the version"
        + (f" and {records.path(found)} on the host" if records.directory else "")
        + ", and run the same command again."
    )


def _metrics(registry: Registry, run_id: str) -> dict[str, float]:
    if not run_id:
        return {}
    try:
        data = _dict(_dict(registry.get("runs/get", run_id=run_id), "run"), "data")
    except NotFoundError:
        # The run may be deleted; the version lives on.
        return {}
    metrics = {_text(item, "key"): _number(item) for item in _list(data.get("metrics"))}
    known = [
        (name, value)
        for name, value in sorted(metrics.items())
        if 0 < len(name) <= LONGEST_METRIC and value is not None
    ]
    return dict(known[:MOST_METRICS])


def _number(item: Any) -> float | None:
    value = item.get("value") if isinstance(item, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _missing(registry: Registry, model: str, alias: str | None, version: str | None) -> str:
    try:
        answer = _dict(registry.get("registered-models/get", name=model), "registered_model")
    except NotFoundError:
        known = registry.names()
        return (
            f"The registry at {registry.url} has no model {model!r}. Known models: {', '.join(known) or 'none yet'}. "
            f"Register one: MLFLOW_TRACKING_URI={registry.url} python -c \"import mlflow; mlflow.register_model('models:/MODEL_ID', '{model}')\""
        )
    if version:
        return f"The model {model!r} has no version {version}. Versions: {', '.join(registry.versions(model)) or 'none yet'}."
    aliases = sorted(
        f"{_text(item, 'alias')} (version {_text(item, 'version')})" for item in _list(answer.get("aliases"))
    )
    return (
        f"The model {model!r} has no alias {alias!r}. Its aliases: {', '.join(aliases) or 'none yet'}; "
        f"its versions: {', '.join(registry.versions(model)) or 'none yet'}. Set it: {set_alias(registry.url, model, alias or '', 'VERSION')}"
    )


def listing(registry: Registry, directory: str) -> list[tuple[str, int | None]]:
    """Return the relative path and size of every file below `directory`."""
    files: dict[str, int | None] = {}
    pending = [""]
    directories = 0
    while pending:
        below = pending.pop()
        directories += 1
        for entry in registry.listed(f"{directory}/{below}".rstrip("/")):
            name = _text(entry, "path")
            path = f"{below}/{name}".lstrip("/")
            if not name.isprintable() or not re.fullmatch(r"[^/\\]+", name) or name in (".", "..") or path in files:
                raise RegistryError(
                    f"The tracking server lists a file with the name {shown(name)!r} in {directory!r}; it is not fetched."
                )
            if entry.get("is_dir"):
                pending.append(path)
            else:
                size = entry.get("file_size")
                files[path] = (
                    int(size) if isinstance(size, int | str) and re.fullmatch("[0-9]{1,30}", str(size)) else None
                )
            if len(path) > LONGEST_PATH or len(files) > MOST_FILES or directories + len(pending) > MOST_DIRECTORIES:
                raise RegistryError(
                    f"There are too many or too deep files at {directory}: {MOST_FILES} files in {MOST_DIRECTORIES} directories with paths "
                    f"of {LONGEST_PATH} characters are allowed. Log the model again without those that it does not need."
                )
    if not files:
        raise RegistryError(f"There are no files at {directory} behind {registry.url}.")
    return sorted(files.items())


def examine(
    registry: Registry, directory: str, listed: list[tuple[str, int | None]], place: Path | None = None
) -> Manifest:
    """Digest the listed files below `directory` as they arrive, and keep them below `place` if it is given."""
    files: dict[str, tuple[int, str]] = {}
    code_files = []
    for name, size in listed:
        target = None
        if place:
            target = place / name
            target.parent.mkdir(parents=True, exist_ok=True)
        digest, count, start = hashlib.sha256(), 0, b""
        for chunk in _chunks(registry, f"{directory}/{name}", size, target):
            start = start or chunk[:16]
            count += len(chunk)
            digest.update(chunk)
        files[name] = count, digest.hexdigest()
        if is_code(name, start):
            code_files.append(name)
    return Manifest(files, code_files)


def _chunks(registry: Registry, path: str, size: int | None, target: Path | None) -> Iterator[bytes]:
    count = 0
    with (
        registry.open("/api/2.0/mlflow-artifacts/artifacts/" + urllib.parse.quote(path)) as response,
        (target or Path(os.devnull)).open("wb") as file,
    ):
        try:
            while chunk := response.read(CHUNK):
                count += file.write(chunk)
                if size is not None and count > size:
                    break
                yield chunk
        except (OSError, http.client.HTTPException) as error:
            raise RegistryError(f"Fetching {path} broke off after {count} bytes: {error}") from error
    if size is not None and count != size:
        raise RegistryError(f"{path} has {size} bytes in the listing, {count} arrived.")


def fetch(registry: Registry, directory: str, dest: Path, check: Callable[[Manifest], None]) -> Manifest:
    """Fetch all files below `directory` to `dest`, which appears complete and checked or not at all."""
    dest.parent.mkdir(parents=True, exist_ok=True)
    listed = listing(registry, directory)
    needed, free = sum(size or 0 for _, size in listed), shutil.disk_usage(dest.parent).free
    if needed > free:
        raise RegistryError(
            f"The model has {needed} bytes, {dest.parent} has room for {free}. Make room, for instance: docker image prune"
        )
    for left_over in dest.parent.glob(f".{dest.name}-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{dest.name}-", dir=dest.parent))
    try:
        manifest = examine(registry, directory, listed, partial)
        check(manifest)
        for path in [partial, *partial.rglob("*")]:
            # Whatever the umask: the container's user reads them, nobody writes.
            path.chmod(0o755 if path.is_dir() else 0o644)
        partial.rename(dest)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest


def look_up_each(
    registry: Registry, items: list[dict[str, Any]], records: Records, *, whole: bool
) -> list[dict[str, Any]]:
    """Return one item for each model; only a server that answers nobody is an error."""
    versions: list[dict[str, Any]] = []
    for item in items:
        try:
            found = look_up(registry, item, records, whole=whole)
        except SignInError:
            raise
        except RegistryError as error:
            if isinstance(error, NoAnswerError | BusyError):
                # A model that the server cannot answer for is its own failure; a server that answers nobody is not.
                registry.get("registered-models/search", max_results="1")
            found = {
                "found": not isinstance(error, MissingError),
                "problem": str(error),
                "busy": isinstance(error, NoAnswerError | BusyError),
                "model": item["model"],
                "alias": item["alias"],
                "version": error.version,
            }
        versions.append(found)
    return versions


def keep(registry: Registry, found: dict[str, Any], manifest: Manifest, records: Records) -> str:
    """Remember the digest of a version on this host and in its registry; return why the registry did not take it."""
    records.write(found, manifest)
    if SHA256_TAG in found["tags"]:
        return ""
    try:
        registry.post(
            "model-versions/set-tag",
            name=found["model"], version=found["version"], key=SHA256_TAG, value=manifest.sha256,
        )  # fmt: skip
    except RegistryError as error:
        return f"The registry does not keep the digest of version {found['version']} of {found['model']}, this host does: {error}"
    return ""


def run(module: AnsibleModule) -> dict[str, Any]:
    """Carry out what the module was called for and return its result."""
    params = module.params
    credentials = (params["username"], params["password"] or "") if params["username"] else None
    registry = Registry(params["tracking_url"], credentials, params["ca_path"], params["timeout"])
    registry.patience = params["patience"]
    records = Records(params["records"])
    versions = look_up_each(registry, params["models"], records, whole=bool(params["records"]) and not params["dest"])
    if not params["dest"]:
        return {"changed": False, "versions": versions}
    [found] = versions
    if found["problem"]:
        raise RegistryError(found["problem"])
    dest = Path(params["dest"])
    if dest.is_dir():
        return {"changed": False, "versions": versions}
    if not module.check_mode:
        manifest = fetch(
            registry,
            artifact_path(found["artifact_uri"]),
            dest,
            lambda manifest: compare(manifest, found, records, params["sha256"] or ""),
        )
        if refused := keep(registry, found, manifest, records):
            module.warn(refused)
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
            "patience": {"type": "int", "default": 30},
            "models": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "model": {"type": "str", "required": True},
                    "alias": {"type": "str"},
                    "version": {"type": "str"},
                },
                "required_one_of": [("alias", "version")],
                "mutually_exclusive": [("alias", "version")],
            },
            "records": {"type": "path"},
            "sha256": {"type": "str"},
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
    except OSError as error:
        module.fail_json(msg=f"The files of the model cannot be kept on this host: {error}", answers=True)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
