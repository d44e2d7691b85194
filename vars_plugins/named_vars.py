"""Read group_vars and host_vars as Ansible does, and say in which file and line a mistake in YAML is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.vars.host_group_vars import VarsModule as HostGroupVars

DOCUMENTATION = """
name: named_vars
short_description: Read group_vars and host_vars, and say where a mistake in them is
description:
  - Ansible's own plug-in drops file and line of a mistake in YAML. This one looks for it again and names it.
options:
  stage:
    ini:
      - key: stage
        section: vars_host_group_vars
    env:
      - name: ANSIBLE_VARS_PLUGIN_STAGE
  _valid_extensions:
    default: [".yml", ".yaml", ".json"]
    description: Endings of the files that are read.
    env:
      - name: ANSIBLE_YAML_FILENAME_EXT
    ini:
      - key: yaml_valid_extensions
        section: defaults
    type: list
    elements: string
extends_documentation_fragment:
  - vars_plugin_staging
"""

# Lines of the file that are shown before the mistake.
SHOWN = 3
# What this means for somebody who does not know YAML.
HELP = (
    (
        "mapping values are not allowed",
        "Keys of one entry begin in the same column, and a text that holds a colon and a space stands in quotes.",
    ),
    ("found character '\\t'", "Indent with spaces: YAML knows no tabs there."),
    ("found unknown escape", "In double quotes a backslash begins an escape; use single quotes."),
    ("could not find expected ':'", "A key ends with a colon and a space."),
    ("scanning a quoted scalar", "A quote is not closed."),
    ("expected", "Look at the indentation and for a quote or bracket that is not closed."),
    ("found undefined alias", "A text that begins with * stands in quotes."),
    ("while scanning an alias", "A text that begins with * stands in quotes."),
    ("cannot start any token", "A text that begins with %, @ or ` stands in quotes."),
    ("found unhashable key", "A text that begins with {{ stands in quotes."),
)


class VarsModule(HostGroupVars):
    """Ansible's own plug-in, whose messages name file, line and excerpt."""

    def load_found_files(self, loader: Any, data: Any, found_files: list[Any]) -> Any:
        """Read the files one by one, so that the one with the mistake is known."""
        for found in found_files:
            try:
                data = super().load_found_files(loader, data, [found])
            except AnsibleError as error:
                raise AnsibleParserError(described(found, error)) from error
        return data


def described(file: Any, error: Exception) -> str:
    """Say what is wrong with a file of variables: what Ansible says where the mistake is none of YAML's."""
    path = file.decode() if isinstance(file, bytes) else str(file)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as unreadable:
        return f"{path} cannot be read: {unreadable}"
    found = mistake(text)
    if found is None:
        return f"{path}: {error}"
    problem, line, column = found
    lines = [f"{path}, line {line}, column {column}: {problem}", "", excerpt(text, line, column)]
    return "\n".join(lines + [f"\n{text}" for key, text in HELP if key in problem.lower()][:1])


def mistake(text: str) -> tuple[str, int, int] | None:
    """Return what a text is no YAML for, and its line and column from 1; None where it is YAML."""
    try:
        # Nodes only: tags such as !vault are nobody's mistake.
        for _ in yaml.compose_all(text, Loader=yaml.SafeLoader):
            pass
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = ", ".join(str(part) for part in (error.problem, error.context) if part)
        return (words, mark.line + 1, mark.column + 1) if mark else (words, 1, 1)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        column = len(before) - before.rfind("\n")
        return f"the character {chr(error.character)!r} is not allowed", before.count("\n") + 1, column
    return None


def excerpt(text: str, line: int, column: int) -> str:
    """Return the lines up to the one with the mistake, numbered, and a sign below its column."""
    lines = [*text.splitlines(), ""]
    first = max(1, line - SHOWN + 1)
    width = len(str(line))
    shown = [f"{number:>{width}}  {lines[number - 1]}" for number in range(first, min(line, len(lines)) + 1)]
    return "\n".join([*shown, f"{' ' * (width + 1 + column)}^"])
