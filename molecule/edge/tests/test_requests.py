"""Routes, errors, limits and retries: the same image does it on every release, so one instance shows it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest
from edge.servers import DIRECTORY, EDGE
from edge.traffic import Reply, ask, load, request
from instance import Instance
from pace import slowness

pytestmark = pytest.mark.usefixtures("servers")

Seen = Callable[[str], list[tuple[str, str, str]]]
KIB, MIB, GIB = 2**10, 2**20, 2**30


def statuses(replies: list[Reply]) -> list[int]:
    """Their statuses."""
    return [reply.status for reply in replies]


# Port, path as a client asks; who answers (a prefix of the name), path as it is asked.
ROUTES = [
    (5000, "/api/2.0/mlflow/experiments/search?a=b%2Fc", "tracking", "/api/2.0/mlflow/experiments/search?a=b%2Fc"),
    (5000, "/", "tracking", "/"),
    (5000, "/static-files/models/iris", "tracking", "/static-files/models/iris"),
    (8000, "/models/iris/invocations", "iris", "/invocations"),
    (8000, "/models/iris/ping", "iris", "/ping"),
    (8000, "/models/iris/health", "iris", "/health"),
    (8000, "/models/iris/version", "iris", "/version"),
    (8000, "/models/iris/docs", "iris", "/docs"),
    (8000, "/models/iris/openapi.json", "iris", "/openapi.json"),
    (8000, "/models/digits/predict?a=1", "digits", "/predict?a=1"),
    (8000, "/models/digits/metadata", "digits", "/metadata"),
    (8000, "/models/digits/v2/models/digits/infer", "digits", "/v2/models/digits/infer"),
    *((8000, path, "digits", path) for path in ("/predict", "/invocations", "/docs", "/ping", "/health", "/version", "/v2/health/ready")),
    *((9201, path, "digits", path) for path in ("/predict", "/invocations", "/docs", "/openapi.json", "/metadata", "/v2")),
    (9201, "/models/digits/openapi.json", "digits", "/openapi.json"),
]  # fmt: skip


def test_routes_by_path_and_port(instance: Instance) -> None:
    replies = ask(
        instance,
        *(request(path, "POST", port=port, body="{}", headers={"X-Do": ""}) for port, path, _, _ in ROUTES),
    )
    wanted = [(200, server, path) for _, _, server, path in ROUTES]
    got = [(reply.status, reply.json().get("server", reply.body), reply.json().get("path")) for reply in replies]
    got = [(status, "digits" if name == "challenger" else name.split("-")[0], path) for status, name, path in got]
    assert got == wanted


def test_says_on_every_answer_of_a_model_which_one_it_is(instance: Instance) -> None:
    replies = ask(
        instance,
        request("/models/iris/invocations", "POST", body="{}"),
        request("/models/iris"),
        request("/models/iris/predict", "POST", body="{}"),
        request("/models/iris/invocations", "POST", headers={"Content-Length": str(17 * 2**20)}),
        request("/models/Fraud-2/invocations", "POST", body="{}"),
        request("/models/iris/invocations", "POST", body="{}", headers={"X-Do": "iris-1:sleep iris-2:sleep"}),
        request("/models/iris/ping", headers={"X-Request-Id": "mine-1"}),
    )
    got = [(reply.status, reply.headers.get("x-model-name"), reply.headers.get("x-model-version")) for reply in replies]
    iris = ("iris", "3")
    assert got == [
        (200, *iris),
        (200, *iris),
        (404, *iris),
        (413, *iris),
        (503, "Fraud-2", "none"),
        (504, *iris),
        (200, *iris),
    ]
    assert [reply.headers["x-request-id"] for reply in replies][-1] == "mine-1"
    assert len({reply.headers["x-request-id"] for reply in replies}) == len(replies)


def test_answers_json_where_no_server_does(instance: Instance) -> None:
    missing, busy, nobody, slow, broken = ask(
        instance,
        request("/models/roses/invocations", "POST", body="{}"),
        request("/models/iris/invocations", "POST", body="{}", headers={"X-Do": "iris-1:busy iris-2:busy"}),
        request("/models/Fraud-2/invocations", "POST", body="{}"),
        request("/models/iris/invocations", "POST", body="{}", headers={"X-Do": "iris-1:sleep iris-2:sleep"}),
        request("/api/2.0/mlflow/x", "POST", port=5000, body="{}", headers={"X-Do": "tracking:drop"}),
    )
    assert (missing.status, missing.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert missing.json()["models"] == ["digits", "Fraud-2", "iris"]
    assert all(name in missing.json()["message"] for name in missing.json()["models"])
    assert (nobody.status, nobody.headers["retry-after"], nobody.json()["error_code"]) == (
        503,
        "5",
        "TEMPORARILY_UNAVAILABLE",
    )
    assert busy.status == 503
    assert (slow.status, slow.json()["error_code"]) == (504, "DEADLINE_EXCEEDED")
    assert 2.5 < slow.seconds < 8 * slowness()
    assert (broken.status, broken.json()["error_code"]) == (502, "INTERNAL_ERROR")


def test_host_and_origin_reach_mlflow_as_the_browser_sent_them(instance: Instance) -> None:
    origin = {"Host": "localhost:5000", "Origin": "http://localhost:5000"}
    spoofed = {"X-Forwarded-For": "10.1.2.3", "X-Forwarded-Host": "evil", "Forwarded": "for=evil", "X-Real-IP": "evil"}
    asked, lied = ask(
        instance,
        request("/ajax-api/2.0/mlflow/experiments/search", "POST", port=5000, body="{}", headers=origin),
        request("/version", port=5000, headers=origin | spoofed),
    )
    seen = {key.lower(): value for key, value in asked.json()["headers"].items()}
    assert (asked.status, seen["host"], seen["origin"]) == (200, "localhost:5000", "http://localhost:5000")
    seen = {key.lower(): value for key, value in lied.json()["headers"].items()}
    assert seen["x-forwarded-host"] == "localhost:5000"
    assert "10.1.2.3" not in seen["x-forwarded-for"]
    assert not {"forwarded", "x-real-ip"} & set(seen)


@pytest.mark.parametrize("port", [5000, 8000, 9201])
def test_other_names_of_this_host_are_refused(instance: Instance, port: int) -> None:
    good = ["localhost", f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", f"LOCALHOST:{port}"]
    evil = [
        "evil.example",
        f"evil.example:{port}",
        "localhost.evil.example",
        "evil.example@localhost",
        "",
        "localhost, evil.example",
    ]
    replies = ask(instance, *(request("/health", port=port, headers={"Host": name}) for name in good + evil))
    assert statuses(replies[: len(good)]) == [200] * len(good)
    # HAProxy itself answers 400 to what is no name at all.
    assert {reply.status for reply in replies[len(good) :]} <= {400, 421}
    assert replies[len(good)].status == replies[len(good) + 1].status == replies[len(good) + 2].status == 421
    assert replies[len(good)].json()["error_code"] == "BAD_REQUEST"
    twice = "GET /ping HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    none = "GET /ping HTTP/1.1\r\nConnection: close\r\n\r\n"
    assert set(statuses(ask(instance, *(request(port=port, raw=[(text, 0)]) for text in (twice, none))))) <= {400, 421}


SPELLINGS = [
    "{}",
    "/{}",
    "{}/",
    "{}?x=1",
    "/.{}",
    "/x/..{}",
    "/%2e{}",
    "/x/%2e%2e{}",
    "//{}//",
]


def odd(path: str) -> list[str]:
    """A path as a clever client spells it; a server that decodes and normalizes paths may read all of them alike."""
    upper = path.upper()
    encoded = "/" + "".join(f"%{ord(letter):02x}" if letter.isalpha() else letter for letter in path[1:])
    slashes = "/" + path[1:].replace("/", "%2f")
    return [form.format(spelling) for spelling in (path, upper, encoded, slashes) for form in SPELLINGS]


@pytest.mark.parametrize(
    "path",
    ["/metrics", "/docs", "/redoc", "/openapi.json", "/ajax-api/3.0/mlflow/assistant", "/api/3.0/jobs", "/ajax-api/3.0/jobs/cancel"],
)  # fmt: skip
def test_what_is_not_for_clients_is_refused_in_every_spelling(instance: Instance, path: str) -> None:
    spelled = odd(path)
    replies = ask(instance, *(request(spelling, port=5000) for spelling in spelled))
    assert [
        spelling for spelling, reply in zip(spelled, replies, strict=True) if reply.status not in {400, 403, 404}
    ] == []
    assert replies[0].json()["error_code"] == "PERMISSION_DENIED"


def test_paths_beside_the_refused_ones_are_served(instance: Instance) -> None:
    paths = [
        "/api/2.0/mlflow/metrics/get-history",
        "/get-artifact?path=docs/a",
        "/api/2.0/mlflow-artifacts/artifacts/1/docs/a%20b",
    ]
    assert statuses(ask(instance, *(request(path, port=5000) for path in paths))) == [200] * 3


def test_bodies_are_limited(instance: Instance) -> None:
    # 4 GiB more than nothing must not count as nothing.
    length = {"Content-Length": str(4 * GIB + 1)}
    cases = [
        (200, request("/models/iris/invocations", "POST", size=15 * MIB)),
        (413, request("/models/iris/invocations", "POST", headers={"Content-Length": str(16 * MIB + 1)})),
        (200, request("/api/2.0/mlflow-artifacts/artifacts/upload", "PUT", port=5000, size=20 * MIB)),
        (
            413,
            request(
                "/api/2.0/mlflow-artifacts/artifacts/upload",
                "PUT",
                port=5000,
                headers={"Content-Length": str(10 * GIB + 1)},
            ),
        ),
        (413, request("/models/iris/invocations", "POST", headers=length)),
        # Without its length a body is accepted as long as it stays small.
        (200, request("/models/iris/invocations", "POST", size=32 * KIB, chunked=True)),
        (411, request("/models/iris/invocations", "POST", size=MIB, chunked=True)),
        (411, request("/api/2.0/mlflow-artifacts/artifacts/upload", "PUT", port=5000, size=MIB, chunked=True)),
        (
            400,
            request(
                raw=[("POST /models/iris/invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 0)]
            ),
        ),
        (431, request("/models/iris/ping", headers={"X-Long": "x" * 20_000})),
    ]
    replies = ask(instance, *(case for _, case in cases))
    assert statuses(replies) == [status for status, _ in cases]
    assert replies[0].json()["size"] == 15 * MIB
    assert replies[2].json()["size"] == 20 * MIB
    assert replies[5].json()["size"] == 32 * KIB


def test_smuggled_requests_are_refused(instance: Instance) -> None:
    head = "POST /models/iris/invocations HTTP/1.1\r\nHost: localhost\r\n"
    texts = [
        head + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
        head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        head + "Content-Length : 4\r\n\r\nabcd",
        "TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "CONNECT localhost:5000 HTTP/1.1\r\nHost: localhost:5000\r\n\r\n",
        "GET /models/iris/pi\0ng HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /models/iris/ping%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ]
    replies = ask(instance, *(request(raw=[(text, 0)]) for text in texts))
    assert {reply.status for reply in replies} <= {400, 405}, [reply.body[:200] for reply in replies]


def test_clients_that_dawdle_are_cut_off(instance: Instance) -> None:
    head = "POST /models/iris/invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n"
    drip = [("X-Drip: 1\r\n", 0.5)] * 20
    silent, headers, body, large = ask(
        instance,
        request(raw=[("GET ", 0)]),
        request(raw=[(head.format(9), 0), *drip]),
        request(raw=[(head.format(9) + "\r\n12", 0)]),
        # More than one buffer is passed on as it comes; silence within it ends it.
        request(raw=[(head.format(MIB) + "\r\n" + "x" * 300_000, 0)]),
    )
    assert [reply.status for reply in (silent, headers, body)] == [408, 408, 408]
    assert body.body.split("\r\n\r\n")[1].startswith('{"error_code"')
    assert large.status in {0, 408, 400, 504}
    assert max(reply.seconds for reply in (silent, body)) < 12 * slowness()
    assert large.seconds < 18 * slowness()


@pytest.mark.parametrize("death", ["drop", "die"])
def test_a_request_to_mlflow_is_never_sent_twice(instance: Instance, servers: Seen, death: str) -> None:
    identity = f"once-{death}-{os.getpid()}"
    [reply] = ask(
        instance,
        request("/api/2.0/mlflow/runs/create", "POST", port=5000, body="{}",
                headers={"X-Do": f"tracking:{death}", "X-Request-Id": identity}),
    )  # fmt: skip
    assert reply.status == 502
    time.sleep(2)
    assert servers(identity) == [("tracking", "POST", "/api/2.0/mlflow/runs/create")]


@pytest.mark.parametrize("death", ["drop", "die", "busy"])
def test_a_prediction_goes_to_another_server(instance: Instance, servers: Seen, death: str) -> None:
    identities = [f"again-{death}-{os.getpid()}-{number}" for number in range(4)]
    replies = ask(
        instance,
        *(
            request("/models/iris/invocations", "POST", body="{}", headers={"X-Do": f"iris-1:{death}", "X-Request-Id": identity})
            for identity in identities
        ),
    )  # fmt: skip
    assert [(reply.status, reply.json().get("server")) for reply in replies] == [(200, "iris-2")] * 4
    asked = [server for identity in identities for server, _, _ in servers(identity)]
    assert asked.count("iris-2") == 4
    assert "iris-1" in asked


def test_the_list_of_models(instance: Instance) -> None:
    listed, page, one, typed, metadata, style, wrong = ask(
        instance,
        request("/models"),
        request("/", headers={"Accept": "text/html"}),
        request("/models/iris"),
        request("/models/digits", headers={"Accept": "text/html"}),
        request("/models/iris/metadata"),
        request("/style.css"),
        request("/models", "POST", body="{}"),
    )
    models = {model["name"]: model for model in listed.json()}
    assert list(models) == ["iris", "digits", "Fraud-2"]
    keys = ("version", "alias", "engine", "replicas", "model")
    assert [models["iris"][key] for key in keys] == ["3", "champion", "mlflow", 2, "prod.flowers.iris"]
    assert models["Fraud-2"]["version"] is None
    assert models["digits"]["challenger"] == {"alias": "challenger", "version": "8", "percent": 30}
    assert models["digits"]["urls"]["predict"] == "/models/digits/predict"
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert all(f'id="{name}"' in page.body for name in models)
    assert one.json()["version"] == "3"
    # The page of a typed model is its container's, and its links need the slash.
    assert (typed.status, typed.headers["location"]) == (307, "/models/digits/")
    assert metadata.json()["input_example"] == {"inputs": [[5.1, 3.5, 1.4, 0.2]]}
    assert metadata.json()["metrics"] == {"accuracy": 0.97}
    assert style.headers["content-type"] == "text/css"
    assert (wrong.status, wrong.headers["allow"]) == (405, "GET, HEAD")


def test_the_challenger_gets_its_share(instance: Instance) -> None:
    replies = ask(instance, *[request("/models/digits/predict", "POST", body="{}")] * 400)
    assert {reply.status for reply in replies} == {200}
    assert all(reply.headers["x-model-name"] == "digits" for reply in replies)
    share = sum(reply.headers["x-model-version"] == "8" for reply in replies)
    # Three of ten: within 4.4 standard deviations.
    assert 80 <= share <= 160


def test_without_its_challenger_the_model_answers_all(instance: Instance) -> None:
    instance.sh("docker stop --time 0 challenger")
    time.sleep(3 * slowness())
    try:
        replies = ask(instance, *[request("/models/digits/predict", "POST", body="{}")] * 40)
    finally:
        instance.sh("docker start challenger")
    assert {(reply.status, reply.headers["x-model-version"]) for reply in replies} == {(200, "7")}


def test_tracking_that_is_gone_gives_503_and_leaves_models_alone(instance: Instance) -> None:
    instance.sh("docker stop --time 0 tracking")
    try:
        gone, model = ask(
            instance, request("/api/2.0/mlflow/x", "POST", port=5000, body="{}"), request("/models/iris/ping")
        )
        assert (gone.status, gone.headers["retry-after"], gone.json()["error_code"]) == (
            503,
            "5",
            "TEMPORARILY_UNAVAILABLE",
        )
        assert gone.seconds < 10 * slowness()
        assert model.status == 200
    finally:
        instance.sh("docker start tracking")


def test_a_server_that_hangs_gets_no_requests(instance: Instance) -> None:
    instance.sh("docker pause iris-1")
    try:
        time.sleep(3.5 * slowness())
        replies = ask(instance, *[request("/models/iris/invocations", "POST", body="{}")] * 20)
    finally:
        instance.sh("docker unpause iris-1")
    assert [(reply.status, reply.json()["server"]) for reply in replies] == [(200, "iris-2")] * 20
    assert max(reply.seconds for reply in replies) < 3 * slowness()


def test_a_configuration_that_haproxy_refuses_changes_nothing(instance: Instance) -> None:
    before = instance.inspect(EDGE)[0]["State"]["StartedAt"]
    with (
        load(instance, "/models/iris/invocations", {}, pause=0.1) as traffic,
        pytest.raises(AssertionError) as refused,
    ):
        instance.converge(edge_tracking_address="tracking:port")
    assert "HAProxy refuses" in str(refused.value)
    assert "tracking:port" in str(refused.value)
    assert "goes on with its old configuration" in str(refused.value)
    assert traffic.failed == []
    assert instance.inspect(EDGE)[0]["State"]["StartedAt"] == before
    # Nor does a restart load it, nor a file that somebody broke by hand.
    assert "tracking:port" not in instance.sh(f"cat {DIRECTORY}/haproxy.cfg")
    instance.sh(f"cp {DIRECTORY}/haproxy.cfg /run/good.cfg && echo nonsense >>{DIRECTORY}/haproxy.cfg")
    by_hand = instance.host.run(f"docker exec {EDGE} edge reload")
    instance.sh(f"cp /run/good.cfg {DIRECTORY}/haproxy.cfg")
    assert by_hand.rc != 0
    assert "refuses" in by_hand.stderr
    assert ask(instance, request("/models/iris/ping"))[0].status == 200
    assert instance.converge().changed == 0
