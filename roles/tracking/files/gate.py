"""What stands before MLflow's application: bounds, allowed forms, clean answers and the audit log.

MLflow reads a whole body before it asks who sent it, hands filters of any size to the database, takes any location for artifacts, and shows its
clients what the database said. Each rule here is a function; the class Gate asks them in order. Nothing that MLflow streams is held here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import posixpath
import re
import time
import uuid
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

KIB, MIB = 1024, 1024 * 1024
BODY = 16 * MIB
GRAPHQL_BODY = 256 * KIB
FORM_BODY = 64 * KIB
# Bodies that one process holds at a time; MLflow copies each of them a few times.
HELD = 64 * MIB
FILTER_LENGTH, FILTER_CLAUSES = 8192, 20
ORDER_LENGTH, ORDER_KEYS = 512, 10
# A compressed body of more members than this is not what a client makes, only slow to read.
MEMBERS, ENCODINGS = 64, 3
# Levels of a query in GraphQL, bytes of one name in a path, and the largest number of results that any route takes.
GRAPHQL_DEPTH = 40
NAME_BYTES = 255
MOST_RESULTS = 2**31 - 1
ERROR_BODY = MIB
BIG = 64 * KIB
RETRY_SECONDS = b"5"
# How often what still goes on for a client that is gone is cancelled.
CANCEL_EVERY_SECONDS = 1.0

UPLOAD = re.compile(r"/(?:ajax-)?api/2\.0/mlflow-artifacts/artifacts/(.+)")
MULTIPART = re.compile(r"/(?:ajax-)?api/2\.0/mlflow-artifacts/mpu/(?:create|complete)/(.+)")
RUN_UPLOAD = "/mlflow/upload-artifact"
# Routes that read an object of JSON; one other takes a file below the same prefix.
OBJECT_ROUTES = re.compile(r"/graphql/?|/(?:ajax-)?api/[0-9.]+/mlflow/(?!upload-artifact).*")
FORMS = re.compile(r"/signup|.*/mlflow/users/[a-z-]+|/login|/logout")
READS = re.compile(
    r"/graphql|.*/(?:search|search-datasets|batchGetInfos|batchGet|traces/metrics|get-latest-versions|calculate-filter-correlation"
    r"|presigned-download-url|validate-filter)"
)
FILTERS = {"filter", "filters", "filterstring", "filterstring1", "filterstring2"}
LOCATIONS = {"artifactlocation", "artifacturi", "artifactroot", "defaultartifactroot", "storagelocation"}
# Tags by which MLflow finds what it stored; it guards them in its own client only.
FIXED_TAGS = {"mlflow.artifactLocation", "mlflow.trace.archiveLocation", "mlflow.trace.archivalFailure"}
SEGMENT = r"(?!\.{1,2}(?:/|$))[^/%\\?#\x00-\x1f\x7f]+"
# A number is the folder of an experiment, this one's or another one's.
LOCATION = re.compile(rf"mlflow-artifacts:/(?:(?!\d+(?:/|$)){SEGMENT}(?:/{SEGMENT})*/?)?")
SOURCE = re.compile(rf"(?:mlflow-artifacts|runs|models):/{SEGMENT}(?:/{SEGMENT})*/?")
# What MLflow's client and its server write as the source of a prompt.
PROMPT_SOURCES = {"dummy-source", "prompt-template"}
OBJECTS = {
    "experimentid": "experiment",
    "experimentids": "experiment",
    "experimentname": "experiment",
    "runid": "run",
    "runuuid": "run",
    "runids": "run",
    "version": "version",
    "alias": "alias",
    "modelid": "logged_model",
    "traceid": "trace",
    "requestid": "trace",
    "traceids": "trace",
    "username": "account",
}

AND = re.compile(r"(?<![a-z])(?:and|or)(?![a-z])", re.IGNORECASE)
COMPARISON = re.compile(r"[<>=!]+|(?<![a-z])(?:like|ilike|in|is|rlike)(?![a-z])", re.IGNORECASE)
CANCELLED = re.compile(r"QueryCanceled|canceling statement due to")
TOO_MUCH = re.compile(r"ConfigurationLimitExceeded|temporary file size exceeds")
AWAY = re.compile(
    r"QueuePool limit of size|\((?:psycopg|sqlite3|pymysql)[\w.]*\.(?:OperationalError|InterfaceError|AdminShutdown|CannotConnectNow)\)"
)
LEAK = re.compile(
    r"\[SQL:|\[parameters:|\(Background on this error|sqlalche\.me|\((?:psycopg|sqlite3|pymysql)[\w.]*\)|Traceback \(most recent call last\)"
)
PATH = re.compile(
    r"(?<![\w:/.])/(?:artifacts|dev|etc|home|opt|proc|root|run|srv|tmp|usr|var|work)(?:/[^\s'\",;)\]]*|\b)"
)
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

audit = logging.getLogger("audit")
logger = logging.getLogger("gate")


class RefusedError(Exception):
    """The request goes no further; says to the client why, in MLflow's form of an error."""

    def __init__(self, status: int, code: str, message: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, list(headers)

    def body(self) -> bytes:
        return json.dumps({"error_code": self.code, "message": str(self)}).encode()


def invalid(message: str) -> RefusedError:
    """A request that says what is not allowed."""
    return RefusedError(400, "INVALID_PARAMETER_VALUE", message)


def too_large(limit: int) -> RefusedError:
    """A body over its bound."""
    return RefusedError(
        413, "INVALID_PARAMETER_VALUE", f"The body is larger than the {limit} bytes that this route takes."
    )


def unavailable(message: str) -> RefusedError:
    """What may be tried again."""
    return RefusedError(503, "TEMPORARILY_UNAVAILABLE", message, [(b"retry-after", RETRY_SECONDS)])


@dataclass
class Request:
    """What the rules look at."""

    method: str
    path: str
    headers: list[tuple[bytes, bytes]]
    query: list[tuple[str, str]]
    id: str = ""
    user: str = "anonymous"
    names: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, scope: Mapping[str, Any]) -> Request:
        headers = list(scope["headers"])
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        made = cls(scope["method"], scope["path"], headers, query)
        given = made.values(b"x-request-id")
        made.id = given[0] if len(given) == 1 and REQUEST_ID.fullmatch(given[0]) else uuid.uuid4().hex
        return made

    def values(self, name: bytes) -> list[str]:
        return [value.decode("latin-1") for key, value in self.headers if key == name]

    @property
    def has_body(self) -> bool:
        return bool(self.values(b"transfer-encoding")) or self.values(b"content-length") not in ([], ["0"])

    @property
    def changes(self) -> bool:
        return self.method not in {"GET", "HEAD", "OPTIONS"} and READS.fullmatch(self.path) is None

    @property
    def streams(self) -> bool:
        """Whether MLflow takes the body piece by piece: this one route, everything else it holds in memory."""
        return self.method == "PUT" and UPLOAD.fullmatch(self.path) is not None


