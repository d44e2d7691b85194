"""Clients of the database: its owner on the socket, and others over the network."""

from __future__ import annotations

import base64

from instance import Instance

CONTAINER = "mlflow-anywhere-postgres"
IMAGE = "mlflow-anywhere/postgres:17"
VOLUME = "mlflow-anywhere-postgres"
NETWORK = "mlflow-anywhere-database"
# The only name on the network that may sign in.
CLIENT = "mlflow-anywhere-tracking"
SECRETS = "/var/lib/mlflow-anywhere/postgres/secrets"

# Every character that breaks URLs, shells, password files or quotes.
AWKWARD = "-%s" + r"""'"\'@:/%#?&+=$!\$p$;--`id`$(id) <>{}[]|~^""" + "*" * 8


def encoded(text: str) -> str:
    """A shell command that prints the text; nothing in it needs quotes."""
    return f"echo {base64.b64encode(text.encode()).decode()} | base64 -d"


def sql(instance: Instance, statement: str) -> str:
    """What the owner of the database gets on the socket, without a password."""
    psql = "psql -qtAX -v ON_ERROR_STOP=1 -h /run/postgresql -U mlflow -d mlflow"
    return instance.sh(f"{encoded(statement)} | docker exec -i {CONTAINER} {psql}").strip()


def login(
    instance: Instance, password: str | None, *, user: str = "mlflow", at: str = "a network", name: str = CLIENT
) -> str:
    """`in`, or why a client of some name on the network, or in the container over TCP, is not let in."""
    line = "*:*:*:*:" + (password or "").replace("\\", "\\\\").replace(":", "\\:")
    psql = f"psql -wqtAX 'host=%s user={user} dbname=mlflow passfile=/tmp/login' -c \"SELECT 'in'\" 2>&1"
    script = "umask 077; cat >/tmp/login; " + psql
    if at == "a network":
        command = f"docker run --rm -i --name {name} --network {NETWORK} {IMAGE} sh -c " + quoted(script % "postgres")
    else:
        command = f"docker exec -i {CONTAINER} sh -c " + quoted(script % "127.0.0.1")
    return str(instance.host.run(f"{encoded(line)} | {command}").stdout).strip()


def quoted(script: str) -> str:
    """The script as one word of a shell command."""
    return "'" + script.replace("'", "'\\''") + "'"


def healthy(instance: Instance, container: str = CONTAINER) -> bool:
    """Whether the engine says that the container runs and its health check succeeds."""
    state = instance.host.run(
        f"docker inspect --format '{{{{.State.Status}}}} {{{{.State.Health.Status}}}}' {container}"
    )
    return str(state.stdout).strip() == "running healthy"
