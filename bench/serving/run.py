"""One run: installs, trains, starts the servers of each group, and measures them in turns."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from bench.machine import CACHE, ROOT, Failure
from bench.serving import client, environments, forms, models, page, wrk
from bench.serving.peer import OURS, PEERS, STOCK, Peer, Start
from bench.serving.plan import FOOTPRINT, IRIS_32, OPEN, RATES, SHARES, Group, Point, Settings
from bench.serving.process import Server
from bench.serving.samples import CLOCK, FAILURE, LOAD, WEIGHT, Sample, Samples

PORT = 21000
BODIES = CACHE / "serving" / "bodies"
# Answers to a whole pool; the slowest is the stock server's with 784 columns.
CHECK_SECONDS = 120.0
OPEN_CONNECTIONS = 64
# Memory is steady when it grows by less than this share within a second, three times in a row.
STEADY, STEADY_TIMES, STEADY_TRIES = 0.01, 3, 20
# Requests for each of two workers to have some.
WEIGHING_CONNECTIONS = 16

TWO_WORKERS = "two workers"

Say = Callable[[str], None]


class Pools:
    """Bodies in each peer's own form, in files for wrk and in memory to be checked."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, int], models.Pool] = {}
        self.bodies: dict[tuple[str, int, str], list[bytes]] = {}

    def pool(self, model: str, rows: int) -> models.Pool:
        """The rows and their classes."""
        if (model, rows) not in self.known:
            self.known[model, rows] = models.pool(model, rows)
        return self.known[model, rows]

    def file(self, model: str, rows: int, form: str) -> Path:
        """The bodies as a file, one a line."""
        path = BODIES / f"{model}-{rows}-{form}.txt"
        if (model, rows, form) not in self.bodies:
            known = self.pool(model, rows)
            made = forms.encode(forms.FORMS[form], known.names, known.rows)
            BODIES.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"".join(body + b"\n" for body in made))
            self.bodies[model, rows, form] = made
        return path

    def check(self, server: Server, rows: int, connections: int) -> None:
        """Send every body once and compare the classes; raise Failure if one is wrong."""
        peer, model = server.peer, server.start.model
        self.file(model, rows, peer.form)
        requests = [client.request(peer.path, body) for body in self.bodies[model, rows, peer.form]]
        answers = asyncio.run(client.ask(server.start.port, requests, connections, CHECK_SECONDS))
        expected = self.pool(model, rows).classes.tolist()
        pairs = zip(expected, answers, strict=True)
        wrong = [text for classes, answer in pairs if (text := forms.mistake(forms.FORMS[peer.form], classes, *answer))]
        if wrong:
            raise Failure(f"{len(wrong)} of {len(answers)} answers wrong: {wrong[0]}")