@dataclass(frozen=True)
class Settings:
    """What the gate asks of its surroundings."""

    origins: frozenset[str] = frozenset()
    # Bytes of one artifact.
    artifact: int = 10 * 1024 * MIB
    # The user whose name and password these are, else None; nothing to ask where nobody signs in.
    sign_in: Callable[[str, str], object] | None = None
    public: Callable[[str], bool] = lambda _path: False
    # Whether writing (or, if true, removing) the artifact would change a registered version.
    protected: Callable[[str, bool], bool] = lambda _path, _removes: False
    # The path of what is written below a run.
    run_path: Callable[[str, str], str | None] = lambda _run, _path: None
    # Marks the work of a request, and gives what ends it.
    working: Callable[[], AbstractContextManager[Callable[[], None]]] = lambda: nullcontext(lambda: None)


# Origins


def check_origin(request: Request, origins: frozenset[str]) -> None:
    """Let only the platform's own pages ask; MLflow lets those of every port of localhost."""
    for origin in request.values(b"origin"):
        if origin not in origins and "*" not in origins:
            raise RefusedError(
                403,
                "PERMISSION_DENIED",
                "Cross-origin request blocked. The variable tracking_extra_origins allows further origins.",
            )


# Bodies


def body_limit(request: Request, settings: Settings) -> int:
    """Bytes that a route may be sent: many only where MLflow holds none of them."""
    if request.streams:
        return settings.artifact
    if request.path == "/graphql":
        return GRAPHQL_BODY
    if FORMS.fullmatch(request.path) or settings.public(request.path):
        return FORM_BODY
    return BODY


