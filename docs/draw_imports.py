#!/usr/bin/env python
"""Draws who imports whom, as text: one row a folder, from the top of the tree to the bottom.

    python docs/draw_imports.py [ROOT]

ROOT is a checkout, by default the one that this file lies in. A number says how many imports the row's folder has of
the column's. A number left of the diagonal would be an import that points up. Circles of files are listed below.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path


def modules(root: Path) -> dict[str, Path]:
    """Dotted name to file, of every module of the package below `root`."""
    found = {}
    for path in sorted((root / "sanactl").rglob("*.py")):
        parts = list(path.relative_to(root).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """(line, module) of all that a file imports of the package: inside functions and for type checks, too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sanactl":
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield node.lineno, name if name in known else node.module
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("sanactl."):
                    yield node.lineno, alias.name


def graph(root: Path) -> dict[str, set[str]]:
    """Module to the modules that it imports."""
    known = modules(root)
    return {
        name: {found for _, found in imports(path, known) if found in known and found != name}
        for name, path in known.items()
    }


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other (Tarjan's strongly connected components of more than one module)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(edges[name]):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in sorted(edges):
        if name not in index:
            visit(name)
    return found


def folder(module: str) -> str:
    """The folder below the package that a module is in; "" for the package's own files."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] != "__main__" else ""


def draw(root: Path) -> str:
    """The table, the number of lines of each folder, and the circles."""
    edges = graph(root)
    lines = Counter[str]()
    for name, path in modules(root).items():
        lines[folder(name)] += len(path.read_text(encoding="utf-8").splitlines())
    count = Counter(
        (folder(name), folder(other))
        for name, others in edges.items()
        for other in others
        if folder(name) and folder(other) and folder(name) != folder(other)
    )
    names = sorted({f for f in map(folder, edges) if f}, key=lambda f: lines[f])
    order: list[str] = []  # the folder that the fewest others still import comes first
    while names:
        top = min(names, key=lambda f: (sum(count[other, f] for other in names), -lines[f]))
        order.append(top)
        names.remove(top)
    total = sum(lines.values())
    width = max(map(len, order))
    rows = [f"{'':{width}}  lines      " + "".join(f"{f[:5]:>6}" for f in order)]
    for row in order:
        cells = "".join(f"{count[row, column] or '.':>6}" for column in order)
        rows.append(f"{row:{width}} {lines[row]:6,} {lines[row] / total:4.0%}{cells}")
    groups = [f"a circle: {', '.join(group)}" for group in circles(edges)] or ["no circle of files"]
    return "\n".join([*rows, *groups])


if __name__ == "__main__":
    print(draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]))
