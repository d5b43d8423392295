"""The lineage of checkpoints as a graph: boxes from left to right, an arrow for each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sanactl.report.lineage import Node
from sanactl.report.style import GREY
from sanactl.report.text import counted, plain

__all__ = ["Box", "Edge", "Graph", "Outline", "lineage_graph"]

MAX_BOXES = 60
MAX_DEPTH = 12
BOX, GAP, HEIGHT, ROW = 156, 64, 46, 66  # pixels: a box's width, the arrow's length, a box's height, a row's


@dataclass(frozen=True)
class Box:
    """A checkpoint: its place, its name, what is known of it, its colour in the plots."""

    x: float
    y: float
    name: str
    whole: str
    note: str
    color: str


@dataclass(frozen=True)
class Edge:
    """A step: an arrow's path, and its command at a place."""

    path: str
    x: float
    y: float
    label: str


@dataclass(frozen=True)
class Graph:
    """A drawing of `width` by `height` pixels; `left_out` checkpoints are not in it."""

    width: float
    height: float
    boxes: Sequence[Box]
    edges: Sequence[Edge]
    box: tuple[int, int] = (BOX, HEIGHT)
    left_out: int = 0
    kind: ClassVar[str] = "graph"


@dataclass(frozen=True)
class Outline:
    """A tree as text: (branches, name, marks of trouble, note) of each line; `left_out` lines are not in it."""

    title: str
    lines: Sequence[tuple[str, str, str, str]]
    left_out: int = 0
    kind: ClassVar[str] = "outline"


def lineage_graph(roots: Sequence[Node], known: Mapping[str, tuple[str, str]]) -> Graph | None:
    """Lays out trees of checkpoints: a column a step, a row a branch; None where nothing was made from anything.

    Args:
        roots: of the trees; a checkpoint stands below the one that it was made from.
        known: of checkpoints by digest, or by name without one: what to write below the name, and a colour.
    """
    boxes: list[Box] = []
    edges: list[Edge] = []
    row = left_out = deepest = 0
    # (node, depth, the place of its parent, whether it begins a new row)
    stack: list[tuple[Node, int, tuple[float, float] | None, bool]] = [
        (root, 0, None, True) for root in reversed(roots) if root.children
    ]
    while stack:
        node, depth, parent, new_row = stack.pop()
        if len(boxes) >= MAX_BOXES or depth > MAX_DEPTH:
            left_out += 1 + _below(node)
            continue
        row += new_row and bool(boxes)
        deepest = max(deepest, depth)
        x, y = depth * (BOX + GAP) + 1.0, row * ROW + 14.0
        note, color = known.get(node.digest or node.name, ("", GREY))
        name = node.name or "?"
        boxes.append(Box(x, y, plain(name, 22), plain(name, 400), plain(note, 32), color))
        if parent is not None:
            edges.append(_edge(parent, (x, y), node))
        place = (x + BOX, y + HEIGHT / 2)
        # The first child goes on in the parent's row.
        stack += [(c, depth + 1, place, i > 0) for i, c in reversed(list(enumerate(node.children)))]
    if not edges:
        return None
    width = (deepest + 1) * (BOX + GAP) - GAP + 2
    return Graph(width, row * ROW + HEIGHT + 18, boxes, edges, left_out=left_out)


def _edge(start: tuple[float, float], box: tuple[float, float], node: Node) -> Edge:
    x, y = start
    end_x, end_y = box[0], box[1] + HEIGHT / 2
    middle = x + GAP / 2
    path = f"M{x:g} {y:g} C{middle:g} {y:g} {middle:g} {end_y:g} {end_x - 5:g} {end_y:g}"
    # Above the arrow's end: arrows of one parent share their beginning.
    return Edge(path, x + GAP / 2, end_y - 8, plain(_step(node.run or {}), 12))


def _step(run: Mapping[str, Any]) -> str:
    """A step in a word or two: grow, prune, 100 steps."""
    command, arguments = str(run.get("command", "")), run.get("arguments")
    steps = arguments.get("steps") if isinstance(arguments, dict) else None
    if command == "finetune":
        return counted(steps, "step") if type(steps) is int and steps < 10**5 else "train"
    return command


def _below(node: Node) -> int:
    """How many checkpoints stand below a node."""
    count, stack = 0, list(node.children)
    while stack:
        found = stack.pop()
        count += 1
        stack += found.children
    return count
