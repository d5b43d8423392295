"""`sana`: the data of SANA's own training code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sanactl.errors import UsageError
from sanactl.exporting.arrow import listed_features
from sanactl.exporting.formats.base import ExportFormat, write_json
from sanactl.exporting.formats.tars import image_members, write_tar
from sanactl.exporting.plan import ExportPlan, Shard
from sanactl.exporting.rows import Picture, Row
from sanactl.exporting.settings import ExportSettings
from sanactl.records.jsonl import dump_json
from sanactl.report.text import finite

__all__ = ["Sana"]

INDEX = "wids-meta.json"
_READ = (".png", ".jpg")  # by SANA's loader


class Sana(ExportFormat):
    """`.tar` files with `.json` {prompt, width, height} of each image, `wids-meta.json`, and side files of each shard.

    Further captions are in `SHARD_FIELD.json` as {key: {FIELD: text}}. Scores are in `SHARD_prompt_clip_score.json` (of
    the text, from the field `clip_score`) and `SHARD_FIELD_clip_score.json` (of a further caption, from the field
    `FIELD_clip_score`) as {key: {caption: "27.1234"}}.

    Source: NVlabs/Sana, diffusion/data/datasets/sana_data_multi_scale.py, and the wids format of webdataset.
    """

    name = "sana"
    about = "The data of SANA's training code: `.tar` files, `wids-meta.json`, and side files with captions and CLIP scores."

    def check(self, settings: ExportSettings) -> None:
        super().check(settings)
        if "prompt" in settings.texts[1:]:
            raise UsageError(
                "SANA's data call the first text `prompt`, so no further one can have this name",
                hint="give --text-field prompt first, or leave it out",
            )

    def fault(self, text: str, picture: Picture) -> str | None:
        if picture.suffix in _READ:
            return None
        return f"is a {picture.suffix[1:].upper()} image, and SANA's training code reads PNG and JPEG"

    def shard_files(self, number: int, shards: int) -> tuple[str, ...]:
        return (f"{number:05d}.tar",)

    def write_shard(self, folder: Path, shard: Shard, plan: ExportPlan) -> None:
        (name,) = self.shard_files(shard.number, len(plan.shards))
        for suffix, said in _side_files(plan).items():
            side = {row.key: found for row in plan.rows(shard) if (found := said(row))}
            write_json(folder / f"{shard.number:05d}{suffix}.json", side)
        write_tar(folder / name, _members(plan.rows(shard)))

    def index_files(self, plan: ExportPlan) -> tuple[str, ...]:
        sides = [f"{s.number:05d}{suffix}.json" for s in plan.shards for suffix in _side_files(plan)]
        return (*sides, INDEX)

    def write_index(self, folder: Path, plan: ExportPlan) -> None:
        shards = [
            {"url": self.shard_files(s.number, len(plan.shards))[0], "nsamples": s.rows} for s in plan.shards
        ]
        # `wids_version` is required by wids' own reader.
        write_json(
            folder / INDEX,
            {"name": folder.name, "__kind__": "SANA-WebDataset", "wids_version": 1, "shardlist": shards},
        )

    def data_files(self) -> list[str]:
        return ["*.tar"]

    def features(self, plan: ExportPlan) -> list[dict[str, Any]]:
        inner = {"prompt": "string", "width": "int64", "height": "int64"}
        return [*image_members(plan), {"name": "json", "struct": listed_features(inner)}]


def _members(rows: Iterator[Row]) -> Iterator[tuple[str, bytes]]:
    for row in rows:
        about = {"prompt": row.text, "width": row.picture.width, "height": row.picture.height}
        yield f"{row.key}{row.picture.suffix}", row.read()
        yield f"{row.key}.json", dump_json(about).encode()


def _score_fields(plan: ExportPlan) -> dict[str, str]:
    """The records' fields with CLIP scores, by caption as SANA's data call it, as far as any record has them."""
    first, *further = plan.settings.texts
    fields = {"prompt": "clip_score" if first == "prompt" else f"{first}_clip_score"}
    fields |= {name: f"{name}_clip_score" for name in further}
    return {caption: field for caption, field in fields.items() if field in plan.columns.by_name}


def _side_files(plan: ExportPlan) -> dict[str, Callable[[Row], dict[str, str] | None]]:
    """The side files that each shard has, by their endings; what a file says of a row, None for nothing."""
    captions = {f"_{name}": partial(_caption, name) for name in plan.settings.texts[1:]}
    scores = {f"_{c}_clip_score": partial(_score, c, field) for c, field in _score_fields(plan).items()}
    return {**captions, **scores}


def _caption(name: str, row: Row) -> dict[str, str] | None:
    text = row.texts[name]
    return {name: text} if text else None


def _score(caption: str, field: str, row: Row) -> dict[str, str] | None:
    score = finite(row.cells.get(field))
    return None if score is None else {caption: f"{score:.4f}"}
