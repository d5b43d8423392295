"""The output folder of `encode`: its index, the embedding of the empty prompt, and its shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.data.bad import check_bad
from sanactl.data.encode_plan import EncodePlan
from sanactl.data.encoded import EMPTY, FORMAT, INDEX, is_encoded, read_index
from sanactl.errors import InputError, OutputExistsError, SanactlError
from sanactl.files.atomic import atomic_path, check_target
from sanactl.files.safetensors import read_header
from sanactl.records.shards import Shard

if TYPE_CHECKING:
    import torch

__all__ = ["ShardFolder"]


class ShardFolder:
    """A folder of shards while it is written.

    Args:
        path: the folder.
        plan: of the shards.
    """

    def __init__(self, path: Path, plan: EncodePlan) -> None:
        self.path, self.plan = path, plan

    def begin(self, force: bool) -> None:
        """Makes the folder and its first index, unless they are there.

        Raises:
            OutputExistsError: the folder holds something else.
        """
        path = self.path
        if not path.exists():
            check_target(path)
            path.mkdir(exist_ok=True)  # another job may make it at this moment
        elif is_encoded(path):
            if read_index(path).get("key") == self.plan.key:
                return
            if not force:
                raise OutputExistsError(
                    f"{path} was encoded from other data or with other settings",
                    hint="name another with -o, or replace it with --force",
                )
            for old in [path / INDEX, path / EMPTY, *path.glob("[0-9]*.safetensors")]:
                old.unlink(missing_ok=True)
        elif not path.is_dir() or any(not _is_begun(inside) for inside in path.iterdir()):
            raise OutputExistsError(f"{path} already exists", hint="name another with -o")
        self._write_index({"complete": False, "most": self.plan.most, "exact": self.plan.exact})

    @property
    def has_empty(self) -> bool:
        """Whether the empty prompt's embedding is there."""
        return (self.path / EMPTY).exists()

    def write_empty(self, text: torch.Tensor) -> None:
        """Writes the embedding [tokens, D] of the empty prompt."""
        from sanactl.model.saving import write_tensors

        with atomic_path(self.path / EMPTY, force=True) as temporary:
            write_tensors({"text": text}, temporary, {"format": "pt"})

    def about(self, number: int) -> dict[str, Any] | None:
        """The description of an existing shard; None if it does not exist or is of another run."""
        if not self.file(number).exists():
            return None
        try:
            about = json.loads(read_header(self.file(number)).metadata.get("sanactl.latents", "{}"))
        except (InputError, ValueError):
            return None
        return about if isinstance(about, dict) and about.get("key") == self.plan.key else None

    def write(self, number: int, tensors: dict[str, torch.Tensor], **about: Any) -> dict[str, Any]:
        """Write a shard, whole or not at all; returns its description, which is `about` and the key."""
        from sanactl.model.saving import write_tensors

        description = {"key": self.plan.key, **about}
        metadata = {"format": "pt", "sanactl.latents": json.dumps(description)}
        with atomic_path(self.file(number), force=True) as temporary:
            write_tensors(tensors, temporary, metadata)
        return description

    def complete(self, name: str, max_bad: int) -> None:
        """Lists the shards in the index, which makes the folder whole.

        Args:
            name: of the data, for errors.
            max_bad: how many images may be unreadable.

        Raises:
            InputError: more images could not be read, all processes counted; or none could.
            SanactlError: a shard is missing.
        """
        shards: list[dict[str, Any]] = []
        skipped: list[str] = []
        number = 0
        while self.plan.shard(number) is not None:
            about, path = self.about(number), self.file(number)
            if about is None:
                if self.plan.exact or (shards and not shards[-1]["read"] == self.plan.rows):
                    raise SanactlError(f"{path} is missing", hint="run the same command again")
                break
            shards.append(_listed(path, about))
            skipped += about["skipped"]
            number += 1
            if about["last"]:
                break
        if len(skipped) > max_bad:
            check_bad(len(skipped), max_bad, InputError(skipped[-1]))
        examples = sum(s["count"] for s in shards)
        if not examples:
            raise InputError(f"{name}: none of its images can be read")
        self._write_index(
            {
                "complete": True,
                "examples": examples,
                "bytes": sum(s["bytes"] for s in shards),
                "skipped": skipped,
                "shards": shards,
            }
        )

    def described(self, part: Shard) -> dict[str, Any]:
        """{"examples", "bytes", "skipped"} of the files that one of several jobs writes."""
        numbers = range(part.part, len(list(self.path.glob("[0-9]*.safetensors"))) * part.of, part.of)
        known = [
            (self.file(number), about) for number in numbers if (about := self.about(number)) is not None
        ]
        listed = [_listed(path, about) for path, about in known]
        return {
            "examples": sum(one["count"] for one in listed),
            "bytes": sum(one["bytes"] for one in listed),
            "skipped": [line for _, about in known for line in about["skipped"]],
        }

    def file(self, number: int) -> Path:
        """The file of a shard."""
        return self.path / f"{number:05d}.safetensors"

    def _write_index(self, more: dict[str, Any]) -> None:
        index = {"format": FORMAT, "key": self.plan.key, "settings": self.plan.about, **more}
        with atomic_path(self.path / INDEX, force=True) as temporary:
            temporary.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _listed(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """A shard's entry in the index."""
    count = read_header(path).tensors["shapes"].shape[0]
    return {"file": path.name, "count": count, "bytes": path.stat().st_size, "read": about["rows"]}


def _is_begun(path: Path) -> bool:
    """Whether a file is one that another job is writing at this moment into a new folder."""
    return path.name in (INDEX, EMPTY) or path.name.startswith((f".{INDEX}.", f".{EMPTY}."))
