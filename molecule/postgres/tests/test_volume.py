"""What the database does with a volume that it finds. None of this depends on the release of the host, so one instance does."""

from __future__ import annotations

from instance import Instance, wait_until
from postgres.database import CONTAINER, IMAGE, SECRETS, VOLUME, healthy, sql

DATA = "/var/lib/postgresql/data"
FIRST_START = (
    f"docker run --detach --name first --network none --tmpfs /run/postgresql:uid=10001 --env POSTGRES_DB=mlflow --env POSTGRES_USER=mlflow"
    f" --volume {VOLUME}:{DATA} --volume {SECRETS}:/run/secrets:ro {IMAGE} postgres"
)


def fingerprint(instance: Instance) -> str:
    """Digest of all names, contents, owners and times in the volume."""
    return instance.sh(
        f"cd $(docker volume inspect --format '{{{{.Mountpoint}}}}' {VOLUME}) && "
        "(find . -printf '%p %s %m %U %T@\n' | sort; find . -type f -print0 | sort -z | xargs -0 sha256sum) | sha256sum"
    )


def test_a_volume_of_another_major_version_is_refused_and_untouched(instance: Instance) -> None:
    sql(instance, "CREATE TABLE older AS SELECT 'row'::text AS what")
    version = f"$(docker volume inspect --format '{{{{.Mountpoint}}}}' {VOLUME})/cluster/PG_VERSION"
    instance.sh(f"docker stop {CONTAINER} && docker rm {CONTAINER} && echo 16 >{version}")
    before = fingerprint(instance)
    refused = instance.play("converge.yml", postgres_start_timeout=6)
    assert refused.returncode != 0
    assert "The volume was written by PostgreSQL 16, this image runs 17: nothing was changed." in refused.stdout
    assert fingerprint(instance) == before
    instance.sh(f"echo 17 >{version}")
    # It starts again and again, and finds the right version by itself.
    wait_until(lambda: healthy(instance), 90, "the database is not back")
    assert sql(instance, "SELECT what FROM older") == "row"


def test_a_first_start_that_was_killed_begins_anew(instance: Instance) -> None:
    instance.sh(f"docker rm --force {CONTAINER} && docker volume rm {VOLUME}")
    instance.sh(FIRST_START)
    place = instance.sh(f"docker volume inspect --format '{{{{.Mountpoint}}}}' {VOLUME}").strip()
    instance.sh(f"until test -s {place}/cluster.new/PG_VERSION; do sleep 0.05; done; docker rm --force first")
    assert sorted(instance.sh(f"ls {place}").split()) == ["cluster.new"]
    instance.converge()
    assert sql(instance, "SELECT current_database()") == "mlflow"
    assert instance.sh(f"ls {place}").split() == ["cluster"]


def test_a_directory_that_is_no_cluster_is_refused_and_untouched(instance: Instance) -> None:
    place = instance.sh(f"docker volume inspect --format '{{{{.Mountpoint}}}}' {VOLUME}").strip()
    instance.sh(f"docker stop {CONTAINER} && mv {place}/cluster/PG_VERSION {place}")
    before = fingerprint(instance)
    instance.sh(f"docker start {CONTAINER}")
    wait_until(
        lambda: "is no PostgreSQL cluster: nothing was changed" in instance.logs(CONTAINER), 20, "it said nothing"
    )
    assert fingerprint(instance) == before
    instance.sh(f"mv {place}/PG_VERSION {place}/cluster")
    wait_until(lambda: healthy(instance), 90, "the database is not back")