def check_length(request: Request, limit: int) -> None:
    """Refuse by what the client says; what it sends is counted too."""
    for value in request.values(b"content-length"):
        if not value.isdecimal():
            raise invalid("The header Content-Length is no number.")
        if int(value) > limit:
            raise too_large(limit)


def encodings(request: Request) -> list[str]:
    """How the body is compressed, in the order in which it was; refuse what MLflow does not undo."""
    named = [part.strip().lower() for value in request.values(b"content-encoding") for part in value.split(",")]
    named = [name for name in named if name not in {"", "identity"}]
    if named and request.path.rstrip("/") != "/v1/traces":
        raise RefusedError(
            415, "INVALID_PARAMETER_VALUE", "This route takes no compressed body; leave out Content-Encoding."
        )
    if len(named) > ENCODINGS or not set(named) <= {"gzip", "x-gzip", "deflate"}:
        raise RefusedError(
            415,
            "INVALID_PARAMETER_VALUE",
            f"Content-Encoding: gzip and deflate are taken, {ENCODINGS} of them at most.",
        )
    return named


def inflate(data: bytes, encoding: str, limit: int) -> bytes:
    """Undo one encoding; stop where more comes out than `limit` bytes."""
    # Some clients send deflate without its header.
    for bits in (31,) if encoding.endswith("gzip") else (15, -15):
        try:
            return inflate_members(data, bits, limit)
        except zlib.error:
            continue
    raise invalid(f"The body is not what Content-Encoding says: {encoding}.")


def inflate_members(data: bytes, bits: int, limit: int) -> bytes:
    """Undo one encoding of what may be several members."""
    out = bytearray()
    for _ in range(MEMBERS):
        member = zlib.decompressobj(bits)
        out += member.decompress(data, limit + 1 - len(out))
        if len(out) > limit:
            raise too_large(limit)
        if not member.eof:
            raise zlib.error("cut off")
        data = member.unused_data.lstrip(b"\0")
        if not data:
            return bytes(out)
    raise zlib.error("too many members")


# Searches and locations


def plain(key: str) -> str:
    """One spelling of a field: protobuf takes artifact_location and artifactLocation alike."""
    return key.replace("_", "").lower()


def check_filter(name: str, value: Any) -> None:
    """Bound a filter: each clause is a join."""
    if isinstance(value, list):
        text = " and ".join(str(item) for item in value)
    elif isinstance(value, str):
        text = value
    else:
        return
    if len(text) > FILTER_LENGTH:
        raise invalid(f"{name} has {len(text)} characters; {FILTER_LENGTH} are allowed. Ask in several searches.")
    clauses = max(len(AND.findall(text)) + 1, len(COMPARISON.findall(text)))
    if clauses > FILTER_CLAUSES:
        raise invalid(f"{name} has {clauses} clauses; {FILTER_CLAUSES} are allowed. Ask in several searches.")


def check_order(name: str, value: Any) -> None:
    """Bound the keys of an order: each is a join."""
    keys = value if isinstance(value, list) else [value]
    if len(keys) > ORDER_KEYS:
        raise invalid(f"{name} has {len(keys)} keys; {ORDER_KEYS} are allowed.")
    for key in keys:
        if len(key if isinstance(key, str) else json.dumps(key)) > ORDER_LENGTH:
            raise invalid(f"A key of {name} is longer than {ORDER_LENGTH} characters.")


def check_location(name: str, value: Any) -> None:
    """Take a place in the server's own store of artifacts."""
    if isinstance(value, str) and value and LOCATION.fullmatch(value) is None:
        raise invalid(
            f"{name}: only mlflow-artifacts:/PATH is allowed, without host, '..' and '%', and not the folder of an "
            "experiment. Leave it out: the server chooses one."
        )


def check_source(value: Any) -> None:
    """Take what is logged here already, or what stands for a prompt."""
    if isinstance(value, str) and value and value not in PROMPT_SOURCES and SOURCE.fullmatch(value) is None:
        raise invalid(
            "source: mlflow-artifacts:/PATH, runs:/RUN/PATH and models:/NAME are allowed, without host, '..' and '%'. "
            "Log the model first, then register it."
        )


