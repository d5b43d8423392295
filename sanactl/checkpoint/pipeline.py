"""Writing a diffusers pipeline folder: a new transformer, with its components linked or copied."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sanactl.checkpoint.components import COMPONENTS, component_folder
from sanactl.checkpoint.copy import Sources, copy_folder
from sanactl.checkpoint.fill import fill_files
from sanactl.checkpoint.layouts.diffusers import DIFFUSERS
from sanactl.checkpoint.locate import read_json
from sanactl.checkpoint.metadata import encode_metadata
from sanactl.checkpoint.plan import Plan
from sanactl.checkpoint.write import SHARD_SIZE, create_folder, default_workers, parse_size, write_json
from sanactl.errors import InputError, SanactlError, UsageError
from sanactl.files.atomic import atomic_dir, check_target
from sanactl.files.passing import PassingHashes
from sanactl.files.paths import user_path
from sanactl.files.progress import SILENT, Progress

__all__ = ["write_pipeline"]

_OURS = {"model_index.json", "transformer", *COMPONENTS}


def write_pipeline(
    plan: Plan,
    target: str | os.PathLike[str],
    force: bool = False,
    *,
    link: bool = False,
    shard_size: str | int = SHARD_SIZE,
    progress: Progress = SILENT,
) -> Path:
    """Write a folder that `SanaPipeline.from_pretrained` loads.

    Args:
        plan: of the transformer, in the diffusers layout, with its components.
        target: the folder.
        force: replace it, if it contains only a pipeline.
        link: make the components symbolic links. Such a folder is small, but it is complete on this machine only: an
            upload of it lacks the components.
        shard_size: of the transformer.
        progress: gets the number of bytes of the transformer as they are written.

    Raises:
        InputError: a component is missing; the message names it.
        SanactlError: as in `write_checkpoint`.
    """
    path = user_path(target)
    if plan.layout != DIFFUSERS:
        raise UsageError(f"{path}: a pipeline folder takes no {plan.layout} checkpoint")
    missing = [name for name in COMPONENTS if name not in plan.components]
    if missing:
        raise InputError(
            f"a pipeline needs a {' and a '.join(missing)}, and the checkpoint names none",
            hint="convert from a pipeline folder, or write the transformer alone",
        )
    check_target(path, force)
    if force and path.is_dir():
        strange = sorted(item.name for item in path.iterdir() if item.name not in _OURS)
        if strange:
            raise SanactlError(f"{path} holds more than a pipeline ({strange[0]}) and is not replaced")
    folders = {name: component_folder(name, plan.components[name]) for name in COMPONENTS}
    index: dict[str, Any] = {
        "_class_name": "SanaSprintPipeline" if plan.config["guidance_embeds"] else "SanaPipeline",
        "transformer": ["diffusers", "SanaTransformer2DModel"],
    }
    index |= {name: _class_of(name, folder, plan.components[name]) for name, folder in folders.items()}
    metadata = encode_metadata(
        plan.config, sampling=plan.sampling, lineage=plan.signed_lineage(), extra=plan.extra
    )
    progress.start(plan.nbytes, f"writing {path.name}")
    try:
        with atomic_dir(path, force) as folder, ExitStack() as opened:
            (folder / "transformer").mkdir()
            sources = Sources(plan.before.stamps if plan.before else {})
            opened.callback(sources.close)
            files = []
            for file in create_folder(folder / "transformer", plan, metadata, parse_size(shard_size)):
                opened.callback(file.close)
                files.append(file)
            passing = PassingHashes()
            fill_files(files, sources, progress, default_workers(), passing)
            plan.keep_hashes(passing)
            sources.check()
            opened.close()
            for name, source in folders.items():
                if link:
                    (folder / name).symlink_to(os.path.realpath(source), target_is_directory=True)
                else:
                    copy_folder(source, folder / name)
            write_json(folder / "model_index.json", index)
    finally:
        progress.close()
    return path


def _class_of(name: str, folder: Path, entry: Mapping[str, Any]) -> list[str]:
    """[library, class] of a component for model_index.json: from its pipeline, else from its own config."""
    listed = folder.parent / "model_index.json"
    if entry.get("subfolder") == name and listed.is_file():
        known = read_json(listed).get(name)
        if isinstance(known, list) and len(known) == 2 and all(isinstance(part, str) for part in known):
            return known
    for file, key, library in (
        ("scheduler_config.json", "_class_name", "diffusers"),
        ("tokenizer_config.json", "tokenizer_class", "transformers"),
        ("config.json", "_class_name", "diffusers"),
        ("config.json", "architectures", "transformers"),
    ):
        value = read_json(folder / file, constants=True).get(key) if (folder / file).is_file() else None
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, str):
            return [library, value]
    raise InputError(f"{folder} does not say which class the {name} is", hint="it needs its config.json")
