"""The settings of SSH and sudo as the role writes them, read by sshd and visudo themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.checkers import accepted, refused
from tests.templates import ROLES, Render, renderer, text_renderer

OPS = {"host_admin_user": "ops"}
SHAPES: dict[str, dict[str, Any]] = {
    "as it is": OPS,
    "another port and timeout": {**OPS, "host_ssh_port": 2222, "host_ssh_timeout": 30},
    "the user who connects": {"ansible_user": "debian"},
}


@pytest.fixture(scope="module")
def render() -> Render:
    return renderer("host")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of a host, made by the release's own program."""
    place = tmp_path_factory.mktemp("keys")
    for kind in ("ed25519", "rsa"):
        made = ("-q", "-t", kind, "-N", "", "-f", f"/check/ssh_host_{kind}_key")
        accepted("ssh-keygen", *made, places={"/check": place})
    return place


@pytest.fixture
def etc(tmp_path: Path, keys: Path) -> Path:
    """A machine's /etc/ssh, in which another file of settings says the opposite of the role's."""
    (tmp_path / "sshd_config.d").mkdir()
    (tmp_path / "sshd_config").write_text("Include /etc/ssh/sshd_config.d/*.conf\nX11Forwarding yes\nUsePAM yes\n")
    (tmp_path / "sshd_config.d/50-cloud-init.conf").write_text("PasswordAuthentication yes\nPermitRootLogin yes\n")
    for key in keys.iterdir():
        (tmp_path / key.name).touch(mode=0o600)
        (tmp_path / key.name).write_bytes(key.read_bytes())
    return tmp_path


def drop_in(etc: Path, text: str) -> None:
    (etc / "sshd_config.d/00-mlflow-anywhere.conf").write_text(text)


@pytest.mark.parametrize("shape", SHAPES)
def test_sshd_accepts_every_shape(render: Render, etc: Path, shape: str) -> None:
    drop_in(etc, render("sshd.conf.j2", **SHAPES[shape]))
    # As `validate` of the task asks, and as the handler does.
    alone = "/etc/ssh/sshd_config.d/00-mlflow-anywhere.conf"
    assert accepted("/usr/sbin/sshd", "-t", "-f", alone, places={"/etc/ssh": etc}) == ""
    assert accepted("/usr/sbin/sshd", "-t", places={"/etc/ssh": etc}) == ""


def test_what_sshd_makes_of_it(render: Render, etc: Path) -> None:
    """The first file that sshd reads wins over those of others."""
    drop_in(etc, render("sshd.conf.j2", **OPS, host_ssh_timeout=900))
    said = accepted("/usr/sbin/sshd", "-T", places={"/etc/ssh": etc})
    settings = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
    wanted = {
        "port": "22",
        "permitrootlogin": "no",
        "passwordauthentication": "no",
        "kbdinteractiveauthentication": "no",
        "authenticationmethods": "publickey",
        "pubkeyauthentication": "yes",
        "permitemptypasswords": "no",
        "allowusers": "ops",
        "allowtcpforwarding": "local",
        "allowagentforwarding": "no",
        "x11forwarding": "no",
        "permittunnel": "no",
        "gatewayports": "no",
        "permitopen": "localhost:* 127.0.0.1:* [::1]:*",
        "maxauthtries": "4",
        "logingracetime": "30",
        "clientaliveinterval": "300",
        "clientalivecountmax": "3",
        "hostkeyalgorithms": "ssh-ed25519,rsa-sha2-512,rsa-sha2-256",
    }
    assert {name: settings[name] for name in wanted} == wanted
    assert "sha1" not in settings["macs"] + settings["kexalgorithms"]
    assert "cbc" not in settings["ciphers"]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("PermitRootLogin no", "PermitRootLogin nope"), ("aes256-ctr", "aes256-rtc"), ("MaxAuthTries", "MaxAuthTry")],
)
def test_sshd_refuses_a_mistake(render: Render, etc: Path, right: str, wrong: str) -> None:
    """The net holds."""
    text = render("sshd.conf.j2", **OPS)
    assert right in text
    drop_in(etc, text.replace(right, wrong))
    assert "00-mlflow-anywhere.conf" in refused("/usr/sbin/sshd", "-t", places={"/etc/ssh": etc})


def sudoers(**given: Any) -> str:
    """The file of sudo, whose text stands in its task."""
    tasks = yaml.safe_load((ROLES / "host/tasks/admin.yml").read_text())
    (copy,) = (task["ansible.builtin.copy"] for task in tasks if "ansible.builtin.copy" in task)
    return text_renderer("host")(copy["content"], **given)


@pytest.mark.parametrize("user", ["ops", "first.last", "svc-ops_1"])
def test_sudo_accepts_the_operator(tmp_path: Path, user: str) -> None:
    (tmp_path / "sudoers").write_text(sudoers(host_admin_user=user))
    assert "parsed OK" in accepted("visudo", "-c", "-f", "/check/sudoers", places={"/check": tmp_path})


def test_sudo_refuses_a_mistake(tmp_path: Path) -> None:
    """The net holds."""
    (tmp_path / "sudoers").write_text(sudoers(host_admin_user="ops").replace("NOPASSWD:", "NOPASSWORD"))
    assert "syntax error" in refused("visudo", "-c", "-f", "/check/sudoers", places={"/check": tmp_path})
