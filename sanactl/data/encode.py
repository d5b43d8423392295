"""`encode`: latents and text embeddings of a data set, computed once, into safetensors shards.

Shard n holds rows n*R to (n+1)*R of the data in their own order, so what a shard holds depends on neither the number
of processes nor on a restart. A shard has its name when it is whole; the index is completed last.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.data.bad import check_bad
from sanactl.data.buckets import bucket_sizes
from sanactl.data.components import ENCODERS, component_identity, settings_digest
from sanactl.data.encode_shard import encode_shard, in_dtype
from sanactl.data.encoded import EMPTY, FORMAT, INDEX, is_encoded, read_index
from sanactl.data.streams import StreamTable
from sanactl.errors import InputError, OutputExistsError, SanactlError, UsageError
from sanactl.files.atomic import atomic_path, check_target
from sanactl.files.progress import SILENT, Progress
from sanactl.files.safetensors import read_header
from sanactl.model.conditioning import pixels_per_latent
from sanactl.model.encoders import Encoders
from sanactl.model.processes import open_processes

if TYPE_CHECKING:
    from sanactl.checkpoint.open import Checkpoint
    from sanactl.data.tables import Examples

__all__ = ["EncodeSettings", "encode"]

# A killed run loses at most a shard a process, so that one holds no more examples than this, however small.
MOST_ROWS = 4096
# Tokens that a caption is taken to have when shards are planned, before any is encoded.
TYPICAL_TOKENS = 64
_NAMES = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}


@dataclass(frozen=True)
class EncodeSettings:
    """What to encode, and how.

    `dtype` is that of the shards ("fp32", "bf16", "fp16"); the models run in bf16 for bf16, else in fp32. `count` 0
    takes all examples. `shard_bytes` is about the size of a shard. `max_bad` is how many images may be unreadable.
    """

    height: int
    width: int
    max_sequence_length: int = 300
    complex_human_instruction: bool = True
    dtype: str = "fp32"
    buckets: bool = False
    count: int = 0
    batch_size: int = 16
    shard_bytes: int = 10**9
    max_bad: int = 0


def encode(
    checkpoint: Checkpoint,
    examples: Examples,
    target: Path,
    settings: EncodeSettings,
    *,
    device: Any = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Writes the latents and text embeddings of a data set, or goes on writing them.

    Args:
        checkpoint: whose autoencoder and text encoder are used.
        examples: images with captions.
        target: the folder to write; one that the same settings began is continued.
        device: where the models run; by default this process's.
        force: replace a folder that was made otherwise.

    Returns:
        {"examples": how many, "bytes": of the shards, "skipped": lines about images left out}.

    Raises:
        InputError: an image is one unreadable too many, or the models give no finite numbers.
        OutputExistsError: the folder is there and was made otherwise, and `force` is false.
        UsageError: the data have no end, and no `count` says how many are wanted.
    """
    if settings.dtype not in _NAMES:
        raise UsageError(f"unknown dtype {settings.dtype!r}", hint=f"choose one of {', '.join(_NAMES)}")
    known = examples.count
    if known is None and not settings.count and not isinstance(examples, StreamTable):
        raise UsageError(f"{examples.name} has no end", hint="say how many with --count")
    if known is not None and settings.count:
        known = min(known, settings.count)
    processes = open_processes()
    job = _Job(checkpoint, examples, target, settings, known, device or processes.device, progress)
    if processes.is_main_process:
        job.begin(force)
    processes.wait_for_everyone()
    job.shards(processes.process_index, processes.num_processes)
    processes.wait_for_everyone()
    if processes.is_main_process:
        job.complete()
    processes.wait_for_everyone()
    index = read_index(target)
    return {key: index[key] for key in ("examples", "bytes", "skipped")}


