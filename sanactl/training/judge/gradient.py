"""The loss of a judge: the cross-entropy of the answer's token, and of no other."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from sanactl.data.bad import check_bad
from sanactl.errors import InputError
from sanactl.files.images import read_image
from sanactl.training.parts import process_parts
from sanactl.training.summed import SummedGradient

if TYPE_CHECKING:
    import numpy as np
    from accelerate import Accelerator
    from numpy.typing import NDArray

    from sanactl.judging.backends.vlm import VlmJudge
    from sanactl.model.cpu import Workers
    from sanactl.training.judge.data import JudgeData
    from sanactl.training.judge.order import Order
    from sanactl.training.judge.settings import TuningSettings
    from sanactl.training.judge.trained import TrainedModel

__all__ = ["AnswerGradient", "answer_logits", "answer_token", "padded_right"]

# What a question counts as in `sanactl.training.parts`: four make a part of a small model's batch.
_TOKENS = 128
_AHEAD = 2  # parts whose images are read ahead
_READERS = 4  # threads that decode images


class _Drawn(NamedTuple):
    """A step's batch: its number, the images' places in the data, and this process's parts of the batch."""

    step: int
    images: list[int]
    parts: list[list[int]]


class Asked(NamedTuple):
    """A part of a batch: what the model is given, the answers' tokens [B], the truth [B], and weights [B] (0 or 1)."""

    inputs: dict[str, Any]
    tokens: Tensor
    truth: Tensor
    weights: Tensor


class AnswerGradient(SummedGradient[_Drawn, Asked]):
    """Asks the judge's dialogue about each image, and teaches the token that the answer begins with.

    Args:
        judge: it words the questions.
        data, order: the images, and which of them a step has.
        more: what `SummedGradient` takes: accelerator, trained, workers.

    Attributes:
        skipped: damaged images so far, by path.
        reads_ahead: whether images of the next parts are read in threads.
    """

    losses = ("loss", "accuracy")

    def __init__(
        self,
        judge: VlmJudge,
        data: JudgeData,
        order: Order,
        settings: TuningSettings,
        accelerator: Accelerator,
        trained: TrainedModel,
        workers: Workers | None,
    ) -> None:
        super().__init__(
            accelerator,
            trained,
            count=settings.batch_size,
            accumulate=settings.accumulate,
            workers=workers,
            wrapped=False,  # vision towers have layers whose output is not used, and DDP wants all gradients
        )
        self.judge, self.data, self.order, self.settings = judge, data, order, settings
        self.skipped: set[str] = set()
        self.reads_ahead = accelerator.device.type != "cpu"
        self.tokens = {truth: answer_token(judge, truth) for truth in (True, False)}
        self._ahead: deque[tuple[tuple[int, tuple[int, ...]], Future[Asked]]] = deque()
        self._plan: Iterator[tuple[_Drawn, list[int]]] = iter(())
        self._preparer: ThreadPoolExecutor | None = None
        self._readers: ThreadPoolExecutor | None = None

    def begin(self, first: int) -> None:
        """On a GPU, images are read and questions worded while it computes."""
        if not self.reads_ahead:
            return
        self._preparer = ThreadPoolExecutor(1, thread_name_prefix="questions")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="images")
        self._plan = (
            (drawn, part)
            for drawn in map(self.draw, range(first, self.settings.steps))
            for part in drawn.parts
        )

    def end(self) -> None:
        for pool in (self._preparer, self._readers):
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)
        self._preparer = self._readers = None
        self._ahead.clear()

    def draw(self, step: int) -> _Drawn:
        count, accelerator = self.settings.batch_size, self.accelerator
        mine = range(accelerator.process_index, count, accelerator.num_processes)
        tokens = None if self.workers is None else _TOKENS
        parts = process_parts(mine, self.settings.accumulate, tokens)
        return _Drawn(step, self.order.batch(step, count), parts)

    def read(self, drawn: _Drawn, part: list[int]) -> Callable[[], Asked]:
        if self._preparer is None:
            # Here and not in the threads: tokenizers are not made for several threads.
            asked = self._ask(drawn, part)
            return lambda: asked
        self._fill()
        key, future = self._ahead.popleft()
        if key != (drawn.step, tuple(part)):  # a step is looked at again
            self._ahead.appendleft((key, future))
            asked = self._ask(drawn, part)
            return lambda: asked
        self._fill()
        return future.result

    def _fill(self) -> None:
        assert self._preparer is not None
        while len(self._ahead) <= _AHEAD:
            following = next(self._plan, None)
            if following is None:
                return
            drawn, part = following
            self._ahead.append(((drawn.step, tuple(part)), self._preparer.submit(self._ask, drawn, part)))

    def _ask(self, drawn: _Drawn, part: list[int]) -> Asked:
        records = [self.data.train[drawn.images[place]] for place in part]
        paths = [Path(record["path"]) for record in records]
        images = list((map if self._readers is None else self._readers.map)(self._image, paths))
        found = [image for image in images if image is not None]
        if not found:
            import numpy as np

            found = [np.zeros((64, 64, 3), dtype=np.uint8)]
        # A damaged image keeps its place, as another one with weight 0.
        shown = [found[0] if image is None else image for image in images]
        inputs = padded_right(self.judge.inputs(shown, [str(record["prompt"]) for record in records]))
        device = inputs["input_ids"].device
        truth = [self.data.truth(record) for record in records]
        return Asked(
            inputs,
            torch.tensor([self.tokens[value] for value in truth], device=device),
            torch.tensor(truth, device=device),
            torch.tensor([float(image is not None) for image in images], device=device),
        )

    def _image(self, path: Path) -> NDArray[np.uint8] | None:
        try:
            return read_image(path)
        except InputError as error:
            self.skipped.add(str(path))
            check_bad(len(self.skipped), self.settings.max_bad, error)
            return None

    def errors(self, inputs: Asked, model: Any) -> tuple[Tensor, Sequence[Tensor]]:
        with self.autocast():
            logits = answer_logits(model, inputs.inputs)
        logits = logits.float()
        loss = torch.nn.functional.cross_entropy(logits, inputs.tokens, reduction="none") * inputs.weights
        yes, no = (logits[:, ids].logsumexp(-1) for ids in (self.judge.yes, self.judge.no))
        right = ((yes > no) == inputs.truth) * inputs.weights
        return loss, [loss, right]


