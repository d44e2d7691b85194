"""Two runs at once: the second one is refused before it looks at the platform, and leaves the first one its lock."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from instance import Instance

PROGRAM = (Path(__file__).parents[3] / "roles/lock/files/run_lock.py").read_text()
RUN = {"id": "abcd1234", "who": "alice@laptop", "process": 4711, "machine": "another", "command": "site.yml"}


def asked(instance: Instance, **request: Any) -> Any:
    """What the program of the lock answers on the instance."""
    text = f"{PROGRAM}\nanswer(**{dict(request, platform='mlflow-anywhere', token='secret')!r})\n"
    return json.loads(instance.sh(f"printf %s {shlex.quote(text)} | python3 -IS -"))


def test_a_second_run_is_refused_while_the_first_one_holds_the_lock(instance: Instance) -> None:
    # Nothing of the runs before is left.
    assert asked(instance, do="tell") is None
    assert asked(instance, do="take", run=RUN)["new"]
    said = instance.refusal()
    assert "Another run is under way on the platform mlflow-anywhere" in said
    assert "alice@laptop, process 4711 there, site.yml, since 20" in said
    assert "-e lock_take_over=abcd1234" in said
    assert asked(instance, do="leave")["left"]
    assert asked(instance, do="tell") is None
