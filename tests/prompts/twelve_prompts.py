"""Twelve prompts, their translations, and the command that asks a server for these."""

from __future__ import annotations

from typing import Any

from sanactl.shapes.languages import translate
from sanactl.shapes.prompts import load_eval_prompts
from tests.prompts.llm_server import LlmServer

PROMPTS = [r["prompt"] for r in load_eval_prompts()[:12]]
ZH = [translate(p, "zh") for p in PROMPTS]


def relabel(server: LlmServer, *more: str) -> list[str]:
    return ["relabel", "p.txt", "--to", "zh", "--llm", f"{server.address}#m", *more]


def prompts(records: list[Any]) -> list[str]:
    return [r["prompt"] for r in records]
