"""What clients see of a running edge: HAProxy itself, with servers behind it that do what a test tells them."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pace import too_late

from roles.edge.files import edge as program

from .conftest import Render
from .running import Edge, Server, running, wait_until

KIB, MIB, GIB = 2**10, 2**20, 2**30
UPLOAD = "/api/2.0/mlflow-artifacts/artifacts/1/x"


@dataclass
class Platform:
    """An edge and what stands behind it."""

    edge: Edge
    tracking: Server
    iris: list[Server]
    digits: Server

    def track(self, method: str, path: str, **more: Any) -> Any:
        """Ask the tracking server through the edge."""
        return self.edge.ask(method, path, port=self.edge.tracking, **more)


def started(render: Render, place: Any, **given: Any) -> Iterator[Platform]:
    """A platform that is there until the generator ends."""
    tracking, iris, digits = Server(), [Server(), Server()], Server()
    servers = {"tracking": [tracking], "model-iris": iris, "model-digits": [digits]}
    with running(render, place, servers, **given) as edge:
        yield Platform(edge, tracking, iris, digits)
    for server in (tracking, *iris, digits):
        server.stop()


# Without a challenger, so that a test tells the one server what to answer.
SERVED = [{"name": "iris"}, {"name": "digits", "engine": "api", "port": 9201}]


@pytest.fixture(scope="module")
def platform(render: Render, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    yield from started(
        render,
        tmp_path_factory.mktemp("edge"),
        served_models=SERVED,
        edge_header_timeout=2,
        edge_client_share=4,
        edge_tracking_client_requests=4,
    )


@pytest.mark.parametrize(
    ("method", "path", "limit"),
    [
        ("POST", "/api/2.0/mlflow/runs/log-batch", 16 * MIB),
        ("POST", "/v1/traces", 16 * MIB),
        ("POST", UPLOAD, 16 * MIB),
        ("GET", "/api/2.0/mlflow/experiments/search", 16 * MIB),
        ("POST", "/ajax-api/2.0/mlflow/upload-artifact", 16 * MIB),
        ("POST", "/graphql", 256 * KIB),
        ("PUT", UPLOAD, 10 * GIB),
        ("PUT", "/ajax-api/2.0/mlflow-artifacts/artifacts/1/x", 10 * GIB),
        ("PUT", "/api/2.0/mlflow-artifacts/mpu/create/1/x", 16 * MIB),
    ],
)
def test_a_body_is_bounded_by_what_its_path_needs(platform: Platform, method: str, path: str, limit: int) -> None:
    before = len(platform.tracking.seen)
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {limit + 1}\r\n\r\n"
    refused = platform.edge.send(head.encode(), port=platform.edge.tracking)
    assert refused.startswith(b"HTTP/1.1 413 ")
    assert json.loads(refused.partition(b"\r\n\r\n")[2])["error_code"] == "BAD_REQUEST"
    assert len(platform.tracking.seen) == before
    size = min(limit, MIB)
    assert platform.track(method, path, body=b"x" * size).status == 200
    assert platform.tracking.seen[-1].size == size


def test_a_body_of_unknown_length_stays_small_on_every_port(platform: Platform) -> None:
    for port, path in (
        (platform.edge.tracking, UPLOAD),
        (platform.edge.models, "/models/iris/invocations"),
        (platform.edge.own, "/invocations"),
    ):
        small, large = (
            platform.edge.ask("PUT" if path == UPLOAD else "POST", path, port=port, body=b"x" * size, chunked=True)
            for size in (30 * KIB, 70 * KIB)
        )
        assert (small.status, large.status) == (200, 411)


@pytest.mark.parametrize("kind", ["application/json", "application/octet-stream"])
def test_a_request_that_ends_its_server_goes_to_one_other_at_most(render: Render, tmp_path: Any, kind: str) -> None:
    servers = [Server() for _ in range(4)]
    for server in servers:
        server.answers["/invocations"] = None
    with running(render, tmp_path, {"model-iris": servers}, served_models=SERVED) as edge:
        told = edge.ask("POST", "/models/iris/invocations", body=b"{}", headers={"Content-Type": kind})
    assert told.status == 502
    assert [len(server.seen) for server in servers].count(1) == 2
    assert sum(len(server.seen) for server in servers) == 2


@pytest.mark.parametrize(
    "headers", [{"Content-Type": "application/vnd.apache.parquet"}, {"Content-Encoding": "gzip"}, {"Content-Type": "Application/X-PARQUET"}]
)  # fmt: skip
def test_a_body_that_grows_when_it_is_read_ends_one_server_alone(
    render: Render, tmp_path: Any, headers: dict[str, str]
) -> None:
    servers = [Server() for _ in range(2)]
    for server in servers:
        server.answers["/invocations"] = None
    with running(render, tmp_path, {"model-digits": servers}, served_models=SERVED) as edge:
        told = edge.ask("POST", "/models/digits/invocations", body=b"{}", headers=headers)
    assert told.status == 502
    assert sum(len(server.seen) for server in servers) == 1


@pytest.mark.parametrize("kind", ["application/vnd.apache.parquet", "Application/X-Parquet; a=b"])
def test_parquet_reaches_only_servers_that_bound_it(platform: Platform, kind: str) -> None:
    before = [len(server.seen) for server in platform.iris]
    refused = platform.edge.ask("POST", "/models/iris/invocations", body=b"PAR1", headers={"Content-Type": kind})
    assert (refused.status, [len(server.seen) for server in platform.iris]) == (415, before)
    assert b"engine: api" in refused.body
    passed = platform.edge.ask("POST", "/models/digits/invocations", body=b"PAR1", headers={"Content-Type": kind})
    assert passed.status == 200


def test_nothing_fails_when_one_of_two_servers_is_killed(render: Render, tmp_path: Any) -> None:
    left, lost = Server(delay=0.02), Server(delay=0.02)
    with running(render, tmp_path, {"model-iris": [left, lost]}, served_models=SERVED) as edge:
        statuses: list[int] = []

        def client() -> None:
            statuses.extend(edge.ask("POST", "/models/iris/invocations", body=b"{}").status for _ in range(40))

        threads = [threading.Thread(target=client) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(lost.seen) > 20)
        # Its port refuses connections, and what was under way gets no answer.
        lost.answers["/invocations"] = None
        lost.stop()
        for thread in threads:
            thread.join()
    assert statuses == [200] * 320


@pytest.mark.parametrize("where", ["/models/iris/invocations", "/models/digits/predict", "tracking"])
def test_one_client_takes_a_part_of_the_places(platform: Platform, where: str) -> None:
    tracking = where == "tracking"
    server = [platform.tracking] if tracking else platform.iris if "iris" in where else [platform.digits]
    port = platform.edge.tracking if tracking else platform.edge.models
    path = "/api/2.0/mlflow/runs/search" if tracking else where
    gate = threading.Event()
    for one in server:
        one.gate = gate
        one.seen.clear()
    got: list[int] = []
    threads = [
        threading.Thread(target=lambda: got.append(platform.edge.ask("POST", path, port=port, body=b"{}").status))
        for _ in range(4)
    ]
    try:
        for thread in threads:
            thread.start()
        wait_until(lambda: sum(len(one.seen) for one in server) == 4)
        refused = platform.edge.ask("POST", path, port=port, body=b"{}")
        assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
        assert json.loads(refused.body)["error_code"] == "REQUEST_LIMIT_EXCEEDED"
        # Another address has places left, and so has this one elsewhere.
        other = threading.Thread(
            target=lambda: got.append(
                platform.edge.ask("POST", path, port=port, body=b"{}", address="127.0.0.2").status
            )
        )
        other.start()
        wait_until(lambda: sum(len(one.seen) for one in server) == 5)
        gate.set()
        for thread in (*threads, other):
            thread.join()
    finally:
        gate.set()
        for one in server:
            one.gate = None
    assert got == [200] * 5
    assert platform.edge.ask("POST", path, port=port, body=b"{}").status == 200


def test_a_small_body_has_a_deadline_as_a_whole(platform: Platform) -> None:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", platform.edge.models), timeout=10) as connection:
        connection.sendall(b"POST /models/iris/invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
        connection.settimeout(0.3)
        got = b""
        while not got and not too_late(began, 8):
            connection.sendall(b"x")
            try:
                got = connection.recv(4096)
            except TimeoutError:
                continue
    assert got.startswith(b"HTTP/1.1 408 ")
    assert not too_late(began, 5)


# Of every kind that acts on the origin, in odd case, twice, or unknown.
HOSTILE = [
    ("Set-Cookie", "a=b; Path=/"),
    ("SET-COOKIE", "c=d"),
    ("Set-Cookie2", "e=f"),
    ("Service-Worker-Allowed", "/"),
    ("cLeAr-SiTe-DaTa", '"*"'),
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Credentials", "true"),
    ("Refresh", "0; url=https://evil.example/"),
    ("WWW-Authenticate", 'Basic realm="mlflow"'),
    ("Proxy-Authenticate", "Basic"),
    ("Alt-Svc", 'h3="evil.example:443"'),
    ("Strict-Transport-Security", "max-age=0"),
    ("Public-Key-Pins", "x"),
    ("Link", "</x>; rel=preload"),
    ("Speculation-Rules", '"/x.json"'),
    ("Content-Security-Policy", ""),
    ("Content-Security-Policy", "default-src *"),
    ("Content-Security-Policy-Report-Only", "default-src 'self'; report-uri https://evil.example"),
    ("NEL", "{}"),
    ("Report-To", "{}"),
    ("Reporting-Endpoints", 'a="https://evil.example"'),
    ("Origin-Agent-Cluster", "?1"),
    ("X-XSS-Protection", "0"),
    ("X-Content-Type-Options", "sniff"),
    ("Referrer-Policy", "unsafe-url"),
    ("Cross-Origin-Opener-Policy", "unsafe-none"),
    ("Permissions-Policy", "camera=*"),
    ("SourceMap", "https://evil.example/x"),
    ("X-Anything-New", "1"),
]
KINDS = [
    "text/html",
    "image/svg+xml",
    "application/xhtml+xml",
    "application/xml",
    "application/pdf",
    "x/y",
    "application/json",
]


@pytest.mark.parametrize("path", ["/models/iris/ping2", "/models/digits/", "/models/digits/docs", "/models/digits/x"])
def test_no_header_of_a_model_acts_on_the_origin(platform: Platform, path: str) -> None:
    inner = "/" + path.split("/", 3)[3]
    for server in (*platform.iris, platform.digits):
        server.answers[inner] = (
            200,
            [("Content-Type", "text/html"), *HOSTILE, ("Cache-Control", "no-cache")],
            b"<script>1</script>",
        )
    answer = platform.edge.ask("GET", path)
    allowed = {
        *("content-type", "content-length", "cache-control", "content-security-policy", "x-content-type-options"),
        *("referrer-policy", "x-request-id", "x-model-name", "x-model-version"),
    }
    assert {name.lower() for name in answer.headers} == allowed
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert len(answer.headers.get_all("content-security-policy", [])) == 1


@pytest.mark.parametrize("status", [200, 404, 500])
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_a_model_answers_is_sandboxed(platform: Platform, kind: str, status: int) -> None:
    for server in platform.iris:
        server.answers["/odd"] = (status, [("Content-Type", kind)], b"<x/>")
    policy = platform.edge.ask("GET", "/models/iris/odd").headers["Content-Security-Policy"]
    assert policy.startswith("sandbox; default-src 'none'")


def directives(policy: str) -> dict[str, str]:
    """A policy by its directives."""
    return {words[0]: " ".join(words[1:]) for words in (part.split() for part in policy.split(";"))}


def test_the_pages_of_a_typed_model_reach_their_own_model_alone(platform: Platform) -> None:
    here = {"Host": f"localhost:{platform.edge.models}"}
    base = f"http://localhost:{platform.edge.models}/models/digits/"
    for path in ("/models/digits/", "/models/digits/docs"):
        policy = directives(platform.edge.ask("GET", path, headers=here).headers["Content-Security-Policy"])
        assert policy["sandbox"] == "allow-scripts allow-forms allow-same-origin"
        assert policy["default-src"] == policy["worker-src"] == policy["form-action"] == "'none'"
        assert policy["connect-src"] == base
        assert policy["script-src"] == f"{base}page.js {base}docs.js"
        assert policy["style-src"] == f"{base}page.css"
    for method, path in (("POST", "/models/digits/"), ("GET", "/models/digits/other"), ("GET", "/models/iris/x")):
        strict = platform.edge.ask(method, path, headers=here).headers["Content-Security-Policy"]
        assert "allow" not in strict, path


def test_a_page_on_a_port_of_its_own_asks_no_other_model(platform: Platform) -> None:
    host = f"localhost:{platform.edge.own}"
    answer = platform.edge.ask("GET", "/docs", port=platform.edge.own, headers={"Host": host})
    asked = directives(answer.headers["Content-Security-Policy"])["connect-src"].split()
    assert f"http://{host}/predict" in asked
    assert f"http://{host}/v2/" in asked
    assert not [one for one in asked if one == f"http://{host}/" or "/models" in one]


@pytest.mark.parametrize(
    ("said", "passes"),
    [
        ("/models/digits/v2/health/live?a=1", "/models/digits/v2/health/live?a=1"),
        ("http://evil.example/models/digits/docs", "/models/digits/docs"),
        ("https://evil.example/", None),
        ("//evil.example/models/digits/", None),
        ("/\\evil.example/models/digits/", None),
        ("/models/digits/../../ajax-api/2.0/mlflow/x", None),
        ("/models/digits/%2e%2e/%2e%2e/x", None),
        ("/models/iris/invocations", None),
        ("/ajax-api/2.0/mlflow/runs/delete", None),
        ("javascript:alert(1)", None),
    ],
)
def test_a_model_sends_nobody_elsewhere(platform: Platform, said: str, passes: str | None) -> None:
    platform.digits.answers["/on"] = (307, [("Location", said)], b"")
    assert platform.edge.ask("GET", "/models/digits/on").headers["Location"] == passes


def test_a_plain_model_has_a_page_of_the_edge(platform: Platform) -> None:
    for server in platform.iris:
        server.seen.clear()
    html = {"Accept": "text/html"}
    for path, headers in (("/models/iris/docs", {}), ("/models/iris/redoc", {}), ("/models/iris/", html)):
        page = platform.edge.ask("GET", path, headers=headers)
        assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        policy = directives(page.headers["Content-Security-Policy"])
        site = f"127.0.0.1:{platform.edge.models}"
        assert policy["default-src"] == "'none'"
        assert (policy["script-src"], policy["connect-src"]) == (f"{site}/pages.js", f"{site}/models/iris/invocations")
        text = page.body.decode()
        assert "POST invocations" in text
        assert re.findall("<script[^>]*>", text) == ['<script src="/pages.js" defer>']
        assert not re.findall(r"src=.(?:https?:)?//|<link[^>]*href=.(?:https?:)?//", text)
    for headers, where in ((html, "/models/iris/"), ({}, None)):
        assert platform.edge.ask("GET", "/models/iris", headers=headers).headers["Location"] == where
    assert json.loads(platform.edge.ask("GET", "/models/iris/").body)["name"] == "iris"
    assert platform.edge.ask("GET", "/pages.js").headers["Content-Type"] == "text/javascript"
    assert [server.seen for server in platform.iris] == [[], []]


def test_nothing_is_a_page_in_a_browser(platform: Platform) -> None:
    page = platform.edge.ask("GET", "/models/nobody/x", headers={"Accept": "text/html,*/*"})
    assert (page.status, page.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert b'href="/models"' in page.body
    assert json.loads(platform.edge.ask("GET", "/models/nobody/x").body)["error_code"] == "RESOURCE_DOES_NOT_EXIST"


def test_the_list_is_json_where_a_browser_asks_for_it(platform: Platform) -> None:
    for path, kind in (("/models", "text/html; charset=utf-8"), ("/models?json", "application/json")):
        assert platform.edge.ask("GET", path, headers={"Accept": "text/html"}).headers["Content-Type"] == kind


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "http://localhost:3000", "null", "https://localhost:{port}", "http://localhost:{port}.evil.example",
     "http://localhost", "http://localhost:{port}/", "http://evil.example, http://localhost:{port}", ""],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_pages_of_other_origins_do_not_drive_mlflow(platform: Platform, origin: str, method: str) -> None:
    platform.tracking.seen.clear()
    headers = {"Origin": origin.format(port=platform.edge.tracking)}
    answer = platform.track(method, "/ajax-api/2.0/mlflow/experiments/search", headers=headers)
    assert (answer.status, json.loads(answer.body)["error_code"]) == (403, "PERMISSION_DENIED")
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert platform.tracking.seen == []


def test_two_origins_are_none(platform: Platform) -> None:
    own = f"http://localhost:{platform.edge.tracking}"
    text = f"GET /version HTTP/1.1\r\nHost: localhost\r\nOrigin: {own}\r\nOrigin: http://evil.example\r\nConnection: close\r\n\r\n"
    assert platform.edge.send(text.encode(), port=platform.edge.tracking).startswith(b"HTTP/1.1 403 ")


def test_the_platforms_own_pages_and_programs_use_mlflow(platform: Platform) -> None:
    cors = [
        ("Access-Control-Allow-Origin", "*"),
        ("ACCESS-CONTROL-ALLOW-CREDENTIALS", "true"),
        ("X-Frame-Options", "DENY"),
    ]
    platform.tracking.answers["/version"] = (200, cors, b"3")
    given: list[dict[str, str]] = [
        {"Origin": f"http://{name}:{platform.edge.tracking}"} for name in ("localhost", "127.0.0.1")
    ]
    for sent in [*given, {}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}]:
        answer = platform.track("GET", "/version", headers=sent)
        assert answer.status == 200
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
        assert answer.headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_from_elsewhere_there_are_links_alone(platform: Platform, site: str) -> None:
    def status(method: str, mode: str) -> int:
        headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
        found: int = platform.track(method, "/version", headers=headers).status
        return found

    assert (status("GET", "navigate"), status("GET", "no-cors"), status("POST", "navigate")) == (200, 403, 403)


def test_the_pages_of_mlflow_find_nothing_where_the_edge_lets_nobody(platform: Platform) -> None:
    proxy, assistant = "/ajax-api/2.0/mlflow/gateway-proxy", "/ajax-api/3.0/mlflow/assistant"
    before = len(platform.tracking.seen)
    for path, answer in (
        (f"{proxy}?gateway_path=api/2.0/endpoints/", {"endpoints": []}),
        (f"{proxy}?gateway_path=api%2F2.0%2Fendpoints%2F", {"endpoints": []}),
        (f"{assistant}/config", {"providers": {}, "projects": {}, "remote_access_allowed": False}),
        (f"{assistant}/providers", {"providers": [], "resolved": None, "gateway_vendor_options": {}}),
    ):
        found = platform.track("GET", path)
        assert (found.status, json.loads(found.body)) == (200, answer), path
        assert platform.track("POST", path, body=b"{}").status == 403
    for path in (
        proxy,
        f"{proxy}?gateway_path=http://evil.example/",
        f"{proxy}?gateway_path=api/2.0/endpoints/&gateway_path=x",
        f"{proxy}/?gateway_path=api/2.0/endpoints/",
        f"{assistant}/config?x=1",
        f"{assistant}/providers/openai/models",
        f"{assistant}/",
    ):
        assert platform.track("GET", path).status == 403, path
    assert len(platform.tracking.seen) == before


CREDENTIALS = {"Authorization": "Basic " + "YWRtaW46d3Jvbmc="}


@pytest.fixture
def guarded(render: Render, tmp_path: Any) -> Iterator[Platform]:
    yield from started(render, tmp_path, served_models=SERVED, platform_auth=True, edge_failed_logins=5)


def guessed(platform: Platform, count: int, user: str = "YWRtaW46d3Jvbmc=", **more: Any) -> list[int]:
    """Statuses of sign-ins that MLflow refuses."""
    platform.tracking.answers["/version"] = (401, [], b"")
    headers = {"Authorization": f"Basic {user}"}
    return [platform.track("GET", "/version", headers=headers, **more).status for _ in range(count)]


def test_failed_sign_ins_are_counted_on_the_ports_of_the_host(guarded: Platform) -> None:
    assert guessed(guarded, 8) == [401] * 5 + [429] * 3
    # Other users of this address, and this one from another address, are not locked out.
    assert guessed(guarded, 1, "YmVuOng=") == [401]
    assert guessed(guarded, 1, address="127.0.0.2") == [401]
    # One guess each at many users is guessing too.
    import base64

    many = [guessed(guarded, 1, base64.b64encode(f"u{number}:x".encode()).decode())[0] for number in range(60)]
    assert many[-1] == 429
    wrong = [
        guarded.edge.ask("GET", "/models/iris/ping", headers={"X-Api-Key": "x"}, address="127.0.0.3").status
        for _ in range(8)
    ]
    assert wrong == [401] * 5 + [429] * 3
    key = (guarded.edge.place.parent / "secrets/operator_key").read_text().strip()
    assert guarded.edge.ask("GET", "/models/iris/ping", headers={"X-Api-Key": key}).status == 200


def test_a_reload_forgets_no_failed_sign_in(guarded: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    assert guessed(guarded, 6)[-1] == 429
    for name, value in {
        "CONFIG": guarded.edge.place,
        "CERTIFICATES": guarded.edge.place / "certificates",
        "RUN": guarded.edge.run,
        "CONFINED": guarded.edge.run / "haproxy.cfg",
        "LOADED": guarded.edge.run / "loaded",
        "STATE": guarded.edge.run / "servers.state",
        "ADMIN": guarded.edge.run / "admin.sock",
        "MASTER": guarded.edge.run / "master.sock",
        "HEALTH": ("127.0.0.1", guarded.edge.ports[8404]),
        # The check runs elsewhere; what the master loads is what it has loaded already.
        "HAPROXY": ["true"],
    }.items():
        monkeypatch.setattr(program, name, value)
    program.LOADED.write_text("another")
    program.reload()
    wait_until(lambda: guessed(guarded, 1) == [429], 10, "the new process has no tables")


class Waiting:
    """Stands for MLflow at a long search: answers whether it is ready, and notices when it is left alone with all else."""

    def __init__(self) -> None:
        self.asked, self.left = threading.Event(), threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self) -> None:
        """Take connections until it is closed."""
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        """One request."""
        with connection:
            if b"GET /ready" in connection.recv(65536):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            self.asked.set()
            connection.settimeout(20)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(65536):
                    pass
            self.left.set()


def test_mlflow_hears_that_a_client_gave_up(render: Render, tmp_path: Any) -> None:
    server = Waiting()
    with running(render, tmp_path, {"tracking": [server]}, served_models=SERVED) as edge:  # type: ignore[list-item]
        with socket.create_connection(("127.0.0.1", edge.tracking), timeout=20) as client:
            client.sendall(
                b"POST /api/2.0/mlflow/runs/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
            )
            assert server.asked.wait(20)
            assert not server.left.is_set()
        assert server.left.wait(10)
    server.listener.close()
