"""Files beside a shard with captions and CLIP scores of its images, as SANA's training code reads them.

    00000_InternVL2-26B.json               {key: {"InternVL2-26B": "a cat on a sofa"}}
    00000_InternVL2-26B_clip_score.json    {key: {"InternVL2-26B": "27.1037"}}
    00000_prompt_clip_score.json           {key: {"prompt": "26.7331"}}

Source: NVlabs/Sana, diffusion/data/datasets/sana_data_multi_scale.py, `SanaWebDatasetMS.getdata`. Its configs list the
endings; here they are the files that are there.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sanactl.data.scored_captions import FIELD, Score
from sanactl.data.tar import TarExample, TarIndex, index_tar
from sanactl.data.wids import INDEX, read_json
from sanactl.errors import InputError

__all__ = ["SideFiles"]

_SCORES = f"_{FIELD}"
PROMPT = "prompt"


class SideFiles:
    """The side files of shards.

    Args:
        root: a folder.
        shards: paths of `.tar` files below it.
        samples: how many images each has to have.

    Attributes:
        names: the side files' paths below the root.
    """

    def __init__(self, root: Path, shards: Sequence[str], samples: Sequence[int]) -> None:
        self._samples = {root / shard: count for shard, count in zip(shards, samples, strict=True)}
        self._of: dict[Path, list[tuple[str, Path]]] = {}
        stems: dict[str, set[str]] = {}
        for shard in shards:
            folder, name = os.path.split(shard)
            stems.setdefault(folder, set()).add(name.removesuffix(".tar"))
        self.names: list[str] = []
        for folder, there in stems.items():
            for name in sorted(os.listdir(root / folder)):
                found = _shard_of(name, there)
                if found is not None:
                    stem, suffix = found
                    self._of.setdefault(root / folder / f"{stem}.tar", []).append(
                        (suffix, root / folder / name)
                    )
                    self.names.append(os.path.join(folder, name))

    def read(self, shard: Path, also: Collection[str] = ()) -> TarIndex:
        """A shard's examples, with the fields of their .json and their captions as cells, and with their scores.

        Args:
            also: endings of members that hold text, as of `index_tar`.

        Raises:
            InputError: the shard or a side file is damaged, or the number of images is not the listed one.
        """
        index = index_tar(shard, also)
        listed = self._samples[shard]
        if not index.examples and index.alone:
            raise InputError(f"{shard}: has no images (latents in .npy files are not read)")
        if len(index.examples) != listed:
            raise InputError(
                f"{shard}: has {len(index.examples):,} images, but {INDEX} says {listed:,}",
                hint="copy the shard again, or correct the list",
            )
        files = [(suffix, path, read_json(path)) for suffix, path in self._of.get(shard, [])]
        index.unknown = sum(_check_keys(path, content, index.examples) for _, path, content in files)
        index.examples = [_with_sides(example, files) for example in index.examples]
        return index


def _shard_of(name: str, stems: set[str]) -> tuple[str, str] | None:
    """The shard that a side file belongs to, which is the longest name that it begins with, and the rest of its name."""
    stem, dot, ending = name.rpartition(".")
    if ending != "json" or not dot:
        return None
    for length in range(len(stem), 0, -1):
        if stem[:length] in stems:
            return (
                (stem[:length], stem[length:]) if stem[length : length + 1] in ("", "_", "-", ".") else None
            )
    return None


def _check_keys(path: Path, content: Mapping[str, Any], examples: Sequence[TarExample]) -> int:
    """How many images a side file names that are not in its shard.

    Raises:
        InputError: all of them; or what it says of one is no object.
    """
    for key, said in content.items():
        if not isinstance(said, dict):
            raise InputError(
                f"{path}, {key[:60]}: a {type(said).__name__}, not an object of captions or scores"
            )
    known = sum(_said_of(example, content) is not None for example in examples)
    if content and examples and not known:
        raise InputError(
            f"{path}: names none of the images of its shard",
            hint=f"its first key is {next(iter(content))[:60]!r}, the shard's {examples[0].key[:60]!r}",
        )
    return len(content) - known


def _said_of(example: TarExample, content: Mapping[str, Any]) -> dict[str, Any] | None:
    said = content.get(example.key)
    # SANA's keys are the members' names as they stand in the archive.
    return content.get(f"./{example.key}") if said is None else said


def _with_sides(example: TarExample, files: Sequence[tuple[str, Path, Mapping[str, Any]]]) -> TarExample:
    about = example.cells.get("json")
    cells = dict(example.cells)
    if isinstance(about, InputError):
        cells[PROMPT] = about  # it counts if the prompt is used
    elif isinstance(about, dict):
        cells.update(about)
    scores: list[Score] = []
    for suffix, _, content in files:
        said = _said_of(example, content)
        if said is None:
            continue
        if suffix.endswith(_SCORES):
            # The same in all shards.
            scores += [Score(f"*{suffix}.json, {column}", column, value) for column, value in said.items()]
        elif suffix and PROMPT in said:
            # The side file's name is then the caption's.
            cells[suffix.replace(".", "_")] = said[PROMPT]
        else:
            cells.update(said)
    return replace(example, cells=cells, scores=tuple(scores))