def tag_keys(value: Any) -> Iterator[str]:
    """Keys of tags wherever they stand in a body: as a mapping, or as pairs of key and value."""
    stack = [value]
    while stack:
        found = stack.pop()
        if isinstance(found, dict):
            yield from found
            yield from (str(found[name]) for name in ("key", "tag_key", "tagKey") if name in found)
            stack.extend(item for item in found.values() if isinstance(item, dict | list))
        elif isinstance(found, list):
            stack.extend(item for item in found if isinstance(item, dict | list))


def check_tags(request: Request, body: Any) -> None:
    """Refuse tags by which MLflow finds a trace's files: with one's own in them, another one's files are read."""
    if "/mlflow/traces" not in request.path:
        return
    keys = set(tag_keys(body)) | {value for name, value in request.query if name == "key"}
    for key in sorted(keys & FIXED_TAGS):
        raise invalid(f"The tag {key} is set by the server alone.")


def check_results(name: str, value: Any) -> None:
    """Take a whole number: MLflow fails at all others."""
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, str):
        whole = re.fullmatch(r"-?[0-9]{1,10}", value) is not None
    if not whole or abs(int(value)) > MOST_RESULTS:
        raise invalid(f"{name} is no whole number, or above {MOST_RESULTS}.")


def check_texts(value: Any) -> None:
    """Refuse texts with a zero byte, which no column of the database takes."""
    stack = [value]
    while stack:
        found = stack.pop()
        if isinstance(found, str) and "\0" in found:
            raise invalid("The request holds a text with a zero byte.")
        if isinstance(found, dict):
            stack += [*found, *found.values()]
        elif isinstance(found, list):
            stack += found


def check_path(request: Request) -> None:
    """Refuse names that no store of files takes."""
    match = UPLOAD.fullmatch(request.path)
    names = match[1].rstrip("/").split("/") if match and request.method == "PUT" else []
    if any(name in {".", ".."} or "\0" in name or len(name.encode(errors="replace")) > NAME_BYTES for name in names):
        raise invalid(f"The artifact's path has '.', '..', a zero byte or a name of more than {NAME_BYTES} bytes.")


def check_fields(request: Request, fields: Iterable[tuple[str, Any]]) -> None:
    """Apply the rules on single fields, however they are spelled."""
    for name, value in fields:
        key = plain(name)
        if key in FILTERS:
            check_filter(name, value)
        elif key == "orderby":
            check_order(name, value)
        elif key == "maxresults" and value is not None:
            check_results(name, value)
        elif key in LOCATIONS:
            check_location(name, value)
        elif key == "source" and request.path.rstrip("/").endswith("/model-versions/create"):
            check_source(value)
        elif key == "tracearchivalconfig" and isinstance(value, dict):
            check_location(name, value.get("location"))


def check_query(request: Request) -> None:
    """The same for parameters of the address, which may be there several times."""
    check_texts([value for _, value in request.query])
    check_fields(request, request.query)
    check_order("order_by", [value for name, value in request.query if plain(name) == "orderby"])
    check_filter("filter", [value for name, value in request.query if plain(name) in FILTERS])


def check_graphql(request: Request, body: Mapping[str, Any]) -> None:
    """The arguments of a query, its variables put in."""
    from graphql import GraphQLError, parse, value_from_ast_untyped
    from graphql.language import ArgumentNode, Node, ObjectFieldNode, VariableDefinitionNode

    try:
        document = parse(str(body.get("query") or ""))
    except GraphQLError as error:
        raise invalid("The query cannot be read as GraphQL, or is nested too deeply.") from error
    given = body.get("variables")
    variables = dict(given) if isinstance(given, dict) else {}
    stack: list[tuple[Any, int]] = [(document, 0)]
    nodes: list[Node] = []
    while stack:
        node, depth = stack.pop()
        # A level of a query is a field in a set of fields.
        if depth > 2 * GRAPHQL_DEPTH:
            raise invalid(f"The query has more than {GRAPHQL_DEPTH} levels.")
        nodes.append(node)
        if isinstance(node, VariableDefinitionNode) and node.default_value is not None:
            variables.setdefault(node.variable.name.value, value_from_ast_untyped(node.default_value))
        for key in node.keys:
            value = getattr(node, key, None)
            items = value if isinstance(value, list | tuple) else [value]
            stack.extend((item, depth + 1) for item in items if isinstance(item, Node))
    for node in nodes:
        if isinstance(node, ArgumentNode | ObjectFieldNode):
            value = value_from_ast_untyped(node.value, variables)
            check_fields(request, [(node.name.value, value)])
            if isinstance(value, dict):
                check_fields(request, value.items())


