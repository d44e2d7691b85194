"""The module mlflow_model_version against a server that answers like MLflow's REST interface."""

from __future__ import annotations

import base64
import json
import stat
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from library import mlflow_model_version as module

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOT = "0/models/m-1/artifacts"


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
        self.listed: dict[str, list[dict[str, Any]]] = {}
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
            return 200, {"run": {"data": {"metrics": [{"key": "accuracy", "value": 0.97}]}}}
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
            status, body = fake.answer(urllib.parse.unquote(parts.path), dict(urllib.parse.parse_qsl(parts.query)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
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


def refusal(registry: module.Registry, model: str, alias: str = "champion") -> str:
    with pytest.raises(module.RegistryError) as caught:
        module.look_up(registry, model, alias, None)
    return str(caught.value)


def test_a_version_is_found_with_all_that_is_known_of_it(registry: module.Registry) -> None:
    found = module.look_up(registry, "iris", "champion", None)
    assert found["version"] == "1"
    assert found["artifact_uri"] == f"mlflow-artifacts:/{ROOT}"
    assert found["metrics"] == {"accuracy": 0.97}
    assert found["requirements"] == ["mlflow==3.17.2", "skops==0.16.0"]
    assert found["input_example"] == {"inputs": [[1]]}
    assert found["mlmodel"] == "model_id: m-1\n"


def test_a_version_without_example_and_requirements_is_found(server: FakeMlflow, registry: module.Registry) -> None:
    del server.files[f"{ROOT}/requirements.txt"], server.files[f"{ROOT}/serving_input_example.json"]
    found = module.look_up(registry, "iris", None, "1")
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
    assert module.look_up(registry, "iris", "champion", None)["tags"] == {"validation_status": status}


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


@pytest.mark.parametrize(
    "uri", ["s3://bucket/x", "/srv/mlruns/1", "mlflow-artifacts:/a/../../etc", "mlflow-artifacts:/a/%2e%2e/b"]
)
def test_files_outside_the_artifact_proxy_are_refused(server: FakeMlflow, registry: module.Registry, uri: str) -> None:
    server.download_uri = uri
    assert "artifact proxy" in refusal(registry, "iris")


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://example.org/x",
        "-i https://example.org",
        "numpy --global-option=x",
        "-r other.txt",
        "-e .",
        "./wheels/a.whl",
        "wheels/a.whl",
    ],
)
def test_options_of_pip_and_local_files_are_refused(server: FakeMlflow, registry: module.Registry, line: str) -> None:
    server.files[f"{ROOT}/requirements.txt"] = f"mlflow==3.17.2\n{line}\n".encode()
    assert line.split(maxsplit=1)[0].strip("=") in refusal(registry, "iris")


@pytest.mark.parametrize(
    "line",
    [
        "numpy==2.4.6",
        "mlflow[auth]==3.17.2",
        "a-b--c==1",
        'pandas<4,>=2; python_version >= "3.9"',
        "x==1 --hash=sha256:ab --hash=sha256:cd",
    ],
)
def test_packages_versions_markers_and_hashes_are_allowed(line: str) -> None:
    assert module.requirement_problems([line]) == []


def test_continued_lines_are_joined() -> None:
    assert module.requirement_lines("a==1 \\\n  --hash=sha256:00\n\n# comment\nb==2  # why\n") == [
        "a==1 --hash=sha256:00",
        "b==2",
    ]


def test_a_busy_server_is_asked_again(server: FakeMlflow, registry: module.Registry) -> None:
    server.busy = 2
    assert module.look_up(registry, "iris", "champion", None)["version"] == "1"


def test_a_server_that_does_not_answer_is_named() -> None:
    with pytest.raises(module.NoAnswerError, match=r"http://127\.0\.0\.1:1 does not answer"):
        module.Registry("http://127.0.0.1:1", pause=0).get("registered-models/search")


