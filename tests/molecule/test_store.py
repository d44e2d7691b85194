"""Data of engines that are kept and copied, on whatever file system there is."""

from __future__ import annotations

from pathlib import Path

import pytest
from runner.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store where no file system can be made."""

    def refuse(_: Store) -> None:
        raise PermissionError("only root can mount one")

    monkeypatch.setattr(Store, "_make", refuse)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    found = Store(tmp_path)
    found.open()
    return found


def test_it_says_that_it_copies_file_by_file(store: Store) -> None:
    assert "file by file" in store.slow
    assert "only root can mount one" in store.slow


def test_an_empty_place_makes_every_engine_use_the_same_driver(store: Store) -> None:
    assert [path.relative_to(store.directory) for path in store.make("ma-a-deb12").rglob("*")] == [
        Path("ma-a-deb12/overlay2"),
        Path("ma-a-deb12/overlay2/l"),
    ]


def test_a_copy_and_what_it_was_made_of_change_apart(store: Store) -> None:
    (store.make("golden") / "file").write_text("first")
    store.note("golden", ".done")
    copy = store.copy("golden", "copy")
    (copy / "file").write_text("second")
    assert (store.path("golden") / "file").read_text() == "first"
    assert (copy / ".done").exists()


def test_what_an_earlier_run_left_is_replaced(store: Store) -> None:
    (store.make("golden") / "new").touch()
    (store.make("copy") / "old").touch()
    assert sorted(path.name for path in store.copy("golden", "copy").iterdir()) == ["new", "overlay2"]
    (store.make("copy") / "again").touch()
    assert not (store.make("copy") / "again").exists()


def test_what_is_removed_is_gone_and_may_be_gone_already(store: Store) -> None:
    store.make("copy")
    assert store.names() == ["copy"]
    store.remove("copy")
    store.remove("copy")
    assert store.names() == []