class Run:
    """Measures what is asked for and keeps every sample as soon as it is there."""

    def __init__(self, settings: Settings, samples: Samples, say: Say) -> None:
        self.settings = settings
        self.samples = samples
        self.say = say
        self.pools = Pools()

    def fail(self, where: str, peer: str, error: Exception) -> None:
        """Keep why a peer has no figures."""
        reason = str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {error}"
        self.say(f"  {peer}, {where}: {reason}")
        self.samples.add(Sample(FAILURE, where, peer, 0, note=" ".join(reason.split())[:500]))

    def prepare(self, names: Sequence[str]) -> list[str]:
        """Install the peers and train the models; the names of the peers that can run."""
        models.prepare(self.say)
        there = []
        for name in names:
            try:
                environments.install(PEERS[name].place, PEERS[name].requirements, self.say)
                there.append(name)
            except (Failure, OSError, subprocess.TimeoutExpired) as error:
                self.fail(page.INSTALLATION, name, error)
        return there

    @contextmanager
    def servers(self, where: str, names: Sequence[str], start: Start) -> Iterator[dict[str, Server]]:
        """The servers that came up, each of them asleep."""
        running: dict[str, Server] = {}
        started: list[Server] = []
        try:
            for number, name in enumerate(names):
                port = PORT + number
                server = Server(PEERS[name], Start(start.model, port, start.workers, start.quiet))
                started.append(server)
                try:
                    server.run()
                except (Failure, OSError) as error:
                    self.fail(where, name, error)
                    server.stop()
                    continue
                self.say(f"  {name} ready after {server.ready:.1f} s")
                server.freeze()
                running[name] = server
            yield running
        finally:
            for server in started:
                server.stop()

    def group(self, group: Group, names: Sequence[str]) -> None:
        """Measure the points of a group, each peer once in every round."""
        where = group.model + ("/quiet" if group.quiet else "")
        names = [name for name in group.peers if name in names]
        if all(self.missing(group, name) == 0 for name in names):
            return
        self.say(f"{group.name}: {', '.join(names)}")
        with self.servers(where, names, Start(group.model, 0, quiet=group.quiet)) as servers:
            order = list(servers)
            for number in range(self.settings.rounds):
                for point in group.points:
                    # Nobody always follows the same neighbour, nor is always first.
                    shift = number % max(1, len(order))
                    for name in order[shift:] + order[:shift]:
                        if group.asked(name, point):
                            self.load(servers[name], point, number)

    def missing(self, group: Group, name: str) -> int:
        """How many measurements of a peer a group still lacks."""
        return sum(
            not self.samples.has(LOAD, point.key, name, number)
            for number in range(self.settings.rounds)
            for point in group.points
            if group.asked(name, point)
        )

    def load(self, server: Server, point: Point, number: int) -> None:
        """Measure one peer once."""
        name = server.peer.name
        if self.samples.has(LOAD, point.key, name, number):
            return
        with self.awake(server):
            try:
                self.pools.check(server, point.rows, point.connections)
                bodies = self.pools.file(point.model, point.rows, server.peer.form)
                found = wrk.run(server.url, bodies, point.connections, self.settings.seconds)
            except (Failure, OSError, subprocess.TimeoutExpired) as error:
                self.fail(point.key, name, error)
                return
        self.samples.add(
            Sample(LOAD, point.key, name, number, {key: float(value) for key, value in asdict(found).items()})
        )
        self.say(
            f"  {number + 1}/{self.settings.rounds} {point.title}: {name} {found.rate:,.0f} per second, p99 {found.p99:.2f} ms"
            + (f", {found.failed} failed" if found.failed else "")
        )

    @contextmanager
    def awake(self, server: Server) -> Iterator[None]:
        """Let one server run."""
        server.thaw()
        try:
            yield
        finally:
            server.freeze()

    def by_the_clock(self, names: Sequence[str]) -> None:
        """Latencies at fixed rates."""
        self.say(OPEN)
        names = [name for name in (STOCK, OURS) if name in names]
        with self.servers(OPEN, names, Start("iris", 0)) as servers:
            capacity = self.samples.spread(LOAD, IRIS_32.key, STOCK, "rate")
            if capacity is None and STOCK in servers:
                self.load(servers[STOCK], IRIS_32, 0)
                capacity = self.samples.spread(LOAD, IRIS_32.key, STOCK, "rate")
            shares = [] if capacity is None else [(f"open/{share}%", share / 100 * capacity.median) for share in SHARES]
            plan = [(key, rate, name) for key, rate in shares for name in servers]
            plan += [(f"open/{rate}", float(rate), OURS) for rate in RATES if OURS in servers]
            for number in range(self.settings.rounds):
                for key, rate, name in plan:
                    self.clock(servers[name], key, rate, number)

    def clock(self, server: Server, key: str, rate: float, number: int) -> None:
        """Ask one peer at one rate once."""
        name = server.peer.name
        if self.samples.has(CLOCK, key, name, number):
            return
        with self.awake(server):
            try:
                self.pools.check(server, 1, OPEN_CONNECTIONS)
                found = self.ask_by_the_clock(server, rate)
            except (Failure, OSError, subprocess.TimeoutExpired) as error:
                self.fail(key, name, error)
                return
        values = {key: float(value) for key, value in asdict(found).items()}
        self.samples.add(Sample(CLOCK, key, name, number, {**values, "rate": rate}))
        self.say(
            f"  {number + 1}/{self.settings.rounds} {rate:,.0f} per second: {name} p50 {found.p50:.2f} ms, p99 {found.p99:.2f} ms"
            + (f", {found.failed} failed" if found.failed else "")
        )

    def ask_by_the_clock(self, server: Server, rate: float) -> client.Latencies:
        """Run the client in the environment that has uvloop."""
        asked = {
            "bodies": str(self.pools.file("iris", 1, server.peer.form)),
            "path": server.peer.path,
            "port": server.start.port,
            "rate": rate,
            "seconds": self.settings.seconds,
            "connections": OPEN_CONNECTIONS,
        }
        ran = subprocess.run(
            [str(PEERS[OURS].bin / "python"), "-m", "bench.serving.client"],
            cwd=ROOT,
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            check=False,
            timeout=self.settings.seconds + 60,
        )
        if ran.returncode:
            raise Failure(f"the client said: {ran.stderr[-500:]}")
        return client.Latencies(**json.loads(ran.stdout))

    def weigh(self, names: Sequence[str]) -> None:
        """Memory of one worker and of a second, and how long a start takes, each server alone on the machine."""
        self.say(FOOTPRINT)
        for number in range(self.settings.starts):
            for name in names:
                if self.samples.has(WEIGHT, FOOTPRINT, name, number):
                    continue
                try:
                    self.weigh_peer(PEERS[name], number)
                except (Failure, OSError) as error:
                    self.fail(FOOTPRINT, name, error)

    def weigh_peer(self, peer: Peer, number: int) -> None:
        """Start a peer, use it, weigh it; in the first round with two workers too."""
        server = Server(peer, Start("iris", PORT))
        one = self.weigh_server(server)
        values = {"ready": server.ready, "one": float(one)}
        if number == 0:
            try:
                values["further"] = float(self.weigh_server(Server(peer, Start("iris", PORT, workers=2))) - one)
            except (Failure, OSError) as error:
                self.fail(TWO_WORKERS, peer.name, error)
        self.samples.add(Sample(WEIGHT, FOOTPRINT, peer.name, number, values))
        more = f", a further worker {values['further'] / 1e6:.0f} MB" if "further" in values else ""
        self.say(f"  {peer.name}: ready after {server.ready:.1f} s, {one / 1e6:.0f} MB{more}")

    def weigh_server(self, server: Server) -> int:
        """Memory of a server after some requests, once it does not grow any more."""
        try:
            server.run()
            self.pools.check(server, 1, WEIGHING_CONNECTIONS)
            size, steady = server.memory(), 0
            for _ in range(STEADY_TRIES):
                time.sleep(1)
                self.pools.check(server, 1, WEIGHING_CONNECTIONS)
                before, size = size, server.memory()
                steady = steady + 1 if abs(size - before) < STEADY * before else 0
                if steady == STEADY_TIMES:
                    break
            return size
        finally:
            server.stop()
