"""DPG-Bench as a metric of `sanactl eval`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sanactl.errors import InputError, UsageError
from sanactl.files.progress import SILENT, Progress
from sanactl.records.partial import Partial
from sanactl.records.records import Record
from sanactl.scoring.metrics.protocol import Option
from sanactl.scoring.metrics.question_options import (
    ALLOW_MISSING,
    ANSWERING,
    LARGEST,
    answers_file,
    check_whole,
    facts_of,
    table_facts,
)

if TYPE_CHECKING:
    from sanactl.scoring.questions.asking import Loaded, Questions
    from sanactl.scoring.questions.dpg_rules import ItemScore
    from sanactl.scoring.questions.kept_answers import Box

__all__ = ["Dpg"]

INSTRUCTION = "Please answer yes or no."
NOTE = "not comparable with mPLUG scores"
# The model of the official script, `damo/mplug_visual-question-answering_coco_large_en`; mPLUG-Owl is another one.
_MPLUG = re.compile("mplug_visual-question-answering", re.IGNORECASE)


class Dpg:
    """Scores images by DPG-Bench's questions; `sanactl.scoring.questions.dpg_rules` has the arithmetic.

    Args:
        questions: DPG-Bench's table. vqa: see `sanactl.scoring.questions.registry.open_answerer`, as `vqa_options`,
            device and dtype.
        batch_size: questions at once. protocol: "fixed" or "official". resolution: images are 2 x 2 grids of images of
            so many pixels; None for single images. answers: a file of answers, see `KeptAnswers`, or "off".
            allow_missing: no error where images are missing.

    Raises:
        UsageError: an option is missing or wrong. InputError: the table or the model cannot be used.
    """

    help: ClassVar[str] = """Score images by DPG-Bench: questions about 1,065 long prompts, four images each.

    [bold]sanactl prompts dpg dpg_bench.csv > dpg.jsonl[/bold]
    [bold]sanactl sample MODEL --prompts dpg.jsonl -n 4 -o dpg-images[/bold]
    [bold]sanactl eval dpg dpg-images --questions dpg_bench.csv --vqa VLM[/bold]
    A folder of 2 x 2 grids, ITEM_ID.png:
    [bold]sanactl eval dpg grids --questions dpg_bench.csv --vqa VLM --resolution 1024[/bold]

    The image records go to stdout with dpg_score and dpg_answers, then a score
    record. All of them also go to dpg.jsonl. Answers are kept, so another
    --protocol needs no model, and a stopped run goes on where it was.
    """
    shards = True
    options: ClassVar[tuple[Option, ...]] = (
        Option("questions", "DPG-Bench's table of questions, dpg_bench.csv. Default: none, it is needed."),
        *ANSWERING,
        Option(
            "protocol",
            "Rules: fixed, or official, those of the official script with its faults.",
            "fixed",
            choices=lambda: ("fixed", "official"),
        ),
        Option(
            "resolution",
            "Pixels a side of each image in 2 x 2 grids. Default: images are single ones.",
            type=int,
            least=1,
        ),
        Option(
            "answers",
            "File that keeps the answers; what is in it is not asked again. off keeps none. "
            "Default: dpg.answers.jsonl for a model, none for shapes.",
        ),
        ALLOW_MISSING,
    )
    plain_folders: ClassVar[bool] = True

    def __init__(
        self,
        questions: str | Path | None = None,
        vqa: str | None = None,
        vqa_options: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | None = None,
        protocol: str = "fixed",
        **rest: Any,
    ) -> None:
        from sanactl.scoring.questions.dpg_file import fixed_questions, official_questions, read_questions
        from sanactl.scoring.questions.dpg_rules import PROTOCOLS
        from sanactl.scoring.questions.registry import open_answerer

        if questions is None:
            both = " and --vqa are" if vqa is None else " is"
            raise UsageError(
                f"--questions{both} needed: DPG-Bench's table{', and what answers its questions' if vqa is None else ''}",
                hint="--questions dpg_bench.csv" + " --vqa VLM" * (vqa is None),
            )
        if protocol not in PROTOCOLS:
            raise UsageError(f"no protocol {protocol!r}", hint=f"there are: {', '.join(PROTOCOLS)}")
        self.protocol = protocol
        self.resolution = check_whole("resolution", rest.get("resolution"), LARGEST)
        check_whole("batch_size", batch_size)
        self.allow_missing = bool(rest.get("allow_missing"))
        self.table = Path(questions)
        rows = read_questions(self.table)
        self.names = dict.fromkeys(row.item for row in rows)
        self.repeated = 0
        if protocol == "official":
            self.items = official_questions(rows)
        else:
            self.items, self.repeated = fixed_questions(rows)
        self.answerer = open_answerer(vqa, device=device, dtype=dtype, options=vqa_options)
        self.batch_size = batch_size or self.answerer.batch_size
        self.file = answers_file(rest.get("answers"), "dpg.answers.jsonl", self.answerer)
        self.identity: dict[str, Any] = {
            "answerer": dict(self.answerer.identity),
            "label": self.answerer.label,
            "digest": self.answerer.digest,
        }
        self._tell: Callable[[str], None] = lambda line: None

    def evaluate(
        self, records: Iterable[Record], *, kept: Partial | None = None, progress: Progress = SILENT
    ) -> Iterator[Record]:
        """See `Metric.evaluate`; each record gets `dpg_score` (0 to 100) and `dpg_answers`."""
        from sanactl.records.scores import same_checkpoint
        from sanactl.scoring.geneval.scores import selection
        from sanactl.scoring.questions.asking import Asking
        from sanactl.scoring.questions.collected import check_complete, distinct, held, item_of
        from sanactl.scoring.questions.dpg_scores import dpg_record
        from sanactl.scoring.questions.kept_answers import KeptAnswers

        if self.repeated:
            progress.note(f"{self.repeated:,} rows of the table are there twice; each counts once")
        file = None if self.file is None else KeptAnswers(self.file, self.answerer)
        asking = Asking(self.answerer, self.batch_size, file, kept)
        self._tell = progress.note
        seen: dict[str, list[Record]] = {}
        answers: dict[str, list[tuple[float, list[dict[int, bool]]]]] = {}
        failed: set[str] = set()
        asked = 0
        progress.start(None, "asking about images")
        try:
            for one, given in asking.answers(map(self._questions, distinct(records))):
                record, item = one.record, item_of(one.record)
                if item not in self.names:
                    yield record
                    continue
                seen.setdefault(item, []).append(held(record))
                if one.refused:
                    self._refuse(record, one.refused)
                if one.asked is None or one.refused:
                    failed.add(item)
                    yield {**record, "dpg_score": None}
                    continue
                found = [
                    {n: yes > no for n, (yes, no) in zip(self.items[item], each, strict=True)}
                    for each in given
                ]
                asked += sum(map(len, found))
                answers.setdefault(item, []).append((_place(record), found))
                progress.advance(1)
                score = self._score(item, found)
                shown = [{str(n): "yes" if y else "no" for n, y in each.items()} for each in found]
                value = None if score is None else round(100 * score.value, 4)
                yield {**record, "dpg_score": value, "dpg_answers": shown}
        finally:
            progress.close()
        if not seen:
            raise InputError("no image records to score", hint="sanactl sample makes some")
        if asking.taken:
            progress.note(f"{asking.taken:,} answers were there already")
        if not self.allow_missing:
            check_complete(self.names, seen)
        items: dict[str, tuple[ItemScore, int]] = {}
        for item, images in answers.items():
            # In the order in which they were sampled: by the official rules the last one gives the categories.
            every = [one for _, each in sorted(images, key=lambda image: image[0]) for one in each]
            score = None if item in failed else self._score(item, every)
            if score is not None:
                items[item] = score, len(every)
        left_out = len(seen) - len(items)
        if left_out:
            progress.note(f"{left_out:,} prompts are left out of the mean")
        comparable = bool(_MPLUG.search(self.answerer.label))
        if not comparable:
            progress.note(f"answers of {self.answerer.label}: {NOTE}")
        known = [record for records in seen.values() for record in records]
        yield dpg_record(
            self.protocol,
            items,
            **facts_of(self.answerer),
            **({} if comparable else {"note": NOTE}),
            **table_facts(self.table, len(items), len(self.names)),
            images=sum(count for _, count in items.values()),
            prompts=len(items),
            questions=asked,
            **({"left_out": left_out} if left_out or self.protocol == "official" else {}),
            **same_checkpoint(known),
            selection=selection(known),
        )

    def compute(self, one: Questions) -> Any:
        """See `Metric` and `sanactl.scoring.questions.asking.ask`."""
        from sanactl.scoring.questions.asking import ask

        return ask(self.answerer, self.batch_size, one)

    def _questions(self, record: Record) -> Questions:
        """What is asked about a record's image; no questions where it is left out."""
        from sanactl.scoring.questions.asking import Loaded, Questions
        from sanactl.scoring.questions.collected import item_of
        from sanactl.scoring.questions.protocol import Asked

        item = item_of(record)
        one = Questions(record, image=Loaded(Path(record["path"])))
        if item not in self.names:
            return self._unknown(one, item)
        questions = self.items.get(item)
        if questions is None:
            return one  # its only row is the first
        assert one.image is not None
        try:
            one.parts = self._parts(one.image)
        except InputError as error:
            if self.protocol == "official":
                self._tell(f"{error}; the official script leaves it out")
            else:
                one.fault = error
            return one
        one.asked = [Asked(q.text, ("yes", "no"), INSTRUCTION) for q in questions.values()]
        return one

    def _unknown(self, one: Questions, item: str) -> Questions:
        path = one.record["path"]
        if self.allow_missing:
            self._tell(f"{path}: the table has no item {item[:80]!r}; it is not scored")
        else:
            one.fault = InputError(
                f"{path}: the table has no item {item[:80]!r}",
                hint="records need the item_id of their prompt (sanactl prompts dpg), files its name; "
                "--allow-missing passes others on",
            )
        return one

    def _refuse(self, record: Record, why: str) -> None:
        message = f"{record['path']}: {why}"
        if not self.allow_missing:
            raise InputError(message, hint="--allow-missing leaves its prompt out")
        self._tell(f"{message}; its prompt is left out")

    def _parts(self, image: Loaded) -> list[Box | None]:
        from sanactl.scoring.questions.parts import grid_parts

        if self.resolution is None:
            if self.protocol == "official":
                image.pixels()  # a damaged one is left out
            return [None]
        height, width = image.pixels().shape[:2]
        try:
            return [*grid_parts(height, width, self.resolution, padded=self.protocol != "official")]
        except InputError as error:
            raise InputError(f"{image.path}: {error.message}", hint=error.hint) from None

    def _score(self, item: str, images: list[dict[int, bool]]) -> ItemScore | None:
        """The scores of images of an item; None where the official script fails."""
        from sanactl.scoring.questions.dpg_rules import fixed_item, official_item

        if self.protocol != "official":
            return fixed_item(self.items[item], images)
        try:
            return official_item(self.items[item], images)
        except KeyError:
            return None


def _place(record: Record) -> float:
    index = record.get("index")
    return math.inf if index is None else float(index)
