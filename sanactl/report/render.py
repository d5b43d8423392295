"""The page's templates. Every text that comes from records is made one plain line, then escaped."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.report.text import number, plain

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render", "yaml_text"]

TEMPLATES = Path(__file__).parent / "templates"
MAX_TEXT = 600  # characters of one text of a record


@cache
def _environment(escaped: bool) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=escaped,
        undefined=StrictUndefined,
        finalize=_one_line if escaped else None,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(number=number, md=_markdown)
    return made


def _one_line(value: Any) -> Any:
    # Markup (an SVG of ours, a macro's result) is a subclass of str, and goes through as it is.
    return plain(value, MAX_TEXT) if type(value) is str else value


def _markdown(text: object) -> str:
    """Text as Markdown shows it: no markup of its own, neither Markdown's nor HTML's."""
    line = html.escape(plain(text, MAX_TEXT), quote=False)
    return re.sub(r"([\\`*_{}\[\]#|~$!])", r"\\\1", line)


def render(template: str, **values: Any) -> str:
    """A page from a template. In .html.j2 every text is escaped; in .md.j2 the filter `md` does it.

    An HTML template also gets `style` and `script`, the page's own files, and `script_hash`: the page's policy lets
    this script run and no other.
    """
    if not template.endswith(".html.j2"):
        return _environment(False).get_template(template).render(**values)
    from markupsafe import Markup

    script = (TEMPLATES / "script.js").read_text(encoding="utf-8")
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    found = _environment(True).get_template(template)
    return found.render(style=Markup(style), script=Markup(script), script_hash=digest, **values)


def yaml_text(metadata: Mapping[str, Any]) -> str:
    """Metadata of a card as YAML, without the empty ones; text is quoted where YAML needs it."""
    from huggingface_hub.repocard_data import yaml_dump

    return str(yaml_dump({k: v for k, v in metadata.items() if v}, sort_keys=False)).rstrip("\n")
