"""A small repository of two scenarios, for tests that write."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from runner.inputs import Tree

Files = dict[str, str]
Repository = Callable[[Files], Tree]

FILES = {
    ".gitignore": ".cache/\n*.log\n",
    "LICENSE": "",
    "ansible.cfg": "[defaults]\ninventory = inventory/local\n",
    "inventory/local/hosts.yml": "all: {}\n",
    "library/mend.py": "from ansible.module_utils.tools import mend\n",
    "module_utils/tools.py": "",
    "roles/alpha/tasks/main.yml": "- name: Mend\n  mend:\n",
    "roles/alpha/README.md": "# alpha\n",
    "roles/beta/tasks/main.yml": "- name: Do nothing\n  ansible.builtin.meta: noop\n",
    "molecule/conftest.py": "",
    "molecule/one/molecule.yml": "---\nplatforms: []\n",
    "molecule/one/converge.yml": "- hosts: all\n  roles: [alpha]\n",
    "molecule/one/tests/test_one.py": "",
    "molecule/two/molecule.yml": "---\nplatforms: []\n",
    "molecule/two/converge.yml": "- hosts: all\n  roles:\n    - role: beta\n",
}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Commit the small repository, changed by some files; gives its tree."""

    def make(files: Files) -> Tree:
        for path, text in {**FILES, **files}.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        settings = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
        for command in (["init", "--quiet"], ["add", "--all"], [*settings, "commit", "--quiet", "--message", "first"]):
            subprocess.run(["git", *command], cwd=tmp_path, check=True)
        return Tree(tmp_path)

    return make
