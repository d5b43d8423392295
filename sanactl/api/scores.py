"""`sanactl.judge` and `sanactl.evaluate`: image records in, image records with verdicts or scores out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, cast

from sanactl.api.inputs import (
    DeviceLike,
    DtypeLike,
    PathLike,
    Records,
    as_progress,
    as_records,
    device_name,
    dtype_name,
)
from sanactl.api.judges import chosen_judge
from sanactl.api.listed import CHECKED, checked, listed
from sanactl.files.progress import Progress
from sanactl.version import __version__

if TYPE_CHECKING:
    from sanactl.judging.protocol import Judge
    from sanactl.records.partial import Partial
    from sanactl.records.records import Record
    from sanactl.records.types import ImageRecord, ScoreRecord

__all__ = ["evaluate", "iter_evaluate", "iter_judge", "judge", "writing_to"]


@checked
def iter_judge(
    records: Records,
    *,
    keep: int | None = None,
    all: bool = False,
    model: str | Judge | None = None,
    judges: Sequence[str] | None = None,
    judge_options: Mapping[str, Any] | None = None,
    calibration: Sequence[PathLike] | None = None,
    batch_size: int = 32,
    device: DeviceLike | None = None,
    dtype: DtypeLike | None = None,
    trust_remote_code: bool = False,
    no_cache: bool = False,
    output: PathLike | None = None,
    sheet: PathLike | None = None,
    force: bool = False,
    progress: bool | Progress = False,
) -> Iterator[ImageRecord]:
    """As `sanactl.judge`, one record after the other: those of a prompt when the last of its images has come.

    It takes an iterator such as `sanactl.iter_sample` gives, and holds the records of unfinished prompts only. Arguments
    are checked and the judge is opened at the call. Same arguments and errors as `sanactl.judge`.
    """
    from sanactl.errors import UsageError
    from sanactl.judging.cache import VerdictCache
    from sanactl.judging.calibration import read_calibrations
    from sanactl.judging.select import judge_stream
    from sanactl.judging.shipped import chosen_calibrations
    from sanactl.report.sheet import ContactSheet

    if keep is not None and all:
        raise UsageError("keep and all exclude each other")
    if batch_size < 1 or (keep is not None and keep < 1):
        raise UsageError(f"keep and batch_size have to be at least 1, got {keep} and {batch_size}")
    found = [c for path in calibration or () for c in read_calibrations(Path(path))]
    picture = None if sheet is None else ContactSheet(Path(sheet), force=force)
    stream = as_records(records, "image")
    chosen = chosen_judge(
        model,
        judges,
        judge_options,
        device=device_name(device),
        dtype=dtype_name(dtype),
        trust_remote_code=trust_remote_code,
    )
    sink = as_progress(progress)
    calibrations = chosen_calibrations(chosen, found, sink.note)
    writing = writing_to(output, force)
    cache = VerdictCache(None if output is None else Path.cwd(), chosen, ask_again=no_cache, tell=sink.note)
    yield CHECKED
    winners = judge_stream(
        stream,
        chosen,
        keep=None if all else keep or 1,
        batch_size=batch_size,
        cache=cache,
        calibrations=calibrations,
        progress=sink,
    )
    for record in writing(winners if picture is None else picture.watching(winners)):
        yield cast("ImageRecord", record)
    if picture is not None:
        picture.write()


@listed(iter_judge)
def judge() -> None:
    """Lets a vision-language model pick the best images of each prompt; each image is looked at once.

    Args:
        records: image records (of `sanactl.sample`), a JSONL file of them, or a folder in GenEval's layout.
        keep: images of each prompt that are returned; None is 1. The paper keeps 4 of 2,048.
        all: return all images, each with its rank.
        model: a judge's name ("builtin:shapes", "oracle"), the folder or Hub id of a vision-language model, the
            address of a server ("http://localhost:8000/v1#MODEL"), "BACKEND:NAME", or an opened judge
            (`sanactl.judging.protocol.Judge`); None is "builtin:shapes".
        judges: several names in place of `model`: the mean of their probabilities counts.
        judge_options: options of the judge's backend, by name; of several judges "2.NAME" is the second one's.
        calibration: files that `sanactl eval judge` writes; by default `calibration.json` in the judge's folder, of
            several judges only if each has one. Records get `calibrated`, the probability that the image is right,
            and several judges count by the mean of it.
        batch_size: images at once. It does not change the verdicts.
        device, dtype: of the judge, names or torch's objects; see `sanactl.sample`.
        trust_remote_code: run code from the model's repository.
        no_cache: ask again about images whose verdicts are known from earlier runs.
        output: also write the records to this .jsonl file. Verdicts are then kept in the current folder's
            .sanactl/verdicts, as those of the command: no later call or command asks about the same image and prompt.
        sheet: also draw the returned images into one picture, a .png, .jpg or .webp file.
        force: replace `output` and `sheet` where they are there.
        progress: True for a bar of the images.

    Returns:
        the records with `judge`, `verdict` ("yes" or "no"), `yes_logprob` and `no_logprob` (natural logarithms),
        `judge_score` (probability of the verdict, negative for a no) and `rank` (0 the best); a prompt's best first.

    Raises:
        UsageError: no such judge or option; `keep` or `batch_size` below 1.
        InputError: no images, one that cannot be read, or one that this judge cannot take.
        OutputExistsError: `output` or `sheet` is there, and `force` was not given.

    Source: section 2.5. The paper's pairwise rule needs each image's own answer only, so each is asked about once.
    """


@checked
def iter_evaluate(
    records: Records,
    metric: str,
    *,
    output: PathLike | None = None,
    force: bool = False,
    progress: bool | Progress = False,
    **options: Any,
) -> Iterator[Union[ImageRecord, ScoreRecord]]:
    """As `sanactl.evaluate`, one record after the other: images as they are scored, the scores last.

    Arguments are checked and the metric is opened at the call. Same arguments and errors as `sanactl.evaluate`.
    """
    from sanactl.scoring.metrics.registry import open_metric
    from sanactl.scoring.rewritten import telling_rewrites

    names = {"device": device_name, "dtype": dtype_name}
    read = {name: names[name](value) if name in names else value for name, value in options.items()}
    opened = open_metric(metric, **read)
    if hasattr(opened, "force"):
        opened.force = force
    stream = as_records(records, "image", plain=getattr(opened, "plain_folders", False))
    sink = as_progress(progress)
    writing = writing_to(output, force)
    yield CHECKED
    with _keeping(output, f"eval-{metric}", opened.identity, sink) as kept:
        evaluate = partial(opened.evaluate, kept=kept, progress=sink)
        for record in writing(telling_rewrites(evaluate, stream)):
            yield cast("ImageRecord | ScoreRecord", record)


@listed(iter_evaluate)
def evaluate() -> None:
    """Scores images by a metric.

    Args:
        records: image records, a JSONL file of them, or a folder in GenEval's layout ("fid" and its like take any
            folder of images).
        metric: its name, as of `sanactl eval`: "geneval" and what else `sanactl.scoring.metrics.registry.METRICS` has.
        output: also write the records to this .jsonl file. A call that was stopped then goes on where it was when it
            is made again.
        force: replace `output` where it is there.
        progress: True for a bar of the images.
        options: the metric's own, as of its command: for "geneval" `detector`, `device`, `dtype`, `batch_size`.

    Returns:
        the image records with the metric's fields (`correct`, `reason`, `detections`), then score records. The last is
        the metric's own: `value` (for "geneval" 0 to 1), `ci` (95 % interval) and `tasks`.

    Raises:
        UsageError: no such metric or option.
        InputError: no images, one that cannot be read, or records that lack what the metric needs.
        OutputExistsError: `output` is there, and `force` was not given.

    Source: section 3.1; GenEval's rules are those of Ghosh et al. 2023.
    """


@contextlib.contextmanager
def _keeping(
    output: PathLike | None, command: str, identity: Mapping[str, Any], progress: Progress
) -> Iterator[Partial | None]:
    """A place for the results of a call that may be stopped."""
    from sanactl.records.partial import Partial

    if output is None:
        yield None
        return
    folder = Path(output).parent
    kept = Partial(folder, command, {"version": __version__, **identity}, tell=progress.note)
    try:
        yield kept
        kept.done()
    finally:
        kept.close()


def writing_to(output: PathLike | None, force: bool) -> Callable[[Iterable[Record]], Iterator[Record]]:
    """What writes records to `output` as they pass; its name is checked now."""
    from sanactl.files.atomic import atomic_path, check_target
    from sanactl.records.records import dumps

    if output is None:
        return iter
    target = Path(output)
    check_target(target, force)

    def writing(records: Iterable[Record]) -> Iterator[Record]:
        with atomic_path(target, force=force) as temporary, temporary.open("w", encoding="utf-8") as stream:
            for record in records:
                stream.write(dumps(record) + "\n")
                yield record

    return writing
