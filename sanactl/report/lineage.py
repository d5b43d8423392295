"""What was made from what, as trees for `log` and `report`: a folder's journal, a checkpoint's lineage."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sanactl.records.journal import Journal

__all__ = ["Node", "journal_tree", "lineage_tree", "merge_trees", "outline"]

# Columns of branches that a line of an outline has at most: a long history would be more branches than names.
MAX_BRANCHES = 48


@dataclass
class Node:
    """One artifact, the run that made it and what was made from it in turn.

    Attributes:
        name: its path as the journal writes it, or a checkpoint's name; "" where nothing tells it.
        kind: "checkpoint", "block", "image", ...; None if unknown.
        digest: of its content when it was made or used, if known.
        exists: whether the file is there; None where it cannot be told (a name in a header).
        run: the journal's entry, or the lineage's, that made it; None for what was there before.
        also_from: names of the run's other inputs; the node stands below its main one.
        outdated: the input that it stands below has been made anew since.
        children: made from it, oldest first.
    """

    name: str
    kind: str | None = None
    digest: str | None = None
    exists: bool | None = None
    run: dict[str, Any] | None = None
    also_from: list[str] = field(default_factory=list)
    outdated: bool = False
    children: list[Node] = field(default_factory=list)


def journal_tree(journal: Journal) -> list[Node]:
    """The artifacts that a folder's journal knows, outputs below the inputs that they came from.

    An artifact stands once, as its newest run made it: below the run's checkpoint if one went in, else below
    its first input, with the others in `also_from`. What no run made, and what was made from nothing, are
    roots.
    """
    nodes: dict[str, Node] = {}
    used: dict[str, str | None] = {}  # digest of an output's main input, as the run found it
    parents: dict[str, tuple[str, int]] = {}  # an output's main input, and the number of the run
    for number, run in enumerate(journal.runs()):
        inputs = [entry for entry in run["inputs"] if entry["path"] not in ("stdin", "-")]
        for entry in inputs:
            node = nodes.setdefault(entry["path"], Node(entry["path"]))
            node.digest = entry.get("digest") or node.digest
        for entry in run["outputs"]:
            node = nodes.setdefault(entry["path"], Node(entry["path"]))
            node.kind, node.digest, node.run = entry.get("kind"), entry.get("digest"), run
            sources = [i for i in inputs if i["path"] != node.name]
            main = min(sources, key=lambda i: _rank(nodes[i["path"]]), default=None)
            node.also_from = [i["path"] for i in sources if i is not main]
            parents.pop(node.name, None)
            if main is not None:
                parents[node.name] = (main["path"], number)
                used[node.name] = main.get("digest")
    for node in nodes.values():
        # What no run made and nobody took a digest of may be no file at all ("builtin:shapes", a data set's
        # name).
        here = os.path.exists(journal.folder / node.name)
        node.exists = here if here or node.run is not None or node.digest is not None else None
    return _linked(nodes, _without_circles(parents), used)


def _rank(node: Node) -> int:
    """Which of a run's inputs its output stands below, the lowest: a checkpoint, or what has a digest."""
    return 0 if node.kind == "checkpoint" else 1 if node.digest is not None else 2


def _linked(nodes: dict[str, Node], parents: Mapping[str, str], used: Mapping[str, str | None]) -> list[Node]:
    """The roots, oldest first, with every node's children filled in."""
    roots = []
    for name, node in sorted(nodes.items(), key=lambda item: str((item[1].run or {}).get("time") or "")):
        if name in parents:
            parent = nodes[parents[name]]
            parent.children.append(node)
            node.outdated = None not in (used[name], parent.digest) and used[name] != parent.digest
        else:
            roots.append(node)
    # An input of several (a prompt file) that nothing stands below is named in `also_from` already.
    return [root for root in roots if root.run is not None or root.children]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _without_circles(parents: Mapping[str, tuple[str, int]]) -> dict[str, str]:
    """Each name's parent. Files that are written over can make a circle of a history; its newest link is left out."""
    links = {name: parent for name, (parent, _) in parents.items()}
    done: set[str] = set()
    for start in parents:
        path: dict[str, None] = {}
        at: str | None = start
        while at is not None and at not in done and at not in path:
            path[at] = None
            at = links.get(at)
        if at in path:
            names = list(path)
            circle = names[names.index(str(at)) :]
            del links[max(circle, key=lambda name: parents[name][1])]
        done.update(path)
    return links


def lineage_tree(
    lineage: Sequence[Mapping[str, Any]], name: str = "", digest: str | None = None
) -> list[Node]:
    """A checkpoint's own lineage as a tree: its first parent, and below it each step's result.

    A step's result has the name by which the next step calls its parent; the last has the checkpoint's.

    Args:
        lineage: entries as `lineage_entry` makes them, oldest first.
        name: what the checkpoint is called now.
        digest: the checkpoint's, if it is known.
    """
    entries = [entry for entry in lineage if isinstance(entry, Mapping)]
    parents = [_parents(entry) for entry in entries]
    results = [*(_named(known) for known in parents[1:]), (name, digest)]
    if not entries:
        return [Node(name, "checkpoint", digest)]
    root = last = Node(_named(parents[0])[0], "checkpoint", _named(parents[0])[1])
    for entry, known, (result, its_digest) in zip(entries, parents, results, strict=True):
        also = [_named([parent])[0] for parent in known[1:]]
        node = Node(result, "checkpoint", its_digest, run=dict(entry), also_from=also)
        last.children.append(node)
        last = node
    return [root] if parents[0] else root.children


def _parents(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The parents of a lineage entry; a header may hold anything."""
    parents = entry.get("parents")
    return [p for p in parents if isinstance(p, Mapping)] if isinstance(parents, list) else []


def _named(parents: Sequence[Mapping[str, Any]]) -> tuple[str, str | None]:
    """Name and digest of the first parent."""
    return (str(parents[0].get("name", "")), _text(parents[0].get("digest"))) if parents else ("", None)


def merge_trees(roots: Sequence[Node]) -> list[Node]:
    """Several checkpoints' lineages as one: the same digest, or without one the same name, is one node."""
    known: dict[str, Node] = {}
    merged: list[Node] = []
    stack: list[tuple[Node | None, Node]] = [(None, root) for root in reversed(roots)]
    while stack:
        parent, node = stack.pop()
        key = node.digest or f"name {node.name}"
        same = known.get(key)
        if same is None:
            same = known[key] = replace(node, children=[])
            (merged if parent is None else parent.children).append(same)
        elif len(node.name) > len(same.name):
            same.name = node.name  # the file's name rather than the stem by which a child's header calls it
        stack += [(same, child) for child in reversed(node.children)]
    return merged


def outline(roots: Sequence[Node]) -> list[tuple[str, Node]]:
    """The trees as (branches, node) lines for a fixed-width font: "├─ ", "│  └─ ", "" for a root.

    Of the branches of a deep line the last `MAX_BRANCHES` columns are drawn, behind the line's depth: "[17] ".
    """
    lines: list[tuple[str, Node]] = []
    stack: list[tuple[int, bool, str, Node]] = [(0, True, "", root) for root in reversed(roots)]
    while stack:
        depth, last, indent, node = stack.pop()
        branch = indent + ("└─ " if last else "├─ ") if depth else ""
        lines.append((f"[{depth}] {branch}" if 3 * depth > MAX_BRANCHES else branch, node))
        below = (indent + ("   " if last else "│  "))[3 - MAX_BRANCHES :] if depth else ""
        final = len(node.children) - 1
        stack += [(depth + 1, i == final, below, node.children[i]) for i in range(final, -1, -1)]
    return lines
