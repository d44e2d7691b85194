"""The double itself: shapes that the public specification of the API promises, asked without the product."""

import json
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from tests.cloud.double import TOKEN, Cloud, Fault

BODY = {"name": "a", "region": "fra1", "size": "s-1vcpu-1gb", "image": "debian-13-x64"}


def ask(url: str, path: str, body: Any = None, *, method: str = "", token: str = TOKEN) -> tuple[int, Any, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = Request(f"{url}/v2{path}", data=data, headers={"Authorization": f"Bearer {token}"}, method=method or None)
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=10) as answer:
            return answer.status, answer.headers, json.loads(answer.read() or b"null")
    except HTTPError as error:
        return error.code, error.headers, json.loads(error.read())


def test_a_droplet_begins_new_and_becomes_active(cloud: Cloud, url: str) -> None:
    cloud.polls_until_active = 1
    status, headers, answer = ask(url, "/droplets", BODY)
    assert status == 202
    assert int(headers["ratelimit-remaining"]) > 0
    assert answer["droplet"]["status"] == "new"
    assert answer["droplet"]["networks"] == {"v4": [], "v6": []}
    assert answer["links"]["actions"][0]["rel"] == "create"
    path = f"/droplets/{answer['droplet']['id']}"
    assert [ask(url, path)[2]["droplet"]["status"] for _ in range(3)] == ["new", "active", "active"]
    assert ask(url, path, method="DELETE")[0] == 204
    assert ask(url, path)[2]["id"] == "not_found"


def test_lists_have_pages(cloud: Cloud, url: str) -> None:
    for number in range(5):
        cloud.create_droplet({**BODY, "name": f"n{number}"})
    names, page = [], 1
    while True:
        _, _, answer = ask(url, f"/droplets?per_page=2&page={page}")
        names += [droplet["name"] for droplet in answer["droplets"]]
        assert answer["meta"]["total"] == 5
        if "next" not in answer["links"].get("pages", {}):
            break
        assert f"page={page + 1}" in answer["links"]["pages"]["next"]
        page += 1
    assert names == [f"n{number}" for number in range(5)]
    assert page == 3


@pytest.mark.parametrize(
    ("path", "body", "token", "status", "identifier"),
    [
        ("/account", None, "wrong", 401, "Unauthorized"),
        ("/droplets/1", None, TOKEN, 404, "not_found"),
        ("/nothing", None, TOKEN, 404, "not_found"),
        ("/droplets", {**BODY, "size": "s-9"}, TOKEN, 422, "unprocessable_entity"),
        ("/droplets", {**BODY, "name": "a b"}, TOKEN, 422, "unprocessable_entity"),
        ("/firewalls", {"name": "x", "tags": ["none"]}, TOKEN, 422, "unprocessable_entity"),
    ],
)
def test_errors_have_an_identifier_and_a_message(
    url: str, path: str, body: Any, token: str, status: int, identifier: str
) -> None:
    answered, _, answer = ask(url, path, body, token=token)
    assert (answered, answer["id"]) == (status, identifier)
    assert answer["message"]


def test_faults_come_once_and_go(cloud: Cloud, url: str) -> None:
    cloud.faults.append(Fault("GET", "/v2/account", status=429, headers={"retry-after": "3"}))
    status, headers, _ = ask(url, "/account")
    assert (status, headers["retry-after"]) == (429, "3")
    status, _, answer = ask(url, "/account")
    assert (status, answer["account"]["status"]) == (200, "active")
