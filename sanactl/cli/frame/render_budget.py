"""Showing the result of `budget`: the Pareto front as a table, and the choice as a sentence."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from sanactl.cli.frame.console import PlainConsole, data, show_rows
from sanactl.files.human import human_count, human_flops
from sanactl.records.records import Record

__all__ = ["said_of_choice", "show_front"]

_COSTS = ("images", "flops", "seconds")


def show_front(records: list[Record]) -> None:
    """The front as a table, the choice in bold."""
    rows = []
    for record in records:
        style = "bold" if record["chosen"] else ""
        cells = [
            ">" if record["chosen"] else "",
            f"{record['value']:.3f}",
            _interval(record.get("ci")),
            str(record.get("checkpoint") or ""),
            str(record.get("blocks") or ""),
            str(record.get("steps") or ""),
            _rule(record),
            *(_amount(record["cost"].get(name), name) for name in _COSTS),
        ]
        rows.append([data(cell, style) for cell in cells])
    head = (
        "",
        "score",
        "95 % interval",
        "checkpoint",
        "blocks",
        "steps",
        "images",
        "drawn",
        "FLOPs",
        "seconds",
    )
    title = Text(f"The best score for each cost, per prompt; {records[0].get('prompts')} prompts")
    show_rows(PlainConsole(), head, rows, right=(7, 8, 9), title=title)


def said_of_choice(records: list[Record]) -> str:
    """The choice, on which prompts it was made, and how sure it is."""
    chosen = next(r for r in records if r["chosen"])
    cost = str(chosen["axis"]).removesuffix(" per prompt")
    limit = human_flops(chosen["budget"]) if cost == "FLOPs" else f"{human_count(chosen['budget'])} {cost}"
    steps = f", {chosen['steps']} steps" if chosen.get("steps") else ""
    said = (
        f"for {limit} a prompt: {_name(chosen)}{steps}, {_rule(chosen)}: score"
        f" {chosen['value']:.3f} on the {chosen.get('prompts')} prompts that it was chosen by"
    )
    if "held_out" in chosen:
        said += f", {chosen['held_out']:.3f} on prompts that a choice has not seen"
    if other := chosen.get("runner_up"):
        steps = f", {other['steps']} steps" if other.get("steps") else ""
        said += f"; next is {_name(other)}{steps}, {_rule(other)}, {other['difference']:.3f} lower"
        said += f" ({_interval(other['ci'])})" if other.get("ci") else ""
    return said


def _name(record: Record) -> str:
    blocks = f" ({record['blocks']} blocks)" if record.get("blocks") else ""
    return f"{record.get('checkpoint') or 'a checkpoint'}{blocks}"


def _rule(record: Record) -> str:
    rule = str(record["selection"])
    return "one image" if rule == "single" else rule.replace("-of-", " of ")


def _interval(ends: Any) -> str:
    return f"{ends[0]:.3f} - {ends[1]:.3f}" if ends else ""


def _amount(value: float | None, name: str) -> str:
    if value is None:
        return ""
    return human_flops(value) if name == "flops" else human_count(round(value, 4))
