"""Soft-TIFA as a metric of `sanactl eval`: the probability of the expected answers to questions about an image.

Source: GenEval 2 (Kamath et al. 2025), `evaluation.py` and `soft_tifa_analysis.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sanactl.errors import InputError
from sanactl.files.progress import SILENT, Progress
from sanactl.records.partial import Partial
from sanactl.records.records import Record
from sanactl.scoring.metrics.protocol import Option
from sanactl.scoring.metrics.question_options import (
    ALLOW_MISSING,
    ANSWERING,
    answers_file,
    check_whole,
    facts_of,
    table_facts,
)

if TYPE_CHECKING:
    from sanactl.scoring.questions.asking import Questions
    from sanactl.scoring.questions.atoms import Atoms
    from sanactl.scoring.questions.dpg_scores import Part

__all__ = ["Vqa"]

INSTRUCTION = "Answer in one word."
PROTOCOL = "Soft-TIFA: {} mean of the probabilities of the expected answers, mean over prompts"
# What an image gives: the probabilities of its expected answers.
Image = list[float]


class Vqa:
    """Scores images by questions with expected answers; see `sanactl.scoring.questions.atoms`.

    Args:
        questions: a file of question lists; None where the image records have them.
        vqa, vqa_options, device, dtype: see `sanactl.scoring.questions.registry.open_answerer`.
        batch_size: questions at once. answers: a file of answers, see `KeptAnswers`, or "off".
        allow_missing: no error where images are missing.

    Raises:
        UsageError: an option is missing or wrong. InputError: the file or the model cannot be used.
    """

    help: ClassVar[str] = """Score images by questions with expected answers (Soft-TIFA, as GenEval 2).

    [bold]sanactl sample MODEL --prompts gen2.jsonl | sanactl eval vqa --vqa VLM[/bold]
    Questions in a file of their own:
    [bold]sanactl eval vqa many --questions geneval2_data.jsonl --vqa VLM[/bold]

    The image records go to stdout with vqa_score and vqa_gm, then two score
    records: soft_tifa_am and soft_tifa_gm. All of them also go to vqa.jsonl.
    Answers are kept, so a stopped run goes on where it was.
    """
    shards = True
    options: ClassVar[tuple[Option, ...]] = (
        Option("questions", "File of prompts with vqa_list or atoms. Default: those of the image records."),
        *ANSWERING,
        Option(
            "answers",
            "File that keeps the answers; what is in it is not asked again. off keeps none. "
            "Default: vqa.answers.jsonl for a model, none for shapes.",
        ),
        ALLOW_MISSING,
    )

    def __init__(
        self,
        questions: str | Path | None = None,
        vqa: str | None = None,
        vqa_options: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | None = None,
        answers: str | None = None,
        allow_missing: bool = False,
    ) -> None:
        from sanactl.scoring.questions.atoms import QuestionList
        from sanactl.scoring.questions.registry import open_answerer

        check_whole("batch_size", batch_size)
        self.questions = QuestionList(None if questions is None else Path(questions))
        self.allow_missing = allow_missing
        self.answerer = open_answerer(vqa, device=device, dtype=dtype, options=vqa_options)
        self.batch_size = batch_size or self.answerer.batch_size
        self.file = answers_file(answers, "vqa.answers.jsonl", self.answerer)
        self.identity: dict[str, Any] = {
            "answerer": dict(self.answerer.identity),
            "label": self.answerer.label,
            "digest": self.answerer.digest,
        }
        self._tell: Callable[[str], None] = lambda line: None

    def evaluate(
        self, records: Iterable[Record], *, kept: Partial | None = None, progress: Progress = SILENT
    ) -> Iterator[Record]:
        """See `Metric.evaluate`; each record gets `vqa_score` and `vqa_gm` (0 to 100) and `vqa_answers`."""
        from sanactl.scoring.questions.asking import Asking
        from sanactl.scoring.questions.atoms import arithmetic, geometric
        from sanactl.scoring.questions.collected import check_complete, distinct, held
        from sanactl.scoring.questions.kept_answers import KeptAnswers

        file = None if self.file is None else KeptAnswers(self.file, self.answerer)
        asking = Asking(self.answerer, self.batch_size, file, kept)
        self._tell = progress.note
        seen: dict[str, list[Record]] = {}
        found: dict[str, tuple[Atoms, list[Image]]] = {}
        progress.start(None, "asking about images")
        try:
            for one, given in asking.answers(map(self._questions, distinct(records))):
                record, atoms = one.record, one.about
                if atoms is None:
                    yield record
                    continue
                image = [probability for (probability,) in given[0]]
                seen.setdefault(atoms.name, []).append(held(record))
                found.setdefault(atoms.name, (atoms, []))[1].append(image)
                progress.advance(1)
                scores = {"vqa_score": arithmetic(image), "vqa_gm": geometric(image)}
                shown = {name: round(100 * value, 4) for name, value in scores.items()}
                yield {**record, **shown, "vqa_answers": image}
        finally:
            progress.close()
        if not seen:
            raise InputError("no image records to score", hint="sanactl sample makes some")
        if asking.taken:
            progress.note(f"{asking.taken:,} answers were there already")
        if not self.allow_missing:
            check_complete(self.questions.names, seen)
        yield from self._scores(list(found.values()), [r for images in seen.values() for r in images])

    def compute(self, one: Questions) -> Any:
        """See `Metric` and `sanactl.scoring.questions.asking.ask`."""
        from sanactl.scoring.questions.asking import ask

        return ask(self.answerer, self.batch_size, one)

    def _questions(self, record: Record) -> Questions:
        """What is asked about a record's image; no questions where it has none."""
        from sanactl.scoring.questions.asking import Loaded, Questions
        from sanactl.scoring.questions.protocol import Asked

        one = Questions(record, image=Loaded(Path(record["path"])))
        try:
            atoms = one.about = self.questions.of(record)
            if atoms is None:
                self._unknown(record)
        except InputError as error:
            one.fault = error
            return one
        if atoms is not None:
            one.asked = [Asked(a.question, (a.answer,), INSTRUCTION) for a in atoms.questions]
        return one

    def _unknown(self, record: Record) -> None:
        if self.questions.path is None:
            raise InputError(
                f"{record['path']}: its record has no vqa_list and no atoms",
                hint="name their file with --questions",
            )
        message = f"{record['path']}: no questions for its prompt {record['prompt'][:60]!r}"
        if not self.allow_missing:
            raise InputError(message, hint="--allow-missing passes such images on")
        self._tell(f"{message}; it is not scored")

    def _scores(
        self, prompts: list[tuple[Atoms, list[Image]]], records: Sequence[Record]
    ) -> Iterator[Record]:
        from sanactl.records.scores import new_score, same_checkpoint
        from sanactl.scoring.geneval.scores import selection
        from sanactl.scoring.questions.atoms import arithmetic, geometric
        from sanactl.scoring.questions.dpg_scores import estimates

        about = {
            **facts_of(self.answerer),
            **table_facts(self.questions.path, len(prompts), len(self.questions.names)),
            "images": len(records),
            "prompts": len(prompts),
            "questions": sum(len(a.questions) * len(images) for a, images in prompts),
            **same_checkpoint(records),
            "selection": selection(records),
        }
        for kind, mean, parts in (
            ("am", arithmetic, _by_skill(prompts)),
            ("gm", geometric, _by_count(prompts)),
        ):
            whole = _part()
            for _, images in prompts:
                _add(whole, [arithmetic([mean(image) for image in images])], len(images))
            value, ci = estimates({"": whole})[""]
            yield new_score(
                f"soft_tifa_{kind}",
                value,
                ci=ci,
                tasks={
                    name: {"value": one[0], "ci": one[1], "images": sum(parts[name].images)}
                    for name, one in estimates(parts).items()
                },
                protocol=PROTOCOL.format("arithmetic" if kind == "am" else "geometric"),
                **about,
            )


