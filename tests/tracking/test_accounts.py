"""Users as the inventory declares them, applied to MLflow's own store, and how the server is asked to."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pace import too_late

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


def test_what_was_taken_by_hand_is_given_again(store: Any) -> None:
    """MLflow keeps a role whose user is removed; the user of the same name that comes after is another one."""
    wanted = user("ana", models={"iris": "READ"})
    apply(store, wanted)
    store.delete_user("ana")
    again = "ana: what the inventory grants is given again"
    assert apply(store, wanted)["changes"] == ["ana: created", again]
    assert grants(store, "ana") == {("registered_model", "iris", "READ")}
    (role,) = store.list_user_roles(store.get_user("ana").id)
    store.unassign_role_from_user(store.get_user("ana").id, role.id)
    assert apply(store, wanted)["changes"] == [again]
    assert grants(store, "ana") == {("registered_model", "iris", "READ")}
    assert apply(store, wanted)["changes"] == []


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


def wait_for(place: Path, *numbers: int) -> None:
    """Wait until these processes take questions; a connection would be one."""
    began, wanted = time.monotonic(), {str(place / f"{number}.sock") for number in numbers}
    while True:
        rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
        # The flag of a socket that listens.
        if wanted <= {row[7] for row in rows if len(row) > 7 and row[3] == "00010000"}:
            return
        assert not too_late(began, 10)
        time.sleep(0.01)


def test_every_serving_process_is_asked(tmp_path: Path) -> None:
    said = iter([{"changes": ["ana: created"], "warnings": []}, {"changes": [], "warnings": ["ben: waits"]}])
    for number in (11, 12):
        threading.Thread(target=accounts.listen, args=(number, lambda: next(said), tmp_path), daemon=True).start()
    (tmp_path / "10.sock").touch()
    wait_for(tmp_path, 11, 12)
    assert accounts.ask(tmp_path) == {"changes": ["ana: created"], "warnings": ["ben: waits"]}
    assert not (tmp_path / "10.sock").exists()


def test_whoever_gives_up_does_not_end_the_listening(tmp_path: Path) -> None:
    slow, answered = threading.Event(), threading.Event()

    def answer() -> dict[str, Any]:
        slow.wait(10)
        answered.set()
        # More than the socket holds: sending it fails once nobody reads.
        return {"changes": ["x" * 2_000_000], "warnings": []}

    threading.Thread(target=accounts.listen, args=(1, answer, tmp_path), daemon=True).start()
    wait_for(tmp_path, 1)
    assert "within 0.05 s" in accounts.ask(tmp_path, timeout=0.05)["error"]
    slow.set()
    assert answered.wait(10)
    assert len(accounts.ask(tmp_path, timeout=10)["changes"]) == 1


def test_an_error_of_one_process_is_the_answer_of_all(tmp_path: Path) -> None:
    said = iter([{"error": "no database"}, {"changes": ["ana: created"], "warnings": []}])
    for number in (1, 2):
        threading.Thread(target=accounts.listen, args=(number, lambda: next(said), tmp_path), daemon=True).start()
    wait_for(tmp_path, 1, 2)
    assert accounts.ask(tmp_path) == {"error": "no database", "changes": ["ana: created"]}


class Users:
    """Knows one password, and is asked how often it was checked."""

    def __init__(self, during: Any = None) -> None:
        self.checks = 0
        self.during = during

    def authenticate_user(self, _name: str, _password: str) -> bool:
        self.checks += 1
        if self.during:
            self.during()
        return True

    def get_user(self, name: str) -> Any:
        from mlflow.server.auth.entities import User

        return User(1, name, "", is_admin=False)


@pytest.mark.parametrize("meanwhile", [False, True])
def test_a_password_that_was_right_is_forgotten(monkeypatch: pytest.MonkeyPatch, *, meanwhile: bool) -> None:
    """Also one whose check began before the change and ended after it."""
    from mlflow.server import auth

    users = Users(tracking_server.forget_who_signed_in if meanwhile else None)
    monkeypatch.setattr(auth, "store", users)
    monkeypatch.setattr(auth, "_USER_AUTH_CACHE", {})
    auth._authenticate_cached("ana", PASSWORD)
    users.during = None
    if not meanwhile:
        auth._authenticate_cached("ana", PASSWORD)
        assert users.checks == 1, "nothing is remembered, so this test proves nothing"
        tracking_server.forget_who_signed_in()
    auth._authenticate_cached("ana", PASSWORD)
    assert users.checks == 2


@pytest.mark.parametrize("fails", [False, True])
def test_who_signed_in_is_forgotten_however_the_change_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, fails: bool
) -> None:
    from mlflow.server import auth

    def applied(*_arguments: Any) -> dict[str, list[str]]:
        if fails:
            message = "the database went away"
            raise OSError(message)
        return {"changes": [], "warnings": []}

    wanted = tmp_path / "accounts.json"
    wanted.write_text("[]")
    monkeypatch.setitem(sys.modules, "accounts", accounts)
    monkeypatch.setattr(accounts, "WANTED", wanted)
    monkeypatch.setattr(accounts, "apply", applied)
    monkeypatch.setattr(auth, "_USER_AUTH_CACHE", {("ana", b"digest"): "ana"})
    assert ("error" in tracking_server.apply_accounts()) is fails
    assert auth._USER_AUTH_CACHE == {}


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
