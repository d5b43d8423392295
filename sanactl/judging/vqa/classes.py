"""Answers of transformers' models for visual question answering: ViLT, which chooses an answer, and BLIP, which writes one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError
from sanactl.judging.vqa.files import CLASSES, weights_digest
from sanactl.judging.vqa.vlm import token_ids
from sanactl.scoring.questions.protocol import Asked, spellings

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

__all__ = ["VqaClassAnswers"]


class VqaClassAnswers:
    """A ViLT or BLIP for visual question answering. It is asked the question alone, as it was trained.

    The probability of an answer is ViLT's softmax over its answers, and the one of BLIP's first token over its
    vocabulary.

    Args:
        folder, label: of the model.
        device, dtype: torch's.
    """

    batch_size = 16

    def __init__(self, folder: Path, label: str, device: torch.device, dtype: torch.dtype) -> None:
        import transformers

        self.folder, self.label, self.digest = folder, label, weights_digest(folder)
        self.device, self.dtype = device, dtype
        self.identity: dict[str, Any] = {
            "model": label,
            "dtype": str(dtype).removeprefix("torch."),
            "device": device.type,
            "transformers": transformers.__version__,
        }
        self._model: Any = None
        self._processor: Any = None

    def _load(self) -> None:
        from sanactl.judging.backends.processors import load_processor
        from sanactl.model.files import load_model, model_files
        from sanactl.model.guard import offline, reading

        files = model_files(str(self.folder), CLASSES, "a VQA model")
        self._model = load_model(files, "AutoModelForVisualQuestionAnswering", self.device, self.dtype)
        with offline(self.folder), reading(f"{self.folder} as a VQA model"):
            self._processor = load_processor(str(self.folder))

    def answer(self, image: NDArray[np.uint8], asked: Sequence[Asked]) -> list[tuple[float, ...]]:
        """See `Answerer.answer`."""
        import torch
        from PIL import Image

        from sanactl.model.files import exact_fp32

        if self._model is None:
            self._load()
        chosen = [[self._columns(answer) for answer in one.answers] for one in asked]
        inputs = self._processor(
            images=[Image.fromarray(image)] * len(asked),
            text=[one.question for one in asked],
            padding=True,
            truncation=True,
            return_tensors="pt",
        ).to(self.device, dtype=self.dtype)
        with torch.inference_mode(), exact_fp32():
            rows = torch.softmax(self._logits(inputs).double(), dim=-1).cpu()
        if bool(torch.isnan(rows).any()):
            raise InputError(f"{self.label} gives NaN", hint="run it in float32")
        return [
            tuple(min(1.0, float(row[ids].sum())) for ids in one)
            for row, one in zip(rows, chosen, strict=True)
        ]

    def _logits(self, inputs: Any) -> Any:
        """[questions, answers] of ViLT, [questions, vocabulary] of BLIP's first token."""
        if self._model.config.model_type == "vilt":
            return self._model(**inputs).logits
        written = self._model.generate(
            **inputs, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        return written.logits[0]

    def _columns(self, answer: str) -> list[int]:
        if self._model.config.model_type != "vilt":
            return token_ids(self._processor.tokenizer, answer, self.label)
        labels = {str(name).lower(): int(number) for number, name in self._model.config.id2label.items()}
        found = [labels[word] for word in spellings(answer) if word in labels]
        if not found:
            raise InputError(
                f"{self.label}: {answer[:60]!r} is none of its answers", hint="take another model"
            )
        return found
