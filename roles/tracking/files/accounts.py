"""Users of MLflow as the inventory declares them: applied in the serving process, asked for from outside it.

`python3 -I -S accounts.py` asks the server to apply what /run/secrets/accounts.json says and prints a JSON object: `changes` and `warnings`. It loads
nothing of MLflow, which takes seconds. The server does the work itself, so that it forgets at once whom it let in before.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

WANTED = Path("/run/secrets/accounts.json")
# One socket for each process that serves, in a directory that the container alone sees.
SOCKETS = Path("/tmp/accounts")  # noqa: S108 - a tmpfs or volume of this container
TIMEOUT = 60.0
# A role of MLflow for each declared user holds the declared grants. Grants that a user got in other ways, as the author of an experiment for
# instance, are not in it; and whoever has none was made by hand.
ROLE = "declared-"
DESCRIPTION = "What the inventory grants. Change it there: every run makes this role as it is declared."


class Store(Protocol):
    """What is used of mlflow.server.auth.sqlalchemy_store.SqlAlchemyStore."""

    def has_user(self, username: str) -> bool: ...
    def get_user(self, username: str) -> Any: ...
    def authenticate_user(self, username: str, password: str) -> bool: ...
    def create_user(self, username: str, password: str, *, is_admin: bool = False) -> Any: ...
    def update_user(self, username: str, password: str | None = None, *, is_admin: bool | None = None) -> Any: ...
    def delete_user(self, username: str) -> None: ...
    def list_roles(self) -> Iterable[Any]: ...
    def create_role(self, name: str, workspace: str, description: str | None = None) -> Any: ...
    def delete_role(self, role_id: int) -> None: ...
    def list_user_roles(self, user_id: int) -> Iterable[Any]: ...
    def assign_role_to_user(self, user_id: int, role_id: int) -> Any: ...
    def list_role_permissions(self, role_id: int) -> Iterable[Any]: ...
    def add_role_permission(self, role_id: int, resource_type: str, resource_pattern: str, permission: str) -> Any: ...
    def update_role_permission(self, role_permission_id: int, permission: str) -> Any: ...
    def remove_role_permission(self, role_permission_id: int) -> None: ...


def apply(
    store: Store, wanted: list[dict[str, Any]], experiment_id: Callable[[str], str | None], workspace: str = "default"
) -> dict[str, list[str]]:
    """Make users, passwords and grants what is declared; return what changed and what could not be done yet.

    `wanted` holds name, password, admin, experiments and models (permission by name, `*` for all) of each user; `experiment_id` maps the name of an
    experiment to its id, or to None where it does not exist. Neither list has a password in it.
    """
    changes: list[str] = []
    warnings: list[str] = []
    roles = {role.name: role.id for role in store.list_roles() if role.name.startswith(ROLE)}
    names = {user["name"] for user in wanted}
    for name in sorted(set(roles) - {ROLE + name for name in names}):
        if store.has_user(name.removeprefix(ROLE)):
            store.delete_user(name.removeprefix(ROLE))
            changes.append(f"{name.removeprefix(ROLE)}: removed")
        store.delete_role(roles[name])
    for user in wanted:
        name = user["name"]
        if not store.has_user(name):
            store.create_user(name, user["password"], is_admin=user["admin"])
            changes.append(f"{name}: created")
        elif not store.authenticate_user(name, user["password"]):
            store.update_user(name, password=user["password"])
            changes.append(f"{name}: password changed")
        role = hold(store, user, roles.get(ROLE + name), workspace, changes)
        grants: dict[tuple[str, str], str] = {
            ("registered_model", model): permission for model, permission in user["models"].items()
        }
        for experiment, permission in user["experiments"].items():
            identity = "*" if experiment == "*" else experiment_id(experiment)
            if identity is None:
                warnings.append(
                    f"{name}: the experiment {experiment} does not exist yet; the grant waits for a run after it does"
                )
            else:
                grants["experiment", identity] = permission
        changes += [f"{name}: {line}" for line in grant(store, role, grants)]
    return {"changes": changes, "warnings": warnings}


def hold(store: Store, user: Mapping[str, Any], role: int | None, workspace: str, changes: list[str]) -> int:
    """Let a user that is there be an admin or not, and have its role, which is made if it is None; return the role."""
    name = user["name"]
    found = store.get_user(name)
    if found.is_admin != user["admin"]:
        store.update_user(name, is_admin=user["admin"])
        changes.append(f"{name}: {'made an admin' if user['admin'] else 'no admin any more'}")
    if role is None:
        role = int(store.create_role(ROLE + name, workspace, DESCRIPTION).id)
        store.assign_role_to_user(found.id, role)
    elif role not in {held.id for held in store.list_user_roles(found.id)}:
        # The user was removed by hand, which leaves the role, or the role taken from it.
        store.assign_role_to_user(found.id, role)
        changes.append(f"{name}: what the inventory grants is given again")
    return role


def grant(store: Store, role: int, grants: Mapping[tuple[str, str], str]) -> list[str]:
    """Give a role these grants and no others; return what changed."""
    changes = []
    there = {(item.resource_type, item.resource_pattern): item for item in store.list_role_permissions(role)}
    for kind, pattern in sorted(set(there) - set(grants)):
        store.remove_role_permission(there[kind, pattern].id)
        changes.append(f"nothing on {kind} {pattern} any more")
    for (kind, pattern), permission in sorted(grants.items()):
        found = there.get((kind, pattern))
        if found is None:
            store.add_role_permission(role, kind, pattern, permission)
        elif found.permission != permission:
            store.update_role_permission(found.id, permission)
        else:
            continue
        changes.append(f"{permission} on {kind} {pattern}")
    return changes


def listen(process: int, answer: Callable[[], dict[str, Any]], directory: Path = SOCKETS) -> None:
    """Answer whoever connects to this process's socket, one after the other, for ever."""
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / f"{process}.sock"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        while True:
            connection, _ = server.accept()
            said = json.dumps(answer()).encode()
            # Whoever asked may have given up; the next one is answered all the same.
            with connection, contextlib.suppress(OSError):
                connection.sendall(said)


def ask(directory: Path = SOCKETS, timeout: float = TIMEOUT) -> dict[str, Any]:
    """Let every serving process apply what is declared; return all they say."""
    told: list[dict[str, Any]] = []
    for path in sorted(directory.glob("*.sock")):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            try:
                connection.connect(str(path))
            except OSError:
                # Of a process that is gone; the directory may outlive it.
                path.unlink(missing_ok=True)
                continue
            try:
                said = b"".join(iter(lambda: connection.recv(65536), b""))
            except OSError as error:
                return {
                    "error": f"A serving process did not say within {timeout:g} s that it is done ({error}). Run this again."
                }
            told.append(json.loads(said or b'{"error": "A serving process ended meanwhile. Run this again."}'))
    if not told:
        return {"error": "No serving process listens: the server does not sign users in, or has not started yet."}
    # Processes work one after the other: the first one changes what there is to change, all of them say what is left.
    changes = [change for one in told for change in one.get("changes", [])]
    return {**next((one for one in told if "error" in one), told[-1]), "changes": changes}


if __name__ == "__main__":
    result = ask()
    print(json.dumps(result))
    sys.exit(1 if "error" in result else 0)
