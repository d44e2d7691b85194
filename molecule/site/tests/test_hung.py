"""What clients see while a part of the platform hangs: it leaves the rotation, what was under way is answered, and it comes back by itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import mean

import pytest
from instance import Instance, wait_until
from pace import slowness

# Sends a request every 0.2 s to each path, whatever became of those before, until the file is there; prints start, seconds and status of each.
TRICKLE = """
import http.client, json, sys, threading, time
from pathlib import Path
targets, stop, records, threads = json.loads(sys.argv[1]), Path(sys.argv[2]), {}, []
def ask(name, port, path, body):
    began = time.time()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=70)
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException):
        status = 0
    records.setdefault(name, []).append((began, time.time() - began, status))
while not stop.exists():
    for name, target in targets.items():
        threads.append(threading.Thread(target=ask, args=(name, *target)))
        threads[-1].start()
    time.sleep(0.2)
for thread in threads:
    thread.join()
print(json.dumps(records))
"""
FLOWER = {
    "dataframe_split": {
        "columns": ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"],
        "data": [[5.1, 3.5, 1.4, 0.2]],
    }
}
TARGETS = {
    "tracking": (5000, "/api/2.0/mlflow/experiments/search", {"max_results": 1}),
    "digits": (8000, "/models/digits/invocations", {"inputs": [[0] * 784]}),
    "iris": (8000, "/models/iris/invocations", FLOWER),
}
# Seconds until a hung part is out of rotation, until what was under way is answered, and until it is back.
OUT, ANSWERED, BACK = 3.0, 10.0, 30.0
# Two servers may be asked in turn, and the machine has other things to do.
PROMPT = 2.0


@dataclass(frozen=True)
class Record:
    """One request of the trickle, by the clock of the machine."""

    start: float
    seconds: float
    status: int


@contextmanager
def trickle(instance: Instance) -> Iterator[dict[str, list[Record]]]:
    """Send a trickle of requests meanwhile; what came of them is there after the block."""
    stop, result = f"/run/trickle.{time.monotonic_ns()}.stop", "/run/trickle.json"
    instance.sh(f"cat >/run/trickle.py <<'END'\n{TRICKLE}\nEND")
    instance.sh(f"setsid python3 /run/trickle.py '{json.dumps(TARGETS)}' {stop} >{result} 2>&1 </dev/null &")
    found: dict[str, list[Record]] = {}
    try:
        time.sleep(2)
        yield found
    finally:
        text = instance.sh(
            f"touch {stop}; for i in $(seq 800); do [ -s {result} ] && break; sleep 0.1; done; cat {result}"
        )
    found.update({name: [Record(*record) for record in sorted(records)] for name, records in json.loads(text).items()})


def container(instance: Instance, part: str) -> str:
    """The name of the part's container; of a model's, the first replica's."""
    found = instance.sh(f"docker ps --filter name='^mlflow-anywhere-{part}$' --format '{{{{.Names}}}}'").split()
    found += sorted(
        instance.sh(f"docker ps --filter name=mlflow-anywhere-model-{part} --format '{{{{.Names}}}}'").split()
    )
    return found[0]


def pause(instance: Instance, name: str) -> None:
    instance.sh(f"docker pause {name}")


def stop(instance: Instance, name: str) -> None:
    """Stop the server, all of its processes but the container's first one, which is an init."""
    instance.sh(
        f"docker top {name} -eo pid,args | tail -n +2 | grep -v -e /usr/local/bin/healthy -e init | awk '{{print $1}}' | xargs kill -STOP"
    )


def well(instance: Instance, count: int) -> bool:
    """Whether so many containers run, all of them healthy."""
    states = instance.sh("docker ps --filter label=mlflow-anywhere.platform --format '{{.Status}}'").splitlines()
    return len(states) == count and all("(healthy)" in state for state in states)


Hang = Callable[[Instance, str], None]


@pytest.mark.parametrize(
    "hangs",
    [
        pytest.param({"tracking": stop, "digits": pause, "iris": stop}, id="tracking and models"),
        pytest.param({"postgres": pause, "digits": stop, "iris": pause}, id="database and models"),
        pytest.param({"edge": stop}, id="edge"),
    ],
)
def test_what_hangs_is_replaced_and_clients_are_answered(
    instance: Instance, figure: Callable[[str], None], hangs: dict[str, Hang]
) -> None:
    names = {part: container(instance, part) for part in hangs}
    count = len(instance.sh("docker ps --quiet --filter label=mlflow-anywhere.platform").split())
    # Other scenarios come and go, so the pace is taken all along.
    paces = [slowness()]

    def is_well() -> bool:
        paces.append(slowness())
        return well(instance, count)

    with trickle(instance) as records:
        began = float(instance.sh("date +%s.%N"))
        for part, hang in hangs.items():
            hang(instance, names[part])
        hung = float(instance.sh("date +%s.%N"))
        wait_until(lambda: not well(instance, count), 30, "nobody noticed")
        back = wait_until(is_well, 2 * BACK, f"not all of {sorted(names)} are back")
        time.sleep(1)
    journal = instance.sh("journalctl --unit mlflow-anywhere-watchdog --no-pager --output cat")
    pace = max(mean(paces), slowness())
    for part in hangs:
        # Nobody is asked in the database's place, and all behind the edge.
        for target in {"postgres": ["tracking"], "edge": list(TARGETS)}.get(part, [part]):
            seen = records[target]
            bad = [record for record in seen if record.status != 200]
            slowest = max(record.seconds for record in seen)
            last = max((record.start for record in bad), default=hung) - hung
            figure(
                f"{part} hangs: of {len(seen)} requests to {target} {len(bad)} failed, slowest {slowest:.1f} s, all good after {last:.1f} s"
            )
            assert slowest <= ANSWERED * pace, seen
            assert last <= BACK * pace, bad
            # Without an edge there is nobody to say 503, and while the database comes back the tracking server waits for it.
            late = [record for record in seen if record.start > hung + OUT * pace and part not in {"edge", "postgres"}]
            assert [record for record in late if record.seconds > PROMPT * pace] == []
            assert {record.status for record in late} <= {200, 503}
        if part == "digits":
            assert [record for record in records["digits"] if record.status != 200] == []
        assert f"{names[part]} hangs: " in journal
    assert seen[0].start < began
    assert back <= BACK * pace
