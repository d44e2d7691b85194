"""DigitalOcean's API through its own client pydo: answers or errors that say what to do, with patience for limits and outages.

What belongs to a machine carries its tag. What cannot be tagged says so by name, by a rule or by a tag that names it; each module tells how.
"""

from __future__ import annotations

import email.utils
import importlib
import operator
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.basic import env_fallback

URL = "https://api.digitalocean.com"
TOKENS_PAGE = "https://cloud.digitalocean.com/account/api/tokens"
TAG = re.compile(r"[A-Za-z0-9:_-]{1,255}")
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
NOT_FOUND, CONFLICT, TOO_MANY, SERVER_ERROR = 404, 409, 429, 500
PER_PAGE = 200
# Of a droplet that something is being done to: not refused, only too early.
PENDING = "pending event"

Document = dict[str, Any]


class CloudError(Exception):
    """The API refused a request, with a status of HTTP, or does not answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def arguments(**options: Document) -> Document:
    """Return the options of a module, with those that all modules have."""
    token = {"type": "str", "no_log": True, "fallback": (env_fallback, ["DIGITALOCEAN_TOKEN"])}
    url = {"type": "str", "fallback": (env_fallback, ["DIGITALOCEAN_API_URL"]), "default": URL}
    return {"api_token": token, "api_url": url, **options}


def check_tag(tag: str) -> str:
    """Return the tag if DigitalOcean takes it."""
    if not TAG.fullmatch(tag):
        raise CloudError(
            f"tag is {tag!r}; letters, digits, colons, dashes and underscores are allowed. Change droplet_name."
        )
    return tag


class Api:
    """The account that a token belongs to."""

    def __init__(
        self, token: str | None, url: str, *, attempts: int = 6, patience: float = 300, answer_within: float = 60
    ) -> None:
        if not token:
            raise CloudError(
                f"DIGITALOCEAN_TOKEN is not set. Make a token that may read and write at {TOKENS_PAGE}, "
                "then `export DIGITALOCEAN_TOKEN=...` and repeat."
            )
        place = urlsplit(url)
        if place.scheme != "https" and not (place.scheme == "http" and place.hostname in LOOPBACK):
            raise CloudError(
                f"DIGITALOCEAN_API_URL is {url!r}; an address with https:// is allowed, the token must not travel in the clear. "
                "Run `unset DIGITALOCEAN_API_URL`."
            )
        try:
            pydo = importlib.import_module("pydo")
            policies = importlib.import_module("azure.core.pipeline.policies")
            self.errors = importlib.import_module("azure.core.exceptions")
        except ImportError as error:
            raise CloudError(
                f"Python's package {error.name} is missing: run `make .venv/.up`, which installs requirements.txt."
            ) from error
        # The client's own way of signing in refuses plain HTTP, also to this very machine.
        signed = policies.HeadersPolicy(base_headers={"Authorization": f"Bearer {token}"})
        ours = {"authentication_policy": signed} if place.scheme == "http" else {}
        # Repeating is done below: the client's own would create twice what was created without an answer.
        self.client = pydo.Client(
            token,
            endpoint=url.rstrip("/"),
            retry_policy=policies.RetryPolicy.no_retries(),
            connection_timeout=20,
            read_timeout=answer_within,
            **ours,
        )
        self.attempts = attempts
        self.patience = patience

    def call(self, operation: str, *args: Any, created: Callable[[], Any] | None = None, **options: Any) -> Any:
        """Return what an operation such as `droplets.list` answers, nothing where what it names does not exist.

        Something that is created is looked for with `created` before a request without an answer is repeated.
        """
        done = operator.attrgetter(operation)(self.client)
        # A list may lag behind what was created a moment ago.
        wait, until = 2.0 if created else 0.5, time.monotonic() + self.patience
        for attempt in range(1, self.attempts + 1):
            pause, failed = wait, None
            try:
                # The client takes 404 for an answer like any other.
                status, answer = done(
                    *args, cls=lambda raw, body, _headers: (raw.http_response.status_code, body), **options
                )
            except self.errors.HttpResponseError as error:
                failed = self.explained(operation, error)
                if failed.status == NOT_FOUND:
                    return None
                if failed.status == TOO_MANY:
                    pause = seconds_of(error.response.headers, wait)
                elif failed.status < SERVER_ERROR and PENDING not in str(failed):
                    raise failed from error
            except self.errors.AzureError as error:
                failed = CloudError(f"DigitalOcean's API does not answer ({operation}): {error}")
            if failed is None:
                return None if status == NOT_FOUND else answer or {}
            if attempt == self.attempts or time.monotonic() + pause > until:
                raise CloudError(f"{failed} Gave up after {attempt} attempts; repeat the command later.", failed.status)
            time.sleep(pause)
            wait *= 2
            if created and failed.status != TOO_MANY and (found := created()):
                return found
        raise AssertionError  # the last attempt returns or raises

    def explained(self, operation: str, error: Any) -> CloudError:
        """Return an error that says what to do."""
        status = error.status_code or 0
        try:
            said = error.response.json().get("message", "")
        except (AttributeError, ValueError):
            said = str(error.reason or error)
        if status == 401:  # noqa: PLR2004 - of HTTP
            return CloudError(
                f"DigitalOcean refuses the token in DIGITALOCEAN_TOKEN ({said}). Make one that may read and write at {TOKENS_PAGE}, "
                "then `export DIGITALOCEAN_TOKEN=...` and repeat.",
                status,
            )
        if status == 403:  # noqa: PLR2004 - of HTTP
            return CloudError(
                f"The token in DIGITALOCEAN_TOKEN may not do {operation} ({said}). Make one that may read and write at {TOKENS_PAGE}.",
                status,
            )
        if status == TOO_MANY:
            return CloudError(f"DigitalOcean's limit of requests is reached ({said}).", status)
        return CloudError(f"DigitalOcean answers {operation} with {status}: {said}", status)

    def every(self, operation: str, key: str, *args: Any, **options: Any) -> list[Document]:
        """Return all pages of a list."""
        found: list[Document] = []
        page = 1
        while True:
            answer = self.call(operation, *args, per_page=PER_PAGE, page=page, **options) or {}
            found += answer.get(key) or []
            if not ((answer.get("links") or {}).get("pages") or {}).get("next"):
                return found
            page += 1

    def ensure_tag(self, tag: str) -> None:
        """Create a tag unless it is there; a rule of a firewall may name only what exists."""

        def found() -> Any:
            return self.call("tags.get", tag)

        if not found():
            try:
                self.call("tags.create", {"name": tag}, created=found)
            except CloudError:
                if not found():  # another run was faster
                    raise

    def droplets(self, tag: str) -> list[Document]:
        """Return the droplets with a tag."""
        return self.every("droplets.list", "droplets", tag_name=tag)


def seconds_of(headers: Any, otherwise: float) -> float:
    """Return how long the API asks to wait: by `retry-after`, else until `ratelimit-reset`."""
    after = headers.get("retry-after")
    if after and after.isdigit():
        return max(float(after), 0.1)
    if after and (moment := email.utils.parsedate_to_datetime(after)):
        return max((moment - datetime.now(UTC)).total_seconds(), 0.1)
    if (reset := headers.get("ratelimit-reset")) and reset.isdigit():
        return max(float(reset) - time.time(), 0.1)
    return otherwise


def addresses(droplet: Document) -> dict[str, str]:
    """Return the addresses of a droplet, empty where it has none."""
    networks = droplet.get("networks") or {}

    def first(family: str, kind: str) -> str:
        return next((str(item["ip_address"]) for item in networks.get(family) or [] if item["type"] == kind), "")

    return {"ipv4": first("v4", "public"), "ipv6": first("v6", "public"), "private_ipv4": first("v4", "private")}


def cost(size: Document, region: str) -> str:
    """Return what a size costs, in one line."""
    return f"{size['slug']} in {region}: ${size['price_monthly']:.2f} a month (${size['price_hourly']:.5f} an hour)"
