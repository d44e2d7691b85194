"""A directory of the control machine as one text, so that it reaches a host in one piece."""

import base64
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

from ansible.errors import AnsibleFilterError

IGNORED = {"__pycache__"}


def content_archive(path: str) -> str:
    """Return the files below the directory `path` as a tar archive in base64; the same files give the same text everywhere.

    Raises AnsibleFilterError where no directory stands at `path`.
    """
    root = Path(path)
    if not root.is_dir():
        raise AnsibleFilterError(f"content_archive: there is no directory {path}")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for file in sorted(path for path in root.rglob("*") if path.is_file()):
            name = file.relative_to(root)
            if IGNORED.isdisjoint(name.parts):
                content = file.read_bytes()
                # Neither times nor owners nor the umask of a clone.
                member = tarfile.TarInfo(name.as_posix())
                member.size = len(content)
                member.mode = 0o755 if file.stat().st_mode & 0o100 else 0o644
                archive.addfile(member, io.BytesIO(content))
    return base64.b64encode(buffer.getvalue()).decode()


class FilterModule:
    """Filters of this repository that look at files."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Map filter names to functions, as Ansible asks for it."""
        return {"content_archive": content_archive}
