"""Every route of MLflow's server, asked by a user for another one's work, by nobody, and with a wrong password."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("other_user.py")


def test_no_route_lets_in_strangers_or_shows_or_changes_another_user_s_work(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", PROGRAM, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "_MLFLOW_"))},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["let in"] == []
    assert found["told"] == []
    assert found["after"] == found["before"]
    # The requests are such that the owner gets her work by them.
    assert {status for status, _ in found["before"]} == {200}
    assert len(found["seen"]) >= 30, found["seen"]
    assert "/graphql" in found["seen"]
    assert found["denied"] > found["routes"] / 2
    # Nor by two steps, of which the first one writes.
    allowed = {what for what, statuses in found["chains"].items() if statuses[0] not in {400, 403}}
    assert len(found["chains"]) >= 30
    assert allowed == set()
    # The files of a registered version stay for their owner too; beside them she goes on.
    new = found["kept"].pop("new")
    assert (new, set(found["kept"].values())) == (200, {409}), found["kept"]
