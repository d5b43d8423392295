"""The CLIP score as a metric of `sanactl eval`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from sanactl.errors import InputError
from sanactl.files.images import read_image
from sanactl.files.progress import SILENT, Progress
from sanactl.records.batches import KeptBatches, batches
from sanactl.records.partial import Partial
from sanactl.records.prompts import meant_prompt
from sanactl.records.records import Record
from sanactl.records.scores import new_score, same_checkpoint
from sanactl.scoring.detectors.check import ensure_checked
from sanactl.scoring.metrics.protocol import DEVICE, Option

__all__ = ["ClipScore"]

MODEL = "openai/clip-vit-large-patch14"
PROTOCOL = "exp(logit_scale) x cosine, not clamped, text truncated with its end token kept, mean over images"


class ClipScore:
    """Scores images by how well they fit their prompts.

    The score of an image is exp(logit_scale) times the cosine between its vector and its prompt's. It is what SANA's own
    code computes (`tools/metrics/clip-score`), with OpenAI's CLIP in float32.

    Args: model: a CLIP, a folder or a Hub id. text_field: the records' field with
    the text. device, dtype: where and in what it runs. batch_size: images that it
    gets at once.

    Raises: UsageError: there is no such device or dtype. InputError: there is no
    such CLIP.
    """

    help: ClassVar[str] = """Score how well images fit their prompts, by CLIP.

    [bold]sanactl eval clip many/[/bold]
    The paper's filter of training data:
    [bold]sanactl filter clip.jsonl --where 'clip_score > 25'[/bold]

    The image records go to stdout with clip_score, then a score record with
    their mean. All of them also go to clip.jsonl. A stopped run goes on where it
    was when the same command is given again.
    """
    shards = True
    options: ClassVar[tuple[Option, ...]] = (
        Option("model", "CLIP that compares images with prompts, a folder or Hub id.", MODEL, short="-m"),
        Option(
            "text_field",
            "Field of the records with the text that images are compared with; the score of another text than the prompt is "
            "FIELD_clip_score.",
            "prompt",
        ),
        DEVICE,
        Option("dtype", "Data type: fp32, bf16 or fp16.", "fp32"),
        Option("batch_size", "Number of images that CLIP gets at once.", 16, type=int, short="-b", least=1),
    )

    def __init__(
        self,
        model: str = MODEL,
        text_field: str = "prompt",
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int = 16,
    ) -> None:
        from sanactl.model.conditioning import pick_device
        from sanactl.model.loading import resolve_dtype
        from sanactl.scoring.clip_model import ClipModel

        place = pick_device(device)
        kind = resolve_dtype(dtype or "fp32", place)
        self.clip = ClipModel(model, place, kind)
        self.batch_size, self.text_field = batch_size, text_field
        self.field = "clip_score" if text_field == "prompt" else f"{text_field}_clip_score"
        self.checked = False
        self.tell: Callable[[str], None] | None = None
        self.identity: dict[str, Any] = {
            "model": self.clip.label,
            "digest": self.clip.digest,
            "dtype": str(kind).removeprefix("torch."),
            **({} if text_field == "prompt" else {"text_field": text_field}),
        }

    def evaluate(
        self, records: Iterable[Record], *, kept: Partial | None = None, progress: Progress = SILENT
    ) -> Iterator[Record]:
        """See `Metric.evaluate`; each record gets `clip_score`, or that of its text in another field if it has one."""
        from sanactl.model.sharing import share
        from sanactl.scoring.geneval.scores import by_prompt

        seen: list[Record] = []
        total, taken, truncated, without = 0.0, 0, 0, 0
        self.tell = progress.note
        parts, before = batches(records, self.batch_size), KeptBatches(kept, _is_result)
        progress.start(None, "comparing images with prompts")
        try:
            for batch, scores, known in share(parts, self.compute, known=before.known, keep=before.keep):
                taken += len(batch) if known else 0
                for record, score in zip(batch, scores, strict=True):
                    if score["clip_score"] is None:
                        without += 1
                        progress.advance(1)
                        yield record
                        continue
                    total += score["clip_score"]
                    truncated += score["truncated"]
                    kept_fields = {key: value for key, value in record.items() if key in _KEPT}
                    seen.append({**kept_fields, "clip_score": score["clip_score"]})
                    progress.advance(1, clip_score=f"{total / len(seen):.2f}")
                    yield {**record, self.field: score["clip_score"]}
        finally:
            progress.close()
        if without and not seen:
            raise InputError(f"no record has a text in the field {self.text_field!r}")
        if not seen:
            raise InputError("no image records to score", hint="sanactl sample makes some")
        if taken:
            progress.note(f"{taken:,} scores were taken over from earlier runs")
        if without:
            progress.note(f"{without:,} images without a text in {self.text_field!r} have no score")
        if truncated:
            progress.note(
                f"of {truncated:,} images the {self.text_field} is longer than CLIP takes; it was truncated"
            )
        yield self._score(by_prompt(seen), seen, truncated)

    def compute(self, batch: Sequence[Record]) -> list[Record]:
        """{"clip_score", "truncated"} of each image of a batch."""
        from PIL import Image

        if not self.checked:
            ensure_checked(self.clip, self.tell)
            self.checked = True
        found: list[Record] = [{"clip_score": None, "truncated": False} for _ in batch]
        with_text = [n for n, record in enumerate(batch) if self._text(record) is not None]
        if not with_text:
            return found
        texts = [str(self._text(batch[n])) for n in with_text]
        images = [Image.fromarray(read_image(Path(batch[n]["path"]))) for n in with_text]
        cosines = (self.clip.images(images) * self.clip.texts(texts)).sum(-1)
        scores = [round(score, 4) for score in (self.clip.scale * cosines.double()).tolist()]
        for n, score, cut in zip(with_text, scores, self.clip.is_truncated(texts), strict=True):
            found[n] = {"clip_score": score, "truncated": cut}
        return found

    def _text(self, record: Record) -> str | None:
        """The text that an image is compared with; None where there is none. An empty prompt is one."""
        # CLIP reads English: of a prompt that was translated or rewritten, the original.
        text = meant_prompt(record) if self.text_field == "prompt" else record.get(self.text_field)
        if text is None or (text == "" and self.text_field != "prompt"):
            return None
        if not isinstance(text, str):
            raise InputError(f"{record.get('path')}: its {self.text_field} is {str(text)[:60]!r}, not text")
        return text

    def _score(self, prompts: list[list[Record]], records: list[Record], truncated: int) -> Record:
        from sanactl.scoring.intervals import mean_of_prompts

        found = mean_of_prompts([[r["clip_score"] for r in images] for images in prompts])
        ci = None
        if found.low is not None and found.high is not None:
            ci = [round(float(end[0]), 4) for end in (found.low, found.high)]
        return new_score(
            "clip" if self.text_field == "prompt" else f"clip_{self.text_field}",
            round(float(found.value[0]), 4),
            ci=ci,
            protocol=PROTOCOL,
            model=self.clip.label,
            model_digest=self.clip.digest,
            dtype=self.identity["dtype"],
            images=len(records),
            prompts=len(prompts),
            truncated=truncated,
            **same_checkpoint(records),
        )


# The fields that the score at the end needs.
_KEPT = frozenset(["prompt_id", "id", "prompt", "tag", "checkpoint", "digest"])


def _is_result(found: Record) -> bool:
    return type(found.get("clip_score")) in (float, type(None)) and isinstance(found.get("truncated"), bool)
