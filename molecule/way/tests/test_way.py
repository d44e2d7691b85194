"""The whole way in the cloud, in the order of the tests: from a token to predictions, to what attackers and accidents find, and back to nothing."""

import json
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cis
import pytest
import reach
import routes
from droplet.control import ROOT, Operator, at_work
from instance import Instance, wait_until

Figure = Callable[[str], None]


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with at_work(tmp_path_factory.mktemp("operator"), "way") as person:
        status, _, output = person.droplet()
        assert status == 0, output
        yield person


# What is deployed: one small model, trained on the machine, then anew from the laptop.
DEPLOYED = {
    "edge_tls": "selfsigned",
    "served_models": [{"name": "iris", "engine": "api", "memory": "512m"}],
    "serving_default_model": "iris",
    "training_jobs": [{"task": "iris", "model": "iris"}],
    # Settings that the machine shares with the test host are left alone.
    "host_kernel_settings": {"net.ipv4.tcp_syncookies": 1, "net.ipv4.conf.all.accept_redirects": 0},
    "platform_admin_password": "Only for the droplet @:/%#?&+=$! 1",
}
PROMISED = [22, 80, 443]
IRIS = {"sepal length (cm)": 5.1, "sepal width (cm)": 3.5, "petal length (cm)": 1.4, "petal width (cm)": 0.2}


class Shell:
    """What testinfra's host does for the tests of other scenarios: commands on the machine."""

    def __init__(self, operator: Operator) -> None:
        name = operator.machines.name(operator.ours)
        self.container = operator.machines.engine.containers.get(name)
        self.backend = SimpleNamespace(get_hostname=lambda: name)

    def run(self, command: str) -> SimpleNamespace:
        done = self.container.exec_run(["sh", "-c", command], demux=True)
        output, errors = (part.decode(errors="replace") if isinstance(part, bytes) else "" for part in done.output)
        return SimpleNamespace(rc=done.exit_code, stdout=output, stderr=errors)


@pytest.fixture
def machine(operator: Operator) -> Instance:
    return Instance(Shell(operator))


def public(operator: Operator, family: str = "v4") -> str:
    return str(next(item["ip_address"] for item in operator.ours["networks"][family] if item["type"] == "public"))


def site(operator: Operator, *arguments: str, playbook: str = "site.yml") -> tuple[int, str]:
    """Run a playbook against the droplet; gives what it changed there and its output."""
    done = operator.run("ansible-playbook", playbook, "-e", json.dumps(DEPLOYED), *arguments)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-6000:]
    changed = re.search(r"^mlflow +: .*?changed=(\d+)", output, re.MULTILINE)
    assert changed, output[-3000:]
    return int(changed[1]), output


def secrets(operator: Operator) -> dict[str, str]:
    """What was generated for this inventory, and what it sets itself."""
    directory = operator.home / ".config/mlflow-anywhere/droplet"
    plain = {"known_hosts"}
    found = {path.name: path.read_text().strip() for path in directory.iterdir() if path.name not in plain}
    found = {name: value for name, value in found.items() if "BEGIN CERTIFICATE" not in value}
    return {**found, "platform_admin_password": str(DEPLOYED["platform_admin_password"])}


def certificate(operator: Operator) -> Path:
    """The certificate that a run put on the control machine for clients to trust."""
    directory = operator.home / ".config/mlflow-anywhere/droplet"
    (found,) = [path for path in directory.iterdir() if path.is_file() and "BEGIN CERTIFICATE" in path.read_text()]
    return found


