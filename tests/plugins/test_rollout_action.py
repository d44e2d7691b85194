"""The action plug-in of a rollout: it asks piece by piece, says the news in between, and ends with the last answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.plugins.action import ActionBase

from action_plugins import swarm_rollout as module

PIECES = [
    {"changed": True, "unfinished": {"s0": {"sent": True}}, "news": ["s0: 0 of 2 replicas are healthy after 10 s"], "diff": [{"before": "a"}]},
    {"changed": True, "unfinished": {"s0": {"sent": True, "more": 1}}, "news": [], "diff": []},
    {"changed": True, "services": {"s0": {"ok": True}}, "news": ["s0 is done after 21 s"], "diff": []},
]  # fmt: skip


def run(monkeypatch: pytest.MonkeyPatch, answers: list[dict[str, Any]]) -> tuple[Any, list[Any], list[str]]:
    asked: list[Any] = []
    said: list[str] = []
    left = [dict(answer) for answer in answers]

    def execute(_self: Any, name: str, module_args: Any, task_vars: Any) -> dict[str, Any]:
        assert (name, task_vars) == ("swarm_rollout", {"x": 1})
        asked.append(module_args)
        return left.pop(0)

    monkeypatch.setattr(ActionBase, "run", lambda *_: {})
    monkeypatch.setattr(ActionBase, "_execute_module", execute)
    action = object.__new__(module.ActionModule)
    action._task = SimpleNamespace(args={"services": ["s0"]})
    action._display = SimpleNamespace(display=said.append)
    return action.run(task_vars={"x": 1}), asked, said


def test_a_rollout_is_asked_for_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    result, asked, said = run(monkeypatch, PIECES)
    assert [piece["resume"] for piece in asked] == [{}, {"s0": {"sent": True}}, {"s0": {"sent": True, "more": 1}}]
    assert {piece["slice"] for piece in asked} == {module.SECONDS}
    assert all(piece["services"] == ["s0"] for piece in asked)
    assert said == ["  s0: 0 of 2 replicas are healthy after 10 s", "  s0 is done after 21 s"]
    assert result == {"changed": True, "services": {"s0": {"ok": True}}, "diff": [{"before": "a"}]}


def test_a_failure_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    result, asked, said = run(monkeypatch, [{"failed": True, "msg": "no engine"}])
    assert (len(asked), said, result) == (1, [], {"failed": True, "msg": "no engine"})