def parsed(body: bytes) -> Any:
    """The body as MLflow reads it: JSON whatever the header says, twice encoded by old clients; None is a body it finds empty."""
    try:
        value = json.loads(body)
        return json.loads(value) if isinstance(value, str) else value
    except RecursionError as error:
        raise invalid("The body is nested too deeply.") from error
    except ValueError:
        return None


def check_body(request: Request, body: bytes) -> Any:
    """Apply the rules on what a body says; return it."""
    value = parsed(body)
    if value is not None and not isinstance(value, dict) and OBJECT_ROUTES.fullmatch(request.path):
        raise invalid("The body is no JSON object.")
    try:
        if b"\\u0000" in body or b"\0" in body:
            check_texts(value)
        if isinstance(value, dict):
            check_fields(request, value.items())
            if request.path.rstrip("/") == "/graphql":
                check_graphql(request, value)
        check_tags(request, value)
    except RecursionError as error:
        raise invalid("The body is nested too deeply.") from error
    if isinstance(value, dict):
        request.names = object_names(request, value.items())
    return value


# Artifacts of registered versions


def versions_of(path: str, *, removes: bool) -> bool:
    """Whether a registered version's files are at or above the path or, where it is removed, below it."""
    from mlflow.server.handlers import _get_model_registry_store
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion
    from sqlalchemy import or_

    at: list[str] = []
    parts = path.strip("/").split("/")
    for end in range(1, len(parts) + 1):
        at += [uri + slash for uri in spellings(parts[:end]) for slash in ("", "/")]
    columns = (SqlModelVersion.storage_location, SqlModelVersion.source)
    conditions = [column.in_(at) for column in columns]
    if removes:
        conditions += [column.startswith(f"{uri}/", autoescape=True) for column in columns for uri in spellings(parts)]
    with _get_model_registry_store().ManagedSessionMaker() as session:
        query = session.query(SqlModelVersion.version).filter(or_(*conditions))
        return query.filter(SqlModelVersion.current_stage != "Deleted_Internal").first() is not None


def spellings(parts: list[str]) -> list[str]:
    """The sources by which a version names this directory of the artifact store."""
    found = ["mlflow-artifacts:/" + "/".join(parts)]
    match parts:
        case [_, "models", model, "artifacts"]:
            found.append(f"models:/{model}")
        case [_, run, "artifacts", *rest]:
            found.append("/".join([f"runs:/{run}", *rest]))
    return found


def is_protected(path: str, removes: bool) -> bool:  # noqa: FBT001 - one of the settings' questions
    """Whether the artifact is there and belongs to a registered version. Asks the store of artifacts only where a version is."""
    from mlflow.exceptions import MlflowException
    from mlflow.server.handlers import _get_artifact_repo_mlflow_artifacts
    from mlflow.utils.uri import validate_path_is_safe

    try:
        path = posixpath.normpath(validate_path_is_safe(path))
    except MlflowException:
        # MLflow refuses it.
        return False
    if not versions_of(path, removes=removes):
        return False
    if removes:
        return True
    found = _get_artifact_repo_mlflow_artifacts().list_artifacts(posixpath.dirname(path) or None)
    return any(posixpath.normpath(item.path) == path for item in found)


def run_path(run: str, path: str) -> str | None:
    """Where MLflow puts what `upload-artifact` sends for a run; None for a run that is not there."""
    from mlflow.exceptions import MlflowException
    from mlflow.server.handlers import _get_tracking_store

    try:
        info = _get_tracking_store().get_run(run).info
    except MlflowException:
        return None
    return posixpath.join(str(info.experiment_id), str(info.run_id), "artifacts", path)


