"""An engine on a bare host, and over what an earlier engine left."""

from __future__ import annotations

from instance import Instance, wait_until

# An image of one program and its libraries: a bare host has no image, and nothing is pulled.
TINY_IMAGE = "tar --create --dereference --file - /usr/bin/true $(ldd /usr/bin/true | grep -o '/[^ ]*') 2>/dev/null | docker import - tiny"


def engine_version(instance: Instance) -> tuple[int, ...]:
    """Version of the engine that answers."""
    return tuple(int(part) for part in instance.sh("docker version --format '{{.Server.Version}}'").split(".")[:2])


def test_answers_with_a_version_that_everything_runs_on(instance: Instance) -> None:
    assert engine_version(instance) >= (20, 10)


def test_runs_a_container_of_its_own(instance: Instance) -> None:
    instance.sh(TINY_IMAGE)
    instance.sh("docker run --rm --network none tiny /usr/bin/true")


def test_a_client_on_the_host_reaches_a_published_port_without_a_proxy(instance: Instance) -> None:
    instance.sh(
        f"docker run --detach --name web --publish 127.0.0.1:8123:80 {instance.python_image()}"
        " /usr/bin/python3 -m http.server --directory /usr/bin 80"
    )
    wait_until(
        lambda: instance.http("http://127.0.0.1:8123/").status == 200, 30, "nobody answers on the published port"
    )
    assert instance.host.run("pidof docker-proxy").rc == 1
    # The engine holds the port all the same, so nothing else can take it.
    assert "127.0.0.1:8123" in instance.sh("ss -Hltn")
    instance.sh("docker rm --force web")


def test_modules_of_ansible_reach_it_with_the_system_python(instance: Instance) -> None:
    assert instance.sh("/usr/bin/python3 -c 'import docker; print(docker.from_env().ping())'").strip() == "True"


def test_comes_back_after_a_restart_and_a_reboot(instance: Instance) -> None:
    instance.sh("systemctl restart docker")
    assert engine_version(instance) >= (20, 10)
    assert instance.sh("systemctl is-enabled docker").strip() == "enabled"


def test_is_started_when_it_is_installed_and_does_not_run(instance: Instance) -> None:
    # A killed engine leaves its process id, which another process has taken over since; one that was stopped leaves less.
    instance.sh("systemctl stop docker.socket docker && echo 1 >/run/docker.pid")
    instance.converge()
    assert engine_version(instance) >= (20, 10)
