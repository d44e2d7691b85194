"""Where the data of instances' engines lie that are kept or copied: a btrfs in a file, which copies 200,000 files in a second, or plain directories."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from runner import CACHE

# Grows as it is filled, up to this.
_SIZE = 60 * 2**30
# An engine keeps to the driver whose directory holds something. Engine 20.10 would choose its own driver for btrfs, whose subvolumes no snapshot takes along.
_DRIVER = Path("overlay2/l")
_IMAGE = "ma-instance/bare:12"


class Store:
    """Directories by name; a copy of one costs next to nothing where the file system can share what is equal."""

    def __init__(self, cache: Path = CACHE) -> None:
        """Take the directory below which everything lies."""
        self._file = cache / "store.img"
        self.directory = cache / "store"
        self.slow = ""

    def open(self) -> None:
        """Mount the file system, and make it before that; `slow` says why not, where that cannot be done."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._is_btrfs():
            return
        try:
            self._make()
            _run("mount", "-o", "loop,noatime", self._file, self.directory)
        except (OSError, subprocess.CalledProcessError) as error:
            output = str(getattr(error, "stderr", "") or error).strip().splitlines()
            self.slow = (
                f"copies of engines' data are made file by file, since no btrfs can be mounted here: {output[-1]}"
            )

    def _make(self) -> None:
        if os.geteuid() != 0:
            raise PermissionError("only root can mount one")
        if not shutil.which("mkfs.btrfs"):
            _run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "btrfs-progs")
        if not self._file.exists():
            unfinished = self._file.with_suffix(".new")
            with unfinished.open("wb") as file:
                file.truncate(_SIZE)
            _run("mkfs.btrfs", "--quiet", "--force", "--metadata", "single", unfinished)
            unfinished.rename(self._file)

    def _is_btrfs(self) -> bool:
        found = subprocess.run(
            ["stat", "--file-system", "--format=%T", self.directory], capture_output=True, text=True, check=True
        )
        return found.stdout.strip() == "btrfs"

    def close(self) -> None:
        """Unmount it, so that the directory of the checkout can be removed; not while another run has instances there."""
        busy = any(name.startswith("ma-") for name in self.names())
        if not busy and os.path.ismount(self.directory):
            # A run that was green stays so where somebody still looks at a file there.
            _run("umount", "--lazy", self.directory)

    def path(self, name: str) -> Path:
        """Where something of this name lies, or would."""
        return self.directory / name

    def make(self, name: str) -> Path:
        """An empty directory for an engine's data."""
        self.remove(name)
        path = self.path(name)
        if self._is_btrfs():
            _run("btrfs", "subvolume", "create", path)
        else:
            path.mkdir()
        (path / _DRIVER).mkdir(parents=True)
        return path

    def _as_root(self, *command: str | Path) -> None:
        """An engine's files belong to root; who is not root may ask the host's engine to touch them."""
        if os.geteuid() != 0:
            mounted = f"{self.directory}:{self.directory}"
            command = (
                "docker",
                "run",
                "--rm",
                "--network",
                "none",
                "--volume",
                mounted,
                "--entrypoint",
                command[0],
                _IMAGE,
                *command[1:],
            )
        _run(*command)

    def copy(self, source: str, name: str) -> Path:
        """A copy of a directory; whoever writes to one of the two leaves the other as it is."""
        self.remove(name)
        path = self.path(name)
        if self._is_btrfs():
            _run("btrfs", "subvolume", "snapshot", self.path(source), path)
        else:
            self._as_root("cp", "--archive", "--reflink=auto", self.path(source), path)
        return path

    def note(self, name: str, mark: str) -> None:
        """Leave a mark in a directory that is complete."""
        self._as_root("touch", self.path(name) / mark)

    def remove(self, name: str) -> None:
        """Remove a directory, if it is there."""
        path = self.path(name)
        if not path.exists():
            return
        if self._is_btrfs():
            _run("btrfs", "subvolume", "delete", path)
        else:
            self._as_root("rm", "--recursive", "--force", path)

    def names(self) -> list[str]:
        """What is there."""
        return sorted(path.name for path in self.directory.iterdir()) if self.directory.is_dir() else []


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
