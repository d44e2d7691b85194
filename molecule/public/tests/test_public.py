"""The edge on public addresses, as strangers and as clients with keys see it."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from edge.traffic import put
from instance import Instance
from public.traffic import CLIENT, EDGE, ask, get, load, packed

Figure = Callable[[str], None]
DIRECTORY = "/var/lib/mlflow-anywhere/edge"
# Each leads to MLflow's API for a server that is generous about paths.
SPELLINGS = [
    "//api/2.0/mlflow/runs/search",
    "/%61pi/2.0/mlflow/runs/search",
    "/API/2.0/mlflow/runs/search",
    "/api;x/2.0/mlflow/runs/search",
    "/./api/2.0/mlflow/runs/search",
    "/static-files/../api/2.0/mlflow/runs/search",
    "/static-files/%2e%2e/api/2.0/mlflow/runs/search",
    "/static-files/..;/api/2.0/mlflow/runs/search",
    "/static-files\\..\\api/2.0/mlflow/runs/search",
    "/static-files/..%5capi/2.0/mlflow/runs/search",
    "/api/2.0/mlflow%00/runs/search",
    "/models/../api/2.0/mlflow/runs/search",
]
NOT_FOR_CLIENTS = [
    *(
        "/ready",
        "/metrics",
        "/docs",
        "/openapi.json",
        "/signup",
        "/gateway/proxy/a/b",
        "/ajax-api/3.0/jobs/",
        "/build/x",
        "/console",
    ),
    *(
        "/ajax-api/3.0/mlflow/assistant/chat",
        "/api/3.0/mlflow/%61ssistant",
        "/api/3.0/mlflow//assistant/x",
        "/API/3.0/jobs",
    ),
]
KNOWN = [
    *("/", "/version", "/graphql", "/get-artifact", "/static-files/x.js", "/api/2.0/mlflow/runs/search"),
    *(
        "/ajax-api/2.0/mlflow/experiments/search",
        "/api/2.0/mlflow-artifacts/artifacts/1/a%20b",
        "/api/3.0/mlflow/traces/x",
        "/v1/traces",
    ),
]


def test_protocols(instance: Instance, figure: Figure) -> None:
    put(instance, CLIENT, "/run/public.py")
    versions = ["TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"]
    said = json.loads(instance.sh(f"python3 /run/public.py tls {packed(versions)}"))
    assert all("PROTOCOL_VERSION" in text.upper() for text in said[:2]), said
    assert said[2].startswith("TLSv1.2 ECDHE-"), said
    assert said[3].startswith("TLSv1.3 "), said
    figure(f"TLS: {said[2]}, {said[3]}; 1.0 and 1.1 refused")


def test_every_answer_is_for_https_and_for_this_name(instance: Instance) -> None:
    known, elsewhere, foreign = ask(
        instance,
        get("/health"),
        get("/health", name="127.0.0.1", headers={"Host": "ml.test"}),
        get("/health", headers={"Host": "other.test"}),
    )
    assert known.status == 200
    assert known.headers["strict-transport-security"] == "max-age=31536000"
    assert known.json()["headers"]["x-forwarded-proto"] == "https"
    # Without a name in the handshake, as for an address, the Host alone counts.
    assert elsewhere.status == 200
    assert foreign.status == 421


def test_plain_http_only_points_to_https(instance: Instance) -> None:
    moved, foreign = ask(instance, get("/models/iris?a=b", port=80), get("/", port=80, headers={"Host": "other.test"}))
    assert (moved.status, moved.headers["location"]) == (308, "https://ml.test/models/iris?a=b")
    assert foreign.status == 421


def test_nobody_gets_in_without_signing_in(instance: Instance, figure: Figure) -> None:
    paths = [path for path in SPELLINGS + NOT_FOR_CLIENTS + KNOWN if "\\" not in path]
    tracking = ask(instance, *(get(path) for path in paths))
    assert {answer.status for answer in tracking} <= {400, 401, 403, 404}
    assert all(answer.status == 401 for path, answer in zip(paths, tracking, strict=True) if path in KNOWN)
    models = [
        "/models",
        "/models/",
        "/models/iris",
        "/models/iris/ping",
        "/models/iris/invocations",
        "/models/nothing",
        "/style.css",
    ]
    answers = ask(
        instance, *(get(path) for path in models), *(get(path, port=8000, name="localhost") for path in [*models, "/"])
    )
    assert [answer.status for answer in answers] == [401] * 15
    assert all(
        "Bearer" in answer.headers["www-authenticate"] or "Basic" in answer.headers["www-authenticate"]
        for answer in answers
    )
    figure(f"without credentials: {len(tracking) + len(answers)} requests, 0 answered by a server")


def test_only_known_paths_reach_mlflow(instance: Instance, figure: Figure) -> None:
    odd = ask(instance, *(get(path, basic="admin:right") for path in SPELLINGS))
    assert {answer.status for answer in odd} <= {400, 404}, [(a.status, a.body) for a in odd]
    refused = ask(instance, *(get(path, basic="admin:right") for path in NOT_FOR_CLIENTS))
    assert {answer.status for answer in refused} <= {403, 404}, [(a.status, a.body) for a in refused]
    known = ask(instance, *(get(path, basic="admin:right") for path in KNOWN))
    # The path that was compared is the one that is sent on.
    assert [(answer.status, answer.json()["path"]) for answer in known] == [(200, path) for path in KNOWN]
    figure(f"paths: {len(odd)} odd spellings and {len(refused)} unknown ones refused, {len(known)} known ones sent on")


def test_keys_open_their_models_alone(instance: Instance, secrets: dict[str, str]) -> None:
    web, slow, operator = secrets["api_key_web_k1"], secrets["api_key_slow_k1"], secrets["operator_key"]
    right, other, wrong, every, page, header, listed, misdirected = ask(
        instance,
        get("/models/iris/invocations", web, method="POST", body="{}"),
        get("/models/digits/ping", web),
        get("/models/iris/ping", web[:-1] + "!"),
        get("/models/digits/ping", operator),
        get("/models/iris/ping", basic=f"me:{web}"),
        get("/models/iris/ping", headers={"X-Api-Key": slow}),
        get("/models", web),
        get("/api/2.0/mlflow/runs/search", web),
    )
    assert [right.status, every.status, page.status, header.status, listed.status] == [200] * 5
    assert (other.status, wrong.status, misdirected.status) == (403, 401, 401)
    for answer in (right, every, page, header):
        names = {name.lower() for name in answer.json()["headers"]}
        assert not {"authorization", "x-api-key"} & names
    log = instance.logs("mlflow-anywhere-edge")
    assert '"api_client": "web"' in log


def test_the_host_has_hashes_and_no_log_has_keys(instance: Instance, secrets: dict[str, str]) -> None:
    keys = {name: secrets[name] for name in ("api_key_web_k1", "api_key_slow_k1", "operator_key")}
    table = instance.sh(f"cat {DIRECTORY}/keys.map")
    assert hashlib.sha256(keys["api_key_web_k1"].encode()).hexdigest() + " web" in table
    modes = instance.modes(DIRECTORY)
    assert {modes[f"{DIRECTORY}/{name}.map"] for name in ("keys", "grants", "rates")} == {"0440 10001:0"}
    assert modes[f"{DIRECTORY}/certificates/edge.pem"].startswith("0400 10001:")
    assert instance.leaks(keys) == {}
    for name, key in keys.items():
        found = instance.sh(
            f"grep --recursive --files-with-matches --fixed-strings -e {key} /var/lib/mlflow-anywhere /etc || true"
        )
        assert found == "", name


def test_a_key_changes_hands_without_a_failed_request(
    instance: Instance, secrets: dict[str, str], figure: Figure
) -> None:
    old = secrets["api_key_web_k1"]
    clients = [{"name": "web", "models": ["iris"], "keys": ["k1", "k2"], "rate": 0}]
    instance.sh(f"printf %s 'Bearer {old}' >/run/key")
    with load(instance, path="/models/iris/ping", headers={"Authorization": "@/run/key"}) as result:
        instance.converge(EDGE, edge_api_clients=clients)
        new = (Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "secrets" / "api_key_web_k2").read_text().strip()
        instance.sh(f"printf %s 'Bearer {new}' >/run/key.new; mv /run/key.new /run/key")
        time.sleep(0.5)
        clients[0]["keys"] = ["k2"]
        instance.converge(EDGE, edge_api_clients=clients)
    assert set(result["counts"]) == {"200"}, result["counts"]
    before, after = ask(instance, get("/models/iris/ping", old), get("/models/iris/ping", new))
    assert (before.status, after.status) == (401, 200)
    # The next run of a test brings the old one back.
    figure(f"key rotated under load: {result['counts']['200']} requests, 0 failed")
