"""An update of a platform for which Debian has nothing newer than an hour ago."""

from __future__ import annotations

from instance import Instance


def test_an_update_for_which_there_is_nothing_changes_nothing(instance: Instance) -> None:
    before = instance.sh("docker ps --no-trunc --quiet | sort")
    assert instance.converge("../../playbooks/update.yml").changed == 0
    assert instance.sh("docker ps --no-trunc --quiet | sort") == before
    # The summary of later runs counts the age of the images from here on.
    assert "base:current-" in instance.sh("docker images --format '{{.Repository}}:{{.Tag}}'")
