"""A model card for the Hub: README.md with metadata, scores, lineage and images, in a pipeline's folder."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError, UsageError
from sanactl.files.atomic import atomic_path, check_target
from sanactl.report.history import step_line
from sanactl.report.images import winners
from sanactl.report.labels import detector_words, metric_name, prompts_words
from sanactl.report.render import render, yaml_text
from sanactl.report.run import STEP, RunRecords, newest, read_run
from sanactl.report.samples import choose_prompts
from sanactl.report.text import compact, finite, interval_of, number, plain

if TYPE_CHECKING:
    from sanactl.checkpoint.table import Checkpoint
    from sanactl.records.journal import Journal

__all__ = ["CardSettings", "write_card"]

Record = dict[str, Any]
IMAGES = "images"  # the folder of the card's images
MAX_IMAGES = 6
_BINNED = {16, 32, 64, 128}  # `sample_size` of the models for which diffusers has a list of sizes
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_NAMES = {"dpg": "DPG-Bench", "clip": "CLIP score", "fid": "FID", "kid": "KID"}


@dataclass(frozen=True)
class CardSettings:
    """What a card says that no record tells.

    Attributes:
        title: the model's name; the folder's by default.
        license: an SPDX name as the Hub writes it ("apache-2.0"). By default that of the built-in world's models, and
            "other" for a model that came from elsewhere.
        base_model: a Hub id; by default the one that lineage or components name.
    """

    title: str | None = None
    license: str | None = None
    base_model: str | None = None


def write_card(
    records: Iterable[Record],
    journal: Journal | None,
    folder: Path,
    settings: CardSettings = CardSettings(),
    *,
    force: bool = False,
) -> tuple[Path, list[str]]:
    """Writes README.md, and images beside it, into the folder of a pipeline or a transformer.

    Scores and images are those whose records name this checkpoint: by its digest, or by another file of the same
    lineage (the one that the folder was converted from).

    Args:
        records: of any kinds.
        journal: paths in the records are relative to its folder.
        folder: of a pipeline or a transformer.

    Returns:
        The file, and what the card lacks, in sentences.

    Raises:
        InputError: no checkpoint is in the folder.
        OutputExistsError: README.md or an image is there and `force` is not set.
        UsageError: a base model that is no Hub id.
    """
    from sanactl.checkpoint.open import open_checkpoint

    if settings.base_model is not None and not _HUB_ID.fullmatch(settings.base_model):
        raise UsageError(f"{settings.base_model} is no Hub id", hint="write it as OWNER/NAME")
    target = folder / "README.md"
    check_target(target, force)
    checkpoint = open_checkpoint(folder)
    run = read_run(records, journal)
    scores = [r for r in newest(run.scores) if _is_of(r, checkpoint, run) and _is_result(r)]
    shown = _images([r for r in run.images if _is_of(r, checkpoint, run)], run.folder)
    files = [
        (run.folder / r["path"], f"{IMAGES}/{n}{Path(r['path']).suffix.lower()}") for n, r in enumerate(shown)
    ]
    _check_images(folder, [url for _, url in files], force)
    base = settings.base_model or _base_model(checkpoint, run)
    name = settings.title or folder.absolute().name
    arguments, flow_shift = _arguments(checkpoint) if checkpoint.kind == "pipeline" else ("", "")
    metadata = _metadata(checkpoint, name, base, settings.license, scores)
    metadata["widget"] = [
        {"text": plain(r["prompt"], 400), "output": {"url": url}}
        for r, (_, url) in zip(shown, files, strict=True)
    ]
    text = render(
        "card.md.j2",
        front=yaml_text(metadata),
        name=plain(name, 100),
        base=base,
        checkpoint=checkpoint,
        pipeline=checkpoint.kind == "pipeline",
        parameters=compact(checkpoint.num_parameters),
        dtypes=", ".join(checkpoint.dtypes),
        folder=plain(folder.absolute().name, 100),
        scores=[_score_row(r) for r in scores],
        steps=[plain(step_line(entry), 400) for entry in checkpoint.lineage],
        images=[(r["prompt"], url) for r, (_, url) in zip(shown, files, strict=True)],
        arguments=arguments,
        flow_shift=flow_shift,
    )
    if files:
        (folder / IMAGES).mkdir(exist_ok=True)
    for source, url in files:
        with atomic_path(folder / url, force=force) as temporary:
            shutil.copyfile(source, temporary)
    with atomic_path(target, force=force) as temporary:
        temporary.write_text(text, encoding="utf-8")
    lacks = [] if scores else ["no score record names this checkpoint: the card has no metrics"]
    lacks += [] if base else ["the card names no base model; --base-model does"]
    lacks += ["the card's license is `other`; --license names it"] if metadata["license"] == "other" else []
    return target, lacks


def _arguments(checkpoint: Checkpoint) -> tuple[str, str]:
    """What `sanactl sample` takes for this checkpoint as arguments of its pipeline, a line each; a setting of its scheduler.

    A pipeline knows nothing of a checkpoint's sampling settings, and has defaults for the largest models.
    """
    from sanactl.checkpoint.folder import read_json
    from sanactl.model.sampling_settings import is_sprint, sampling_settings

    settings = sampling_settings(checkpoint)
    given: dict[str, Any] = {
        "height": settings.height,
        "width": settings.width,
        "num_inference_steps": settings.steps,
        "guidance_scale": settings.guidance_scale,
        "max_sequence_length": settings.max_sequence_length,
    }
    if is_sprint(checkpoint):
        if settings.steps != 2:
            given["intermediate_timesteps"] = None  # those that the pipeline has are of two steps
    elif settings.negative_prompt:
        given["negative_prompt"] = settings.negative_prompt
    if not settings.complex_human_instruction:
        given["complex_human_instruction"] = None
    # diffusers takes the nearest of its own sizes, and has none for small models. The squares are among them.
    size = checkpoint.config.sample_size
    if size not in _BINNED or settings.height != size * 32 or settings.width != size * 32:
        given["use_resolution_binning"] = False
    shift = ""
    if settings.flow_shift is not None:
        listed = read_json(checkpoint.path.parent / "scheduler" / "scheduler_config.json", constants=True)
        key = "shift" if "shift" in listed and "flow_shift" not in listed else "flow_shift"
        shift = f"{key}={settings.flow_shift!r}"
    return "".join(f"    {name}={value!r},\n" for name, value in given.items()), shift


def _check_images(folder: Path, names: Sequence[str], force: bool) -> None:
    """Refuses images that could not be written, before anything is."""
    if (folder / IMAGES).exists() and not (folder / IMAGES).is_dir():
        raise UsageError(
            f"{folder / IMAGES} is no folder", hint="the card's images go into a folder of that name"
        )
    for name in names if (folder / IMAGES).is_dir() else ():
        check_target(folder / name, force)


def _is_of(record: Mapping[str, Any], checkpoint: Checkpoint, run: RunRecords) -> bool:
    """Whether a record is about a checkpoint, or about the file that it was converted from."""
    if record.get("digest") is not None and record["digest"] == checkpoint.digest:
        return True
    name = record.get("checkpoint")
    known = isinstance(name, str) and run.lineages.digests.get(name) in (None, record.get("digest"))
    return known and bool(checkpoint.lineage) and run.lineages.entries.get(str(name)) == checkpoint.lineage


def _is_result(record: Mapping[str, Any]) -> bool:
    return record["metric"] != STEP and finite(record.get("value")) is not None and not record.get("curves")


def _images(records: Sequence[Record], folder: Path) -> list[Record]:
    """One image of each of some prompts that can be read: the judge's choice, else the first."""
    tasks: dict[str, list[Record]] = {}
    for rows in choose_prompts(records):
        row = [r for group in rows for r in group if _readable(folder / r["path"])]
        best = winners(row)
        if row:
            chosen = next((r for r in row if r["path"] in best), row[0])
            tasks.setdefault(str(chosen.get("tag")), []).append(chosen)
    # The first of every task, then the second of every task.
    turns = itertools.zip_longest(*tasks.values())
    return [record for turn in turns for record in turn if record is not None][:MAX_IMAGES]