class _Job:
    """One folder of shards, as far as it got."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        examples: Examples,
        target: Path,
        settings: EncodeSettings,
        known: int | None,
        device: Any,
        progress: Progress,
    ) -> None:
        self.checkpoint, self.examples, self.target, self.settings = checkpoint, examples, target, settings
        self.device, self.progress = device, progress
        # The number of rows, as far as it is known before reading: a stream may end before `count`.
        self.most = known if known is not None else settings.count or None
        self.exact = known is not None or not isinstance(examples, StreamTable)
        factor = pixels_per_latent(checkpoint)
        multiple = factor * int(checkpoint.config.get("patch_size", 1))
        channels, width = int(checkpoint.config["in_channels"]), int(checkpoint.config["caption_channels"])
        size = (settings.height, settings.width)
        self.sizes = bucket_sizes(*size, multiple) if settings.buckets else [size]
        columns = len(examples.captions.columns)
        tokens = columns * min(TYPICAL_TOKENS, settings.max_sequence_length)
        numbers = channels * (size[0] // factor) * (size[1] // factor) + tokens * width
        row = numbers * (4 if settings.dtype == "fp32" else 2)
        self.rows = max(1, min(MOST_ROWS, settings.shard_bytes // row))
        self.about = {
            "resolution": list(size),
            "factor": factor,
            "multiple": multiple,
            "channels": channels,
            "text_width": width,
            "max_sequence_length": settings.max_sequence_length,
            "complex_human_instruction": settings.complex_human_instruction,
            "captions": str(examples.captions),
            "buckets": settings.buckets,
            "dtype": _NAMES[settings.dtype],
            "rows": self.rows,
            "count": settings.count,
            "encoders": {part: component_identity(checkpoint, part) for part in ENCODERS},
            "data": {"name": examples.name, "identity": examples.identity},
        }
        # What it is called is for people: any path to the same files is the same data.
        deciding = {**self.about, "data": {"identity": examples.identity}}
        self.key = settings_digest(deciding)
        self._encoders: Encoders | None = None
        self._skipped = 0

    @property
    def encoders(self) -> Encoders:
        """Autoencoder and text encoder, loaded when there is something to encode."""
        import torch

        if self._encoders is None:
            self._encoders = Encoders(
                self.checkpoint,
                max_sequence_length=self.settings.max_sequence_length,
                complex_human_instruction=self.settings.complex_human_instruction,
                device=self.device,
                dtype=torch.bfloat16 if self.settings.dtype == "bf16" else torch.float32,
            )
        return self._encoders

    def begin(self, force: bool) -> None:
        """Makes the folder, its first index and the empty prompt's embedding, unless they are there.

        Raises:
            OutputExistsError: the folder holds something else.
        """
        target = self.target
        if target.exists():
            if is_encoded(target):
                if read_index(target).get("key") == self.key:
                    if not (target / EMPTY).exists():
                        self._write_empty()
                    return
                if not force:
                    raise OutputExistsError(
                        f"{target} was encoded from other data or with other settings",
                        hint="name another with -o, or replace it with --force",
                    )
                for old in [target / INDEX, target / EMPTY, *target.glob("[0-9]*.safetensors")]:
                    old.unlink(missing_ok=True)
            elif not target.is_dir() or any(target.iterdir()):
                raise OutputExistsError(f"{target} already exists", hint="name another with -o")
        else:
            check_target(target)
            target.mkdir()
        self._write_index({"complete": False})
        self._write_empty()

    def _write_index(self, more: dict[str, Any]) -> None:
        index = {"format": FORMAT, "key": self.key, "settings": self.about, **more}
        with atomic_path(self.target / INDEX, force=True) as temporary:
            temporary.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")

    def _write_empty(self) -> None:
        from sanactl.model.saving import write_tensors

        (text,) = self.encoders.texts([""])
        with atomic_path(self.target / EMPTY, force=True) as temporary:
            write_tensors(
                {"text": in_dtype(text, self.settings.dtype, "the empty prompt")}, temporary, {"format": "pt"}
            )

    def shards(self, first: int, step: int) -> None:
        """Writes every `step`th shard from `first` on, those that are not there."""
        self.progress.start(self.most, "encoding")
        number = first
        try:
            while self.most is None or number * self.rows < self.most:
                about = self._about(number) or self._shard(number)
                if about is None:
                    return
                self._skipped += len(about["skipped"])
                self.progress.advance((about["rows"]) * (1 if step == 1 else step))
                if about["last"]:
                    return
                number += step
        finally:
            self.progress.close()

    def _path(self, number: int) -> Path:
        return self.target / f"{number:05d}.safetensors"

    def _about(self, number: int) -> dict[str, Any] | None:
        """What a shard that is there tells of itself; None if it is not there, or another run's."""
        if not self._path(number).exists():
            return None
        try:
            about = json.loads(read_header(self._path(number)).metadata.get("sanactl.latents", "{}"))
        except (InputError, ValueError):
            return None
        return about if isinstance(about, dict) and about.get("key") == self.key else None

    def _shard(self, number: int) -> dict[str, Any] | None:
        """Encodes and writes a shard; None where the data end before it."""
        from sanactl.model.saving import write_tensors

        first = number * self.rows
        stop = first + self.rows if self.most is None else min(first + self.rows, self.most)
        shard = encode_shard(
            self.examples,
            range(first, stop),
            self.encoders,
            self.sizes,
            dtype=self.settings.dtype,
            batch_size=self.settings.batch_size,
            on_bad=self._bad,
        )
        if not shard.read:
            return None
        about = {"key": self.key, "rows": shard.read, "skipped": shard.skipped, "last": shard.ended}
        metadata = {"format": "pt", "sanactl.latents": json.dumps(about)}
        with atomic_path(self._path(number), force=True) as temporary:
            write_tensors(shard.tensors, temporary, metadata)
        return about

    def _bad(self, count: int, error: InputError) -> None:
        """An image of the shard under way cannot be read, the `count`th of it."""
        check_bad(self._skipped + count, self.settings.max_bad, error)
        self.progress.note(f"passed over: {error.message}")

    def complete(self) -> None:
        """Lists the shards in the index, which makes the folder whole.

        Raises:
            InputError: more images than `max_bad` could not be read, all processes counted; or none could.
            SanactlError: a shard is missing.
        """
        shards: list[dict[str, Any]] = []
        skipped: list[str] = []
        number = 0
        while self.most is None or number * self.rows < self.most:
            about = self._about(number)
            if about is None:
                if self.exact or (shards and not shards[-1]["read"] == self.rows):
                    raise SanactlError(f"{self._path(number)} is missing", hint="run the same command again")
                break
            path = self._path(number)
            count = read_header(path).tensors["shapes"].shape[0]
            shards.append(
                {"file": path.name, "count": count, "bytes": path.stat().st_size, "read": about["rows"]}
            )
            skipped += about["skipped"]
            number += 1
            if about["last"]:
                break
        if len(skipped) > self.settings.max_bad:
            check_bad(len(skipped), self.settings.max_bad, InputError(skipped[-1]))
        if not sum(s["count"] for s in shards):
            raise InputError(f"{self.examples.name}: none of its images can be read")
        self._write_index(
            {
                "complete": True,
                "examples": sum(s["count"] for s in shards),
                "bytes": sum(s["bytes"] for s in shards),
                "skipped": skipped,
                "shards": shards,
            }
        )