def written(request: Request, body: Any, find: Callable[[str, str], str | None]) -> str | None:
    """The artifact that the request writes or removes, if it does."""
    if request.method in {"PUT", "DELETE"} and (match := UPLOAD.fullmatch(request.path)):
        return match[1]
    if request.method == "POST" and (match := MULTIPART.fullmatch(request.path)):
        named = body.get("path") if isinstance(body, dict) else None
        return posixpath.join(match[1], named) if isinstance(named, str) else None
    if request.method == "POST" and request.path.endswith(RUN_UPLOAD):
        given = dict(reversed(request.query))
        if given.get("run_uuid") and given.get("path"):
            return find(given["run_uuid"], given["path"])
    return None


def check_overwrite(request: Request, body: Any, settings: Settings) -> None:
    """Keep the files of registered versions as they are."""
    path = written(request, body, settings.run_path)
    if path is not None and settings.protected(path, request.method == "DELETE"):
        raise RefusedError(
            409,
            "RESOURCE_CONFLICT",
            "The artifact belongs to a registered model version, whose files stay as they are. Log a new model and register it as the next "
            "version; or delete the version first.",
        )


# Answers


def told(status: int, text: str) -> tuple[int, str] | None:
    """Status and message in place of a text that says something of the database or the server's files; None if it says nothing of them."""
    if CANCELLED.search(text):
        return 400, "The search took longer than the server allows (tracking_statement_timeout). Ask for less."
    if TOO_MUCH.search(text):
        return (
            400,
            "The search needs more room on disk than the database allows (temp_file_limit in postgres_settings). Ask for less.",
        )
    if AWAY.search(text):
        return 503, "The database does not answer now. Try again."
    if LEAK.search(text):
        return status, "The server could not do this. Its log says why, under the request's id."
    masked = PATH.sub("(a path of the server)", text)
    return (status, masked) if masked != text else None


def cleaned(status: int, body: bytes) -> tuple[int, bytes]:
    """An error as a client may see it."""
    value = parsed_or_none(body)
    if isinstance(value, dict) and isinstance(value.get("message", value.get("detail")), str):
        key = "message" if "message" in value else "detail"
        if value.get("error_code") == "TEMPORARILY_UNAVAILABLE" and not (
            CANCELLED.search(value[key]) or TOO_MUCH.search(value[key])
        ):
            found: tuple[int, str] | None = (503, "The database does not answer now. Try again.")
        else:
            found = told(status, value[key])
        if found is None:
            return status, body
        codes = {400: "BAD_REQUEST", 503: "TEMPORARILY_UNAVAILABLE"}
        code = value.get("error_code") if found[0] == status else codes.get(found[0])
        return found[0], json.dumps({**value, **({"error_code": code} if code else {}), key: found[1]}).encode()
    text = body.decode(errors="replace")
    found = told(status, text)
    if found is None and status != 500:  # noqa: PLR2004 - the server's own failure has no message
        return status, body
    status, message = found or (status, "The server could not do this. Its log says why, under the request's id.")
    codes = {400: "BAD_REQUEST", 503: "TEMPORARILY_UNAVAILABLE"}
    return status, json.dumps({"error_code": codes.get(status, "INTERNAL_ERROR"), "message": message}).encode()


