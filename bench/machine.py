"""The test instance that is measured: a fresh Debian with systemd, made as Molecule's scenarios make theirs, and what is asked of it."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import kill
from bench.load import Plan, Record

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "bench"
BIN = Path(sys.executable).parent
REPOSITORY = "/root/mlflow-anywhere"
TOOLS = "/opt/bench"
# Ansible names a task when it begins only if it names skipped ones too.
ANSIBLE = (
    f"cd {REPOSITORY} && LC_ALL=C.UTF-8 ANSIBLE_DISPLAY_SKIPPED_HOSTS=true ANSIBLE_CONFIG={REPOSITORY}/ansible.cfg "
)
RESULT = re.compile(r"^(ok|changed): \[")
PHASE = re.compile(r"^\s*(?P<seconds>\d+\.\d)\s+(?P<share>\d+)%\s+(?P<name>\S.*)$")

HTTP_CLIENT = (ROOT / "molecule" / "shared" / "files" / "http_client.py").read_text()


class Failure(Exception):  # noqa: N818 - what was measured failed, not this program
    """A command in the instance did not do what it must."""


@dataclass
class Answer:
    """An HTTP answer; status 0 means that nobody answered, and body says why."""

    status: int
    headers: dict[str, str]
    body: str

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Run:
    """A run of a playbook: its lines with the moment of each, and how it ended."""

    began: float
    lines: list[tuple[float, str]] = field(default_factory=list)
    ended: float = 0.0
    code: int = 0

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began

    @property
    def text(self) -> str:
        """All it printed."""
        return "".join(line for _, line in self.lines)

    @property
    def tasks(self) -> list[tuple[str, float, float]]:
        """Name, start and seconds of every task."""
        starts: list[tuple[str | None, float]] = []
        for at, line in self.lines:
            name = kill.task_name(line)
            if name or kill.PLAY.match(line.rstrip()) or line.startswith("PLAY RECAP"):
                starts.append((name, at))
        ends = [at for _, at in starts[1:]] + [self.ended]
        return [(name, at, end - at) for (name, at), end in zip(starts, ends, strict=True) if name]

    @property
    def worked(self) -> list[int]:
        """Numbers, from 1, of the tasks that did something, and did not only include others or get skipped."""
        found: list[int] = []
        number = 0
        for _, line in self.lines:
            if kill.task_name(line):
                number += 1
            elif number and RESULT.match(line) and found[-1:] != [number]:
                found.append(number)
        return found

    @property
    def changed(self) -> int | None:
        """How many tasks changed something; None if the run did not get to its end."""
        found = [int(match["changed"]) for _, line in self.lines if (match := kill.RECAP.match(line))]
        return sum(found) if found else None

    @property
    def phases(self) -> list[tuple[str, float]]:
        """Name and seconds of every play, from the table at the end of a run."""
        found: list[tuple[str, float]] = []
        inside = False
        for _, line in self.lines:
            if line.startswith("SECONDS ***"):
                inside, found = True, []
            elif inside and (match := PHASE.match(line)):
                found.append((match["name"], float(match["seconds"])))
        return [phase for phase in found if phase[0] != "the whole run"]

    def began_task(self, name: str) -> float | None:
        """When the first task whose name has this in it began."""
        return next((at for task, at, _ in self.tasks if name in task), None)


@dataclass
class Load:
    """A load under way; its records grow while it lasts."""

    records: list[Record] = field(default_factory=list)
    trouble: str = ""

    @property
    def failed(self) -> list[Record]:
        """What was not answered rightly."""
        return [record for record in self.records if not record.good]

    def since(self, moment: float, until: float = float("inf")) -> list[Record]:
        """Records of requests that ended after a moment and began before another one."""
        return [record for record in self.records if record.end >= moment and record.start <= until]


class Machine:
    """One test instance."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def release(self) -> str:
        """Its release of Debian."""
        return self.name.rpartition("deb")[2]

    def _playbook(self, playbook: str, image: str) -> None:
        platforms = {"molecule_yml": {"platforms": [{"name": self.name, "image": image}]}}
        ran = subprocess.run(
            [str(BIN / "ansible-playbook"), f"molecule/shared/{playbook}.yml", "-e", json.dumps(platforms)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
                "LC_ALL": "C.UTF-8",
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_FORCE_COLOR": "0",
                "MOLECULE_SCENARIO_NAME": "bench",
            },
        )
        if ran.returncode:
            raise Failure(
                f"molecule/shared/{playbook}.yml failed for {self.name}:\n{(ran.stdout + ran.stderr)[-4000:]}"
            )

    def create(self, image: str) -> None:
        """Make the instance anew and wait until it has booted."""
        self.destroy()
        self._playbook("create", image)
        for _ in range(120):
            if self.sh("systemctl is-system-running 2>&1", check=False).strip() in {"running", "degraded"}:
                break
            time.sleep(0.5)
        else:
            raise Failure(f"{self.name} does not boot")
        self.put_tools()

    def put_tools(self) -> None:
        """Copy the programs that run inside the instance, as they are now."""
        for tool in ("load.py", "kill.py", "stamp.py"):
            self.put(Path(__file__).with_name(tool).read_bytes(), f"{TOOLS}/{tool}")

    def destroy(self) -> None:
        """Remove the instance and its volumes."""
        subprocess.run(["docker", "rm", "--force", "--volumes", self.name], capture_output=True, check=False)

    def sh(self, command: str, *, check: bool = True, timeout: float = 600, given: bytes | None = None) -> str:
        """Output of a shell command."""
        ran = subprocess.run(
            ["docker", "exec", "-i", self.name, "sh", "-c", command],
            input=given if given is not None else b"",
            capture_output=True,
            check=False,
            timeout=timeout,
        )
        if check and ran.returncode:
            output = (ran.stdout + ran.stderr).decode(errors="replace")
            raise Failure(f"{self.name}: {command[:300]!r} ended with {ran.returncode}\n{output[-3000:]}")
        return ran.stdout.decode(errors="replace")

    def put(self, content: bytes, target: str) -> None:
        """Write a file."""
        self.sh(f"mkdir -p {shlex.quote(os.path.dirname(target))} && cat >{shlex.quote(target)}", given=content)  # noqa: PTH120 - a path in the instance

    def install(self, *packages: str) -> None:
        """Install Debian packages."""
        self.sh(
            "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "
            + " ".join(packages)
        )

    def python(self, script: str, *arguments: str, timeout: float = 600) -> Any:
        """What a Python script prints, as JSON."""
        words = " ".join(map(shlex.quote, arguments))
        return json.loads(self.sh(f"python3 - {words}", given=script.encode(), timeout=timeout))

    def http(self, url: str, body: Any = None, *, method: str = "", timeout: float = 30) -> Answer:
        """Ask from inside the instance."""
        asked = {
            "url": url,
            "body": None if body is None else json.dumps(body),
            "headers": {"Content-Type": "application/json"},
            "method": method or ("GET" if body is None else "POST"),
            "timeout": timeout,
        }
        return Answer(*self.python(HTTP_CLIENT, base64.b64encode(json.dumps(asked).encode()).decode()))

    def stream(self, command: str, show: Callable[[str], None] = lambda _: None, timeout: float = 1800) -> Run:
        """Run a command and note when each of its lines came."""
        run = Run(time.time())
        with subprocess.Popen(
            ["docker", "exec", self.name, "sh", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
        ) as child:
            timer = threading.Timer(timeout, child.kill)
            timer.start()
            assert child.stdout
            for line in child.stdout:
                run.lines.append((time.time(), line))
                show(line)
            run.code = child.wait()
            timer.cancel()
        run.ended = time.time()
        return run

    def play(self, playbook: str = "site.yml", *arguments: str, check: bool = True) -> Run:
        """Run a playbook of the instance's copy of the repository."""
        run = self.stream(f"{ANSIBLE} {shlex.join(playbook_command(playbook, *arguments))}")
        if check and run.code:
            raise Failure(f"{self.name}: {playbook} ended with {run.code}\n{run.text[-4000:]}")
        return run

    def play_killed(
        self, playbook: str, *arguments: str, after: int = 0, at: str = "", delay: float = 0, tree: bool = True
    ) -> kill.Ended:
        """Run a playbook and kill it in its k-th task, or in the first one with `at` in its name."""
        asked = shlex.quote(json.dumps({"after": after, "at": at, "delay": delay, "tree": tree}))
        command = shlex.join(playbook_command(playbook, *arguments))
        text = self.sh(f"{ANSIBLE} python3 {TOOLS}/kill.py {asked} {command}", timeout=1800)
        said = json.loads(text.splitlines()[-1])
        return kill.Ended(said["tasks"], said["killed"], said["code"])

    @contextmanager
    def load(self, plan: Plan) -> Iterator[Load]:
        """Send a load as long as the block lasts."""
        found = Load()
        with subprocess.Popen(
            ["docker", "exec", "-i", self.name, "python3", f"{TOOLS}/load.py", json.dumps(asdict(plan))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as child:

            def read() -> None:
                assert child.stdout
                for line in child.stdout:
                    # An instance that is gone leaves half a line.
                    with suppress(ValueError, TypeError):
                        found.records.append(Record.parse(line))

            reader = threading.Thread(target=read, daemon=True)
            reader.start()
            try:
                yield found
            finally:
                assert child.stdin
                assert child.stderr
                child.stdin.close()
                reader.join(timeout=plan.timeout + 30)
                if child.poll() is None:
                    child.kill()
                found.trouble = child.stderr.read()
                found.records.sort(key=lambda record: record.start)

    def clone(self) -> float:
        """Clone the committed state of this repository into the instance; return how long the clone took."""
        bundle = subprocess.run(
            ["git", "bundle", "create", "--quiet", "-", "HEAD"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
        self.put(bundle, "/root/repository.bundle")
        began = time.time()
        self.sh(f"git clone --quiet /root/repository.bundle {REPOSITORY}")
        return time.time() - began

    # What the platform's clients do.

    def mlflow(self, path: str, body: Any = None, method: str = "") -> Any:
        """Ask the tracking server's API."""
        answer = self.http(f"http://127.0.0.1:5000/api/2.0/mlflow/{path}", body, method=method)
        if answer.status != 200:  # noqa: PLR2004
            raise Failure(f"{path}: {answer.status} {answer.body[:500]}")
        return answer.json()

    def alias(self, model: str, version: str, alias: str = "champion") -> None:
        """Point an alias at a version."""
        self.mlflow("registered-models/alias", {"name": model, "alias": alias, "version": version})

    def champion(self, model: str) -> str:
        """The version behind the alias."""
        answer = self.mlflow(f"registered-models/alias?name={model}&alias=champion")
        return str(answer["model_version"]["version"])

    def client(self, script: str, *arguments: str) -> str:
        """What a script with the plain MLflow client prints; it runs in the runtime image, which has one."""
        words = " ".join(map(shlex.quote, arguments))
        return self.sh(
            "docker run --rm -i --network host --env MLFLOW_TRACKING_URI=http://127.0.0.1:5000 --env MPLCONFIGDIR=/tmp"
            f" --tmpfs /tmp --volume {TOOLS}:{TOOLS}:ro --workdir /tmp {self.image('runtime')} python - {words}",
            given=script.encode(),
        )

    def image(self, name: str) -> str:
        """Name and tag of one of the platform's images."""
        listed = self.sh("docker images --format '{{.Repository}}:{{.Tag}}'").split()
        return next(image for image in listed if re.fullmatch(rf"mlflow-anywhere/{name}:.*", image))

    def predict(self, model: str, body: Any, timeout: float = 30) -> Answer:
        """One prediction through the edge."""
        return self.http(f"http://127.0.0.1:8000/models/{model}/invocations", body, timeout=timeout)


def playbook_command(playbook: str, *arguments: str) -> list[str]:
    """The command line that runs a playbook, as the Makefile does."""
    return [".venv/bin/ansible-playbook", "-i", "inventory/local", playbook, *arguments]


@contextmanager
def alone() -> Iterator[None]:
    """Refuse a second measurement at the same time: each would be the other's load."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("A benchmark or campaign is running already; wait for it.")
        yield


def median(values: Sequence[float]) -> float:
    """The median; 0 of nothing."""
    return statistics.median(values) if values else 0.0
