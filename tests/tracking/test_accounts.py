"""Users as the inventory declares them, applied to MLflow's own store, and how the server is asked to."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from roles.tracking.files import accounts, tracking_server

PASSWORD = "correct horse @:/%#?&+=$!"


def user(name: str, password: str = PASSWORD, *, admin: bool = False, **grants: dict[str, str]) -> dict[str, Any]:
    return {"name": name, "password": password, "admin": admin, "experiments": {}, "models": {}, **grants}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables of users, which take a second to make."""
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    path = tmp_path_factory.mktemp("auth") / "empty.db"
    SqlAlchemyStore().init_db(f"sqlite:///{path}")
    return path


@pytest.fixture
def store(empty: Path, tmp_path: Path) -> Iterator[Any]:
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    path = tmp_path / "auth.db"
    path.write_bytes(empty.read_bytes())
    made = SqlAlchemyStore()
    made.init_db(f"sqlite:///{path}")
    yield made
    made.engine.dispose()


def grants(store: Any, name: str) -> set[tuple[str, str, str]]:
    (role,) = [role for role in store.list_user_roles(store.get_user(name).id) if role.name == accounts.ROLE + name]
    return {
        (item.resource_type, item.resource_pattern, item.permission) for item in store.list_role_permissions(role.id)
    }


def apply(store: Any, *wanted: dict[str, Any]) -> dict[str, list[str]]:
    return accounts.apply(store, list(wanted), {"churn": "7"}.get)


def test_users_are_made_once(store: Any) -> None:
    wanted = [user("admin", admin=True), user("ana", experiments={"churn": "EDIT"}, models={"iris": "READ"})]
    assert apply(store, *wanted)["changes"] == [
        "admin: created",
        "ana: created",
        "ana: EDIT on experiment 7",
        "ana: READ on registered_model iris",
    ]
    assert apply(store, *wanted) == {"changes": [], "warnings": []}
    assert store.authenticate_user("ana", PASSWORD)
    assert [store.get_user(name).is_admin for name in ("admin", "ana")] == [True, False]
    assert grants(store, "ana") == {("experiment", "7", "EDIT"), ("registered_model", "iris", "READ")}


def test_what_changed_is_changed_and_no_password_told(store: Any) -> None:
    apply(store, user("ana", experiments={"churn": "EDIT"}, models={"iris": "READ"}))
    told = apply(
        store, user("ana", "another password", admin=True, experiments={"*": "READ"}, models={"iris": "MANAGE"})
    )
    assert told["changes"] == [
        "ana: password changed",
        "ana: made an admin",
        "ana: nothing on experiment 7 any more",
        "ana: READ on experiment *",
        "ana: MANAGE on registered_model iris",
    ]
    assert not store.authenticate_user("ana", PASSWORD)
    assert store.authenticate_user("ana", "another password")


def test_an_admin_that_is_there_already_gets_the_declared_password(store: Any) -> None:
    """MLflow reads the admin's password at its first start only."""
    store.create_user("admin", "the first password", is_admin=True)
    assert apply(store, user("admin", admin=True))["changes"] == ["admin: password changed"]


def test_users_that_are_no_longer_declared_go_and_others_stay(store: Any) -> None:
    store.create_user("by-hand", PASSWORD)
    apply(store, user("ana"), user("ben"))
    assert apply(store, user("ana"))["changes"] == ["ben: removed"]
    assert [name for name in ("ana", "ben", "by-hand") if store.has_user(name)] == ["ana", "by-hand"]
    assert apply(store, user("ana")) == {"changes": [], "warnings": []}


def test_grants_that_a_user_got_elsewhere_stay(store: Any) -> None:
    apply(store, user("ana", experiments={"churn": "READ"}))
    store.grant_user_permission("ana", "experiment", "9", "MANAGE")
    apply(store, user("ana"))
    assert [item.experiment_id for item in store.list_experiment_permissions("ana")] == ["9"]


def test_a_grant_on_an_experiment_that_does_not_exist_waits(store: Any) -> None:
    told = apply(store, user("ana", experiments={"later": "READ"}))
    assert told["warnings"] == ["ana: the experiment later does not exist yet; the grant waits for a run after it does"]
    assert accounts.apply(store, [user("ana", experiments={"later": "READ"})], {"later": "8"}.get)["changes"] == [
        "ana: READ on experiment 8"
    ]


def test_every_serving_process_is_asked(tmp_path: Path) -> None:
    said = iter([{"changes": ["ana: created"], "warnings": []}, {"changes": [], "warnings": ["ben: waits"]}])
    for number in (11, 12):
        threading.Thread(target=accounts.listen, args=(number, lambda: next(said), tmp_path), daemon=True).start()
    (tmp_path / "10.sock").touch()
    until = time.monotonic() + 10
    while not all((tmp_path / f"{number}.sock").exists() for number in (11, 12)) and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.1)
    assert accounts.ask(tmp_path) == {"changes": ["ana: created"], "warnings": ["ben: waits"]}
    assert not (tmp_path / "10.sock").exists()


def test_a_server_without_users_says_so(tmp_path: Path) -> None:
    assert "does not sign users in" in accounts.ask(tmp_path)["error"]


class Client:
    """Asks an ASGI application."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def status(self, path: str) -> int:
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.app({"type": "http", "path": path}, None, send)
        return int(sent[0]["status"])


async def application(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 418})


def test_ready_is_who_can_ask_the_database() -> None:
    answers: dict[str, Any] = {"error": None}

    def question() -> None:
        if answers["error"]:
            raise answers["error"]

    async def look() -> list[int]:
        client = Client(tracking_server.Ready(application, question))
        found = [await client.status("/ready"), await client.status("/ready/"), await client.status("/health")]
        answers["error"] = OSError("no database")
        return [*found, await client.status("/ready")]

    assert asyncio.run(look()) == [200, 418, 418, 503]


def test_a_database_that_hangs_is_not_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_server, "READY_SECONDS", 0.05)
    asked: list[int] = []
    free = threading.Event()

    def question() -> None:
        asked.append(1)
        free.wait(10)

    async def look() -> list[int]:
        client = Client(tracking_server.Ready(application, question))
        found = [await client.status("/ready"), await client.status("/ready")]
        free.set()
        await asyncio.sleep(0.05)
        return [*found, await client.status("/ready")]

    assert asyncio.run(look()) == [503, 503, 200]
    assert len(asked) == 2
