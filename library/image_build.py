#!/usr/bin/python
"""Build a container image when what goes into it has changed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_build
short_description: Build a container image when what goes into it has changed
description:
  - Builds through the engine's API with its classic builder, which every engine from 20.10 on has without a plug-in.
  - A label of the image holds a digest of the Dockerfile, of the files, of the images it starts from and of O(inputs). While it is the same, nothing
    is built. This is one call, where separate tasks for comparing, copying and building take seconds for each image.
options:
  ref:
    description: Name and tag of the image.
    type: str
    required: true
  dockerfile:
    description: Text of the Dockerfile.
    type: str
    required: true
  files:
    description: Files of the build's context.
    type: list
    elements: dict
    default: []
    suboptions:
      dest:
        description: Path in the context.
        type: str
        required: true
      content:
        description: What the file holds, as text.
        type: str
      archive:
        description: A tar archive, coded in base64, that is unpacked at O(files[].dest). The filter content_archive makes one of a directory.
        type: str
      remote_src:
        description: A file or directory on the host. One that does not exist is an empty directory.
        type: path
      follow:
        description: Whether symbolic links in O(files[].remote_src) are read as what they lead to. False leaves them out, for what somebody else wrote.
        type: bool
        default: true
      executable:
        description: Whether the file may be executed.
        type: bool
        default: false
  inputs:
    description: What else decides what the image holds, in any form.
    type: raw
  args:
    description: Build arguments that do not decide what the image holds.
    type: dict
    default: {}
  renew:
    description:
      - Whether the image is built anew although nothing that goes in has changed, and without what the engine kept of earlier builds.
      - V(outdated) asks Debian whether it has newer packages than those in the image. Where that cannot be found out, the module fails.
    type: str
    choices: [never, outdated, always]
    default: never
  network:
    description:
      - Network of the RUN steps. The host's own makes its name resolution and proxies work unchanged, and is for the platform's own images.
      - V(none) for images that hold what others wrote.
    type: str
    default: host
  timeout:
    description: Seconds that a step may stay silent.
    type: int
    default: 900
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Bring an image up to date
  image_build:
    ref: example/greeting:1
    dockerfile: |
      FROM debian:trixie-slim
      COPY greeting.txt /
    files:
      - {dest: greeting.txt, content: Hello}
"""

RETURN = r"""
image:
  description: The image's id, empty where a dry run would build it.
  returned: success
  type: str
seconds:
  description: How long the build took.
  returned: changed
  type: float
newer:
  description: The packages that Debian has newer versions of, as C(name had -> has).
  returned: success
  type: list
  elements: str
"""

import base64
import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.debian import LookupFailedError, newer_packages
from ansible.module_utils.engine import Engine, EngineError, socket_path

DIGEST_LABEL = "mlflow-anywhere.inputs"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
LOG_LINES = 40
ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")


class BuildError(Exception):
    """The build failed; `log` holds the last lines of its output."""

    def __init__(self, message: str, log: str) -> None:
        super().__init__(message)
        self.log = log


def entries(files: Iterable[dict[str, Any]]) -> Iterator[tuple[str, Path | bytes, bool]]:
    """Yield path in the context, content or file, and executability of all files, in the order of their paths below each item."""
    for item in files:
        dest = item["dest"].strip("/")
        if item.get("content") is not None:
            yield dest, item["content"].encode(), item["executable"]
        elif item.get("archive") is not None:
            with tarfile.open(fileobj=io.BytesIO(base64.b64decode(item["archive"]))) as archive:
                for member in archive.getmembers():
                    source = archive.extractfile(member)
                    if source:
                        yield f"{dest}/{member.name}".lstrip("/"), source.read(), bool(member.mode & 0o100)
        else:
            yield from host_entries(dest, Path(item["remote_src"]), follow=item["follow"])


def host_entries(dest: str, source: Path, *, follow: bool) -> Iterator[tuple[str, Path | bytes, bool]]:
    """Yield the entries of a file or directory of this host; an empty directory still exists in the context."""
    if source.is_file():
        yield dest, source, os.access(source, os.X_OK)
        return
    paths = sorted(source.rglob("*")) if source.is_dir() else []
    found = [path for path in paths if path.is_file() and (follow or not path.is_symlink())]
    for path in found:
        name = path.relative_to(source).as_posix()
        yield f"{dest}/{name}".lstrip("/"), path, bool(path.stat().st_mode & 0o100)
    if not found:
        yield f"{dest}/.empty".lstrip("/"), b"", False


def digest(dockerfile: str, parents: list[str], inputs: Any, files: list[dict[str, Any]]) -> str:
    """Return the SHA-256 (hex) of all that decides what the image holds."""
    total = hashlib.sha256(json.dumps([dockerfile, parents, inputs], sort_keys=True).encode())
    for name, content, executable in entries(files):
        inner = hashlib.sha256(content if isinstance(content, bytes) else content.read_bytes()).hexdigest()
        total.update(f"\n{name}\0{inner}{executable}".encode())
    return total.hexdigest()