def _by_skill(prompts: Sequence[tuple[Atoms, list[Image]]]) -> dict[str, Part]:
    """The probabilities of each skill's questions."""
    parts: dict[str, Part] = {}
    for atoms, images in prompts:
        for skill in dict.fromkeys(a.skill for a in atoms.questions if a.skill):
            places = [i for i, a in enumerate(atoms.questions) if a.skill == skill]
            values = [sum(image[i] for image in images) / len(images) for i in places]
            _add(parts.setdefault(skill, _part()), values, len(images))
    return parts


def _by_count(prompts: Sequence[tuple[Atoms, list[Image]]]) -> dict[str, Part]:
    """The geometric means of prompts by their number of atoms."""
    from sanactl.scoring.questions.atoms import arithmetic, geometric

    parts: dict[str, Part] = {}
    for atoms, images in sorted(prompts, key=lambda prompt: prompt[0].count or 0):
        if atoms.count is not None:
            name = f"{atoms.count} atom{'' if atoms.count == 1 else 's'}"
            _add(parts.setdefault(name, _part()), [arithmetic([geometric(i) for i in images])], len(images))
    return parts


def _part() -> Part:
    from sanactl.scoring.questions.dpg_scores import Part

    return Part([], [], [])


def _add(part: Part, values: Sequence[float], images: int) -> None:
    """Adds a prompt's values."""
    part.sums.append(sum(values))
    part.counts.append(len(values))
    part.images.append(images)
