"""What a YAML or Python file names: paths, modules that it imports, packages that it runs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import Any


def mappings(data: Any) -> Iterator[dict[Any, Any]]:
    """All mappings in what a YAML file holds, in depth."""
    if isinstance(data, dict):
        yield data
    for value in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        yield from mappings(value)


def strings(data: Any) -> Iterator[str]:
    """All texts in what a YAML file holds, keys left out."""
    if isinstance(data, str):
        yield data
    for value in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        yield from strings(value)


def _operands(node: ast.expr) -> Iterator[ast.expr]:
    """What stands between the slashes of `a / "b" / c`."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        yield from _operands(node.left)
        yield node.right
    else:
        yield node


def _constant(node: ast.AST) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def literals(node: ast.AST) -> Iterator[str]:
    """Every text of a Python file; `"a" / "b"` is one, a/b, since a part of it would name more than is meant."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        for is_text, group in groupby(_operands(node), lambda operand: _constant(operand) is not None):
            if is_text:
                yield "/".join(_constant(operand) or "" for operand in group)
            else:
                for operand in group:
                    yield from literals(operand)
    elif (text := _constant(node)) is not None:
        yield text
    else:
        for child in ast.iter_child_nodes(node):
            yield from literals(child)


def imports(nodes: list[ast.AST], package: str) -> Iterator[str]:
    """Dotted names of what a file imports; of `from a import b` both a and a.b, since b may be a module. `package` is the file's directory."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split("/")[: len(package.split("/")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def programs(nodes: list[ast.AST]) -> Iterator[str]:
    """Packages that a file runs: X of `["python", "-m", "X"]`."""
    for node in nodes:
        if isinstance(node, ast.List | ast.Tuple | ast.Call):
            items = node.args if isinstance(node, ast.Call) else node.elts
            yield from (name for flag, item in pairwise(items) if _constant(flag) == "-m" and (name := _constant(item)))


def filters(module: ast.Module) -> list[str]:
    """Names of the filters of an Ansible plugin: the keys of what FilterModule.filters returns."""
    return [
        key
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef) and node.name == "filters"
        for item in ast.walk(node)
        if isinstance(item, ast.Dict)
        for key in map(_constant, filter(None, item.keys))
        if key
    ]
