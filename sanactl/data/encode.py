"""`encode`: latents and text embeddings of a data set, computed once, into safetensors shards.

Shard n holds rows n*R to (n+1)*R of the data in their own order, so what a shard holds depends on neither the number
of processes nor on a restart. A shard has its name when it is whole; the index is completed last.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.data.bad import check_bad
from sanactl.data.encode_plan import EncodeSettings, plan_encoding
from sanactl.data.encode_shard import encode_shard, in_dtype
from sanactl.data.encoded import read_index
from sanactl.data.long_captions import LongCaptions
from sanactl.data.shard_folder import ShardFolder
from sanactl.errors import InputError
from sanactl.files.progress import SILENT, Progress
from sanactl.model.encoders import Encoders
from sanactl.model.processes import open_processes
from sanactl.records.shards import Shard

if TYPE_CHECKING:
    from sanactl.checkpoint.open import Checkpoint
    from sanactl.data.tables import Examples

__all__ = ["EncodeSettings", "encode"]


def encode(
    checkpoint: Checkpoint,
    examples: Examples,
    target: Path,
    settings: EncodeSettings,
    *,
    device: Any = None,
    force: bool = False,
    shard: Shard | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Writes the latents and text embeddings of a data set, or goes on writing them.

    Args:
        checkpoint: whose autoencoder and text encoder are used.
        examples: images with captions.
        target: the folder to write; one that the same settings began is continued.
        settings: what to encode, and how.
        device: where the models run; by default this process's.
        force: replace a folder that was made otherwise.
        shard: write this job's part of the folder's files only, every N-th. The folder is complete when a run without it,
            or `sanactl.data.join_encoded`, has found all of them.
        progress: told of each shard.

    Returns:
        {"examples": how many, "bytes": of the shards, "skipped": lines about images left out}; with `shard`, of its files.

    Raises:
        InputError: an image is one unreadable too many, or the models give no finite numbers.
        OutputExistsError: the folder is there and was made otherwise, and `force` is false.
        UsageError: an unknown dtype; or the data have no end, and no `count` says how many are wanted.
    """
    processes = open_processes()
    job = _Job(checkpoint, examples, target, settings, device or processes.device, progress)
    if processes.is_main_process:
        job.begin(force)
    processes.wait_for_everyone()
    part = shard or Shard(0, 1)
    # Of this job's files, process i writes every n-th.
    job.shards(part.part + part.of * processes.process_index, part.of * processes.num_processes)
    processes.wait_for_everyone()
    if processes.is_main_process and shard is None:
        job.folder.complete(examples.name, settings.max_bad)
    if line := job.long_captions(processes.num_processes):
        progress.note(line)
    processes.wait_for_everyone()
    if shard is not None:
        return job.folder.described(shard)
    index = read_index(target)
    return {key: index[key] for key in ("examples", "bytes", "skipped")}


class _Job:
    """One process's part in writing a folder of shards."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        examples: Examples,
        target: Path,
        settings: EncodeSettings,
        device: Any,
        progress: Progress,
    ) -> None:
        self.checkpoint, self.examples, self.settings = checkpoint, examples, settings
        self.device, self.progress = device, progress
        self.plan = plan_encoding(checkpoint, examples, settings)
        self.folder = ShardFolder(target, self.plan)
        self._skipped = 0
        self._long = LongCaptions()

    @cached_property
    def encoders(self) -> Encoders:
        """Autoencoder and text encoder, loaded when there is something to encode."""
        import torch

        return Encoders(
            self.checkpoint,
            max_sequence_length=self.settings.max_sequence_length,
            complex_human_instruction=self.settings.complex_human_instruction,
            device=self.device,
            dtype=torch.bfloat16 if self.settings.dtype == "bf16" else torch.float32,
        )

    def begin(self, force: bool) -> None:
        """Makes the folder with the empty prompt's embedding, unless it is there.

        Raises:
            OutputExistsError: the folder holds something else.
        """
        self.folder.begin(force)
        if not self.folder.has_empty:
            (text,) = self.encoders.texts([""])
            self.folder.write_empty(in_dtype(text, self.settings.dtype, "the empty prompt"))

    def shards(self, first: int, step: int) -> None:
        """Writes every `step`th shard from `first` on, those that are not there."""
        self.progress.start(self.plan.most, "encoding")
        self.progress.keeps("whole shards stay")
        number = first
        try:
            while (rows := self.plan.shard(number)) is not None:
                about = self.folder.about(number) or self._shard(number, rows)
                if about is None:
                    return
                self._skipped += len(about["skipped"])
                self.progress.advance(about["rows"] * step)
                if about["last"]:
                    return
                number += step
        finally:
            self.progress.close()

    def _shard(self, number: int, rows: range) -> dict[str, Any] | None:
        """Encodes and writes a shard; None where the data end before it."""
        shard = encode_shard(
            self.examples,
            rows,
            self.encoders,
            self.plan.sizes,
            dtype=self.settings.dtype,
            batch_size=self.settings.batch_size,
            on_bad=self._bad,
        )
        if not shard.read:
            return None
        self._long.join(shard.long)
        return self.folder.write(
            number, shard.tensors, rows=shard.read, skipped=shard.skipped, last=shard.ended
        )

    def _bad(self, count: int, error: InputError) -> None:
        """An image of the shard under way cannot be read, the `count`th of it."""
        check_bad(self._skipped + count, self.settings.max_bad, error)
        self.progress.note(f"skipped: {error.message}")

    def long_captions(self, processes: int) -> str | None:
        """A line about captions that were cut in this run, by all processes; None where none was."""
        counted = [self._long]
        if processes > 1:
            from accelerate.utils import gather_object

            counted = gather_object(counted)
        every = LongCaptions()
        for one in counted:
            every.join(one)
        return every.note
