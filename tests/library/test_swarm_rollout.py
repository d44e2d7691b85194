"""The module swarm_rollout against an engine that behaves as Swarm was seen to."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from library import swarm_rollout as module

JSON = dict[str, Any]
GOOD = "model:v1"
BETTER = "model:v2"
BROKEN = "model:broken"
STUCK = "model:stuck"


def spec(image: str, replicas: int = 2) -> JSON:
    return {
        "Labels": {"role": "model"},
        "Mode": {"Replicated": {"Replicas": replicas}},
        "EndpointSpec": {"Mode": "dnsrr"},
        "TaskTemplate": {
            "ContainerSpec": {"Image": image, "ReadOnly": True, "CapabilityDrop": ["ALL"]},
            "Resources": {"Limits": {"MemoryBytes": 1 << 29, "Pids": 128}},
            "Placement": {"Constraints": []},
            "Networks": [{"Target": "backend"}],
        },
        "UpdateConfig": {"Order": "start-first", "FailureAction": "rollback", "MaxFailureRatio": 0},
    }


class FakeEngine:
    """One second passes with every sleep; a good task takes three, a broken one fails after one, a stuck one waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.store: dict[str, JSON] = {}
        self.all_tasks: dict[str, list[JSON]] = {}
        self.calls: list[str] = []
        self.count = 0
        self.busy = 0
        self.answers: list[str] = []

    # What the module calls.
    def services(self) -> list[JSON]:
        return copy.deepcopy(list(self.store.values()))

    def service(self, service_id: str) -> JSON | None:
        return copy.deepcopy(self.store.get(service_id))

    def tasks(self, service_id: str) -> list[JSON]:
        return copy.deepcopy(self.all_tasks[service_id][::-1])

    def networks(self) -> dict[str, str]:
        return {"backend": "net1"}

    def create(self, spec: JSON) -> str:
        self.calls.append("create")
        service_id = f"id-{spec['Name']}"
        # The engine leaves out what is empty and adds what it knows.
        kept = copy.deepcopy(spec)
        kept["TaskTemplate"]["Placement"] = {}
        kept["TaskTemplate"]["Runtime"] = "container"
        self.store[service_id] = {"ID": service_id, "Version": {"Index": 1}, "Spec": kept}
        self.all_tasks[service_id] = []
        self.start_tasks(service_id)
        return service_id

    def update(self, service_id: str, version: int, spec: JSON) -> bool:
        self.calls.append("update")
        service = self.store[service_id]
        if self.busy:
            self.busy -= 1
            return False
        assert version == service["Version"]["Index"]
        service["PreviousSpec"] = service["Spec"]
        service["Spec"] = copy.deepcopy(spec)
        service["Version"] = {"Index": version + 1}
        service["UpdateStatus"] = {"State": "updating", "Message": "update in progress"}
        self.start_tasks(service_id)
        return True

    def remove(self, service_id: str) -> None:
        self.calls.append("remove")
        del self.store[service_id]

    def logs(self, service_id: str, container_id: str, lines: int) -> str:
        assert service_id in self.store
        return "".join([f"last words of {container_id}\n"][:lines])

    def health(self, container_id: str) -> list[str]:
        return self.answers or (["1: no answer"] if container_id else [])

    # How it behaves.
    def start_tasks(self, service_id: str) -> None:
        service = self.store[service_id]
        for _ in range(service["Spec"]["Mode"]["Replicated"]["Replicas"]):
            self.start_task(service_id)

    def start_task(self, service_id: str) -> None:
        self.count += 1
        template = copy.deepcopy(self.store[service_id]["Spec"]["TaskTemplate"])
        self.all_tasks[service_id].append(
            {
                "ID": f"t{self.count}",
                "CreatedAt": f"{self.count:05}",
                "Spec": template,
                "DesiredState": "running",
                "Status": {"State": "starting", "ContainerStatus": {"ContainerID": f"c{self.count}"}},
                "since": self.now,
            }
        )

    def sleep(self, seconds: float) -> None:
        assert seconds < 1
        self.now += 1
        for service_id, service in self.store.items():
            self.advance(service_id, service)

    def advance(self, service_id: str, service: JSON) -> None:
        for task in list(self.all_tasks[service_id]):
            image, age = task["Spec"]["ContainerSpec"]["Image"], self.now - task["since"]
            if task["Status"]["State"] != "starting":
                continue
            if image == BROKEN and age >= 1:
                task["Status"] |= {"State": "failed", "Err": "task: non-zero exit (1)"}
                if service.get("UpdateStatus"):
                    service["UpdateStatus"] = {"State": "rollback_completed", "Message": "rollback completed"}
                    service["Spec"] = service.pop("PreviousSpec")
                    for other in self.all_tasks[service_id]:
                        if other["Status"]["State"] == "starting":
                            other["Status"]["State"] = "shutdown"
                    return
                self.start_task(service_id)
            elif image != STUCK and age >= 3:
                task["Status"]["State"] = "running"
        current = service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
        tasks = [task for task in self.all_tasks[service_id] if task["Spec"]["ContainerSpec"]["Image"] == current]
        healthy = sum(task["Status"]["State"] == "running" for task in tasks)
        if (
            service.get("UpdateStatus", {}).get("State") == "updating"
            and healthy >= service["Spec"]["Mode"]["Replicated"]["Replicas"]
        ):
            service["UpdateStatus"] = {"State": "completed", "Message": "update completed"}

    # What a test calls.
    def run(self, *images: str, check_mode: bool = False, **options: Any) -> JSON:
        services: list[JSON] = [{"name": f"s{number}", "spec": spec(image)} for number, image in enumerate(images)]
        for service, seconds in zip(services, options.pop("timeouts", []), strict=False):
            service["timeout"] = seconds
        params = {
            "services": services,
            "prune_labels": {"role": "model"},
            "keep": [],
            "timeout": 60,
            "give_up_after": 3,
            "parallel": 2,
            "log_lines": 10,
        }
        params |= options
        return dict(module.converge(self, params, check_mode=check_mode, clock=lambda: self.now, sleep=self.sleep))

    def image(self, name: str) -> str:
        return str(self.store[f"id-{name}"]["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"])


