"""MLflow's tracking server in one process, with its secrets read from files.

`mlflow server` hands its settings to the processes it starts in environment variables, secrets among them, and stays as a parent
that takes 200 MB. This module does the same work in the serving process: wait for the database, check its schema, serve. Beside MLflow's
application, which stands behind the module gate, it answers `GET /ready`, and, where users sign in, who they are is applied by the module accounts.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import secrets
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from sqlalchemy import Engine

    Message = MutableMapping[str, Any]
    Application = Callable[
        [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
    ]

# MLflow reads these from the environment alone. Set inside the process, they do not appear in /proc/PID/environ.
SECRET_ENVIRONMENT = Path("/run/secrets/environment.json")
DATABASE_WAIT_SECONDS = 60.0
AUTH_CONFIG = Path("/run/secrets/auth.ini")
# The edge waits a little longer, twice, and then sends nobody here.
READY_SECONDS = 0.9

logger = logging.getLogger("tracking_server")


class StartError(Exception):
    """The server must not start; the message says why and what to do."""


def load_secrets(file: Path = SECRET_ENVIRONMENT) -> None:
    """Put the variables of the JSON object in `file` into this process's environment."""
    os.environ.update(json.loads(file.read_text()))


def wait_for_database(engine: Engine, seconds: float = DATABASE_WAIT_SECONDS) -> None:
    """Return when the database answers; raise StartError when it has not after `seconds`."""
    from sqlalchemy import text
    from sqlalchemy.exc import OperationalError

    deadline, waiting = time.monotonic() + seconds, False
    while True:
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except OperationalError as error:
            if time.monotonic() > deadline:
                message = f"The database did not answer within {seconds:.0f} s: {error.orig}"
                raise StartError(message) from error
            if not waiting:
                logger.info("Waiting for the database, which does not answer yet: %s", error.orig)
                waiting = True
            time.sleep(0.5)
        else:
            return


def check_schema(found: str | None, expected: str, *, empty: bool) -> None:
    """Raise StartError when the database holds the tables of another MLflow version.

    MLflow migrates an older database at start without a word when a table is missing, and no downgrade exists. A database without a
    revision was never completed, so MLflow may go on creating it.
    """
    if empty or found is None or found == expected:
        return
    message = (
        f"The database is at schema revision {found}, this MLflow expects {expected}. Nothing was changed. "
        "Back the database up, migrate it with `mlflow db upgrade`, then start the server again; "
        "or go back to the image that wrote it."
    )
    raise StartError(message)


def prepare_database(uri: str, artifact_root: str) -> None:
    """Wait for the database and create MLflow's tables in an empty one."""
    from mlflow.server import handlers
    from mlflow.store.db import utils

    engine = utils.create_sqlalchemy_engine(uri)
    wait_for_database(engine)
    check_schema(
        utils._get_schema_version(engine),
        utils._get_latest_schema_revision(),
        empty=utils._is_empty_database(engine),
    )
    engine.dispose()
    handlers.initialize_backend_stores(uri, uri, artifact_root)
    # Made again by whoever serves, with an address that bounds statements.
    handlers._tracking_store = handlers._model_registry_store = None


def server_environment(uri: str, artifacts: str) -> dict[str, str]:
    """Return the variables through which `mlflow server` hands its options to the serving processes."""
    from mlflow.server import constants

    return {
        constants.BACKEND_STORE_URI_ENV_VAR: uri,
        constants.REGISTRY_STORE_URI_ENV_VAR: uri,
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: artifacts,
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        "_MLFLOW_SERVER_BOOT_ID": uuid.uuid4().hex,
        "_MLFLOW_SGI_NAME": "uvicorn",
        "_MLFLOW_IN_JOB_EXECUTOR": "false",
    }


def take_experiment_ids_as_text() -> None:
    """Let experiments be asked for by ids that are text, which MLflow does in places.

    psycopg 3 says the type of each parameter, and PostgreSQL has no `integer = character varying`; with psycopg 2 the same calls work.
    """
    import sqlalchemy
    from mlflow.store.tracking.dbmodels.models import SqlExperiment

    class Id(sqlalchemy.TypeDecorator[int]):  # type: ignore[misc]
        """An integer, whatever it is compared with."""

        impl = sqlalchemy.Integer
        cache_ok = True

        def process_bind_param(self, value: Any, dialect: sqlalchemy.Dialect) -> int | None:  # noqa: ARG002 - SQLAlchemy's signature
            return None if value is None else int(value)

    SqlExperiment.__table__.c.experiment_id.type = Id()