def _readable(path: Path) -> bool:
    from sanactl.files.images import read_image

    try:
        read_image(path)
    except (InputError, OSError, ValueError):
        return False
    return True


def _base_model(checkpoint: Checkpoint, run: RunRecords) -> str | None:
    """The Hub id that a checkpoint came from: as the journal knows its first parent, or as its components' source."""
    digests = {
        str(parent.get("digest"))
        for entry in checkpoint.lineage
        for parent in entry.get("parents") or ()
        if isinstance(parent, dict)
    }
    for entry in run.journal.runs() if run.journal is not None else ():
        for source in entry["inputs"]:
            if source.get("digest") in digests and _is_hub_id(source["path"]):
                return str(source["path"])
    sources = [str(component.get("source")) for component in checkpoint.components.values()]
    return next(filter(_is_hub_id, sources), None)


def _is_hub_id(text: str) -> bool:
    return bool(_HUB_ID.fullmatch(text)) and not os.path.exists(text)


def _metadata(
    checkpoint: Checkpoint, name: str, base: str | None, license_name: str | None, scores: Sequence[Record]
) -> dict[str, Any]:
    """The card's metadata as the Hub reads it."""
    from huggingface_hub import EvalResult, ModelCardData

    builtin = any("shapes" in str(entry.get("arguments", {}).get("data", "")) for entry in checkpoint.lineage)
    results = [
        EvalResult(
            task_type="text-to-image",
            dataset_type=plain(record["metric"], 60),
            dataset_name=_benchmark_name(record),
            # Scores on other prompts are results of their own.
            dataset_config=_dataset_name(record),
            metric_type=plain(record["metric"], 60),
            metric_value=round(float(record["value"]), 6),
            metric_name=_metric_name(record),
        )
        for record in scores
    ]
    data = ModelCardData(
        license=license_name or ("apache-2.0" if builtin and base is None else "other"),
        library_name="diffusers" if checkpoint.kind == "pipeline" else "sanactl",
        pipeline_tag="text-to-image",
        tags=["sana", "sanactl"],
        model_name=plain(name, 100),
        base_model=base,
        eval_results=results or None,
    )
    found = data.to_dict()
    found.pop("model_name", None)
    return dict(found)


def _dataset_name(record: Record) -> str:
    return prompts_words(record) or "prompts of the run"


def _benchmark_name(record: Record) -> str:
    if record["metric"] == "geneval":
        return metric_name(record)
    return _NAMES.get(str(record["metric"]), plain(record["metric"], 60))


def _metric_name(record: Record) -> str:
    name = _benchmark_name(record)
    selected = record.get("selection")
    return name if selected in (None, "single") else f"{name}, {plain(selected, 80)}"


def _score_row(record: Record) -> tuple[str, str, str, str]:
    """(metric, value, interval, measured on) of a score."""
    interval = interval_of(record.get("ci"))
    counts = [prompts_words(record)] if prompts_words(record) else []
    counts += [f"{number(record['images'])} images"] if type(record.get("images")) is int else []
    about = [detector_words(record)] if record.get("detector") else []
    about += [plain(record[f], 80) for f in ("model", "protocol") if record.get(f)]
    between = "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
    return _metric_name(record), number(record["value"]), between, ", ".join(counts + about)