def parsed_or_none(body: bytes) -> Any:
    """JSON, or None."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def cleaned_graphql(body: bytes) -> tuple[int, bytes]:
    """GraphQL tells errors in an answer of status 200."""
    value, status = parsed_or_none(body), 200
    if not isinstance(value, dict):
        return status, body
    data = value.get("data")
    errors = value.get("errors") or []
    nested = (
        [item.get("apiError") for item in data.values() if isinstance(item, dict)] if isinstance(data, dict) else []
    )
    changed = False
    for index, text in enumerate(errors):
        if isinstance(text, str) and (found := told(200, text)):
            errors[index], changed = found[1], True
            status = max(status, found[0])
    for error in nested:
        if isinstance(error, dict) and isinstance(error.get("message"), str) and (found := told(200, error["message"])):
            error["message"], changed = found[1], True
            status = max(status, found[0])
    return status, json.dumps(value).encode() if changed else body


# The audit log


def object_names(request: Request, fields: Iterable[tuple[str, Any]]) -> dict[str, list[str]]:
    """The objects that a request names; never the value of a parameter or tag, nor a password."""
    found: dict[str, list[str]] = {}
    for name, value in fields:
        kind = OBJECTS.get(plain(name))
        if plain(name) in {"name", "newname"}:
            model = "/registered-models/" in request.path or "/model-versions/" in request.path
            kind = "model" if model else "experiment" if "/experiments/" in request.path else None
        if kind is None:
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str | int) and len(found.setdefault(kind, [])) < 10:  # noqa: PLR2004 - the first ten tell enough
                found[kind].append(str(item)[:256])
    return {kind: names for kind, names in found.items() if names}


def audit_line(request: Request, status: int) -> str:
    """One changing request as a JSON object."""
    names = {**object_names(request, request.query), **request.names}
    return json.dumps(
        {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "user": request.user,
            "method": request.method,
            "route": request.path[:512],
            "objects": names,
            "status": status,
            "request_id": request.id,
        }
    )


class Answer:
    """Passes MLflow's answer on, errors cleaned."""

    def __init__(self, send: Send, request: Request) -> None:
        self.send, self.request = send, request
        self.status = 0
        self.refused: RefusedError | None = None
        self.held: Message | None = None
        self.body = bytearray()
        self.done = False
        # MLflow has said all.
        self.complete = False

    async def __call__(self, message: Message) -> None:
        self.complete = message["type"] == "http.response.body" and not message.get("more_body", False)
        if self.done:
            return
        if self.refused is not None and not self.status:
            await self.refuse(self.refused)
        elif message["type"] == "http.response.start":
            if message["status"] >= 400 or self.request.path == "/graphql":  # noqa: PLR2004 - where errors begin
                self.held = message
                return
            self.status = message["status"]
            headers = [*message.get("headers", []), (b"x-request-id", self.request.id.encode())]
            await self.send({**message, "headers": headers})
        elif self.held is None:
            await self.send(message)
        else:
            await self.hold(message)

    async def hold(self, message: Message) -> None:
        assert self.held is not None  # noqa: S101 - for mypy
        graphql = self.held["status"] < 400  # noqa: PLR2004 - where errors begin
        if graphql or len(self.body) <= ERROR_BODY:
            self.body += message.get("body", b"")
        if message.get("more_body", False):
            return
        if graphql:
            status, body = cleaned_graphql(bytes(self.body))
        else:
            status, body = cleaned(self.held["status"], bytes(self.body[:ERROR_BODY]))
        if self.request.method == "HEAD":
            body = b""
        same = body == bytes(self.body)
        drop = {b"content-length", b"retry-after"} | (set() if same else {b"content-type"})
        headers = [(key, value) for key, value in self.held.get("headers", []) if key.lower() not in drop]
        headers += [] if same else [(b"content-type", b"application/json")]
        headers += [(b"retry-after", RETRY_SECONDS)] if status == 503 else []  # noqa: PLR2004 - come again
        await self.finish(status, headers, body)

    async def refuse(self, error: RefusedError) -> None:
        await self.finish(error.status, [(b"content-type", b"application/json"), *error.headers], error.body())

    async def finish(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status, self.done = status, True
        headers = [*headers, (b"content-length", str(len(body)).encode()), (b"x-request-id", self.request.id.encode())]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


class Client:
    """Hands the body on, then waits for the client to go away: a server is asked by one task at a time."""

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.read = asyncio.Event()
        self.gone = asyncio.Event()

    async def __call__(self) -> Message:
        if self.read.is_set():
            await self.gone.wait()
            return {"type": "http.disconnect"}
        message = await self.receive()
        if not message.get("more_body", False):
            self.read.set()
        return message

    async def watch(self, cancel: Callable[[], None], answer: Answer) -> None:
        """Cancel what the database does for a client that went away before its answer was complete."""
        await self.read.wait()
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.gone.set()
        while not answer.complete:
            await asyncio.to_thread(cancel)
            # The handler may ask something else after that.
            await asyncio.sleep(CANCEL_EVERY_SECONDS)


class Gate:
    """Asks the rules, and hands on to MLflow's application what they let through."""

    def __init__(self, app: Application, settings: Settings) -> None:
        self.app, self.settings = app, settings
        self.held = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request.of(scope)
        answer = Answer(send, request)
        taken: list[int] = []
        try:
            receive = await self.admit(request, scope, receive, answer, taken)
            await self.answer(request, scope, receive, answer)
        except RefusedError as error:
            if not answer.status:
                await answer.refuse(error)
        except Exception:
            if answer.refused is None:
                raise
        finally:
            self.held -= sum(taken)
            if request.changes:
                audit.info("%s", audit_line(request, answer.status))

    async def answer(self, request: Request, scope: Message, receive: Receive, answer: Answer) -> None:
        """Have MLflow answer. A client that gives up a search frees its queries; a change is carried out."""
        if request.changes:
            await self.app(scope, receive, answer)
            return
        client = Client(receive)
        with self.settings.working() as cancel:
            watch = asyncio.create_task(client.watch(cancel, answer))
            try:
                await self.app(scope, client, answer)
            finally:
                watch.cancel()

    async def admit(
        self, request: Request, scope: Message, receive: Receive, answer: Answer, taken: list[int]
    ) -> Receive:
        """Raise RefusedError, or return where MLflow's application gets the body from."""
        check_origin(request, self.settings.origins)
        check_query(request)
        check_path(request)
        limit = body_limit(request, self.settings)
        check_length(request, limit)
        undo = encodings(request)
        if request.has_body or request.changes:
            await self.sign_in(request)
        if request.streams or not request.has_body:
            check_tags(request, None)
            await self.guard(request, None)
            return self.counted(receive, limit, answer) if request.has_body else receive
        body = await self.read(receive, limit, taken)
        for name in reversed(undo):
            body = await asyncio.to_thread(inflate, body, name, limit)
        if undo:
            drop = {b"content-encoding", b"content-length"}
            scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in drop]
            scope["headers"].append((b"content-length", str(len(body)).encode()))
        look = check_body(request, body) if len(body) < BIG else await asyncio.to_thread(check_body, request, body)
        await self.guard(request, look)
        return replay(body, receive)

    async def sign_in(self, request: Request) -> None:
        """Check the password as MLflow does, before the body is read."""
        if self.settings.sign_in is None or self.settings.public(request.path) or request.method == "OPTIONS":
            return
        from werkzeug.datastructures import Authorization

        header = request.values(b"authorization")
        given = Authorization.from_header(header[0]) if len(header) == 1 else None
        if given is not None and given.type == "basic" and given.username:
            try:
                user = await asyncio.to_thread(self.settings.sign_in, given.username, given.password or "")
            except Exception as error:
                logger.warning("A password could not be checked: %s", type(error).__name__)
                raise unavailable("The database does not answer now. Try again.") from error
            if user:
                request.user = given.username
                return
        raise RefusedError(
            401,
            "UNAUTHENTICATED",
            "You are not authenticated. Name and password are wanted: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.",
            [(b"www-authenticate", b'Basic realm="mlflow"')],
        )

    async def guard(self, request: Request, body: Any) -> None:
        if request.method in {"PUT", "POST", "DELETE"} and (
            "/mlflow-artifacts/" in request.path or request.path.endswith(RUN_UPLOAD)
        ):
            try:
                await asyncio.to_thread(check_overwrite, request, body, self.settings)
            except RefusedError:
                raise
            except Exception as error:
                logger.warning("The versions of an artifact could not be looked up: %s", type(error).__name__)
                raise unavailable("The database does not answer now. Try again.") from error

    async def read(self, receive: Receive, limit: int, taken: list[int]) -> bytes:
        """The whole body, if it and all others that are held are within bounds."""
        chunks: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RefusedError(400, "BAD_REQUEST", "The client went away.")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise too_large(limit)
            taken.append(len(chunk))
            self.held += len(chunk)
            if self.held > HELD:
                raise unavailable("The server holds as many large requests as it may. Try again.")
            chunks.append(chunk)
            more = message.get("more_body", False)
        return b"".join(chunks)

    @staticmethod
    def counted(receive: Receive, limit: int, answer: Answer) -> Receive:
        """Pass a body on piece by piece, until it is too large."""
        size = 0

        async def count() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                answer.refused = too_large(limit)
                raise answer.refused
            return message

        return count


def replay(body: bytes, receive: Receive) -> Receive:
    """Where an application gets the body that was read already, then whatever else the client does."""
    first = True

    async def again() -> Message:
        nonlocal first, body
        if first:
            first = False
            message = {"type": "http.request", "body": body, "more_body": False}
            body = b""
            return message
        return await receive()

    return again
