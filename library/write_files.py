#!/usr/bin/python
"""Write several small files in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: write_files
short_description: Write several small files in one call
description:
  - Makes the directories, then writes each file whose content or mode differs, whole or not at all. One call, where M(ansible.builtin.template) in a
    loop takes two for every file, each as long as the start of an interpreter.
options:
  directory:
    description: The directory of the files; made with its parents.
    type: path
    required: true
  directory_mode:
    description: Mode of that directory.
    type: str
    default: "0755"
  files:
    description: Content by name of the file.
    type: dict
    required: true
  mode:
    description: Mode of the files.
    type: str
    default: "0644"
  owner:
    description: Numeric owner of directory and files; left out, it stays.
    type: int
  overwrite:
    description: Whether a file that is there is compared. Without it only missing files are written.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Write the configuration
  write_files:
    directory: /etc/example
    files:
      a.conf: "{{ lookup('ansible.builtin.template', 'a.conf.j2') }}"
      b.json: "{{ settings | to_json }}"
"""

RETURN = r"""
written:
  description: Names of the files that were, or in a dry run would be, written.
  returned: always
  type: list
  elements: str
"""

import hashlib
import os
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

# Longer lines, those with the pixels of an example for instance, are told in short.
LONGEST_LINE, SHOWN = 240, 120


def settle(path: Path, mode: int, owner: int | None, *, dry: bool) -> bool:
    """Give an existing path its mode and owner; return whether they differed."""
    found = path.stat()
    differs = found.st_mode & 0o7777 != mode or owner not in {None, found.st_uid}
    if differs and not dry:
        path.chmod(mode)
        if owner is not None:
            os.chown(path, owner, -1)
    return differs


def replace(path: Path, content: bytes, mode: int, owner: int | None) -> None:
    """Write the file so that a reader sees the old or the new one, never a part."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            if owner is not None:
                os.fchown(file.fileno(), owner, -1)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def brief(text: str) -> str:
    """Return what a difference shows of a text: of a long line its beginning, and what tells it from another one."""
    return "".join(
        line if len(line) <= LONGEST_LINE else f"{line[:SHOWN]}... ({len(line)} characters, SHA-256 {digest(line)})\n"
        for line in text.splitlines(keepends=True)
    )


def digest(text: str) -> str:
    """Return the beginning of the digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "directory_mode": {"type": "str", "default": "0755"},
            "files": {"type": "dict", "required": True},
            "mode": {"type": "str", "default": "0644"},
            "owner": {"type": "int"},
            "overwrite": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    directory, owner, dry = Path(module.params["directory"]), module.params["owner"], module.check_mode
    mode, directory_mode = int(module.params["mode"], 8), int(module.params["directory_mode"], 8)
    changed, written, diff = False, [], []
    try:
        if not directory.is_dir():
            changed = True
            if not dry:
                directory.mkdir(parents=True)
        if directory.is_dir():
            changed |= settle(directory, directory_mode, owner, dry=dry)
        for name, text in module.params["files"].items():
            path, content = directory / name, str(text).encode()
            before = path.read_bytes() if path.is_file() else None
            if before is not None and (before == content or not module.params["overwrite"]):
                changed |= settle(path, mode, owner, dry=dry)
                continue
            changed = True
            written.append(name)
            diff.append(
                {
                    "before_header": str(path),
                    "after_header": str(path),
                    "before": brief((before or b"").decode(errors="replace")),
                    "after": brief(content.decode()),
                }
            )
            if not dry:
                replace(path, content, mode, owner)
    except OSError as error:
        module.fail_json(msg=f"{error.filename or directory} could not be written: {error.strerror or error}")
    module.exit_json(changed=changed, written=written, diff=diff)


if __name__ == "__main__":
    main()
