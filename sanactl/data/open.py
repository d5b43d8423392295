"""What `--data` names, as training data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sanactl.data.encoded import EncodedData, is_encoded
from sanactl.data.examples import open_examples
from sanactl.data.order import Order, SequentialOrder, ShuffledOrder
from sanactl.data.sources import TableSource, TrainingData, bucketed, multiple_of
from sanactl.data.tables import SizedExamples
from sanactl.errors import UsageError

__all__ = ["open_training_data"]


def open_training_data(
    reference: str | None,
    *,
    seed: int,
    height: int,
    width: int,
    records: Sequence[dict[str, Any]] | None = None,
    captions: str | None = None,
    buckets: bool = False,
    streaming: bool = False,
    max_bad: int = 0,
    multiple: int | None = None,
) -> TrainingData:
    """The source for `--data`: image records if given (or named, as a .jsonl file), else the folder or dataset, else
    the built-in world.

    Args:
        reference: what docs/data.md lists: a folder that `sanactl encode` wrote; a folder of images with
            metadata.jsonl; one in GenEval's layout, which `sanactl sample` writes; .tar shards or Parquet files, as a
            folder, a file or a pattern; the id of a dataset on the Hub; a .jsonl of image records; "builtin:shapes",
            which None is, too.
        seed: of the order, and of the choice among captions.
        height, width: of the images in pixels; with `buckets` their product is what counts.
        records: image records.
        captions: columns with weights ("text:0.7,short:0.3"); by default text, caption or prompt.
        buckets: keep each image's aspect ratio, nearly: steps of several sizes.
        streaming: read a dataset as it goes by, shuffled within a buffer, in place of preparing it on disk.
        max_bad: how many unreadable images may be passed over.
        multiple: pixels that a bucket's sides have to be multiples of: a latent's side times the patch size.

    Raises:
        InputError: it is none of these, has no images with captions, or cannot be read.
        UsageError: options that exclude each other.
    """
    if records is None and reference is not None and is_encoded(Path(reference)):
        return EncodedData(Path(reference), seed, captions=captions)
    if buckets and streaming:
        raise UsageError(
            "--buckets needs the sizes of all images, which a stream does not tell",
            hint="leave one out, or sanactl encode --streaming --buckets first",
        )
    table = open_examples(
        reference,
        seed=seed,
        side=max(height, width),
        records=records,
        captions=captions,
        streaming=streaming,
        shuffled=True,
        max_bad=max_bad,
    )
    if isinstance(table, SizedExamples):
        if buckets:
            return bucketed(table, seed, height, width, multiple or multiple_of(height, width), max_bad)
        order: Order = ShuffledOrder(table.count, seed, (height, width))
    else:
        order = SequentialOrder((height, width))
    return TableSource(table, order, seed, max_bad=max_bad)
