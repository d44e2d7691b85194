"""The module mlflow_model_version against a server that answers like MLflow's REST interface."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
import threading
import urllib.parse
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from library import mlflow_model_version as module

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOT = "0/models/m-1/artifacts"
NOWHERE = module.Records(None)
Listed = list[dict[str, Any]]


class FakeMlflow:
    """State and answers of a tracking server."""

    def __init__(self) -> None:
        self.versions: dict[str, dict[str, dict[str, Any]]] = {
            "iris": {"1": {"status": "READY", "tags": {}, "source": "models:/m-1", "run_id": "r1"}},
        }
        self.aliases = {"iris": {"champion": "1"}}
        self.files = {
            f"{ROOT}/MLmodel": b"model_id: m-1\n",
            f"{ROOT}/requirements.txt": b"mlflow==3.17.2\nskops==0.16.0 # pinned\n",
            f"{ROOT}/serving_input_example.json": b'{"inputs": [[1]]}',
            f"{ROOT}/data/deep/weights.bin": b"\x00" * 3000,
        }
        self.download_uri = f"mlflow-artifacts:/{ROOT}"
        self.listed: dict[str, Listed] = {}
        # What a call answers instead of what it should.
        self.instead: dict[str, tuple[int, bytes]] = {}
        self.metrics: Any = [{"key": "accuracy", "value": 0.97}]
        self.writable = True
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.busy = 0
        self.url = ""

    def version(self, model: str, number: str) -> dict[str, Any]:
        data = self.versions[model][number]
        tags = [{"key": key, "value": value} for key, value in data["tags"].items()]
        return data | {"name": model, "version": number, "tags": tags}

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        artifacts = "/api/2.0/mlflow-artifacts/artifacts"
        if self.busy:
            self.busy -= 1
            return 503, b"busy"
        for part, instead in self.instead.items():
            if part in path:
                return instead
        if path == artifacts:
            return 200, json.dumps({"files": self.listed.get(query["path"]) or self.listing(query["path"])}).encode()
        if path.startswith(artifacts + "/"):
            content = self.files.get(path[len(artifacts) + 1 :])
            return (
                (200, content)
                if content is not None
                else self.error(404, "RESOURCE_DOES_NOT_EXIST", "No such artifact")
            )
        status, answer = self.rest(path.removeprefix("/api/2.0/mlflow/"), query)
        return status, json.dumps(answer).encode()

    def rest(self, call: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:  # noqa: PLR0911 - one per call
        model = query.get("name", "")
        if call == "registered-models/search":
            names = sorted(self.versions)
            page = int(query.get("page_token", "0"))
            token = {"next_page_token": str(page + 1)} if page + 1 < len(names) else {}
            return 200, {"registered_models": [{"name": name} for name in names[page : page + 1]]} | token
        if call == "model-versions/search":
            model = query["filter"].split("'", 2)[1]
            return 200, {"model_versions": [self.version(model, number) for number in self.versions[model]]}
        if call == "runs/get":
            return 200, {"run": {"data": {"metrics": self.metrics}}}
        if model not in self.versions:
            return 404, {
                "error_code": "RESOURCE_DOES_NOT_EXIST",
                "message": f"Registered Model with name={model} not found",
            }
        if call == "registered-models/alias":
            number = self.aliases[model].get(query["alias"])
            if number is None:
                return 400, {
                    "error_code": "INVALID_PARAMETER_VALUE",
                    "message": f"Registered model alias {query['alias']} not found.",
                }
            return 200, {"model_version": self.version(model, number)}
        if call == "registered-models/get":
            aliases = [{"alias": alias, "version": number} for alias, number in self.aliases[model].items()]
            return 200, {"registered_model": {"name": model, "aliases": aliases}}
        if call == "model-versions/get":
            return 200, {"model_version": self.version(model, query["version"])}
        assert call == "model-versions/get-download-uri", call
        return 200, {"artifact_uri": self.download_uri}

    def changed(self, call: str, body: dict[str, str]) -> tuple[int, bytes]:
        assert call == "/api/2.0/mlflow/model-versions/set-tag", call
        if not self.writable:
            return self.error(403, "PERMISSION_DENIED", "Permission denied")
        self.versions[body["name"]][body["version"]]["tags"][body["key"]] = body["value"]
        return 200, b"{}"

    def listing(self, directory: str) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for name, content in self.files.items():
            if name.startswith(directory + "/"):
                first, _, rest = name[len(directory) + 1 :].partition("/")
                found[first] = {"path": first, "is_dir": bool(rest)} | ({} if rest else {"file_size": len(content)})
        return list(found.values())

    @staticmethod
    def error(status: int, code: str, message: str) -> tuple[int, bytes]:
        return status, json.dumps({"error_code": code, "message": message}).encode()


@pytest.fixture
def server() -> Iterator[FakeMlflow]:
    fake = FakeMlflow()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urllib.parse.urlsplit(self.path)
            fake.asked.append(self.path)
            fake.headers.append(dict(self.headers))
            self.reply(*fake.answer(urllib.parse.unquote(parts.path), dict(urllib.parse.parse_qsl(parts.query))))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(*fake.changed(self.path, json.loads(body)))

        def reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if status == HTTPStatus.SERVICE_UNAVAILABLE:
                self.send_header("Retry-After", "5")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    fake.url = f"http://127.0.0.1:{http.server_address[1]}"
    yield fake
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def registry(server: FakeMlflow) -> module.Registry:
    return module.Registry(server.url, pause=0)


def look_up(
    registry: module.Registry, model: str = "iris", alias: str | None = "champion", version: str | None = None
) -> Any:
    return module.look_up(registry, {"model": model, "alias": alias, "version": version}, NOWHERE)


@pytest.mark.parametrize(("busy", "waited"), [(2, [0, 0]), (3, [0, 0, 5]), (8, [0, 0, 5, 5, 5, 5, 5, 5])])
def test_a_server_that_is_busy_for_a_moment_is_asked_again_when_it_says(
    server: FakeMlflow, monkeypatch: pytest.MonkeyPatch, busy: int, waited: list[float]
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    server.busy = busy
    registry = module.Registry(server.url, pause=0)
    registry.patience = 30
    assert look_up(registry)["version"] == "1"
    assert slept == waited


def test_the_patience_ends(server: FakeMlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    server.busy = 1000
    registry = module.Registry(server.url, pause=0)
    registry.patience = 12
    with pytest.raises(module.BusyError):
        look_up(registry)
    assert slept == [0, 0, 5, 5]
    with pytest.raises(module.BusyError):
        look_up(registry)
    assert slept == [0, 0, 5, 5, 0, 0]


def refusal(registry: module.Registry, model: str = "iris", alias: str = "champion") -> str:
    with pytest.raises(module.RegistryError) as caught:
        look_up(registry, model, alias)
    return str(caught.value)


def test_a_version_is_found_with_all_that_is_known_of_it(registry: module.Registry) -> None:
    found = look_up(registry)
    assert found["version"] == "1"
    assert found["artifact_uri"] == f"mlflow-artifacts:/{ROOT}"
    assert found["metrics"] == {"accuracy": 0.97}
    assert found["requirements"] == ["mlflow==3.17.2", "skops==0.16.0"]
    assert found["input_example"] == {"inputs": [[1]]}
    assert found["mlmodel"] == "model_id: m-1\n"
    assert found["problem"] == ""
    assert found["code_files"] == ["data/deep/weights.bin"]


def test_a_version_without_example_and_requirements_is_found(server: FakeMlflow, registry: module.Registry) -> None:
    del server.files[f"{ROOT}/requirements.txt"], server.files[f"{ROOT}/serving_input_example.json"]
    found = look_up(registry, "iris", None, "1")
    assert found["requirements"] == []
    assert found["input_example"] is None


def test_an_unknown_model_lists_the_known_ones_of_all_pages(server: FakeMlflow, registry: module.Registry) -> None:
    server.versions["digits"] = {}
    message = refusal(registry, "ghost")
    assert "no model 'ghost'" in message
    assert "digits, iris" in message
    assert "register_model" in message


def test_an_unknown_alias_lists_aliases_versions_and_the_command(registry: module.Registry) -> None:
    message = refusal(registry, "iris", "stable")
    assert "champion (version 1)" in message
    assert "1 (no status)" in message
    assert "set_registered_model_alias('iris', 'stable', 'VERSION')" in message


@pytest.mark.parametrize("status", ["approved", "pending", "rejected-by-nobody"])
def test_only_failed_versions_are_refused(server: FakeMlflow, registry: module.Registry, status: str) -> None:
    server.versions["iris"]["1"]["tags"] = {"validation_status": status}
    assert look_up(registry)["tags"] == {"validation_status": status}


def test_a_failed_version_is_refused_with_the_others_listed(server: FakeMlflow, registry: module.Registry) -> None:
    server.versions["iris"]["1"]["tags"] = {"validation_status": "failed"}
    message = refusal(registry, "iris")
    assert "validation_status=failed" in message
    assert "1 (failed)" in message


def test_a_version_that_is_not_ready_is_refused(server: FakeMlflow, registry: module.Registry) -> None:
    server.versions["iris"]["1"]["status"] = "PENDING_REGISTRATION"
    assert "PENDING_REGISTRATION" in refusal(registry, "iris")


def test_a_version_whose_files_are_gone_is_refused(server: FakeMlflow, registry: module.Registry) -> None:
    server.files.clear()
    assert "no file MLmodel" in refusal(registry, "iris")


def test_a_file_mlmodel_that_is_too_large_or_no_text_is_refused(server: FakeMlflow, registry: module.Registry) -> None:
    server.files[f"{ROOT}/MLmodel"] = b"x" * (module.LARGEST_TEXT + 1)
    assert "its file MLmodel has more than 1048576 bytes" in refusal(registry)
    server.files[f"{ROOT}/MLmodel"] = b"a: \xff"
    assert "its file MLmodel is no UTF-8 text" in refusal(registry)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/x", "/srv/mlruns/1", "mlflow-artifacts:/a/../../etc", "mlflow-artifacts:/a/%2e%2e/b", "mlflow-artifacts://[",
        "mlflow-artifacts:/a%0ab", "",
    ],
)  # fmt: skip
def test_files_outside_the_artifact_proxy_are_refused(server: FakeMlflow, registry: module.Registry, uri: str) -> None:
    server.download_uri = uri
    assert "artifact proxy" in refusal(registry, "iris")


HASH = "ab" * 32


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://example.org/x", "-i https://example.org", "numpy==1 --global-option=x", "-r other.txt", "-c other.txt",
        "-e .", "--editable=git+https://example.org/x", "./wheels/a.whl", "wheels/a.whl", "a.whl", "/opt/a", "~/x", "C:\\x", "C:/x",
        "x @ http://127.0.0.1:9/x.tar.gz", "x@https://example.org/x.whl", "x @ file:///etc", "x @ /etc", "git+https://example.org/x",
        "git+file:///x", "https://example.org/x.whl", "x==1 @ https://example.org/x.whl", "numpy", "numpy>=1", "numpy~=1.0", "numpy!=1",
        "numpy<2,>=1", "numpy==1,!=2", "numpy==1.*", "numpy===1", "numpy==", "numpy==1.0==2", "numpy (==1)", "(numpy==1)", "numpy=1",
        "numpy==1; python_version>'3'", "numpy==1;os_name=='x'", "numpy==1 --hash=md5:ab", f"numpy==1 --hash=sha256:{HASH}0",
        "numpy==1 --hash=sha256:ab", f"numpy==1--hash=sha256:{HASH}", f"--hash=sha256:{HASH}", "numpy==1 --no-binary=:all:",
        "numpy==${VERSION}", "${NAME}==1", "numpy==$(id)", "numpy==1`id`", "numpy==1 && id", "numpy==1#x", "numpy==1 two==2", "-==1",
        "_x==1", "x_==1", ".x==1", "x[]==1", "x[a==1", "x[a,]==1", "x[../y]==1", "x==1+", "x==1+a_", "x==a", "x==v", "x==1..2", "x==1e9",
        "x==1!", "x==-1", "x==1/2", "x==1:2", "nump\u0443==1", "numpy==\u0661", "x\u200b==1", "x==1\u00a0", "x\uff1d=1",
        "\u212a==1", "\ufeffx==1", "x==1\x0by==2", "x==1\x0c", "x==1\ry==2", "x==1\x85", "x==1\u2028y==2", "x==1\x00", "x\x1b[0m==1",
        "x==1" + "." + "1." * 40 + "1", "x" * 200 + "==1", "x==" + "1" * 40, "x==1" + f" --hash=sha256:{HASH}" * 201,
    ],
)  # fmt: skip
def test_all_but_exact_versions_is_refused(server: FakeMlflow, registry: module.Registry, line: str) -> None:
    server.files[f"{ROOT}/requirements.txt"] = f"mlflow==3.17.2\n{line}\n".encode()
    message = refusal(registry)
    assert "its requirements.txt is refused: " in message
    assert "mlflow==3.17.2" not in message
    assert module.shown(line)[:5] in message
    assert "pip_requirements=[...] of exact versions" in message
    assert message.isprintable()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("numpy==2.4.6", ["numpy==2.4.6"]),
        ("mlflow[auth, db]==3.17.2", ["mlflow[auth,db]==3.17.2"]),
        ("a-b--c==1\nZope.Interface == 6.0\n", ["a-b--c==1", "Zope.Interface==6.0"]),
        ("a==1!2.0rc1.post2.dev3+cu118.x\nb==2024.1\nc==1.0a\nd==1.0-1", ["a==1!2.0rc1.post2.dev3+cu118.x", "b==2024.1", "c==1.0a", "d==1.0-1"]),
        (f"x==1 --hash=sha256:{HASH} \\\n   --hash=sha256:{HASH}\n", [f"x==1 --hash=sha256:{HASH} --hash=sha256:{HASH}"]),
        (f"a==1 \\\r\n  --hash=sha256:{HASH}\r\n\r\n# Größe\r\nb==2  # why\r\n", [f"a==1 --hash=sha256:{HASH}", "b==2"]),
        ("# a comment \\\nb==2\n", ["b==2"]),
        ("b==2 # a comment \\\nc==3 \\\n", ["b==2", "c==3"]),
        ("# x\rdropped==1\nb==2", ["b==2"]),
    ],
)  # fmt: skip
def test_exact_versions_with_hashes_comments_and_continuations_are_allowed(text: str, lines: list[str]) -> None:
    assert module.requirements_of(text) == lines


@given(st.text(alphabet="ab1=![]#\\\n\r\t .-_+;@:/~>,*\u0131\u212a\u2028", max_size=40))
@settings(max_examples=500)
def test_what_passes_is_of_one_form(text: str) -> None:
    try:
        lines = module.requirements_of(text)
    except module.RegistryError:
        return
    assert all(module.REQUIREMENT.fullmatch(line) and line.isascii() and line.isprintable() for line in lines)


def test_requirements_without_end_are_refused(server: FakeMlflow, registry: module.Registry) -> None:
    server.files[f"{ROOT}/requirements.txt"] = b"x==1\n" * 1001
    assert "1001 packages, where 1000 are allowed" in refusal(registry)
    server.files[f"{ROOT}/requirements.txt"] = b"x" * (module.LARGEST_TEXT + 1)
    assert "its file requirements.txt has more than 1048576 bytes" in refusal(registry)
    server.files[f"{ROOT}/requirements.txt"] = b"x==1\n\xff\xfe\n"
    assert "no UTF-8 text" in refusal(registry)
    server.files[f"{ROOT}/requirements.txt"] = b"-r x\n" * 30
    assert "; 20 more" in refusal(registry)


def test_environments_of_conda_and_virtualenv_are_never_read(server: FakeMlflow, registry: module.Registry) -> None:
    del server.files[f"{ROOT}/requirements.txt"]
    server.files[f"{ROOT}/conda.yaml"] = b"dependencies: [pip: ['x @ http://127.0.0.1/x']]"
    server.files[f"{ROOT}/python_env.yaml"] = b"dependencies: ['x @ http://127.0.0.1/x']"
    assert look_up(registry)["requirements"] == []


@pytest.mark.parametrize(
    ("example", "kept"),
    [
        (b'{"inputs": [NaN, 1e999, -Infinity, 1.5]}', {"inputs": [None, None, None, 1.5]}),
        (b'{"inputs": ["{{ 1 }}", "\\ud83d\\ude00"]}', {"inputs": ["{{ 1 }}", "\U0001f600"]}),
        (b'{"inputs": ["\\ud800"]}', None),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", None),
        (b"[" * 60000, None),
        (b'{"a": ' + b"9" * 5000 + b"}", None),
        (b"{", None),
        (b"[1]", None),
        (b"7", None),
        (b"", None),
        (b"\xff\xfe", None),
        (b'{"a": "' + b"x" * module.LARGEST_EXAMPLE + b'"}', None),
    ],
)
def test_an_example_is_plain_json_or_none(
    server: FakeMlflow, registry: module.Registry, example: bytes, kept: object
) -> None:
    server.files[f"{ROOT}/serving_input_example.json"] = example
    assert look_up(registry)["input_example"] == kept


def test_metrics_are_finite_numbers(server: FakeMlflow, registry: module.Registry) -> None:
    server.metrics = [
        {"key": "good", "value": 1}, {"key": "nan", "value": "NaN"}, {"key": "text", "value": "1"}, {"key": "flag", "value": True},
        {"key": "x" * 251, "value": 1.0}, {"key": 5, "value": 1.0}, {"key": "large", "value": 10**400}, {"value": 1}, "metric", None,
        {"key": "infinite", "value": float("inf")}, {"key": "nothing"},
    ]  # fmt: skip
    assert look_up(registry)["metrics"] == {"good": 1.0}
    server.metrics = [{"key": f"m{number:04}", "value": number} for number in range(1000)]
    assert len(look_up(registry)["metrics"]) == module.MOST_METRICS
    server.metrics = 7
    assert look_up(registry)["metrics"] == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


class Scripted(module.Registry):
    """A registry that answers what a test says, without a server."""

    def __init__(self, answers: list[Any]) -> None:
        super().__init__("http://127.0.0.1:1", pause=0)
        self.answers = iter(answers)

    def get(self, path: str, **_: str) -> dict[str, Any]:
        return module.parsed(json.dumps(next(self.answers, {})).encode(), path)

    def artifact(self, _: str, name: str, __: int = 0) -> bytes | None:
        return b"flavors: {}" if name == "MLmodel" else None

    def listed(self, _: str) -> list[Any]:
        return module._list(next(self.answers, {}))


ENTRY = st.fixed_dictionaries(
    {"version": st.just("1") | JSON},
    optional=dict.fromkeys(("status", "tags", "aliases", "source", "run_id", "creation_timestamp"), JSON),
)


@given(
    st.fixed_dictionaries({"model_version": ENTRY | JSON}) | JSON,
    st.fixed_dictionaries({"artifact_uri": st.just("mlflow-artifacts:/a") | JSON}) | JSON,
    st.lists(JSON | st.fixed_dictionaries({"path": st.text(max_size=5) | JSON}, optional={"is_dir": JSON, "file_size": JSON})),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_whatever_the_registry_answers_is_a_version_or_a_refusal(entry: Any, uri: Any, listed: Any) -> None:
    item = {"model": "iris", "alias": "champion", "version": None}
    [found] = module.look_up_each(Scripted([entry, uri, listed]), [item], NOWHERE, whole=True)
    assert json.dumps(found, ensure_ascii=False).encode()
    assert found["problem"]


def test_a_busy_server_is_asked_again(server: FakeMlflow, registry: module.Registry) -> None:
    server.busy = 2
    assert look_up(registry)["version"] == "1"


def test_a_server_that_does_not_answer_is_named() -> None:
    with pytest.raises(module.NoAnswerError, match=r"http://127\.0\.0\.1:1 does not answer"):
        module.Registry("http://127.0.0.1:1", pause=0).get("registered-models/search")


def test_credentials_are_sent_and_no_proxy_stands_in_the_way(
    server: FakeMlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    module.Registry(server.url, ("me", "p:w@/%"), pause=0).names()
    assert base64.b64decode(server.headers[0]["Authorization"].split()[1]) == b"me:p:w@/%"


def fetch(registry: module.Registry, dest: Path) -> module.Manifest:
    return module.fetch(registry, ROOT, dest, lambda _: None)


def test_files_arrive_whole_and_readable(registry: module.Registry, tmp_path: Path) -> None:
    dest = tmp_path / "deep" / "model"
    manifest = fetch(registry, dest)
    assert (dest / "data/deep/weights.bin").read_bytes() == b"\x00" * 3000
    found = {path.relative_to(dest).as_posix(): path.read_bytes() for path in dest.rglob("*") if path.is_file()}
    assert manifest.files == {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in found.items()}
    assert stat.S_IMODE((dest / "MLmodel").stat().st_mode) == 0o644
    assert stat.S_IMODE((dest / "data").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    "name", ["../evil", "..", "/etc/passwd", "a/b", "", "a\\b", "a\nb", "a\x00", "a\u202eb", 7, None]
)
def test_names_that_lead_elsewhere_are_refused(
    server: FakeMlflow, registry: module.Registry, tmp_path: Path, name: Any
) -> None:
    server.listed[ROOT] = [{"path": name, "is_dir": False, "file_size": 1}]
    with pytest.raises(module.RegistryError, match="not fetched"):
        fetch(registry, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_size_leaves_nothing_behind(
    server: FakeMlflow, registry: module.Registry, tmp_path: Path
) -> None:
    server.listed[ROOT] = [{"path": "MLmodel", "is_dir": False, "file_size": 5}]
    with pytest.raises(module.RegistryError, match="5 bytes in the listing, 14 arrived"):
        fetch(registry, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_model_larger_than_the_disk_is_refused(server: FakeMlflow, registry: module.Registry, tmp_path: Path) -> None:
    server.listed[ROOT] = [{"path": "MLmodel", "is_dir": False, "file_size": 10**18}]
    with pytest.raises(module.RegistryError, match="has room for"):
        fetch(registry, tmp_path / "model")


def test_what_an_interrupted_fetch_left_is_removed(registry: module.Registry, tmp_path: Path) -> None:
    (tmp_path / ".model-abc").mkdir()
    fetch(registry, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


class Call:
    """What run() needs of AnsibleModule."""

    def __init__(
        self, url: str, models: list[dict[str, Any]], dest: Path | None = None, *, check_mode: bool = False, **more: Any
    ) -> None:
        self.check_mode = check_mode
        self.warnings: list[str] = []
        items = [{"alias": None, "version": None} | item for item in models]
        self.params = {
            "tracking_url": url,
            "username": None,
            "password": None,
            "ca_path": None,
            "timeout": 5,
            "patience": 0,
            "models": items,
            "records": None,
            "sha256": None,
            "dest": str(dest) if dest else None,
        } | more

    def warn(self, text: str) -> None:
        self.warnings.append(text)


CHAMPION = {"model": "iris", "alias": "champion"}


def versions(server: FakeMlflow, *models: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = module.run(Call(server.url, list(models), **more))["versions"]
    return found


def test_what_is_wrong_with_one_model_is_said_in_its_item(server: FakeMlflow) -> None:
    server.versions["bad"] = {"7": {"status": "READY", "tags": {"validation_status": "failed"}}}
    server.aliases["bad"] = {"champion": "7"}
    bad, stable, ghost, good = versions(
        server,
        {"model": "bad", "alias": "champion"},
        {"model": "iris", "alias": "stable"},
        {"model": "ghost", "alias": "champion"},
        CHAMPION,
    )
    assert (bad["found"], bad["version"]) == (True, "7")
    assert "version 7 of bad (alias champion) has validation_status=failed" in bad["problem"]
    assert not stable["found"]
    assert "no alias 'stable'" in stable["problem"]
    assert not ghost["found"]
    assert (good["found"], good["problem"]) == (True, "")


def test_a_server_that_knows_nobody_or_is_away_fails_for_all(
    server: FakeMlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    server.instead[""] = server.error(401, "UNAUTHENTICATED", "You are not authenticated")
    with pytest.raises(module.SignInError, match=r"refuses the user \(401\)"):
        versions(server, CHAMPION)
    server.instead[""] = 503, b"away"
    with pytest.raises(module.BusyError, match="answers 503: away"):
        versions(server, CHAMPION)
    with pytest.raises(module.NoAnswerError):
        module.run(Call("http://127.0.0.1:1", [CHAMPION]))


@pytest.mark.parametrize("answer", [(503, b"away"), (500, b"\x1b[31m" + b"x" * 9999), (403, b"no"), (200, b"<html>"), (200, b"[1]"), (200, b'{"a": "\\ud800"}'),
    (200, b"[" * 9999)])  # fmt: skip
def test_what_the_server_cannot_answer_for_one_model_is_that_models_failure(
    server: FakeMlflow, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, bytes]
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    server.instead["get-download-uri"] = answer
    [found] = versions(server, CHAMPION)
    assert found["problem"]
    assert len(found["problem"]) < 1000
    assert found["problem"].isprintable()


def test_an_answer_without_end_is_not_read_to_its_end(
    server: FakeMlflow, registry: module.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST_ANSWER", 100)
    server.instead["model-versions/get-download-uri"] = 200, b'{"artifact_uri": "' + b"x" * 100 + b'"}'
    assert "more than 100 bytes" in refusal(registry)


def test_too_many_files_are_refused(
    server: FakeMlflow, registry: module.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.listed[ROOT] = [{"path": f"d{number}", "is_dir": True} for number in range(1001)]
    assert "too many or too deep files" in refusal(registry)
    monkeypatch.setattr(module, "MOST_FILES", 3)
    del server.listed[ROOT]
    assert "too many or too deep files" in refusal(registry)


def test_a_directory_that_holds_itself_ends(server: FakeMlflow, registry: module.Registry) -> None:
    server.instead["mlflow-artifacts/artifacts"] = 200, json.dumps({"files": [{"path": "d", "is_dir": True}]}).encode()
    with pytest.raises(module.RegistryError, match="too many or too deep files"):
        module.listing(registry, ROOT)


def test_files_are_fetched_once_and_never_in_check_mode(server: FakeMlflow, tmp_path: Path) -> None:
    dest = tmp_path / "model"
    models = [{"model": "iris", "version": "1"}]
    assert module.run(Call(server.url, models, dest, check_mode=True))["changed"]
    assert not dest.exists()
    assert server.versions["iris"]["1"]["tags"] == {}
    assert module.run(Call(server.url, models, dest))["changed"]
    assert not module.run(Call(server.url, models, dest))["changed"]


def test_the_digest_of_a_fetched_version_is_kept_in_the_registry_and_on_the_host(
    server: FakeMlflow, tmp_path: Path
) -> None:
    records = tmp_path / "records"
    [seen] = versions(server, CHAMPION, records=str(records))
    assert not records.exists(), "looking up keeps nothing"
    assert "data/deep/weights.bin" in "".join(server.asked), "what is not known is digested"
    versions(server, CHAMPION, records=str(records), sha256=seen["sha256"], dest=tmp_path / "model")
    assert server.versions["iris"]["1"]["tags"] == {module.SHA256_TAG: seen["sha256"]}
    [record] = records.iterdir()
    assert json.loads(record.read_text())["sha256"] == seen["sha256"]
    server.asked.clear()
    [again] = versions(server, CHAMPION, records=str(records))
    assert again["sha256"] == seen["sha256"]
    assert again["code_files"] == ["data/deep/weights.bin"]
    assert "weights.bin" not in "".join(server.asked), "what is known is not fetched again"


def test_who_asks_without_records_fetches_no_files(server: FakeMlflow) -> None:
    [found] = versions(server, CHAMPION)
    assert (found["problem"], found["sha256"]) == ("", "")
    assert "weights.bin" not in "".join(server.asked)


def test_a_registry_that_takes_no_tag_stops_nothing(server: FakeMlflow, tmp_path: Path) -> None:
    server.writable = False
    call = Call(server.url, [CHAMPION], tmp_path / "model", records=str(tmp_path / "records"))
    assert module.run(call)["changed"]
    assert "does not keep the digest of version 1 of iris" in call.warnings[0]
    assert len(list((tmp_path / "records").iterdir())) == 1


@pytest.mark.parametrize("name", ["data/deep/weights.bin", "MLmodel", "requirements.txt", "serving_input_example.json"])
@pytest.mark.parametrize("moved", [True, False], ids=["the tag moved along", "the tag as it was"])
def test_a_changed_file_is_refused_with_both_digests(
    server: FakeMlflow, tmp_path: Path, name: str, moved: bool
) -> None:
    more = {"records": str(tmp_path / "records")}
    versions(server, CHAMPION, dest=tmp_path / "first", **more)
    first = server.versions["iris"]["1"]["tags"][module.SHA256_TAG]
    content = server.files[f"{ROOT}/{name}"]
    server.files[f"{ROOT}/{name}"] = b"y==2\n" if name == "requirements.txt" else bytes([content[0] ^ 1]) + content[1:]
    now = module.examine(module.Registry(server.url), ROOT, module.listing(module.Registry(server.url), ROOT)).sha256
    if moved:
        server.versions["iris"]["1"]["tags"][module.SHA256_TAG] = now
    with pytest.raises(module.RegistryError) as caught:
        versions(server, CHAMPION, dest=tmp_path / "second", **more)
    message = str(caught.value)
    assert not (tmp_path / "second").exists()
    assert f"Changed: {name}" in message
    assert "Log the model again as a new version" in message
    if name == "data/deep/weights.bin":
        assert first in message
        assert now in message
    else:
        assert versions(server, CHAMPION, **more)[0]["problem"] == message


@pytest.mark.parametrize("change", ["added", "removed", "renamed"])
def test_files_that_come_or_go_are_refused(server: FakeMlflow, tmp_path: Path, change: str) -> None:
    more = {"records": str(tmp_path / "records")}
    versions(server, CHAMPION, dest=tmp_path / "first", **more)
    weights = server.files[f"{ROOT}/data/deep/weights.bin"]
    if change != "added":
        del server.files[f"{ROOT}/data/deep/weights.bin"]
    if change != "removed":
        server.files[f"{ROOT}/other.json"] = weights
    with pytest.raises(module.RegistryError, match="are not those that were checked first"):
        versions(server, CHAMPION, dest=tmp_path / "second", **more)


def test_a_host_without_a_record_believes_the_tag(server: FakeMlflow, tmp_path: Path) -> None:
    server.versions["iris"]["1"]["tags"] = {module.SHA256_TAG: "0" * 64}
    [found] = versions(server, CHAMPION, records=str(tmp_path / "records"))
    assert f"the tag {module.SHA256_TAG} has {'0' * 64}" in found["problem"]
    assert not (tmp_path / "records").exists()


def test_files_that_change_within_a_run_are_refused(server: FakeMlflow, tmp_path: Path) -> None:
    with pytest.raises(module.RegistryError, match=f"what this run saw first has {'1' * 64}"):
        versions(server, CHAMPION, dest=tmp_path / "model", sha256="1" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_version_of_the_same_name_with_other_files_has_a_record_of_its_own(
    server: FakeMlflow, tmp_path: Path
) -> None:
    more = {"records": str(tmp_path / "records")}
    versions(server, CHAMPION, dest=tmp_path / "first", **more)
    server.versions["iris"]["1"] = {"status": "READY", "tags": {}, "source": "models:/m-2", "run_id": "r2"}
    server.files[f"{ROOT}/data/deep/weights.bin"] = b"new"
    assert versions(server, CHAMPION, dest=tmp_path / "second", **more)[0]["problem"] == ""


def test_a_damaged_record_names_itself(server: FakeMlflow, tmp_path: Path) -> None:
    more = {"records": str(tmp_path)}
    versions(server, CHAMPION, dest=tmp_path / "model", **more)
    [record] = tmp_path.glob("*.json")
    record.write_text("{")
    assert f"{record} is damaged. Remove it" in versions(server, CHAMPION, **more)[0]["problem"]


@pytest.mark.parametrize(
    ("name", "start", "code"),
    [
        ("MLmodel", b"flavors:", False), ("requirements.txt", b"x==1", False), ("model.skops", b"PK\x03\x04", False),
        ("model.onnx", b"\x08\x07", False), ("model.ubj", b"{L", False), ("model.json", b"{", False), ("model.lgb", b"tree", False),
        ("weights.onnx.data", b"\x00\x00", False), ("a/MLmodel", b"", False),
        ("python_model.pkl", b"\x80\x04", True), ("model.joblib", b"\x80\x04", True), ("model.pkl", b"anything", True),
        ("data/model.pth", b"PK\x03\x04", True), ("model.pt", b"PK", True), ("model.bin", b"\x00", True), ("model", b"", True),
        ("code/x.py", b"import os", True), ("model.skops", b"\x80\x04", True), ("model.skops", b"", True), ("model.SKOPS", b"\x80\x05", True),
        ("model.json", b"\x80\x04", True), ("model.txt", b"\x1f\x8b", True), ("model.onnx", b"BZh9", True), ("x.json", b"PK\x03\x04", True),
        ("x.yaml", b"\x78\x9c", True), ("x.csv", b"\xfd7zXZ", True), ("x.npz", b"PK\x03\x04", True), ("x.json.gz", b"\x1f\x8b", True),
        ("MLmodel.pkl", b"", True), ("mlmodel", b"", True), ("x.h5", b"\x89HDF", True), ("x.keras", b"PK\x03\x04", True),
    ],
)  # fmt: skip
def test_what_may_be_code(name: str, start: bytes, code: bool) -> None:
    assert module.is_code(name, start) is code


def test_half_a_surrogate_pair_is_no_answer() -> None:
    with pytest.raises(module.RegistryError, match="is no JSON"):
        module.parsed(b'{"a": "\\ud800"}', "x")