class Ready:
    """Answers `GET /ready` with 200 while the database answers, else 503; all else goes to MLflow's application.

    MLflow has no such question: /health does not ask the database, and all others want a user. Outside its application, so that neither
    its users nor its check of host names are in the way; the edge lets no client ask.
    """

    def __init__(self, app: Application, question: Callable[[], object]) -> None:
        self.app, self.question = app, question
        self.asking: asyncio.Task[object] | None = None
        self.was_ready = True

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http" or scope["path"] != "/ready":
            await self.app(scope, receive, send)
            return
        ready = await self.ready()
        body = json.dumps({"ready": ready}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200 if ready else 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def ready(self) -> bool:
        """Ask the database; a question that is still under way is not asked a second time."""
        if self.asking is None or self.asking.done():
            self.asking = asyncio.create_task(asyncio.to_thread(self.question))
        try:
            await asyncio.wait_for(asyncio.shield(self.asking), READY_SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever the database's driver raises
            if self.was_ready:
                logger.warning("Not ready: %s", str(error).partition("\n")[0] or "the database does not answer")
            self.was_ready = False
            return False
        if not self.was_ready:
            logger.info("Ready again")
        self.was_ready = True
        return True


def forget_who_signed_in() -> None:
    """Have every password checked again.

    MLflow remembers a password under a digest, whose key is made anew: a check that is under way, perhaps of the password that was, ends in an
    entry that nobody finds.
    """
    from mlflow.server import auth

    if auth._USER_AUTH_CACHE is not None:
        with auth._USER_AUTH_CACHE_LOCK:
            auth._USER_AUTH_CACHE_HMAC_KEY = secrets.token_bytes(32)
            auth._USER_AUTH_CACHE.clear()


def apply_accounts() -> dict[str, Any]:
    """Make MLflow's users what the inventory declares, and forget who signed in before."""
    import accounts
    from mlflow.server import auth
    from mlflow.server.handlers import _get_tracking_store

    def experiment_id(name: str) -> str | None:
        found = _get_tracking_store().get_experiment_by_name(name)
        return found.experiment_id if found else None

    try:
        result = accounts.apply(auth.store, json.loads(accounts.WANTED.read_text()), experiment_id)
    except Exception as error:
        logger.exception("The users could not be applied")
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        # After a failure too: some of it may be done.
        forget_who_signed_in()
    for change in result["changes"]:
        logger.info("User %s", change)
    return dict(result)


def authenticated_app() -> Application:
    """Return MLflow's application that lets nobody in without signing in."""
    import accounts

    os.environ["MLFLOW_AUTH_CONFIG_PATH"] = str(AUTH_CONFIG)
    # MLflow makes the first user from these, once; from then on, and for all others, the declared ones are applied.
    first = json.loads(accounts.WANTED.read_text())[0]
    os.environ.update(MLFLOW_AUTH_ADMIN_USERNAME=first["name"], MLFLOW_AUTH_ADMIN_PASSWORD=first["password"])
    from mlflow.server.auth import create_app as create

    app: Application = create()
    threading.Thread(target=accounts.listen, args=(os.getpid(), apply_accounts), daemon=True).start()
    return app


def guarded(app: Application, *, signs_in: bool) -> Application:
    """Return MLflow's application behind the gate."""
    import gate
    import pages
    import queries

    queries.watch_pools()
    # Lines of JSON alone, from every process, whatever else is logged.
    gate.audit.setLevel(logging.INFO)
    gate.audit.propagate = False
    gate.audit.handlers = [logging.StreamHandler()]
    origins = os.environ.get("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS", "").split(",")
    settings = gate.Settings(
        origins=frozenset(origin.strip() for origin in origins if origin.strip()),
        artifact=int(os.environ.get("TRACKING_MAX_ARTIFACT", gate.Settings.artifact)),
        protected=gate.is_protected,
        run_path=gate.run_path,
        working=queries.working,
    )
    if signs_in:
        from mlflow.server import auth

        settings = dataclasses.replace(settings, sign_in=auth._authenticate_cached, public=auth.is_unprotected_route)
    made: Application = gate.Gate(pages.Pages(app), settings)
    return made


def database_question(uri: str) -> Callable[[], object]:
    """Return what asks the database, over a connection of its own: a server whose connections are all in use is busy, not unready."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, pool_size=1, max_overflow=0, isolation_level="AUTOCOMMIT")

    def ask() -> None:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT 1"))

    return ask


def bounded(uri: str, seconds: int) -> str:
    """Return the database's address with a bound for each statement; 0 is none. Migrations use the address without it."""
    if not seconds or not uri.startswith("postgresql"):
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}options=-c%20statement_timeout%3D{seconds * 1000}"


def create_app() -> Application:
    """Return MLflow's application; every worker process calls this once."""
    load_secrets()
    take_experiment_ids_as_text()
    from mlflow.server.constants import BACKEND_STORE_URI_ENV_VAR

    if os.environ.get("TRACKING_AUTH") == "true":
        app = authenticated_app()
    else:
        from mlflow.server.fastapi_app import app as open_app

        app = open_app
    app = guarded(app, signs_in=os.environ.get("TRACKING_AUTH") == "true")
    return Ready(app, database_question(os.environ[BACKEND_STORE_URI_ENV_VAR]))


def main() -> int:
    """Serve until the engine stops the container; return the exit status."""
    import uvicorn

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
    # Before MLflow's server is imported: SQLAlchemy keeps how a column compares from its first use on.
    take_experiment_ids_as_text()
    load_secrets()
    seconds = int(os.environ.get("TRACKING_STATEMENT_TIMEOUT", "0"))
    os.environ.update(server_environment(bounded(uri, seconds), os.environ["MLFLOW_ARTIFACTS_DESTINATION"]))
    try:
        prepare_database(uri, "mlflow-artifacts:/")
    except StartError as error:
        logger.error("%s", error)  # noqa: TRY400 - a message for the operator, not a trace
        return 1
    uvicorn.run(
        "tracking_server:create_app",
        factory=True,
        host="0.0.0.0",  # noqa: S104 - the container's own network name space; only the edge publishes ports
        port=5000,
        workers=int(os.environ.get("TRACKING_WORKERS", "1")),
        loop="uvloop",
        http="httptools",
        # The edge logs every request.
        access_log=False,
        timeout_graceful_shutdown=30,
        # Addresses and schemes that the edge saw, from the network that only containers of the platform are on.
        proxy_headers=True,
        forwarded_allow_ips="*",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