def test_a_new_service_is_created_and_awaited() -> None:
    engine = FakeEngine()
    result = engine.run(GOOD)
    assert result["changed"]
    assert result["services"]["s0"]["ok"]
    assert result["services"]["s0"]["serving"]
    assert engine.store["id-s0"]["Spec"]["TaskTemplate"]["Networks"] == [{"Target": "net1"}]


def test_a_second_run_asks_and_waits_for_nothing() -> None:
    engine = FakeEngine()
    engine.run(GOOD)
    engine.calls.clear()
    before = engine.now
    result = engine.run(GOOD)
    assert not result["changed"]
    assert engine.calls == []
    assert engine.now == before
    assert result["diff"] == []


def test_a_new_version_is_awaited_until_the_engine_ends_its_watch() -> None:
    engine = FakeEngine()
    engine.run(GOOD)
    result = engine.run(BETTER)
    assert result["services"]["s0"]["ok"]
    assert engine.store["id-s0"]["UpdateStatus"]["State"] == "completed"
    assert engine.image("s0") == BETTER


def test_a_broken_version_is_reported_and_the_old_one_serves() -> None:
    engine = FakeEngine()
    engine.run(GOOD)
    result = engine.run(BROKEN)
    service = result["services"]["s0"]
    assert result["failed_services"] == ["s0"]
    assert service["serving"]
    assert service["image"] == GOOD
    assert "rolled it back" in service["reason"]
    assert service["logs"].startswith("last words of c")
    assert service["health"] == ["1: no answer"]
    assert service["errors"] == ["task: non-zero exit (1)"]
    assert "last words" in module.explained("s0", service)


def test_a_broken_version_is_tried_again_by_the_next_run() -> None:
    engine = FakeEngine()
    engine.run(GOOD)
    engine.run(BROKEN)
    assert engine.run(BROKEN)["failed_services"] == ["s0"]
    assert engine.run(GOOD)["failed_services"] == []


def test_a_first_version_that_never_serves_is_removed() -> None:
    engine = FakeEngine()
    result = engine.run(BROKEN)
    assert engine.store == {}
    assert "was removed" in result["services"]["s0"]["reason"]
    assert result["services"]["s0"]["logs"]
    assert engine.now < 20


def test_a_version_that_hangs_is_rolled_back_at_the_end_of_its_time() -> None:
    engine = FakeEngine()
    engine.run(GOOD)
    result = engine.run(STUCK, timeout=30)
    assert engine.image("s0") == GOOD
    assert "0 of 2 replicas are healthy after 30 seconds; it was rolled back" in result["services"]["s0"]["reason"]
    assert result["services"]["s0"]["serving"]


