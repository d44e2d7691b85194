"""What the prediction API answers when it cannot answer with a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar


class ServingError(Exception):
    """Base of all errors; carries what the client is told and nothing else."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "INTERNAL_ERROR"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def headers(self) -> dict[str, str]:
        """Headers that belong to the answer."""
        return {}

    def body(self) -> dict[str, Any]:
        """The JSON document of the answer, in the shape of MLflow's errors."""
        return {"error_code": self.code, "message": self.message}


class BadRequest(ServingError):  # noqa: N818 - named after the HTTP status
    """The body cannot be read: not JSON, not one of the protocol's forms."""

    status = 400
    code = "BAD_REQUEST"


class InvalidInput(ServingError):  # noqa: N818
    """The body can be read and does not fit the model's signature."""

    status = 422
    code = "INVALID_PARAMETER_VALUE"

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Take at least one problem; the message names the first one."""
        self.problems = tuple(problems)
        first = self.problems[0]
        where = ".".join(str(part) for part in first.loc)
        more = f" ({len(self.problems) - 1} more in detail)" if len(self.problems) > 1 else ""
        super().__init__(f"{where}: {first.msg}{more}" if where else f"{first.msg}{more}")

    def body(self) -> dict[str, Any]:
        """The document with a path to each offending field, as FastAPI's validation errors have it."""
        detail = [{"loc": list(item.loc), "msg": item.msg, "type": item.type} for item in self.problems]
        return {**super().body(), "detail": detail}


class Problem:
    """One offending field: ``loc`` is the path to it from the body, ``type`` a stable word for programs."""

    __slots__ = ("loc", "msg", "type")

    def __init__(self, loc: Sequence[str | int], msg: str, kind: str) -> None:
        self.loc = tuple(loc)
        self.msg = msg
        self.type = kind


class NotFound(ServingError):  # noqa: N818
    """There is no such path."""

    status = 404
    code = "ENDPOINT_NOT_FOUND"


class MethodNotAllowed(ServingError):  # noqa: N818
    """The path exists, the method does not."""

    status = 405
    code = "BAD_REQUEST"

    def __init__(self, message: str, allow: str) -> None:
        super().__init__(message)
        self.allow = allow

    def headers(self) -> dict[str, str]:
        return {"allow": self.allow}


class RequestTimeout(ServingError):  # noqa: N818
    """The body came in too slowly."""

    status = 408
    code = "BAD_REQUEST"

    def headers(self) -> dict[str, str]:
        return {"connection": "close"}


class TooLarge(ServingError):  # noqa: N818
    """The body or the number of rows is over the limit."""

    status = 413
    code = "BAD_REQUEST"


class UnsupportedMediaType(ServingError):  # noqa: N818
    """The content type or encoding is missing or not one of those that are read."""

    status = 415
    code = "BAD_REQUEST"


class QueueFull(ServingError):  # noqa: N818
    """More requests wait than the queue holds."""

    status = 429
    code = "REQUEST_LIMIT_EXCEEDED"

    def headers(self) -> dict[str, str]:
        return {"retry-after": "1"}


class ModelFailed(ServingError):  # noqa: N818
    """The model raised an error on input that fits its signature; the log has the reason, the client the request id."""

    status = 500
    code = "INTERNAL_ERROR"


class NotReady(ServingError):  # noqa: N818
    """The model is loading, hangs, or the server is on its way out."""

    status = 503
    code = "TEMPORARILY_UNAVAILABLE"

    def headers(self) -> dict[str, str]:
        return {"retry-after": "5"}


class DeadlineExceeded(ServingError):  # noqa: N818
    """The model did not answer in time."""

    status = 504
    code = "DEADLINE_EXCEEDED"
