"""The module registry_image between an engine and a registry that are simulated."""

from __future__ import annotations

from typing import Any

import pytest

from library import registry_image as module


class Shelf:
    """A registry: digest and id by image."""

    def __init__(self, **images: str) -> None:
        self.kept = {name.replace("_", ":"): f"sha256:{identity}" for name, identity in images.items()}

    def manifest(self, image: str) -> tuple[str, str]:
        identity = self.kept.get(image, "")
        return (f"digest-of-{identity}" if identity else "", identity)

    def images(self, prefix: str) -> list[str]:
        return sorted(name for name in self.kept if name.startswith(prefix))

    def remove(self, image: str, digest: str) -> None:
        assert digest == self.manifest(image)[0]
        del self.kept[image]


class Host:
    """An engine."""

    def __init__(self, shelf: Shelf, used: tuple[str, ...] = (), **images: str) -> None:
        self.shelf = shelf
        self.used = used
        self.kept = {name.replace("_", ":"): f"sha256:{identity}" for name, identity in images.items()}
        self.names = {f"id-{name}": [f"r:1/{name}"] for name in self.kept}

    def identity(self, image: str) -> str:
        return self.kept.get(image, "")

    def push(self, image: str) -> None:
        self.shelf.kept[image] = self.kept[image]

    def pull(self, image: str) -> None:
        self.kept[image] = self.shelf.kept[image]

    def images(self, prefix: str) -> dict[str, list[str]]:
        return {
            key: list(names) for key, names in self.names.items() if any(n.startswith(f"r:1/{prefix}") for n in names)
        }

    def remove(self, name: str) -> bool:
        if name in self.used:
            return False
        self.names = {key: [n for n in names if n != name] for key, names in self.names.items()}
        return True


def params(state: str, *images: str, prefix: str = "m") -> dict[str, Any]:
    return {"registry": "r:1", "state": state, "images": list(images), "prefix": prefix}


def test_only_what_is_missing_or_different_is_pushed() -> None:
    shelf = Shelf(a_1="x", b_1="old")
    host = Host(shelf, a_1="x", b_1="new", c_1="z")
    result = module.distribute(shelf, host, params("pushed", "a:1", "b:1", "c:1"), check_mode=False)
    assert result["moved"] == ["b:1", "c:1"]
    assert result["digests"] == {
        "a:1": "digest-of-sha256:x",
        "b:1": "digest-of-sha256:new",
        "c:1": "digest-of-sha256:z",
    }
    assert not module.distribute(shelf, host, params("pushed", "a:1", "b:1", "c:1"), check_mode=False)["changed"]


def test_only_what_is_missing_or_different_is_pulled() -> None:
    shelf = Shelf(a_1="x", b_1="new")
    host = Host(shelf, a_1="x", b_1="old")
    result = module.distribute(shelf, host, params("pulled", "a:1", "b:1"), check_mode=False)
    assert (result["moved"], host.kept["b:1"]) == (["b:1"], "sha256:new")
    assert not module.distribute(shelf, host, params("pulled", "a:1", "b:1"), check_mode=False)["changed"]


def test_what_the_registry_lacks_cannot_be_pulled() -> None:
    with pytest.raises(module.RegistryError, match=r"has no a:1; a run of site\.yml pushes it"):
        module.distribute(Shelf(), Host(Shelf()), params("pulled", "a:1"), check_mode=False)


def test_a_dry_run_pushes_and_removes_nothing() -> None:
    shelf = Shelf(m_1="x")
    host = Host(shelf, m_1="x", m_2="y")
    result = module.distribute(shelf, host, params("pushed", "m:1", "m:2"), check_mode=True)
    assert (result["changed"], result["digests"]) == (True, {"m:1": "digest-of-sha256:x", "m:2": ""})
    assert module.trim(shelf, host, params("trimmed"), check_mode=True)["changed"]
    assert (list(shelf.kept), len(host.images("m"))) == (["m:1"], 2)


def test_what_is_not_wanted_is_removed_but_for_what_runs() -> None:
    shelf = Shelf(m_1="x", m_2="y", m_3="z", other_1="o")
    host = Host(shelf, ("r:1/m:2",), m_1="x", m_2="y", m_3="z", other_1="o")
    result = module.trim(shelf, host, params("trimmed", "m:3"), check_mode=False)
    assert sorted(shelf.kept) == ["m:3", "other:1"]
    assert [name for names in host.names.values() for name in names] == ["r:1/m:2", "r:1/m:3", "r:1/other:1"]
    assert sorted(result["moved"]) == ["m:1", "m:2", "r:1/m:1"]


def test_a_host_drops_what_it_does_not_run_and_asks_no_registry() -> None:
    host = Host(Shelf(), ("r:1/m:2",), m_1="x", m_2="y")
    assert module.trim(Shelf(m_1="x"), host, params("dropped"), check_mode=False)["moved"] == ["r:1/m:1"]


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("a/b:1", ("a/b", "1")),
        ("10.0.0.1:5443/a/b:v1-2", ("10.0.0.1:5443/a/b", "v1-2")),
        ("10.0.0.1:5443/a/b", ("10.0.0.1:5443/a/b", "latest")),
    ],
)
def test_a_port_is_no_tag(image: str, parts: tuple[str, str]) -> None:
    assert module.split(image) == parts
