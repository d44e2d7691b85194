"""Keep the modules that Ansible packed for sending, for the runs that come after."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from pathlib import Path

import ansible
from ansible import constants
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: module_cache
type: aggregate
short_description: Keep the modules that Ansible packed for sending
description:
  - Ansible packs each module with all that it imports, a third of a second of work each, and forgets it at the end of the run.
  - This plug-in keeps what was packed in C(.cache/modules), under a digest of everything that it is packed from.
requirements: [enabled in ansible.cfg]
"""

PLACE = Path(__file__).resolve().parents[1] / ".cache/modules"
WEEK = 7 * 86400.0


def digest() -> str:
    """Return the digest of what modules are packed from: this repository's own, by content, and Ansible's and its collections', by version."""
    total = hashlib.sha256(f"{sys.version}\0{ansible.__file__}\0{ansible.__version__}".encode())
    for directory in [*constants.DEFAULT_MODULE_PATH, *constants.DEFAULT_MODULE_UTILS_PATH]:
        for path in sorted(Path(directory).rglob("*.py")):
            total.update(f"\0{path}\0".encode() + path.read_bytes())
    for place in [Path(ansible.__file__).parents[1], *constants.COLLECTIONS_PATHS]:
        for path in sorted(Path(place).glob("ansible_collections/*/*/MANIFEST.json")):
            total.update(f"\0{path}\0".encode() + path.read_bytes())
    return total.hexdigest()[:32]


def keep(kept: Path, packed: Path) -> None:
    """Make the directory where Ansible looks for packed modules the one that is kept, unless that is somebody else's."""
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    for directory in (kept.parent, kept):
        if directory.stat().st_uid != os.geteuid():
            return
        # Who could write here could run anything on the hosts.
        directory.chmod(0o700)
    os.utime(kept)
    for other in kept.parent.iterdir():
        if other.stat().st_mtime < time.time() - WEEK:
            shutil.rmtree(other, ignore_errors=True)
    packed.symlink_to(kept, target_is_directory=True)


class CallbackModule(CallbackBase):
    """Does its work when it is loaded, before the first module is packed."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "module_cache"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        """Use what was kept."""
        super().__init__()
        try:
            keep(PLACE / digest(), Path(constants.DEFAULT_LOCAL_TMP) / "ansiballz_cache")
        except OSError as error:
            # Without it, a run takes a few seconds more.
            self._display.v(f"Packed modules are not kept: {error}")