def test_a_first_version_that_hangs_is_removed() -> None:
    engine = FakeEngine()
    result = engine.run(STUCK, timeout=30)
    assert engine.store == {}
    assert result["services"]["s0"]["logs"]


def test_one_failure_leaves_the_others_alone() -> None:
    engine = FakeEngine()
    engine.run(GOOD, GOOD, GOOD)
    result = engine.run(BETTER, BROKEN, BETTER, parallel=1)
    assert result["failed_services"] == ["s1"]
    assert [engine.image(name) for name in ("s0", "s1", "s2")] == [BETTER, GOOD, BETTER]


def test_an_update_of_an_interrupted_run_is_awaited() -> None:
    engine = FakeEngine()
    engine.run(GOOD)
    wanted = module.completed_spec("s0", spec(BETTER), engine.networks())
    engine.update("id-s0", 1, wanted)
    engine.calls.clear()
    result = engine.run(BETTER)
    assert engine.calls == []
    assert result["services"]["s0"]["ok"]
    assert not result["changed"]


def test_an_interrupted_update_to_something_else_ends_first() -> None:
    engine = FakeEngine()
    engine.run(GOOD)
    engine.update("id-s0", 1, module.completed_spec("s0", spec(BROKEN), engine.networks()))
    assert engine.run(BETTER)["failed_services"] == []
    # The one to return to is the last that served, not the broken one.
    assert engine.store["id-s0"]["PreviousSpec"]["TaskTemplate"]["ContainerSpec"]["Image"] == GOOD


def test_a_paused_update_is_taken_up_again() -> None:
    engine = FakeEngine()
    engine.run(GOOD)
    engine.run(BETTER)
    engine.store["id-s0"]["UpdateStatus"] = {"State": "paused", "Message": "update paused"}
    for task in engine.all_tasks["id-s0"]:
        task["Status"]["State"] = "shutdown"
    result = engine.run(BETTER)
    assert result["services"]["s0"]["ok"]
    assert engine.store["id-s0"]["Spec"]["TaskTemplate"]["ForceUpdate"] == 1


def test_what_somebody_changed_by_hand_is_set_right() -> None:
    engine = FakeEngine()
    engine.run(GOOD)
    engine.store["id-s0"]["Spec"]["Mode"]["Replicated"]["Replicas"] = 5
    result = engine.run(GOOD)
    assert result["changed"]
    assert engine.store["id-s0"]["Spec"]["Mode"]["Replicated"]["Replicas"] == 2


def test_a_key_that_is_no_longer_declared_is_a_difference() -> None:
    engine = FakeEngine()
    engine.run(GOOD)
    wanted = spec(GOOD)
    del wanted["TaskTemplate"]["Resources"]
    result = engine.run(services=[{"name": "s0", "spec": wanted}])
    assert result["changed"]


def test_old_failures_are_no_evidence_against_a_service_that_restarts() -> None:
    engine = FakeEngine()
    engine.run(GOOD)
    for task in engine.all_tasks["id-s0"]:
        task["Status"]["State"] = "failed"
    engine.start_tasks("id-s0")
    assert engine.run(GOOD)["failed_services"] == []


def test_surplus_services_go_and_those_of_others_stay() -> None:
    engine = FakeEngine()
    engine.run(GOOD, GOOD, GOOD)
    engine.store["id-s2"]["Spec"]["Labels"] = {"role": "other"}
    result = engine.run(GOOD, keep=["s1"])
    assert result["removed"] == []
    assert result["kept"]["s1"]["image"] == GOOD
    assert engine.run(GOOD)["removed"] == ["s1"]
    assert sorted(engine.store) == ["id-s0", "id-s2"]


def test_nothing_is_removed_without_labels() -> None:
    engine = FakeEngine()
    engine.run(GOOD)
    assert engine.run(prune_labels={})["removed"] == []


def test_check_mode_tells_and_changes_nothing() -> None:
    engine = FakeEngine()
    engine.run(GOOD, GOOD)
    engine.calls.clear()
    result = engine.run(BETTER, check_mode=True)
    assert result["changed"]
    assert result["removed"] == ["s1"]
    assert engine.calls == []
    assert GOOD in result["diff"][0]["before"]
    assert BETTER in result["diff"][0]["after"]


def test_what_is_empty_or_added_by_the_engine_is_no_difference() -> None:
    assert module.is_in_force({"a": [], "b": {"c": 0}}, {"b": {"d": 1}, "e": 2})
    assert not module.is_in_force({"a": [1]}, {"a": [1, 2]})
    assert not module.is_in_force({"a": {"b": 1}}, {})


