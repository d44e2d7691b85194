"""What the prediction API answers when it cannot answer with a prediction."""
# ruff: noqa: N818 - the errors are named after their HTTP statuses

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

# Names that clients made up are told them shortened.
LONGEST_NAME = 200


class ServingError(Exception):
    """Base of all errors; carries what the client is told and nothing else."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "BAD_REQUEST"
    headers: Mapping[str, str] = {}

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def body(self) -> dict[str, Any]:
        """The JSON document of the answer, in the shape of MLflow's errors."""
        return {"error_code": self.code, "message": self.message}


class BadRequest(ServingError):
    """The body cannot be read: not JSON, not one of the protocol's forms."""


class NotFound(ServingError):
    """There is no such path."""

    status = 404
    code = "ENDPOINT_NOT_FOUND"


class MethodNotAllowed(ServingError):
    """The path exists, the method does not."""

    status = 405

    def __init__(self, message: str, allow: str) -> None:
        super().__init__(message)
        self.headers = {"allow": allow}


class RequestTimeout(ServingError):
    """The body came in too slowly."""

    status = 408


class TooLarge(ServingError):
    """The body or the number of rows is over the limit."""

    status = 413


class UnsupportedMediaType(ServingError):
    """The content type or encoding is missing or not one of those that are read."""

    status = 415


@dataclass(slots=True)
class Problem:
    """One offending field: ``loc`` is the path to it from the body, ``type`` a stable word for programs."""

    loc: tuple[str | int, ...]
    msg: str
    type: str

    @property
    def path(self) -> list[str | int]:
        """The path as the client is told it."""
        return [part[:LONGEST_NAME] if isinstance(part, str) else part for part in self.loc]


class InvalidInput(ServingError):
    """The body can be read and does not fit the model's signature."""

    status = 422
    code = "INVALID_PARAMETER_VALUE"

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Take at least one problem; the message names the first one."""
        self.problems = tuple(problems)
        first = self.problems[0]
        where = ".".join(map(str, first.path))
        more = f" ({len(self.problems) - 1} more in detail)" if len(self.problems) > 1 else ""
        super().__init__(f"{where}: {first.msg}{more}" if where else f"{first.msg}{more}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the problems: the message is made of them."""
        return type(self), (self.problems,)

    def body(self) -> dict[str, Any]:
        """The document with a path to each offending field, as FastAPI's validation errors have it."""
        return {
            **super().body(),
            "detail": [{"loc": item.path, "msg": item.msg, "type": item.type} for item in self.problems],
        }


class QueueFull(ServingError):
    """More requests wait than the queue holds."""

    status = 429
    code = "REQUEST_LIMIT_EXCEEDED"
    headers: Mapping[str, str] = {"retry-after": "1"}


class ModelFailed(ServingError):
    """The model raised an error on input that fits its signature; the log has the reason, the client the request id."""

    status = 500
    code = "INTERNAL_ERROR"


class NotReady(ServingError):
    """The model hangs."""

    status = 503
    code = "TEMPORARILY_UNAVAILABLE"
    headers: Mapping[str, str] = {"retry-after": "5"}


class Busy(ServingError):
    """Bodies of others take all the memory that there is for decoding."""

    status = 503
    code = "TEMPORARILY_UNAVAILABLE"
    headers: Mapping[str, str] = {"retry-after": "1"}


class DeadlineExceeded(ServingError):
    """The model did not answer in time."""

    status = 504
    code = "DEADLINE_EXCEEDED"
