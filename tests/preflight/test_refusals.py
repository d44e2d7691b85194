"""Bad input: one clear message that names variable, value, what is allowed and the way out, and no change.

Every case is a host of one inventory, which is this machine with an engine that only answers. So one run of the playbook shows them all.
Where a variable alone is wrong, the host and its engine have been asked before; the others ask them themselves.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from library import engine_facts
from tests.engine import Handler, listening

ROOT = Path(__file__).parents[2]
# Beside this interpreter, wherever the shell looks for programs.
BIN = Path(sys.executable).parent
# What a machine of any size and distribution has.
ENOUGH = {"docker_minimum_memory": 1, "docker_minimum_disk": 1}
ITS_OWN = "{{ {ansible_facts.distribution: [ansible_facts.distribution_version]} }}"

PUBLIC = {
    "platform_public_addresses": ["0.0.0.0"],
    "platform_public_names": ["ml.test", "127.0.0.1"],
    "platform_auth": True,
    "edge_tls": "selfsigned",
}

# Roles whose cases are about variables.
VARIABLES_ALONE = {"edge", "tracking", "postgres", "certificate", "host"}

# By what is wrong: the role that refuses it, where not all are asked as for the first case; what is wrong; and words of the message.
REFUSED: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "unknown key": (
        "",
        {"served_models": [{"name": "iris", "aliass": "x"}]},
        ["served_models[0] ('iris'): there is no key 'aliass'", "Allowed: name, model, alias", "Edit served_models in"],
    ),
    "misspelt variable": (
        "",
        {"platform_traking_port": 5001},
        ["platform_traking_port. Is platform_tracking_port meant?"],
    ),
    "wrong type": (
        "edge",
        {"served_models": [{"name": "iris", "replicas": "two"}]},
        ["served_models[0] ('iris'): replicas is 'two'", "Allowed: 1 to"],
    ),
    "two models on one port": (
        "edge",
        {"served_models": [{"name": "a", "port": 9300}, {"name": "b", "port": 9300}]},
        ["served_models[1] ('b'): port 9300 belongs to served_models[0] ('a')"],
    ),
    "a model on the port of the tracking server": (
        "edge",
        {"served_models": [{"name": "a", "port": 5000}]},
        ["served_models[0] ('a')", "5000"],
    ),
    "a default model that is not served": (
        "edge",
        {"served_models": [{"name": "a"}], "serving_default_model": "b"},
        ['serving_default_model is "b"', "(a)"],
    ),
    "type of a variable": ("tracking", {"tracking_workers": "many"}, ["tracking_workers", "many", "int"]),
    "engine too old": (
        "docker",
        {"docker_minimum_version": "99"},
        ["99 or newer is needed", "apt-get install --only-upgrade"],
    ),
    "too little disk": (
        "docker",
        {"docker_minimum_disk": 99999999},
        ["docker_minimum_disk is 99999999 MiB", "docker system df"],
    ),
    "too little memory": (
        "docker",
        {"docker_minimum_memory": 99999999},
        ["docker_minimum_memory is 99999999 MiB", "swapon"],
    ),
    "short password": ("postgres", {"postgres_password": "short"}, ["postgres_password has 5 characters"]),
    "name that breaks SQL": (
        "postgres",
        {"postgres_user": 'x"; DROP'},
        ["postgres_user", "lower-case letters"],
    ),
    "unknown key of the artifact store": (
        "tracking",
        {"tracking_s3": {"bucket": "b", "key": "k"}},
        ["tracking_s3.key. Supported parameters include: access_key_id", "endpoint_url"],
    ),
    "half a pair of keys": (
        "tracking",
        {"tracking_s3": {"bucket": "b", "access_key_id": "c"}},
        ["access_key_id goes with secret_access_key"],
    ),
    "webhook key": (
        "tracking",
        {"tracking_webhook_key": "short"},
        ["tracking_webhook_key has 5 characters and must have exactly 32"],
    ),
    "permission that MLflow does not know": (
        "tracking",
        {"platform_auth": True, "tracking_users": [{"name": "ana", "experiments": {"shared": "WRITE"}}]},
        ['"ana"', "READ, USE, EDIT, MANAGE, DENY", "WRITE"],
    ),
    "user who is there twice": (
        "tracking",
        {"platform_auth": True, "tracking_users": [{"name": "ana"}, {"name": "ana"}]},
        ["stand there once"],
    ),
    "all addresses without TLS": ("edge", {"platform_bind_address": "0.0.0.0"}, ['platform_bind_address is "0.0.0.0"']),
    "public without TLS": ("edge", PUBLIC | {"edge_tls": ""}, ["edge_tls, which is ''"]),
    "public without sign-in": ("edge", PUBLIC | {"platform_auth": False}, ["platform_auth: true, which is false"]),
    "public without a name": (
        "edge",
        PUBLIC | {"platform_public_names": []},
        ["platform_public_names, which is []"],
    ),
    "unknown kind of TLS": ("edge", PUBLIC | {"edge_tls": "letsencrypt"}, ["edge_tls"]),
    "certificate that is not there": (
        "certificate",
        PUBLIC | {"edge_tls": "files", "certificate_file": "/nowhere.pem"},
        ["cannot be read"],
    ),
    "client of a model that is not served": (
        "edge",
        PUBLIC | {"edge_api_clients": [{"name": "web", "models": ["rose"], "keys": ["k1"]}]},
        ["there is no model 'rose'"],
    ),
    "operator who is root": ("host", {"host_baseline": True, "host_admin_user": "root"}, ["host_admin_keys"]),
    "operator without a key": (
        "host",
        {"host_baseline": True, "host_admin_user": "newcomer", "host_admin_keys": []},
        ["host_admin_keys"],
    ),
}


class Watched(Handler):
    """The stand-in, which remembers what it was asked."""

    asked: ClassVar[list[tuple[str, str]]] = []

    def parse_request(self) -> bool:
        complete = super().parse_request()
        self.asked.append((self.command or "", self.path))
        return complete


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[str]:
    Watched.asked.clear()
    path = str(tmp_path / "docker.sock")
    with listening(Watched, path):
        yield path


@pytest.fixture
def sudo(tmp_path: Path) -> Path:
    """Sudo that lets a user believe that it became root: without an engine the roles go on as root alone."""
    (tmp_path / "bin").mkdir()
    # What comes first is for sudo itself; Ansible's command begins with a shell.
    texts = {
        "id": "echo 0",
        "sudo": f'while [ "$1" != /bin/sh ]; do shift; done; PATH="{tmp_path}/bin:$PATH" exec "$@"',
    }
    for name, text in texts.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path / "bin/sudo"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass
class Said:
    """How the playbook ended on one host: tasks that changed something or failed, and what it said of the failure, in one line."""

    changed: int
    failed: int
    message: str


def remember(place: Path, hosts: Iterable[str]) -> None:
    """Write down for Ansible what it would find out about these hosts."""
    facts = {
        "distribution": "Debian",
        "distribution_version": "13",
        "env": {},
        "service_mgr": "systemd",
        "user_dir": str(place / "home"),
        "user_id": "somebody",
        "user_uid": os.geteuid(),
    }
    (place / "facts").mkdir()
    for name in hosts:
        text = json.dumps({f"ansible_{fact}": value for fact, value in facts.items()})
        (place / "facts" / spelled(name)).write_text(text)


def play(place: Path, hosts: dict[str, dict[str, Any]], **everywhere: Any) -> dict[str, Said]:
    """Run the playbook on these hosts, which are this machine by other names. It writes nothing outside `place`."""
    inventory = place / "inventory/hosts.yml"
    inventory.parent.mkdir()
    given = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, **everywhere}
    inventory.write_text(json.dumps({"all": {"hosts": {spelled(name): hosts[name] for name in hosts}, "vars": given}}))
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "DOCKER_", "XDG_"))}
    done = subprocess.run(
        [BIN / "ansible-playbook", "-i", str(inventory), "--forks", "2", "playbooks/preflight.yml"],
        cwd=ROOT,
        env={
            **plain,
            "HOME": str(place / "home"),
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_HOME": str(place / "ansible"),
            "ANSIBLE_CACHE_PLUGIN": "jsonfile",
            "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(place / "facts"),
            "ANSIBLE_REMOTE_TMP": str(place / "ansible/tmp"),
            "LC_ALL": "C.UTF-8",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=500,
    )
    counts = re.findall(r"^(\S+) +: ok=.*\bchanged=(\d+) .*\bfailed=(\d+)", done.stdout, re.MULTILINE)
    assert {name for name, _, _ in counts} == {spelled(name) for name in hosts}, done.stdout
    ends = {name: (int(changed), int(failed)) for name, changed, failed in counts}
    return {name: Said(*ends[spelled(name)], message(done.stdout, spelled(name))) for name in hosts}


def spelled(case: str) -> str:
    return case.replace(" ", "-")


def message(output: str, host: str) -> str:
    """What the result of the task that failed on a host says; where that is hidden, the error before it. Results are indented."""
    result = rf"(?:fatal|failed): \[{re.escape(host)}\].*\n(?:[ ].*\n)*"
    error = r"\[ERROR\](?:(?!\[ERROR\]|fatal: |failed: ).*\n)*?"
    found = re.findall(rf"^(?:{error})?{result}", output, re.MULTILINE)
    return " ".join(" ".join(found).split())


@pytest.mark.slow
def test_what_cannot_work_is_refused_before_anything_changes(tmp_path: Path, engine: str, sudo: Path) -> None:
    (tmp_path / "home").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        taken = squatter.getsockname()[1]
        ports = {"preflight_roles": ["platform"], "platform_tracking_port": free_port()}
        without = {"platform_docker_socket": str(tmp_path / "no.sock"), "ansible_become_exe": str(sudo)}
        asked = {"__platform_engine": engine_facts.facts(engine)}
        known = [name for name, (role, _, _) in REFUSED.items() if role in VARIABLES_ALONE]
        remember(tmp_path, known)
        hosts = {
            name: wrong | ({"preflight_roles": ["platform", role]} if role else {}) | (asked if name in known else {})
            for name, (role, wrong, _) in REFUSED.items()
        }
        hosts["taken port"] = {**ports, "platform_models_port": taken}
        hosts["another port"] = {**ports, "platform_models_port": free_port()}
        hosts["unsupported distribution"] = {**without, "docker_distributions": {"Debian": ["99"]}}
        hosts["supported distribution"] = {
            **without,
            "docker_distributions": ITS_OWN,
            "platform_tracking_port": free_port(),
            "platform_models_port": free_port(),
        }
        said = play(
            tmp_path,
            hosts,
            platform_docker_socket=engine,
            platform_system_dir=str(tmp_path / "system"),
            **ENOUGH,
        )
    wanted = {name: words for name, (_, _, words) in REFUSED.items()}
    wanted["taken port"] = [
        f"Port {taken} on 127.0.0.1 is taken by process {os.getpid()} (",
        f"platform_models_port ({taken})",
    ]
    wanted["unsupported distribution"] = ['"99"', "Install Docker 20.10 or newer yourself"]

    missing = {name: [word for word in words if word not in said[name].message] for name, words in wanted.items()}
    assert {name: words for name, words in missing.items() if words} == {}, said
    # Each message once, and without what Ansible wraps around it. Of a hidden result the error is shown, with the lines of the task.
    shown = {
        name: words[0] for name, words in wanted.items() if " " in words[0] and "censored" not in said[name].message
    }
    assert len(shown) > len(wanted) / 2
    # One that two entries are refused for is told for each.
    results = {name: len(re.findall(r"(?:fatal|failed): \[", said[name].message)) for name in shown}
    assert {name: word for name, word in shown.items() if said[name].message.count(word) > results[name]} == {}, said
    wrapping = re.compile("Finalization of task args|argument_spec_data|evaluated_to")
    assert [name for name, end in said.items() if wrapping.search(end.message)] == []
    # The ways out that the last two messages name.
    let_in = {"another port", "supported distribution"}
    assert {name for name, end in said.items() if not end.failed} == let_in, said
    assert {name: end.changed for name, end in said.items()} == dict.fromkeys(hosts, 0)

    assert {method for method, _ in Watched.asked} == {"GET"}
    assert not (tmp_path / "system").exists()
    # Secrets that the inventory leaves out are generated where they are first looked at, on the control machine alone.
    secrets = tmp_path / "home/.config/mlflow-anywhere/inventory"
    made = {path for path in (tmp_path / "home").rglob("*") if path.is_file()}
    assert {path.parent for path in made} == {secrets}, made
