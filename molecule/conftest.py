"""Fixtures of all scenarios, and what a failed test shows of its instance."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from instance import Instance
from xdist.scheduler import LoadScopeScheduling


class OneByOneOnEachInstance(LoadScopeScheduling):  # type: ignore[misc] # without types
    """Tests of one instance run one after the other, those of two instances at the same time."""

    def _split_scope(self, nodeid: str) -> str:
        instance = re.search(r"\[.*?(ma-\w+-\w+)", nodeid)
        return instance[1] if instance else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Tell xdist, which does not know of instances."""
    return OneByOneOnEachInstance(config, log)


@pytest.fixture
def instance(host: Any) -> Instance:
    """The test instance; every test runs once on each."""
    return Instance(host)


@pytest.fixture(scope="session")
def secrets() -> dict[str, str]:
    """The secrets that the roles generated on the control machine for this scenario, by file name."""
    directory = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "secrets"
    return {path.name: path.read_text().strip() for path in directory.iterdir()} if directory.is_dir() else {}


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Takes what a test measured, in words; it stands in the run's summary, also where the test passes."""
    return lambda text: record_property("figure", text)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what the tests measured; molecule/run repeats these lines."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for _, text in (item for item in report.user_properties if item[0] == "figure"):
                terminalreporter.write_line(f"figure: {text}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the logs of the instance's containers and the tail of its journal to a failure."""
    report = yield
    host = getattr(item, "funcargs", {}).get("host")
    if report.failed and host is not None:
        instance = Instance(host)
        report.sections.append((f"instance {instance.name}", instance.report()))
    return report