def ask(operator: Operator, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
    """What a client on another machine gets, which trusts the platform's certificate and nothing else."""
    context = ssl.create_default_context(cafile=certificate(operator))
    url = f"https://{public(operator)}{path}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(request, timeout=60) as answer:
            return int(answer.status), answer.read().decode()
    except urllib.error.HTTPError as error:
        return int(error.code), error.read().decode()


def bearer(operator: Operator) -> dict[str, str]:
    return {"Authorization": f"Bearer {secrets(operator)['operator_key']}"}


def predict(operator: Operator) -> tuple[int, str]:
    return ask(operator, "/models/iris/invocations", {"dataframe_records": [IRIS]}, **bearer(operator))


def test_a_dry_run_on_the_bare_machine_works(operator: Operator, machine: Instance) -> None:
    machine.sh("docker load --quiet --input /var/cache/images/platform.tar")
    _, output = site(operator, "--check", "--diff")
    assert "+AllowUsers ops" in output
    assert machine.containers() == []


def test_the_same_playbook_installs_the_platform(operator: Operator, machine: Instance) -> None:
    changed, output = site(operator)
    assert changed > 0
    assert f"https://{public(operator)}" in output
    assert machine.sh("sysctl -n net.ipv4.conf.all.accept_redirects").strip() == "0"
    assert "root" not in machine.sh("sshd -T | grep -i ^allowusers")


def test_a_second_run_changes_nothing_and_says_no_secret(operator: Operator, figure: Figure) -> None:
    changed, output = site(operator, "-vvv")
    told = [name for name, value in secrets(operator).items() if value in output or json.dumps(value)[1:-1] in output]
    assert (changed, told) == (0, [])
    figure(
        f"second run of site.yml against the droplet: changed={changed}; of {len(secrets(operator))} secrets none in -vvv"
    )


def test_a_dry_run_on_the_converged_machine_changes_nothing(operator: Operator) -> None:
    assert site(operator, "--check", "--diff")[0] == 0


def test_the_client_code_is_that_of_a_laptop(operator: Operator) -> None:
    """The training package, unchanged: only environment variables say where it logs."""
    environment = {
        **operator.environment,
        "NO_PROXY": "*",
        "MLFLOW_TRACKING_URI": f"https://{public(operator)}",
        "MLFLOW_TRACKING_USERNAME": "admin",
        "MLFLOW_TRACKING_PASSWORD": str(DEPLOYED["platform_admin_password"]),
        "MLFLOW_TRACKING_SERVER_CERT_PATH": str(certificate(operator)),
    }
    command = [sys.executable, "-m", "training", "iris"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    signed_in = routes.basic("admin", str(DEPLOYED["platform_admin_password"]))
    status, found = ask(operator, "/api/2.0/mlflow/registered-models/get?name=iris", **signed_in)
    assert (status, '"2"' in found) == (200, True), found
    _, output = site(operator, playbook="playbooks/serve.yml")
    assert "failed=0" in output


def test_predictions_come_from_anywhere_with_a_key(operator: Operator) -> None:
    status, answer = predict(operator)
    assert status == 200, answer
    assert json.loads(answer)["predictions"] == [0]
    path = "/models/iris/invocations"
    assert ask(operator, path, {"dataframe_records": [IRIS]})[0] == 401
    assert ask(operator, path, {"dataframe_records": [IRIS]}, Authorization="Bearer " + "x" * 43)[0] == 401


ODD: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "doubled slash": lambda path: "/" + path,
    "percent-encoded": lambda path: path[0] + "%" + format(ord(path[1]), "x") + path[2:] if len(path) > 1 else path,
    "parameter": lambda path: path + ";x=1",
    "upper case": str.upper,
    "dot segment": lambda path: "/x/.." + path,
    "encoded twice": lambda path: path[0] + "%25" + format(ord(path[1]), "x") + path[2:] if len(path) > 1 else path,
}


def test_no_route_answers_without_credentials_however_it_is_spelled(machine: Instance, figure: Figure) -> None:
    """Every route of the server's own tables and of the models; what is malformed or unknown may be refused as such."""
    rules = [(method, routes.path(rule)) for method, rule in routes.table(machine) if rule != "/health"]
    rules += [
        ("POST", "/models/iris/invocations"),
        ("POST", "/models/iris/predict"),
        ("GET", "/models"),
        ("GET", "/ready"),
    ]
    rules += [
        ("GET", f"/models/iris/{name}")
        for name in ("ping", "health", "version", "metadata", "docs", "openapi.json", "v2")
    ]
    answers: dict[int, int] = {}
    for name, spell in ODD.items():
        requests = [(method, spell(path)) for method, path in rules]
        found = routes.statuses(machine, "https://127.0.0.1", requests)
        wrong = [(status, *request) for status, request in zip(found, requests, strict=True) if status not in REFUSED]
        assert wrong == [], name
        for status in found:
            answers[status] = answers.get(status, 0) + 1
    figure(f"{len(rules)} routes in {len(ODD)} spellings without credentials: {dict(sorted(answers.items()))}")


REFUSED = {400, 401, 403, 404, 405, 421, 429}


def test_every_container_fulfils_the_benchmark(machine: Instance, figure: Figure) -> None:
    looked_at, found = cis.audit(machine)
    figure(
        f"CIS Docker Benchmark on the droplet: {looked_at} items looked at, {len(found)} do not hold, {len(cis.WAIVERS)} waived"
    )
    assert found == []


def test_a_model_reaches_nothing(machine: Instance) -> None:
    (container,) = reach.models(machine)
    assert reach.reached(machine, container) == []


def test_secrets_stand_in_no_readable_place(operator: Operator, machine: Instance) -> None:
    found = secrets(operator)
    assert {"operator_key", "postgres_password"} <= set(found)
    assert machine.leaks(found) == {}


def test_ssh_has_nothing_to_be_said_against_it(operator: Operator, machine: Instance, figure: Figure) -> None:
    audit = subprocess.run(
        [Path(sys.executable).with_name("ssh-audit"), "--no-colors", public(operator)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "# key exchange algorithms" in audit.stdout, audit.stdout + audit.stderr
    found = [line for line in audit.stdout.splitlines() if re.search(r"\[(fail|warn)\]", line)]
    # Clients before OpenSSH 8.5, and Ansible's paramiko, have no exchange that withstands quantum computers.
    allowed = [line for line in found if "curve25519-sha256" in line and "[warn]" in line and "post-quantum" in line]
    assert found == allowed
    settings = dict(line.split(" ", 1) for line in machine.sh("sshd -T").splitlines() if " " in line)
    wanted = {
        "permitrootlogin": "no",
        "passwordauthentication": "no",
        "kbdinteractiveauthentication": "no",
        "x11forwarding": "no",
    }
    assert {name: settings[name] for name in wanted} == wanted
    figure(f"ssh-audit: no failure, {len(found)} warnings, all of them for a reason")


def scanned(operator: Operator, ports: set[int] | None = None) -> dict[str, list[int]]:
    """The open ones of these ports, or of all 65,535, from another machine's point of view."""
    addresses = [public(operator, family) for family in ("v4", "v6")]
    chosen = ["--ports", ",".join(map(str, sorted(ports)))] if ports else []
    command = [sys.executable, str(ROOT / "molecule/shared/files/scan.py"), *chosen, *addresses]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(zip(("v4", "v6"), json.loads(done.stdout), strict=True))


def behind_the_rules(machine: Instance) -> set[int]:
    """Every port on which somebody listens on the machine, at whatever address, and those that containers publish."""
    listening = {int(line.split()[3].rpartition(":")[2]) for line in machine.sh("ss -Hltn").splitlines()}
    published = {int(port) for port in re.findall(r":(\d+)->", machine.sh("docker ps --format '{{.Ports}}'"))}
    return listening | published | set(PROMISED)


def test_exactly_the_promised_ports_answer(operator: Operator, machine: Instance, figure: Figure) -> None:
    """A container that publishes another port is no way in, whatever happens to the rules, the engine or the machine.

    All ports are asked in the first state and after the reboot (below), in the others those that could answer.
    """
    machine.sh(
        "docker run --detach --name open --restart unless-stopped --publish 8081:8081 mlflow-anywhere/base:13 python3 -m http.server 8081"
    )
    states = {
        "running": "true",
        "its unit stopped": "systemctl stop mlflow-anywhere-firewall",
        "its unit started": "systemctl start mlflow-anywhere-firewall",
        "ruleset flushed by others": "nft delete table inet mlflow_anywhere; sleep 5",
        "engine restarted": "systemctl restart docker && sleep 5",
    }
    found: dict[str, dict[str, list[int]]] = {}
    for state, command in states.items():
        machine.sh(command)
        if state == "engine restarted":
            wait_until(
                lambda: predict(operator)[0] == 200, 180, "the platform is not back after a restart of the engine"
            )
        inside = behind_the_rules(machine)
        assert 8081 in inside
        found[state] = scanned(operator, inside if found else None)
    assert found == {state: {"v4": PROMISED, "v6": PROMISED} for state in states}
    figure(
        f"65,535 ports, IPv4 and IPv6, and those with a server behind in {len(states) - 1} more states of firewall and engine:"
        f" {PROMISED} each time"
    )


def test_without_the_rules_the_scan_finds_more(operator: Operator, machine: Instance) -> None:
    machine.sh("systemctl stop mlflow-anywhere-firewall-watch && nft delete table inet mlflow_anywhere")
    try:
        assert 8081 in scanned(operator, {8081})["v4"]
    finally:
        machine.sh("systemctl restart mlflow-anywhere-firewall mlflow-anywhere-firewall-watch")


def test_it_comes_back_after_a_reboot_on_a_gigabyte_of_memory(
    operator: Operator, machine: Instance, figure: Figure
) -> None:
    container = operator.machines.engine.containers.get(operator.machines.name(operator.ours))
    container.update(mem_limit="1g", memswap_limit="1g")
    container.restart(timeout=60)
    seconds = wait_until(lambda: answers(operator), 240, "the platform is not back after a reboot")
    assert scanned(operator) == {"v4": PROMISED, "v6": PROMISED}
    used = machine.sh("docker stats --no-stream --format '{{.Name}} {{.MemUsage}}'")
    mebibytes = sum(float(value) for value in re.findall(r" ([0-9.]+)MiB /", used))
    killed = [name for name in machine.containers() if machine.inspect(name)[0]["State"]["OOMKilled"]]
    assert killed == []
    figure(
        f"whole platform with one model within 1 GiB and no swap: predictions {seconds:.0f} s after the reboot, containers use {mebibytes:.0f} MiB"
    )


def answers(operator: Operator) -> bool:
    try:
        return predict(operator)[0] == 200
    except OSError:
        return False


def test_removal_leaves_nothing(operator: Operator) -> None:
    status, _, output = operator.droplet("-e", "state=absent")
    assert status == 0, output
    assert operator.machines.running() == []
