"""Look for known vulnerabilities in the locked Python packages and in the Debian packages of the platform's images.

    tools/audit.py [--pip-audit PROGRAM] [--locks-only]

Exit status: 0 nothing is known; 1 something is, or a waiver is expired, wrong or not needed; 2 something could not be looked up, which is not green.

What it cannot see: vulnerabilities that nobody has published, and those of Debian packages for which Debian has no fixed version yet. For an image the
question is whether Debian's security suite has newer packages than it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))

from module_utils.debian import LookupFailedError, Newer, newer_packages  # noqa: E402 - not a package of this environment

WAIVERS = ROOT / "tools" / "audit_waivers.toml"
PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^]]*\])?==([^\s;\\]+)", re.ASCII | re.MULTILINE)
LABEL = "mlflow-anywhere.inputs"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
# Further away than this, an end is none.
LONGEST_WAIVER = dt.timedelta(days=180)

Pin = tuple[str, str]
# What runs a program: exit code, output and errors.
Program = Callable[[list[str]], tuple[int, str, str]]


class AuditError(Exception):
    """A file that this program reads is wrong; the message says which and what is allowed."""


class Finding(NamedTuple):
    """A known vulnerability: its names, where it is, and what mends it."""

    names: tuple[str, ...]
    where: str
    mend: str


class Waiver(NamedTuple):
    """A vulnerability that is accepted until a day."""

    name: str
    reason: str
    until: dt.date


def plain(name: str) -> str:
    """The one spelling of a Python package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locks(root: Path) -> dict[Pin, list[str]]:
    """Every locked package, whatever the condition behind it, with the lock files that it is in."""
    listed = subprocess.run(["git", "ls-files", "-z", "*.in"], cwd=root, capture_output=True, text=True, check=True)  # noqa: S607
    found: dict[Pin, list[str]] = {}
    for name in sorted(filter(None, listed.stdout.split("\0"))):
        lock = Path(name).with_suffix(".txt")
        pins = PIN.findall((root / lock).read_text())
        if not pins:
            raise AuditError(f"{lock} locks nothing; `make lock` writes it")
        for package, version in pins:
            found.setdefault((plain(package), version), []).append(lock.as_posix())
    return found


def lists(pins: Iterable[Pin]) -> list[list[str]]:
    """The packages as lists of requirements in which none is named twice."""
    versions: dict[str, list[str]] = {}
    for name, version in sorted(pins):
        versions.setdefault(name, []).append(version)
    most = max((len(listed) for listed in versions.values()), default=0)
    return [
        [f"{name}=={listed[place]}" for name, listed in versions.items() if place < len(listed)]
        for place in range(most)
    ]


def python_findings(report: dict[str, Any], pins: dict[Pin, list[str]]) -> tuple[list[Finding], list[str]]:
    """What pip-audit knows, and what it does not say of packages that it was asked about."""
    findings, answered = [], set[Pin]()
    reasons: dict[str, str] = {}
    for package in report.get("dependencies", []):
        name, version = plain(package["name"]), package.get("version", "")
        if "skip_reason" in package or "vulns" not in package:
            reasons[name] = package.get("skip_reason", "no answer")
            continue
        answered.add((name, version))
        for known in package["vulns"]:
            fixed = ", ".join(known.get("fix_versions") or []) or "no version yet"
            names = tuple(dict.fromkeys([known["id"], *(known.get("aliases") or [])]))
            places = ", ".join(pins.get((name, version), ["?"]))
            findings.append(Finding(names, f"{name} {version} in {places}", f"fixed in {fixed}"))
    missing = [
        f"{name} {version} ({', '.join(places)}): {reasons.get(name, 'no answer')}"
        for (name, version), places in sorted(pins.items())
        if (name, version) not in answered
    ]
    return findings, missing


def audit_locks(program: Program, pip_audit: str, pins: dict[Pin, list[str]]) -> tuple[list[Finding], list[str]]:
    """Ask pip-audit about all locked packages."""
    with tempfile.TemporaryDirectory() as directory:
        command = [pip_audit, "--format=json", "--progress-spinner=off", "--disable-pip", "--no-deps"]
        for number, requirements in enumerate(lists(pins)):
            path = Path(directory) / f"{number}.txt"
            path.write_text("\n".join([*requirements, ""]))
            command += ["--requirement", str(path)]
        code, output, errors = program(command)
    try:
        report = json.loads(output)
    except ValueError:
        return [], [f"pip-audit ended with {code} and no report: {errors.strip()[-1000:]}"]
    return python_findings(report, pins)


def debian_finding(image: str, package: Newer) -> Finding:
    """A fixed version that Debian has and the image has not."""
    return Finding(
        (f"debian:{package.name}",), f"{package.name} {package.had} in {image}", f"fixed in {package.has}: make update"
    )


