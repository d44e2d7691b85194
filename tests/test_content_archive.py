"""The filter content_archive: what changes an image must change it, and nothing else may."""

from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError

from filter_plugins.content_archive import content_archive


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "package").mkdir(parents=True)
    (root / "package/a.py").write_text("a = 1\n")
    (root / "data.gz").write_bytes(b"\x1f\x8b\x00\xff")
    return root


def test_a_copy_has_the_same_archive(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    (copy / "package").mkdir(parents=True)
    (copy / "data.gz").write_bytes(b"\x1f\x8b\x00\xff")
    (copy / "package/a.py").write_text("a = 1\n")
    assert content_archive(str(tree)) == content_archive(str(copy))


def test_compiled_files_do_not_count(tree: Path) -> None:
    before = content_archive(str(tree))
    (tree / "package/__pycache__").mkdir()
    (tree / "package/__pycache__/a.pyc").write_bytes(b"x")
    assert content_archive(str(tree)) == before


def test_content_name_and_executable_bit_count(tree: Path) -> None:
    archives = [content_archive(str(tree))]
    (tree / "package/a.py").write_text("a = 2\n")
    archives.append(content_archive(str(tree)))
    (tree / "package/a.py").rename(tree / "package/b.py")
    archives.append(content_archive(str(tree)))
    (tree / "package/b.py").chmod(0o755)
    archives.append(content_archive(str(tree)))
    assert len(set(archives)) == len(archives)


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AnsibleFilterError, match="there is no directory"):
        content_archive(str(tmp_path / "missing"))