def test_somebody_else_changing_the_service_at_the_same_time_is_no_error() -> None:
    engine = FakeEngine()
    engine.run(GOOD)
    engine.busy = 2
    assert engine.run(BETTER)["services"]["s0"]["ok"]
    assert engine.image("s0") == BETTER


def test_a_service_that_vanishes_is_created_anew() -> None:
    engine = FakeEngine()
    engine.run(GOOD)
    seen = engine.services()
    engine.services = lambda: seen  # type: ignore[method-assign]
    engine.store.clear()
    assert engine.run(GOOD)["services"]["s0"]["ok"]
    assert engine.image("s0") == GOOD


def test_each_service_has_its_own_time() -> None:
    engine = FakeEngine()
    result = engine.run(STUCK, GOOD, timeouts=[10, 1000])
    assert "after 10 seconds" in result["services"]["s0"]["reason"]
    assert engine.now < 20


def bad(status: str) -> list[str]:
    return [f"1: HTTP/1.1 {status} no"] * 3


@pytest.mark.parametrize("status", ["400", "404", "422", "500"])
def test_three_definite_answers_end_the_wait(status: str) -> None:
    engine = FakeEngine()
    engine.answers = bad(status)
    result = engine.run(STUCK, timeout=300)
    assert "a definite answer 3 times" in result["services"]["s0"]["reason"]
    assert result["services"]["s0"]["health"] == bad(status)[:2]
    assert engine.store == {}
    assert engine.now < 10


@pytest.mark.parametrize(
    "answers", [bad("503"), bad("429"), bad("408"), bad("400")[:2], ["1: no answer", *bad("400")[:2]], ["137: "] * 3]
)
def test_a_server_that_may_still_come_is_waited_for(answers: list[str]) -> None:
    engine = FakeEngine()
    engine.answers = answers
    assert "after 30 seconds" in engine.run(STUCK, timeout=30)["services"]["s0"]["reason"]


def test_definite_answers_of_a_new_version_bring_the_old_one_back() -> None:
    engine = FakeEngine()
    engine.run(GOOD)
    engine.answers = bad("400")
    result = engine.run(STUCK, timeout=300)
    assert engine.image("s0") == GOOD
    assert "it was rolled back" in result["services"]["s0"]["reason"]
    assert engine.now < 100


def interrupted(engine: FakeEngine, *images: str) -> None:
    """Runs that ended after they had created or changed the service."""
    networks = engine.networks()
    engine.create(module.completed_spec("s0", spec(images[0]), networks))
    for image in images[1:]:
        version = engine.store["id-s0"]["Version"]["Index"]
        engine.update("id-s0", version, module.completed_spec("s0", spec(image), networks))


@pytest.mark.parametrize("before", [[STUCK], [BROKEN, STUCK], ["model:other", STUCK]])
def test_what_never_served_goes_whatever_interrupted_the_runs_before(tmp_path: Path, before: list[str]) -> None:
    engine = FakeEngine()
    history = tmp_path / "new/served.json"
    # The run that was interrupted had begun the history.
    engine.run(history=str(history))
    assert json.loads(history.read_text()) == []
    interrupted(engine, *before)
    result = engine.run(STUCK, timeout=30, history=str(history))
    assert "it never served and was removed" in result["services"]["s0"]["reason"]
    assert engine.store == {}
    assert json.loads(history.read_text()) == []


