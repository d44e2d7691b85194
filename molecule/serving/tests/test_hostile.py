"""Hostile requests and hostile models to the running platform: each gets the answer that its table says, and nobody else notices anything."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import hostile
import hostile_models
import pytest
from edge.traffic import Load, ask, load, put, request
from instance import Instance, wait_until
from serving.models import DIGIT, FLOWERS, PREFIX, SERVE

Figure = Callable[[str], None]
MLFLOW, POSTGRES, EDGE, TRACKING = (
    "http://127.0.0.1:5000/api/2.0/mlflow",
    *(f"mlflow-anywhere-{part}" for part in ("postgres", "edge", "tracking")),
)
# MiB that a container has in use after all of it; their limits are 1536, 768, 1024, 1024 and 512.
BOUNDS = {POSTGRES: 400, EDGE: 300, TRACKING: 800, f"{PREFIX}digits": 800, PREFIX: 480}
# Seconds for a good request meanwhile: the machine works on hostile ones too.
SLOWEST = 15
DATABASE_LOCK = (
    f"docker exec {POSTGRES} psql -qtAX -h /run/postgresql -U mlflow -d mlflow -c "
    "'BEGIN; LOCK TABLE runs IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(15)'"
)
WAITING = (
    f"docker exec {POSTGRES} psql -qtAX -h /run/postgresql -U postgres -d mlflow -c "
    "\"SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%runs%'\""
)


def running(instance: Instance) -> dict[str, tuple[str, str, int]]:
    """Id, start and number of restarts of every container that runs; those of models have the id of their task in their names."""
    found = instance.inspect(*instance.sh("docker ps --quiet --no-trunc").split())
    return {one["Name"]: (one["Id"], one["State"]["StartedAt"], one["RestartCount"]) for one in found}


def memory(instance: Instance) -> dict[str, float]:
    """MiB that each container has in use, without what the kernel keeps of files."""
    units = {"KiB": 1 / 1024, "MiB": 1, "GiB": 1024}
    lines = instance.sh("docker stats --no-stream --format '{{.Name}} {{.MemUsage}}'").splitlines()
    sizes = {}
    for line in lines:
        name, size = line.split()[:2]
        match = re.fullmatch(r"([\d.]+)(\w+)", size)
        assert match, line
        sizes[name] = float(match[1]) * units[match[2]]
    return sizes


@contextmanager
def good_requests(instance: Instance, pause: float) -> Iterator[dict[str, Load]]:
    """Predictions of both engines and a question to MLflow, one after the other, as long as the block lasts."""
    with ExitStack() as stack:
        yield {
            "digits": stack.enter_context(load(instance, "/models/digits/invocations", DIGIT, pause=pause, clients=2)),
            "iris": stack.enter_context(load(instance, "/models/iris/invocations", FLOWERS, pause=pause, clients=2)),
            "tracking": stack.enter_context(
                load(
                    instance,
                    "/api/2.0/mlflow/experiments/search",
                    {"max_results": 1},
                    port=5000,
                    pause=pause,
                    clients=2,
                )
            ),
        }


def facts(instance: Instance) -> dict[str, str]:
    """What the requests must know: a model's own port, and where a registered version's files are."""
    version = instance.http(f"{MLFLOW}/model-versions/get-download-uri?name=iris&version=1").json()["artifact_uri"]
    directory = version.partition(":/")[2].lstrip("/")
    return {"port": "9201", "directory": directory, "file": f"{directory}/MLmodel"}


def attack(instance: Instance) -> list[dict[str, Any]]:
    """Send the whole table, every place at the same time; return what came of each case."""
    put(instance, Path(hostile.__file__), "/run/hostile.py")
    known = json.dumps(facts(instance))
    inside = {
        "tracking": TRACKING,
        "edge": EDGE,
        "database": POSTGRES,
        "api": instance.sh(f"docker ps --quiet --filter name={PREFIX}digits.1").split()[0],
    }  # fmt: skip
    commands = [f"python3 /run/hostile.py {','.join(hostile.OUTSIDE)} '{known}' >/run/hostile.outside.json"]
    commands += [
        f"docker exec --interactive {container} python3 - {place} '{known}' </run/hostile.py >/run/hostile.{place}.json"
        for place, container in inside.items()
    ]
    instance.sh(" & ".join(commands) + " & wait")
    found: list[dict[str, Any]] = []
    for place in ("outside", *inside):
        found += json.loads(instance.sh(f"cat /run/hostile.{place}.json"))
    return found


def check(
    instance: Instance, results: list[dict[str, Any]], before: dict[str, tuple[str, str, int]], good: dict[str, Load]
) -> None:
    """Every answer is the right one, every good request was answered, no container ended, none holds much."""
    assert {result["name"]: (result["wrong"], result["received"]) for result in results if result["wrong"]} == {}
    assert len(results) == len(hostile.cases()) > 60
    for name, seen in good.items():
        assert seen.failed == [], name
        assert seen.sent > 10, name
        assert seen.slowest < SLOWEST, name
    assert running(instance) == before
    for name, size in memory(instance).items():
        bound = next(bound for prefix, bound in BOUNDS.items() if name.startswith(prefix))
        assert size < bound, f"{name} holds {size:.0f} MiB"
    stored = instance.http(f"{MLFLOW}/experiments/search", {"max_results": 1000, "view_type": "ALL"}).json()
    assert [one["name"] for one in stored["experiments"] if "hostile" in one["name"]] == []


def told(results: list[dict[str, Any]], good: dict[str, Load], seconds: float, sizes: dict[str, float]) -> str:
    """What was measured, in a sentence."""
    sent, slowest = sum(one.sent for one in good.values()), max(one.slowest for one in good.values())
    most = ", ".join(
        f"{name.removeprefix('mlflow-anywhere-').split('.')[0]} {size:.0f}" for name, size in sorted(sizes.items())
    )
    return f"{len(results)} hostile cases in {seconds:.0f} s, {sent} good requests meanwhile, slowest {slowest:.1f} s; MiB after: {most}"


def test_hostile_requests_are_answered_and_nobody_notices(instance: Instance, figure: Figure) -> None:
    before, began = running(instance), time.monotonic()
    with good_requests(instance, 0.2) as good:
        results = attack(instance)
    figure(told(results, good, time.monotonic() - began, memory(instance)))
    check(instance, results, before, good)


@pytest.mark.campaign
def test_ten_thousand_good_requests_through_all_of_it(instance: Instance, figure: Figure) -> None:
    before, began = running(instance), time.monotonic()
    results: list[dict[str, Any]] = []
    sent = 0
    while sent < 10_000:
        with good_requests(instance, 0.01) as good:
            results = attack(instance)
        check(instance, results, before, good)
        sent += sum(one.sent for one in good.values())
    figure(
        f"0 of {sent} good requests failed; the last round: {told(results, good, time.monotonic() - began, memory(instance))}"
    )


def test_a_client_that_gives_up_frees_its_query_and_no_other(instance: Instance) -> None:
    search = json.dumps({"experiment_ids": ["0"]})
    given_up = (
        "POST /api/2.0/mlflow/runs/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(search)}\r\n\r\n{search}"
    )
    instance.sh(f"setsid {DATABASE_LOCK} >/dev/null 2>&1 </dev/null &")
    wait_until(
        lambda: instance.http(f"{MLFLOW}/runs/search", json.loads(search), timeout=1).status == 0,
        10,
        "the table is not locked",
    )
    # Those that only found it locked have given up as well.
    wait_until(lambda: instance.sh(WAITING).strip() == "0", 10, "a query goes on")
    instance.sh(
        "setsid python3 -c '"
        'import urllib.request as u; r = u.Request("http://127.0.0.1:5000/api/2.0/mlflow/runs/search", '
        f'b"""{search}""", {{"Content-Type": "application/json"}}); print(u.urlopen(r, timeout=60).status)'
        "' >/run/stays.txt 2>&1 </dev/null &"
    )  # fmt: skip
    wait_until(lambda: instance.sh(WAITING).strip() == "1", 10, "the search of the one who stays does not wait")
    [gone] = ask(instance, request(port=5000, raw=[(given_up, 1.0)], timeout=0.5))
    assert gone.status == 0
    wait_until(lambda: instance.sh(WAITING).strip() == "1", 3, "the query of the one who left goes on")
    wait_until(lambda: instance.sh("cat /run/stays.txt").strip() == "200", 40, "the one who stays got no answer")


def test_the_worst_search_that_is_allowed_leaves_the_database_alone(instance: Instance, figure: Figure) -> None:
    before = running(instance)
    search = {
        "experiment_ids": ["0"],
        "filter": " and ".join(f"metrics.m{number} > 1" for number in range(20)),
        "order_by": [f"params.p{number} DESC" for number in range(10)],
    }
    headers = {"Content-Type": "application/json"}
    asked = request(
        "/api/2.0/mlflow/runs/search", "POST", port=5000, body=json.dumps(search), headers=headers, timeout=60
    )
    replies = ask(instance, *[asked] * 20)
    assert {reply.status for reply in replies} == {200}
    size = next(size for name, size in memory(instance).items() if name == POSTGRES)
    assert size < BOUNDS[POSTGRES]
    assert running(instance) == before
    figure(
        f"20 of the worst searches at a time: slowest {max(reply.seconds for reply in replies):.1f} s, the database holds {size:.0f} MiB"
    )


def test_hostile_models_are_refused_each_for_its_reason(instance: Instance, figure: Figure) -> None:
    put(instance, Path(hostile_models.__file__), "/run/hostile_models.py")
    registered = json.loads(instance.sh("python3 /run/hostile_models.py"))
    for model in registered:
        if model["place"]:
            statement = f"UPDATE model_versions SET storage_location = NULL, source = '{model['place']}' WHERE name = '{model['name']}'"
            instance.sh(f'docker exec {POSTGRES} psql -qtAX -h /run/postgresql -U mlflow -d mlflow -c "{statement}"')
    # A file of what is served already is changed behind MLflow's back.
    mount = instance.sh("docker volume inspect --format '{{.Mountpoint}}' mlflow-anywhere-artifacts").strip()
    tampered = f"{mount}/{facts(instance)['file']}"
    instance.sh(f"cp --preserve {tampered} /run/kept && echo '# one line more' >>{tampered}")
    before, began = running(instance), time.monotonic()
    wanted: list[dict[str, Any]] = [
        *SERVED,
        *({"name": f"h-{model.name}", "model": f"hostile-{model.name}", "memory": "512m", "allow_pickle": bool(model.runs)} for model in hostile_models.MODELS),
    ]  # fmt: skip
    try:
        with good_requests(instance, 0.3) as good:
            ran = instance.play(SERVE, served_models=wanted, serving_default_model="iris")
    finally:
        instance.sh(f"cp --preserve /run/kept {tampered}")
    # As YAML: lines are folded, and quotes are doubled.
    output = " ".join((ran.stdout + ran.stderr).replace("''", "'").split())
    assert ran.returncode == 2, output
    # What is said of each, from its name to the next one's.
    said: dict[str, str] = {}
    for part in re.split(r"(?=\bh-[a-z0-9]+: )", output)[1:]:
        name = part.partition(":")[0].removeprefix("h-")
        said[name] = said.get(name, "") + part
    assert {
        model.name: said.get(model.name, "")[:1000]
        for model in hostile_models.MODELS
        if model.says not in said.get(model.name, "")
    } == {}
    assert re.search(r"[0-9a-f]{64}.{1,200}[0-9a-f]{64}", output), "both digests of what was changed"
    for name, seen in good.items():
        assert seen.failed == [], name
    # Containers of models that failed to start may still go; what ran before runs on.
    assert {name: one for name, one in running(instance).items() if name in before} == before
    assert instance.converge(SERVE).output
    assert running(instance).keys() == before.keys()
    for model in registered:
        gone = instance.http(f"{MLFLOW}/registered-models/delete", {"name": model["name"]}, method="DELETE")
        assert gone.status == 200, gone.body
    figure(
        f"{len(registered)} hostile models in one run of {time.monotonic() - began:.0f} s; {sum(one.sent for one in good.values())} good requests, 0 failed"
    )


SERVED: list[dict[str, Any]] = [
    {"name": "iris", "replicas": 2, "memory": "512m"},
    {"name": "flowers", "model": "iris", "port": 9201, "memory": "512m"},
    *(
        {"name": name, "model": "prod.test.factor", "alias": name, "memory": "512m"}
        for name in ("torn", "slow", "unbuildable")
    ),
    {"name": "digits", "engine": "api", "packages": ["hello"], "labels": {"7": "seven"}},
]
