"""The HTML around a report's sections: one file, no scripts, nothing fetched, light or dark."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sanactl.report.plots import plain

__all__ = [
    "Section",
    "absent",
    "escape",
    "figure",
    "finite",
    "number",
    "page",
    "short_name",
    "table",
    "with_interval",
]

# A record's text may come from anyone: the page shows its own images and styles, and runs nothing.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b636e; --ground: #ffffff; --card: #f5f6f8;
  --line: #d9dde3; --good: #1f8a5f; --bad: #c2473a; --accent: #2f6fc2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9aa3ae; --ground: #16191d; --card:
  #1f2329; --line: #343a42; --good: #43b98a; --bad: #ee7d70; --accent: #76aaf0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 32px 24px 64px; background: var(--ground); color:
var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 27px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 0 0 8px; }
h3 { font-size: 15px; margin: 22px 0 6px; overflow-wrap: anywhere; }
section { margin-top: 44px; scroll-margin-top: 16px; }
p { margin: 0 0 10px; max-width: 76ch; }
a { color: var(--accent); }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin-top: 14px; padding: 10px 0; border-block: 1px
solid var(--line); } nav a { text-decoration: none; }
.soft, .absent { color: var(--soft); }
.absent { padding: 12px 16px; border: 1px dashed var(--line); border-radius: 8px; }
.good { color: var(--good); } .bad { color: var(--bad); }
.facts { display: flex; flex-wrap: wrap; gap: 10px; margin: 18px 0 0; padding: 0; list-style: none; }
.facts li { background: var(--card); border-radius: 8px; padding: 8px 14px; }
.facts b { display: block; font-size: 20px; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; margin: 10px 0; }
.plot svg { display: block; width: 100%; min-width: 620px; height: auto; }
.plot svg text { font-family: inherit; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px 6px 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line);
} th { font-weight: 600; color: var(--soft); white-space: nowrap; }
td small { display: block; color: var(--soft); white-space: nowrap; }
td.name { overflow-wrap: anywhere; min-width: 12em; }
code, pre { font: 13px/1.55 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { overflow-wrap: anywhere; }
pre { margin: 8px 0; padding: 14px 16px; background: var(--card); border-radius: 8px; overflow-x: auto; }
pre i { color: var(--soft); font-style: normal; }
.prompt { overflow-wrap: anywhere; unicode-bidi: isolate; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); gap: 10px; margin: 6px 0
14px; } .grid figure { margin: 0; font-size: 11.5px; line-height: 1.35; color: var(--soft); overflow-wrap:
anywhere; } .grid img, .grid .gone { display: block; width: 100%; aspect-ratio: 1; object-fit: contain;
border-radius: 6px;
  background: var(--card); border: 3px solid transparent; margin-bottom: 3px; }
.grid img.small { image-rendering: pixelated; }
.grid .winner img, .grid .winner .gone { border-color: var(--good); }
.grid .gone { display: grid; place-items: center; border: 1px dashed var(--line); padding: 4px; text-align:
center; } @media print { body { max-width: none; } section { break-inside: avoid-page; } nav { display: none;
} }
"""


@dataclass(frozen=True)
class Section:
    """A part of the page: `body` is HTML, made of escaped text only."""

    anchor: str
    title: str
    body: str


def escape(text: object, limit: int = 400) -> str:
    """Text for HTML, in an element or a quoted attribute: one line of at most `limit` characters."""
    return html.escape(plain(text, limit), quote=True)


def short_name(path: object) -> str:
    """A checkpoint's path for a label: as it is, or its last part where it is long."""
    text = "no checkpoint named" if path is None else str(path)
    return text if len(text) <= 36 else f"…/{text.rstrip('/').rpartition('/')[2]}"


def absent(what: str, how: str) -> str:
    """The body of a section that there is nothing to show in: what is missing, and which command makes it."""
    return f'<p class="absent">{escape(what)} <span class="soft">{escape(how)}</span></p>'


def figure(svg: str, caption: str = "") -> str:
    """A plot, and a sentence about it."""
    note = f'<p class="soft">{escape(caption, 1000)}</p>' if caption else ""
    return f'<div class="wide plot">{svg}</div>{note}'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the cells of `rows` are HTML already, the first of each the row's name."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=name' if i == 0 else ''}>{cell}</td>" for i, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def finite(value: object) -> float | None:
    """A record's value as a number, None for what is none: text, true, NaN, more digits than a float has."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def number(value: object, digits: int = 3) -> str:
    """A number for people, "-" for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-" if value is None else escape(value)
    return (
        f"{value:,}"
        if isinstance(value, int)
        else f"{value:.{digits}f}"
        if abs(value) < 1e4
        else f"{value:,.0f}"
    )


def with_interval(value: object, interval: object) -> str:
    """A score and its interval, as a table's cell."""
    if not isinstance(interval, list | tuple) or len(interval) != 2:
        return number(value)
    return f"{number(value)}<small>{number(interval[0], 2)} to {number(interval[1], 2)}</small>"


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The whole page; `lead` is HTML that stands below the title."""
    links = "".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in sections)
    parts = "".join(
        f'<section id="{s.anchor}"><h2>{escape(s.title)}</h2>\n{s.body}</section>\n' for s in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="referrer" content="no-referrer"><title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style></head>\n<body><header><h1>{escape(title)}</h1>{lead}<nav>{links}</nav></header>\n"
        f"<main>{parts}</main></body></html>\n"
    )
