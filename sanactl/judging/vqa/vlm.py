"""Answers of vision-language models: probabilities of the answer's first token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError, SanactlError
from sanactl.judging.backends.answers import answer_tokens
from sanactl.judging.backends.nvila import NvilaJudge
from sanactl.judging.backends.vlm import VlmJudge
from sanactl.judging.dialogue import Dialogue
from sanactl.judging.vqa.files import weights_digest
from sanactl.scoring.questions.protocol import Asked, spellings

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

__all__ = ["QUESTION", "VlmAnswers", "as_vqa", "token_ids"]

# The image, then the question as it stands.
QUESTION = Dialogue("question", "<image> <prompt>")

# In errors of a judge's code.
_RENAMED = (
    ("--judge-option", "--vqa-options"), ("as a judge", "as a VQA model"), ("cannot be a judge", "cannot answer"),
    ("from the verdicts", "from the answers"),
)  # fmt: skip


class _Words:
    """In place of verdicts: the log-probabilities of some tokens."""

    columns: Sequence[int] = ()

    def _verdicts(self: Any, inputs: dict[str, Any]) -> list[Any]:
        import torch

        with torch.inference_mode():
            logits = self._next_logits(inputs).double()
            if bool(torch.isnan(logits).any()):
                raise InputError(f"{self.name} gives NaN", hint="run it in float32")
            found: list[Any] = torch.log_softmax(logits, dim=-1)[:, list(self.columns)].tolist()
        return found


class _Vlm(_Words, VlmJudge):
    """A model of transformers with a chat template."""


class _Nvila(_Words, NvilaJudge):
    """An NVILA."""


class VlmAnswers:
    """A vision-language model that is asked one question at a time about an image.

    The probability of an answer is that of all first tokens that spell it ("yes", " Yes", "YES"; "four", "4"), over the
    whole vocabulary. It needs one step, does not depend on how the model ends its sentence, and is there, too, where the
    likeliest word is none of the answers.

    Args:
        opener: `opener` of a family.
        folder, label: of the model.
        device, dtype: torch's.
        options: of the opener.
    """

    batch_size = 16

    def __init__(
        self,
        opener: Callable[..., Any],
        folder: Path,
        label: str,
        device: torch.device,
        dtype: torch.dtype,
        options: Mapping[str, Any],
    ) -> None:
        import transformers

        name = str(dtype).removeprefix("torch.")
        self.label, self.digest = label, weights_digest(folder)
        self._load = lambda: opener(str(folder), str(device), name, **options)
        self.identity: dict[str, Any] = {
            "model": label,
            "dtype": name,
            "device": device.type,
            "options": dict(options),
            "transformers": transformers.__version__,
        }
        self._model: Any = None
        self._ids: dict[str, list[int]] = {}

    @staticmethod
    def opener(family: str) -> Callable[..., Any]:
        """What loads a model of a family, "vlm" or "nvila"; its parameters with defaults are the options."""

        def vlm(
            folder: str,
            device: str,
            dtype: str,
            trust_remote_code: bool = False,
            quantize: str = "",
            max_pixels: int = 0,
        ) -> Any:
            return _Vlm.load(
                folder,
                device,
                dtype,
                trust_remote_code=trust_remote_code,
                quantize=quantize,
                max_pixels=max_pixels,
            )

        def nvila(folder: str, device: str, dtype: str, max_pixels: int = 0) -> Any:
            return _Nvila.load(folder, device, dtype, max_pixels=max_pixels)

        return nvila if family == "nvila" else vlm

    @property
    def model(self) -> Any:
        """The model, loaded at first use."""
        if self._model is None:
            with as_vqa():
                self._model = self._load()
            self._model.dialogue = QUESTION
        return self._model

    def answer(self, image: NDArray[np.uint8], asked: Sequence[Asked]) -> list[tuple[float, ...]]:
        """See `Answerer.answer`."""
        import math

        model = self.model
        ids = [[self._tokens(answer) for answer in one.answers] for one in asked]
        columns = sorted({i for one in ids for tokens in one for i in tokens})
        place = {token: at for at, token in enumerate(columns)}
        model.columns = columns
        with as_vqa():
            rows = model.score([image] * len(asked), [one.text for one in asked])
        return [
            tuple(min(1.0, math.fsum(math.exp(row[place[i]]) for i in tokens)) for tokens in one)
            for row, one in zip(rows, ids, strict=True)
        ]

    def _tokens(self, answer: str) -> list[int]:
        if answer not in self._ids:
            self._ids[answer] = token_ids(self.model.processor.tokenizer, answer, self.label)
        return self._ids[answer]


def token_ids(tokenizer: Any, answer: str, name: str) -> list[int]:
    """The ids of an answer's spellings that are one token; see `spellings`.

    Raises:
        InputError: there is none.
    """
    found: set[int] = set()
    for word in spellings(answer):
        try:
            found |= {*answer_tokens(tokenizer, word, name)}
        except InputError:
            continue
    if not found:
        raise InputError(
            f"{name}: its tokenizer has no token for the answer {answer[:60]!r}", hint="take another model"
        )
    return sorted(found)


@contextmanager
def as_vqa() -> Iterator[None]:
    """Inside, errors of a judge's code name the options of `eval`."""
    try:
        yield
    except SanactlError as error:
        error.message = error.message.removeprefix("judge ")
        for old, new in _RENAMED:
            error.message = error.message.replace(old, new)
            error.hint = error.hint.replace(old, new) if error.hint else None
        raise