def test_credentials_are_sent_and_no_proxy_stands_in_the_way(
    server: FakeMlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    module.Registry(server.url, ("me", "p:w@/%"), pause=0).names()
    assert base64.b64decode(server.headers[0]["Authorization"].split()[1]) == b"me:p:w@/%"


def test_files_arrive_whole_and_readable(registry: module.Registry, tmp_path: Path) -> None:
    dest = tmp_path / "deep" / "model"
    size = module.fetch(registry, ROOT, dest)
    assert (dest / "data/deep/weights.bin").read_bytes() == b"\x00" * 3000
    assert size == sum(path.stat().st_size for path in dest.rglob("*") if path.is_file())
    assert stat.S_IMODE((dest / "MLmodel").stat().st_mode) == 0o644
    assert stat.S_IMODE((dest / "data").stat().st_mode) == 0o755


@pytest.mark.parametrize("name", ["../evil", "..", "/etc/passwd", "a/b", "", "a\\b"])
def test_names_that_lead_elsewhere_are_refused(
    server: FakeMlflow, registry: module.Registry, tmp_path: Path, name: str
) -> None:
    server.listed[ROOT] = [{"path": name, "is_dir": False, "file_size": 1}]
    with pytest.raises(module.RegistryError, match="not fetched"):
        module.fetch(registry, ROOT, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_size_leaves_nothing_behind(
    server: FakeMlflow, registry: module.Registry, tmp_path: Path
) -> None:
    server.listed[ROOT] = [{"path": "MLmodel", "is_dir": False, "file_size": 5}]
    with pytest.raises(module.RegistryError, match="5 bytes in the listing, 14 arrived"):
        module.fetch(registry, ROOT, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_model_larger_than_the_disk_is_refused(server: FakeMlflow, registry: module.Registry, tmp_path: Path) -> None:
    server.listed[ROOT] = [{"path": "MLmodel", "is_dir": False, "file_size": 10**18}]
    with pytest.raises(module.RegistryError, match="has room for"):
        module.fetch(registry, ROOT, tmp_path / "model")


def test_what_an_interrupted_fetch_left_is_removed(registry: module.Registry, tmp_path: Path) -> None:
    (tmp_path / ".model-abc").mkdir()
    module.fetch(registry, ROOT, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


class Call:
    """What run() needs of AnsibleModule."""

    def __init__(
        self, url: str, models: list[dict[str, Any]], dest: Path | None = None, *, check_mode: bool = False
    ) -> None:
        self.check_mode = check_mode
        items = [{"alias": None, "version": None, "required": True} | item for item in models]
        self.params = {
            "tracking_url": url,
            "username": None,
            "password": None,
            "ca_path": None,
            "timeout": 5,
            "models": items,
            "dest": str(dest) if dest else None,
        }


def test_all_mistakes_stand_in_one_message(server: FakeMlflow) -> None:
    call = Call(
        server.url,
        [
            {"model": "ghost", "alias": "champion"},
            {"model": "iris", "alias": "stable"},
            {"model": "ghost", "alias": "champion"},
        ],
    )
    with pytest.raises(module.RegistryError) as caught:
        module.run(call)
    assert len(str(caught.value).splitlines()) == 2


def test_a_missing_challenger_is_no_mistake(server: FakeMlflow) -> None:
    call = Call(
        server.url,
        [{"model": "iris", "alias": "champion"}, {"model": "iris", "alias": "challenger", "required": False}],
    )
    first, second = module.run(call)["versions"]
    assert first["found"]
    assert not second["found"]
    assert "no alias 'challenger'" in second["reason"]


def test_files_are_fetched_once_and_never_in_check_mode(server: FakeMlflow, tmp_path: Path) -> None:
    dest = tmp_path / "model"
    models = [{"model": "iris", "version": "1"}]
    assert module.run(Call(server.url, models, dest, check_mode=True))["changed"]
    assert not dest.exists()
    assert module.run(Call(server.url, models, dest))["changed"]
    assert not module.run(Call(server.url, models, dest))["changed"]
