"""Which tests run in one process: those that share what takes seconds to start or to make. And Ansible's way to module_utils/."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# Before anything loads numpy: tests run beside each other, and threads that wait for each other's cores spin. Servers that tests start inherit it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import ansible.module_utils
import pytest
from xdist.scheduler import LoadScopeScheduling

# Ansible ships the directory with a module; here it is found where Ansible would put it.
ansible.module_utils.__path__.append(str(Path(__file__).parents[1] / "module_utils"))

# The files that ask the session's servers, one for each kind of model.
LIVE = frozenset(
    f"tests/serving/test_{name}.py" for name in ("clients", "differences", "faults", "fuzz", "memory", "statuses")
)


class FileByFile(LoadScopeScheduling):  # type: ignore[misc] # without types
    """A file's tests run in one process, so that its fixtures are made once; so do those of the files that ask the same servers."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "servers" if file in LIVE else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Tell xdist, which would deal out single tests."""
    # In the order below, not by the number of tests.
    config.option.loadscopereorder = False
    return FileByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no process is left with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
