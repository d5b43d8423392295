"""Scores say where the images were drawn for prompts that had been translated or rewritten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from sanactl.records.records import Record

__all__ = ["telling_rewrites"]


def telling_rewrites(
    evaluate: Callable[[Iterator[Record]], Iterator[Record]], records: Iterable[Record]
) -> Iterator[Record]:
    """What a metric makes of image records; its scores get `prompts_rewritten` where prompts were rewritten.

    Args:
        evaluate: of a metric.
        records: image records; those of `sanactl.prompts.rewrite` have `prompt_original`.
    """
    seen: Counter[str] = Counter()
    images = 0

    def counting() -> Iterator[Record]:
        nonlocal images
        for record in records:
            images += 1
            if record.get("prompt_original"):
                seen[_kind(record)] += 1
            yield record

    for record in evaluate(counting()):
        if record["kind"] == "score" and seen:
            parts = (kind if count == images else f"{kind}: {count:,} images" for kind, count in seen.items())
            record = {**record, "prompts_rewritten": "; ".join(parts)}
        yield record


def _kind(record: Record) -> str:
    """ "zh by MODEL", "detail by MODEL, zh by MODEL"."""
    names = [str(record[name]) for name in ("prompt_style", "prompt_form") if record.get(name)]
    by = f" by {record['prompt_llm']}" if record.get("prompt_llm") else ""
    return f"{', '.join(names) or 'rewritten'}{by}"
