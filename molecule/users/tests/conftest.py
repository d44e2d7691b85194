"""Somebody who asks the tracking server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from instance import Answer, Instance
from tracking.clients import address

Ask = Callable[..., Answer]


@pytest.fixture
def ask(instance: Instance, secrets: dict[str, str]) -> Ask:
    """A request to the API as a user, with the password that the inventory has for it, or with another one."""
    url = address(instance)
    generated = {"admin": secrets["admin_password"]}
    generated |= {
        name.removeprefix("tracking_user_"): value for name, value in secrets.items() if "tracking_user_" in name
    }

    def request(user: str, path: str, body: Any = None, *, password: str = "", method: str = "") -> Answer:
        where = path if path.startswith("/") else f"/api/2.0/mlflow/{path}"
        # By a name that the server knows; the address is that of its container.
        headers = {"Host": "tracking:5000"}
        return instance.http(
            url + where, body, auth=(user, password or generated[user]), headers=headers, method=method
        )

    return request