def parents_of(dockerfile: str) -> list[str]:
    """Return the images that the Dockerfile starts from and names outright."""
    starts = [line.split()[1] for line in dockerfile.splitlines() if line.upper().startswith("FROM ")]
    return [name for name in starts if "$" not in name and name != "scratch"]


def write_context(target: IO[bytes], dockerfile: str, files: list[dict[str, Any]]) -> None:
    """Write the build's context as a tar archive that depends on nothing but its content."""
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content, executable in [("Dockerfile", dockerfile.encode(), False), *entries(files)]:
            member = tarfile.TarInfo(name)
            member.mode = 0o755 if executable else 0o644
            with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as source:
                member.size = source.seek(0, os.SEEK_END)
                source.seek(0)
                archive.addfile(member, source)


def proxies_of_host() -> dict[str, str]:
    """Return the variables that tell how this host gets out."""
    return {name: os.environ[name] for name in PROXIES if os.environ.get(name)}


def words(text: str) -> str:
    """Return what a program said as lines of plain text. The engine paints what it has from stderr, piece by piece, and ends pieces with no line."""
    plain = ESCAPES.sub("", text).replace("\r\n", "\n")
    # Of a line that was written over, what stood there last.
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in plain.split("\n"))


def build(engine: Any, parameters: dict[str, Any], label: str, *, cached: bool = True) -> None:
    """Build the image; raise BuildError with the end of the build's output."""
    text = ""
    proxies = proxies_of_host() if parameters["network"] != "none" else {}
    with tempfile.TemporaryFile() as context:
        write_context(context, parameters["dockerfile"], parameters["files"])
        context.seek(0)
        options = {
            "t": parameters["ref"],
            "rm": 1,
            "forcerm": 1,
            # What the engine kept of earlier builds has the packages of then.
            "nocache": int(not cached),
            "networkmode": parameters["network"],
            # The engine keeps the proxies out of the image's history by itself.
            "buildargs": {**proxies, **{key: str(value) for key, value in parameters["args"].items()}},
            "labels": {DIGEST_LABEL: label},
        }
        for step in engine.build(context, options):
            text += str(step.get("stream", ""))
            if "error" in step:
                raise BuildError(words(str(step["error"])), "\n".join(words(text).splitlines()[-LOG_LINES:]))


def newer_in(engine: Any, image: dict[str, Any]) -> list[str]:
    """Return what Debian has newer than the image. Its lists are kept beside the images of the platform, for the next one."""
    lists = f"{str((image.get('RepoTags') or ['image'])[0]).partition('/')[0]}-package-lists"
    return [str(package) for package in newer_packages(engine.run, image["Id"], proxies_of_host(), lists)]


def main() -> None:
    """Run the module."""
    files = {
        "dest": {"type": "str", "required": True},
        "content": {"type": "str"},
        "archive": {"type": "str"},
        "remote_src": {"type": "path"},
        "follow": {"type": "bool", "default": True},
        "executable": {"type": "bool", "default": False},
    }
    module = AnsibleModule(
        argument_spec={
            "ref": {"type": "str", "required": True},
            "dockerfile": {"type": "str", "required": True},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": files,
                "mutually_exclusive": [("content", "archive", "remote_src")],
                "required_one_of": [("content", "archive", "remote_src")],
            },
            "inputs": {"type": "raw"},
            "args": {"type": "dict", "default": {}},
            "renew": {"type": "str", "choices": ["never", "outdated", "always"], "default": "never"},
            "network": {"type": "str", "default": "host"},
            "timeout": {"type": "int", "default": 900},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    ref = parameters["ref"]
    engine = Engine(socket_path(), parameters["timeout"])
    try:
        parents = [engine.image(name).get("Id", "") for name in parents_of(parameters["dockerfile"])]
        label = digest(parameters["dockerfile"], parents, parameters["inputs"], parameters["files"])
        before = engine.image(ref)
        had = ((before.get("Config") or {}).get("Labels") or {}).get(DIGEST_LABEL, "")
        diff = {"before": f"{ref} {had or 'does not exist'}\n", "after": f"{ref} {label}\n"}
        asks = parameters["renew"] == "outdated" and had == label
        newer = newer_in(engine, before) if asks else []
        if had == label and not newer and parameters["renew"] != "always":
            module.exit_json(changed=False, image=before["Id"], newer=newer)
        if newer:
            diff["after"] += "".join(f"{line}\n" for line in newer)
        if module.check_mode:
            module.exit_json(changed=True, image="", diff=diff, newer=newer)
        began = time.monotonic()
        build(engine, parameters, label, cached=parameters["renew"] == "never")
        image = engine.image(ref)["Id"]
        seconds = round(time.monotonic() - began, 2)
        module.exit_json(changed=True, image=image, diff=diff, newer=newer, seconds=seconds)
    except BuildError as error:
        module.fail_json(msg=f"{ref} could not be built: {error}\n{error.log}")
    except (EngineError, LookupFailedError, OSError) as error:
        module.fail_json(msg=f"{ref} could not be built: {error}")


if __name__ == "__main__":
    main()