def padded_right(inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs with the padding of each row behind its tokens.

    A judge's are padded on the left, which `generate` has position ids for. A plain forward pass counts positions from the
    first column. (To tell the tokenizer is not enough: some processors have a side of their own.)
    """
    mask = inputs["attention_mask"]
    length = mask.shape[1]
    first = mask.argmax(-1, keepdim=True)
    places = (torch.arange(length, device=mask.device) + first) % length
    return {
        name: value.gather(1, places)
        if isinstance(value, torch.Tensor) and value.shape == mask.shape
        else value
        for name, value in inputs.items()
    }


def answer_logits(model: Any, inputs: dict[str, Any]) -> Tensor:
    """The logits [B, vocabulary] of the token that follows each row of inputs that are padded on the right."""
    last = inputs["attention_mask"].sum(-1) - 1
    rows = torch.arange(len(last), device=last.device)
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        logits: Tensor = model(**inputs, use_cache=False).logits
        return logits[rows, last]
    # Of the places where any row ends: all logits of a large vocabulary would take more memory than the model's work.
    ends = last.unique()
    logits = model(**inputs, use_cache=False, logits_to_keep=ends).logits
    return logits[rows, torch.searchsorted(ends, last)]


def answer_token(judge: VlmJudge, truth: bool) -> int:
    """The token that the answer begins with where the chat template writes it.

    It is one of those that the judge counts as this answer; where the template gives another, its plainest spelling.
    """
    answer, counted = ("yes", judge.yes) if truth else ("no", judge.no)
    tokenizer: Any = judge.processor.tokenizer
    dialogue = judge.dialogue
    question = judge.text(dialogue.conversation("a cat"))
    answered = judge.text(dialogue.conversation("a cat", answer), add_generation_prompt=False)
    rest = answered[len(question) :] if answered.startswith(question) else answer
    before, whole = (tokenizer.encode(t, add_special_tokens=False) for t in (question, question + rest))
    token = whole[len(before)] if whole[: len(before)] == before and len(whole) > len(before) else None
    if token in counted:
        return int(token)
    for text in (answer, f" {answer}"):
        encoded = tokenizer.encode(text, add_special_tokens=False)
        if len(encoded) == 1 and encoded[0] in counted:
            return int(encoded[0])
    return int(counted[0])
