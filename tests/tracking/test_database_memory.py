"""The database has memory for as many of the worst searches as there can be at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from roles.tracking.files import gate

ROLES = Path(__file__).parents[2] / "roles"
UNITS = {"KB": 1 / 1024, "MB": 1, "GB": 1024, "M": 1, "G": 1024}
# What a process takes before it sorts anything, and to plan a search of 30 joins in the order in which they stand: measured 6 and 24.
PROCESS = 30
# Each clause and each key of an order is a join: of hashes, or of two sorted sides; the answer is sorted and made distinct besides.
NODES = 2 * (gate.FILTER_CLAUSES + gate.ORDER_KEYS) + 2
# autovacuum_max_workers, and what the server itself keeps beside its buffers.
VACUUMS, SERVER = 3, 24


def mib(text: str) -> float:
    """MiB of a size as PostgreSQL or the engine writes it."""
    number = text.rstrip("KMGBkmgb")
    return int(number) * UNITS[text[len(number) :].upper()]


def read(path: str) -> dict[str, Any]:
    """A file of variables."""
    found: dict[str, Any] = yaml.safe_load((ROLES / path).read_text())
    return found


def needed(settings: dict[str, Any], searches: int) -> float:
    """MiB for so many searches at a time."""
    node = (
        mib(settings["work_mem"]) * settings["hash_mem_multiplier"] * (1 + settings["max_parallel_workers_per_gather"])
    )
    vacuum = VACUUMS * mib(settings["autovacuum_work_mem"])
    return float(mib(settings["shared_buffers"]) + SERVER + vacuum + searches * (PROCESS + NODES * node))


def test_the_worst_searches_fit_into_the_database_s_memory() -> None:
    database, tracking = read("postgres/defaults/main.yml"), read("tracking/vars/main.yml")["__tracking_environment"]
    pool = int(tracking["MLFLOW_SQLALCHEMYSTORE_POOL_SIZE"]) + int(tracking["MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW"])
    # One pool for runs, one for the registry.
    searches = 2 * pool
    settings = database["postgres_settings"]
    assert needed(settings, searches) <= mib(database["postgres_memory"])
    for name, own in {"work_mem": "4MB", "hash_mem_multiplier": 2, "max_parallel_workers_per_gather": 2}.items():
        assert needed(settings | {name: own}, searches) > mib(database["postgres_memory"]), name


def test_files_that_a_search_writes_are_bounded() -> None:
    settings = read("postgres/defaults/main.yml")["postgres_settings"]
    assert mib(settings["temp_file_limit"]) <= 1024


def test_no_better_order_is_looked_for_among_thirty_joins() -> None:
    settings = read("postgres/defaults/main.yml")["postgres_settings"]
    assert (settings["join_collapse_limit"], settings["from_collapse_limit"]) == (1, 1)