def test_what_served_once_is_never_removed(tmp_path: Path) -> None:
    engine = FakeEngine()
    history = str(tmp_path / "served.json")
    engine.run(GOOD, history=history)
    assert json.loads(Path(history).read_text()) == ["id-s0"]
    for task in engine.all_tasks["id-s0"]:
        task["Status"]["State"] = "failed"
    engine.store["id-s0"]["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] = STUCK
    result = engine.run(STUCK, timeout=30, history=history)
    assert "removed" not in result["services"]["s0"]["reason"]
    assert "id-s0" in engine.store


def test_what_is_older_than_the_history_counts_as_served(tmp_path: Path) -> None:
    engine = FakeEngine()
    interrupted(engine, STUCK)
    result = engine.run(STUCK, timeout=30, history=str(tmp_path / "served.json"))
    assert "removed" not in result["services"]["s0"]["reason"]


def test_a_dry_run_begins_no_history(tmp_path: Path) -> None:
    FakeEngine().run(GOOD, history=str(tmp_path / "served.json"), check_mode=True)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_history_is_none(tmp_path: Path) -> None:
    file = tmp_path / "served.json"
    file.write_text("{")
    assert module.History(str(file)).never_served("x") is None
    assert module.History(str(tmp_path / "away.json")).never_served("x") is None
    assert module.History(None).never_served("x") is None


def in_pieces(engine: FakeEngine, *images: str, **options: Any) -> tuple[JSON, list[str], int]:
    """A rollout in pieces of two seconds, as the action plug-in asks for them; what travels is JSON."""
    resume: JSON = {}
    news: list[str] = []
    for count in range(1, 100):
        result = json.loads(json.dumps(engine.run(*images, slice=2, resume=resume, **options)))
        news += result.get("news", [])
        resume = result.get("unfinished", {})
        if not resume:
            return result, news, count
    raise AssertionError


@pytest.mark.parametrize("images", [(GOOD, GOOD, GOOD), (BETTER, BROKEN, STUCK), (STUCK, BETTER)])
@pytest.mark.parametrize("first", [True, False])
def test_pieces_are_a_whole(images: tuple[str, ...], *, first: bool) -> None:
    whole, pieces = FakeEngine(), FakeEngine()
    for engine in () if first else (whole, pieces):
        engine.run(*[GOOD] * len(images))
    expected = whole.run(*images, timeout=20)
    result, _, count = in_pieces(pieces, *images, timeout=20)
    assert count > 1 or images == (GOOD, GOOD, GOOD)
    for name, service in expected["services"].items():
        found = result["services"][name]
        assert {key: found[key] for key in ("ok", "changed", "serving", "image")} == {
            key: service[key] for key in ("ok", "changed", "serving", "image")
        }
        assert found["reason"].split(" after ")[0] == service["reason"].split(" after ")[0]
    assert sorted(pieces.calls) == sorted(whole.calls)


def test_news_say_how_far_each_service_is() -> None:
    _, news, _ = in_pieces(FakeEngine(), GOOD, STUCK, timeout=9)
    assert "s0: 0 of 2 replicas are healthy after 2 s" in news
    assert any(line.startswith("s0 is done after ") for line in news)
    assert all("s1 is done" not in line for line in news)


def test_nothing_to_do_is_one_piece_and_no_news() -> None:
    engine = FakeEngine()
    engine.run(GOOD, GOOD)
    result, news, count = in_pieces(engine, GOOD, GOOD)
    assert (result["changed"], news, count) == (False, [], 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("task: non-zero exit (137)", "task: non-zero exit (137) (killed, probably out of memory)"),
        ("137:", "137 (killed, probably out of memory)"),
        ("-1: Health check exceeded timeout (10s)", "-1: Health check exceeded timeout (10s) (no answer in time)"),
        ("task: non-zero exit (1)", "task: non-zero exit (1)"),
        ("1: HTTP/1.1 400 Bad Request", "1: HTTP/1.1 400 Bad Request"),
    ],
)
def test_exit_codes_are_told_in_words(text: str, words: str) -> None:
    assert module.in_words(text) == words


@pytest.mark.parametrize(("code", "word"), [(139, "crashed"), (143, "ended from outside"), (127, "not found")])
def test_other_exit_codes_too(code: int, word: str) -> None:
    assert word in module.in_words(f"task: non-zero exit ({code}): dockerexec: unhealthy container")


def test_of_a_traceback_the_tail_stays() -> None:
    trace = '{"stack_trace": "Traceback' + "\\n  File x" * 500 + '\\nRuntimeError: feature store unreachable"}'
    shown = module.in_words("1: " + module.shortened(f"HTTP/1.1 500 no {trace}"))
    assert shown.startswith("1: HTTP/1.1 500 no")
    assert shown.splitlines()[-1] == 'RuntimeError: feature store unreachable"}'
    assert len(shown) < 1200


def test_a_difference_has_no_kilobytes() -> None:
    engine = FakeEngine()
    wanted = spec(GOOD)
    wanted["Labels"]["entry"] = "[0.0]" * 4000
    services = [{"name": "s0", "spec": wanted}]
    params = {
        "services": services,
        "prune_labels": {},
        "keep": [],
        "timeout": 9,
        "give_up_after": 3,
        "parallel": 1,
        "log_lines": 1,
    }
    [diff] = module.converge(engine, params, check_mode=True)["diff"]
    assert len(diff["after"]) < 2000
    assert "20000 characters, SHA-256 " in diff["after"]
    assert wanted["Labels"]["entry"] == "[0.0]" * 4000
