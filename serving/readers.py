"""The three ways to ask for a prediction: from a body and its headers to checked rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from serving import scoring
from serving.errors import BadRequest, UnsupportedMediaType
from serving.inference import Inference
from serving.information import ModelInformation
from serving.scoring import Scoring
from serving.settings import Settings
from serving.typed import Typed

Headers = Mapping[bytes, bytes]
JSON_TYPE = scoring.JSON.encode()
# The headers that say how a body is to be read.
READ_HEADERS = (b"content-type", b"inference-header-content-length")


class Readers:
    """Reads all bodies of one model."""

    def __init__(self, information: ModelInformation, settings: Settings, raw: Callable[[], Any] | None = None) -> None:
        """``raw`` makes the parser of bodies that only MLflow understands."""
        self.parser = cache(raw or _no_parser)
        # For so long a body may be read.
        self.seconds = settings.timeout
        self.scoring = Scoring(information.signature, self.parser, settings.max_rows)
        self.typed = Typed(information, self.parser, settings.max_rows)
        self.inference = Inference(information, self.parser, settings.max_rows)
        self.by_name: Mapping[str, Callable[[bytes, Headers], Any]] = {
            "invocations": self.invocations, "predict": self.predict, "infer": self.infer}  # fmt: skip

    def invocations(self, body: bytes, headers: Headers) -> Any:
        """A Batch."""
        kind = headers.get(b"content-type")
        content_type = scoring.JSON if kind == JSON_TYPE else None if kind is None else kind.decode("latin-1")
        return self.scoring.read(body, content_type)

    def predict(self, body: bytes, headers: Headers) -> Any:
        """A typed.Request."""
        _json_only(headers)
        return self.typed.read(body)

    def infer(self, body: bytes, headers: Headers) -> Any:
        """An inference.Request."""
        length = headers.get(b"inference-header-content-length")
        # The protocol's own clients leave the header out where the body is JSON.
        if length is None and b"content-type" in headers:
            _json_only(headers)
        return self.inference.read(body, None if length is None else _size_of_json(length, body))


def _json_only(headers: Headers) -> None:
    kind = headers.get(b"content-type")
    if scoring.media_type(None if kind is None else kind.decode("latin-1")) != scoring.JSON:
        raise UnsupportedMediaType(f"This path takes {scoring.JSON}")


def _size_of_json(length: bytes, body: bytes) -> int:
    """Where the JSON of an infer request ends and its binary tensors begin."""
    if not length.isdigit() or len(length) > len(str(len(body))) or int(length) > len(body):
        raise BadRequest("Inference-Header-Content-Length is no size within the body")
    return int(length)


def _no_parser() -> Any:
    raise UnsupportedMediaType("This model takes bodies that follow its signature only")
