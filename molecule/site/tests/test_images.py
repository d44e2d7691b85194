"""The images: the list of all contents of each, against what Debian and Python say in the running container, and an update."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable

from instance import Instance

# Each interpreter knows its own distributions: the container's first one, and Debian's.
ASK = r"""
import json, re, subprocess
from importlib.metadata import distributions
from urllib.parse import quote
query = ["dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package} ${Version} ${Architecture}\n"]
lines = [line.split() for line in subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()]
wanted = {f"pkg:deb/debian/{name}@{quote(version, safe='')}?arch={arch}" for state, name, version, arch in lines if state == "installed"}
debian = len(wanted)
wanted |= {f"pkg:pypi/{re.sub(r'[-_.]+', '-', d.metadata['Name']).lower()}@{quote(d.version)}" for d in distributions()}
document = json.load(open("/usr/share/sbom/image.cdx.json"))
listed = {entry["purl"] for entry in document["components"]}
print(json.dumps([document["bomFormat"], debian, len(wanted) - debian, sorted(wanted - listed), len(listed)]))
"""


def test_every_running_container_has_a_list_of_all_that_is_in_it(
    instance: Instance, figure: Callable[[str], None]
) -> None:
    names = instance.sh("docker ps --filter label=mlflow-anywhere.platform --format '{{.Names}}'").split()
    assert {"mlflow-anywhere-edge", "mlflow-anywhere-postgres", "mlflow-anywhere-tracking"} < set(names)
    found: dict[str, int] = {}
    for name in names:
        for python in ("python3", "/usr/bin/python3"):
            answer = json.loads(instance.sh(f"docker exec {name} {python} -c {shlex.quote(ASK)}"))
            form, debian, python_packages, missing, listed = answer
            assert (form, missing) == ("CycloneDX", []), (name, python)
            assert debian > 50, (name, answer)
            found[name] = max(python_packages, found.get(name, 0))
            assert listed >= debian + python_packages
    # The comparison has seen the platform's own environment, not the empty one of Debian.
    assert found["mlflow-anywhere-tracking"] > 50
    figure(f"contents: {len(names)} containers, {sum(found.values())} Python distributions, none missing in the lists")


def test_an_update_for_which_there_is_nothing_changes_nothing(instance: Instance) -> None:
    before = instance.sh("docker ps --no-trunc --quiet | sort")
    assert instance.converge("../../playbooks/update.yml").changed == 0
    assert instance.sh("docker ps --no-trunc --quiet | sort") == before
    # The summary of later runs counts the age of the images from here on.
    assert "base:current-" in instance.sh("docker images --format '{{.Repository}}:{{.Tag}}'")
