"""Which packages of an image Debian has newer versions of: what apt says, and what it does not."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils import debian as module

OUTPUT = """Inst openssl [3.5.1-1] (3.5.4-1~deb13u1 Debian:13.8/stable, Debian-Security:13/stable-security [amd64])
Inst libssl3t64 (3.5.4-1~deb13u1 Debian:13.8/stable [amd64]) [openssl:amd64 ]
Inst vim-common [2:9.1-1] (2:9.1-2 Debian:13.8/stable [all])
Conf openssl (3.5.4-1~deb13u1 Debian:13.8/stable [amd64])
Remv gone [1]
complete
"""


def answer(output: str, code: int = 0, errors: str = "") -> Any:
    asked: list[dict[str, Any]] = []

    def run(specification: dict[str, Any]) -> tuple[int, str, str]:
        asked.append(specification)
        return code, output, errors

    run.asked = asked  # type: ignore[attr-defined]
    return run


def test_newer_and_additional_packages_are_found_with_where_they_come_from() -> None:
    assert module.parse(OUTPUT) == [
        module.Newer("openssl", "3.5.1-1", "3.5.4-1~deb13u1", security=True),
        module.Newer("libssl3t64", "", "3.5.4-1~deb13u1", security=False),
        module.Newer("vim-common", "2:9.1-1", "2:9.1-2", security=False),
    ]
    assert [str(package) for package in module.parse(OUTPUT)][:2] == [
        "openssl 3.5.1-1 -> 3.5.4-1~deb13u1 (security)",
        "libssl3t64 missing -> 3.5.4-1~deb13u1",
    ]


def test_nothing_newer_is_said_by_apt_and_not_by_silence() -> None:
    assert module.parse("complete\n") == []
    for output in ("", "Inst openssl [1] (2 Debian:13/stable [amd64])\n"):
        with pytest.raises(module.LookupFailedError, match="apt broke off"):
            module.parse(output)


def test_a_line_that_is_not_understood_is_no_line_without_packages() -> None:
    with pytest.raises(module.LookupFailedError, match="nobody understands: 'Inst openssl of next year'"):
        module.parse("Inst openssl of next year\ncomplete\n")


def test_lists_that_cannot_be_fetched_fail() -> None:
    with pytest.raises(module.LookupFailedError, match="apt ended with 100: E: Could not resolve"):
        module.newer_packages(answer("", 100, "E: Could not resolve"), "sha256:1", {})
    # By default apt takes a failed download for a warning, and knows of nothing newer then.
    assert "APT::Update::Error-Mode=any" in module.SCRIPT
    assert module.SCRIPT.startswith("set -e\n")


def test_the_image_is_asked_as_root_with_the_proxies_of_the_host_and_nothing_of_its_own_program() -> None:
    run = answer("complete\n")
    assert module.newer_packages(run, "sha256:1", {"http_proxy": "http://p:1"}, "ours-package-lists") == []
    (asked,) = run.asked
    assert (asked["Image"], asked["User"], asked["Env"]) == ("sha256:1", "0", ["http_proxy=http://p:1"])
    assert asked["Entrypoint"] == ["/bin/sh", "-c", module.SCRIPT]
    assert asked["HostConfig"]["Binds"] == ["ours-package-lists:/var/lib/apt/lists"]