def audit_images(program: Program) -> tuple[list[Finding], list[str]]:
    """Ask, in each image of the platform, what Debian's security suite has newer."""
    listing = ["docker", "image", "ls", "--filter", f"label={LABEL}", "--filter", "dangling=false"]
    code, output, errors = program([*listing, "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"])
    images = dict(line.split(" ", 1) for line in output.splitlines() if " " in line)
    if code or not images:
        reason = errors.strip()[-500:] or f"it has none with the label {LABEL}; `make up` builds them"
        return [], [f"the images on this engine: {reason}"]
    findings, missing = [], []
    proxies = {name: os.environ[name] for name in PROXIES if os.environ.get(name)}
    for identity, name in sorted(images.items(), key=lambda item: item[1]):
        try:
            newer = newer_packages(lambda asked: program(command_of(asked)), identity, proxies)
        except LookupFailedError as error:
            missing.append(f"{name}: {error}")
        else:
            findings += [debian_finding(name, package) for package in newer if package.security]
    return findings, missing


def command_of(specification: dict[str, Any]) -> list[str]:
    """The command line that runs a container of the engine's API."""
    entrypoint, *arguments = specification["Entrypoint"]
    environment = [part for variable in specification["Env"] for part in ("--env", variable)]
    options = ["--rm", "--no-healthcheck", "--network", "host", "--user", specification["User"], *environment]
    return ["docker", "run", *options, "--entrypoint", entrypoint, specification["Image"], *arguments]


def waivers(text: str) -> list[Waiver]:
    """The waivers of a file; raise AuditError for one that is not whole."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise AuditError(f"{WAIVERS.name} is no TOML: {error}") from error
    if unknown := set(document) - {"waiver"}:
        raise AuditError(f"{WAIVERS.name} has {', '.join(sorted(unknown))}; only [[waiver]] is allowed")
    found = []
    for entry in document.get("waiver", []):
        good = set(entry) == {"id", "reason", "until"} and all(str(entry[key]).strip() for key in ("id", "reason"))
        if not good or type(entry["until"]) is not dt.date:
            raise AuditError(
                f"{WAIVERS.name}: {entry} must have id, reason and until, a day such as 2026-12-31, and nothing else"
            )
        found.append(Waiver(entry["id"], entry["reason"], entry["until"]))
    return found


def judge(findings: list[Finding], accepted: list[Waiver], today: dt.date, *, complete: bool) -> list[str]:
    """What is wrong: findings that nobody accepted, and waivers that are expired, too long, or not needed."""
    valid = {waiver.name for waiver in accepted if waiver.until >= today}
    wrong = [
        f"{' '.join(finding.names)}: {finding.where}, {finding.mend}"
        for finding in findings
        if not valid.intersection(finding.names)
    ]
    known = {name for finding in findings for name in finding.names}
    for waiver in accepted:
        if waiver.until < today:
            wrong.append(f"the waiver of {waiver.name} expired on {waiver.until}: mend it, or say why it may stay")
        elif waiver.until - today > LONGEST_WAIVER:
            wrong.append(
                f"the waiver of {waiver.name} lasts until {waiver.until}; at most {LONGEST_WAIVER.days} days are allowed"
            )
        elif complete and waiver.name not in known:
            wrong.append(f"the waiver of {waiver.name} is not needed any more: remove it from {WAIVERS.name}")
    return wrong


def run(command: list[str]) -> tuple[int, str, str]:
    """Run a program; one that cannot be started has ended with 127."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        return 127, "", str(error)
    return done.returncode, done.stdout, done.stderr


def main(arguments: list[str], program: Program = run, root: Path = ROOT) -> int:
    """Run the audit and say what it found."""
    parser = argparse.ArgumentParser(description="Known vulnerabilities in locked packages and images")
    parser.add_argument(
        "--pip-audit", default=".cache/audit/bin/pip-audit", help="the program that asks the package index"
    )
    parser.add_argument("--locks-only", action="store_true", help="leave the images of this machine out")
    options = parser.parse_args(arguments)
    try:
        accepted = waivers((root / "tools" / WAIVERS.name).read_text())
        pins = locks(root)
    except AuditError as error:
        print(error)
        return 1
    findings, missing = audit_locks(program, options.pip_audit, pins)
    if not options.locks_only:
        found, unknown = audit_images(program)
        findings, missing = findings + found, missing + unknown
    # Without the images, nobody knows whether a waiver of theirs is needed.
    complete = not missing and not options.locks_only
    wrong = judge(findings, accepted, dt.datetime.now(dt.UTC).date(), complete=complete)
    for line in wrong:
        print(f"VULNERABLE  {line}")
    for line in missing:
        print(f"NOT LOOKED UP  {line}")
    print(f"{len(pins)} locked packages: {len(wrong)} vulnerable or wrongly waived, {len(missing)} not looked up")
    return 2 if missing else 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
