"""The interface of metrics, and the options of a metric's command."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sanactl.files.progress import SILENT, Progress
from sanactl.records.partial import Partial
from sanactl.records.records import Record

__all__ = ["DEVICE", "DTYPE", "Metric", "Option"]


@dataclass(frozen=True)
class Option:
    """One option of a metric's command.

    Attributes:
        name: of the keyword that the metric is opened with; `batch_size` is `--batch-size`.
        help: a sentence for people.
        default: the value where the option is not given; None for "not given".
        type: `str`, `int`, `float` or `bool`.
        short: a one-letter form such as "-b".
        least: the smallest number allowed.
        choices: the values that there are, if they are few; read when help is shown.
    """

    name: str
    help: str
    default: Any = None
    type: type = str
    short: str | None = None
    least: float | None = None
    choices: Callable[[], Iterable[str]] | None = None


DEVICE = Option("device", "Device: cpu, cuda, cuda:1, mps. Default: a GPU if there is one, else the CPU.")
DTYPE = Option("dtype", "Data type: fp32, bf16 or fp16. Default: bf16 on a GPU, fp32 on a CPU.")


class Metric(Protocol):
    """Scores images. A class of this kind is opened with its options as keywords.

    Its module is imported for `sanactl eval --help`: torch and other slow imports belong into functions.

    A metric can also have `file`, the name of its file of records where it is not the metric's, and `force`, which is
    set to whether files that the metric itself writes may be replaced.

    A metric whose work can be divided among processes has `compute`, the answer to a part of the work, and its `evaluate`
    goes through its parts by `sanactl.model.sharing.share`. Under a launcher each process opens the metric, the first one
    calls `evaluate`, and the others `compute`. Of a metric without `compute` the first process alone does all the work.

    A class attribute `shards`, true, says that the parts of the work are those of one `share`, that each part is scored by
    itself and kept in `kept`, and that all of them are found again there: then the work can be divided among jobs, too.
    """

    @property
    def help(self) -> str:
        """The text of `sanactl eval NAME --help`, with examples; a class attribute."""

    @property
    def options(self) -> tuple[Option, ...]:
        """Of the command, beside the records, `--output` and `--force`; a class attribute."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything except the records that results depend on, as JSON. Kept results of others are not used."""

    def evaluate(
        self, records: Iterable[Record], *, kept: Partial | None = None, progress: Progress = SILENT
    ) -> Iterator[Record]:
        """Scores images as they come.

        Args:
            records: image records.
            kept: results of an earlier run that was stopped, and a place for this run's.
            progress: told of each image.

        Yields:
            Each record with fields of the metric added, then `score` records (`sanactl.records.scores`).

        Raises:
            InputError: an image cannot be read, or a record lacks what the metric needs.
        """
