"""A judge from any image-text-to-text model of transformers, by the probability that its answer is yes or no."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError
from sanactl.files.paths import utf8_name
from sanactl.judging.backends.answers import answer_tokens
from sanactl.judging.backends.labels import LABELS
from sanactl.judging.backends.places import place_of
from sanactl.judging.backends.processors import thinking_off
from sanactl.judging.dialogue import ANSWERS, DIALOGUES, Dialogue, open_dialogue
from sanactl.judging.images import check_max_pixels, picture
from sanactl.judging.protocol import Pair
from sanactl.judging.tournament import Verdict
from sanactl.model.memory import Fitting, free_memory, out_of_memory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, ProcessorMixin

    from sanactl.judging.backends.prefix import TextPrefix

__all__ = ["VlmJudge"]

# Pairs that a thread of a CPU computes together where the judge is small.
PART = 8


class VlmJudge:
    """A vision-language model that answers SaVILA's dialogue.

    Args:
        model: an image-text-to-text model with `generate`.
        processor: its processor, with a tokenizer and a chat template.
        name: the judge's name in records.

    Raises:
        InputError: the processor has no chat template, or its tokenizer cannot tell yes from no.
    """

    reads = ("prompt",)
    folder: Path | None = None  # that it was loaded from

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        name: str,
        *,
        dialogue: Dialogue = DIALOGUES["paper"],
        max_pixels: int = 0,
    ) -> None:
        import torch
        import transformers

        from sanactl.model.cpu import keep_freed_memory, one_thread_each

        if model.device.type == "cpu":
            keep_freed_memory()
        self.model: Any = model.eval()
        self.processor: Any = processor
        self.name, self.dialogue, self.max_pixels = name, dialogue, check_max_pixels(max_pixels)
        self.identity: dict[str, Any] = {
            "name": name,
            "commit": getattr(model.config, "_commit_hash", None),
            "dtype": str(model.dtype),
            "device": model.device.type,
            "dialogue": dialogue.text,
            "max_pixels": max_pixels,
            "versions": [torch.__version__, transformers.__version__],
        }
        if isinstance(labels := getattr(model.config, LABELS, None), str):
            self.identity["labels"] = labels
        tokenizer: Any = getattr(processor, "tokenizer", None)
        template = getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None)
        if tokenizer is None or not template:
            raise InputError(
                f"{name}: its processor has no chat template", hint="take an instruction-tuned model"
            )
        # The next token follows the last column, so padding is on the left.
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._chat = {"tokenize": False, "add_generation_prompt": True, **thinking_off(template)}
        self.bos = tokenizer.bos_token or ""
        self.image_token = str(getattr(processor, "image_token", None) or "<image>")
        self.yes, self.no = (answer_tokens(tokenizer, answer, name) for answer in ANSWERS)
        self._one_thread_each = one_thread_each(model.device, sum(p.numel() for p in model.parameters()))
        self._flops: dict[tuple[int, int], int | None] = {}
        self._prefix: TextPrefix | None = None  # the text before the image, where it is computed once
        self._fitting = Fitting()

    @classmethod
    def load(
        cls,
        source: str,
        device: str | None = None,
        dtype: str | None = None,
        *,
        trust_remote_code: bool = False,
        quantize: str = "",
        max_pixels: int = 0,
        dialogue: str = "paper",
    ) -> Any:
        """Loads a model and its processor.

        Args:
            source: a folder, or a Hub id `owner/name`.
            device: "cpu", "cuda", "cuda:1"...; by default the GPU if there is one.
            dtype: "fp32", "bf16" or "fp16"; by default bf16 on a GPU and fp32 on a CPU.
            trust_remote_code: run the repository's own code.
            quantize: "8bit" or "4bit" for the language model, by bitsandbytes.
            max_pixels: larger images are made smaller; 0 for no limit.
            dialogue: see `sanactl.judging.dialogue.open_dialogue`.

        Raises:
            UsageError: no such device, dtype or dialogue, or an option that is out of range.
            InputError: the folder does not exist or holds no such model, or the Hub has none.
        """
        place, question = place_of(source), open_dialogue(dialogue)
        import numpy as np

        from sanactl.judging.backends.vlm_load import files_of, load_vlm
        from sanactl.model.conditioning import pick_device
        from sanactl.model.guard import reading
        from sanactl.model.loading import resolve_dtype

        chosen = pick_device(device)
        kind = resolve_dtype(dtype, chosen)
        with utf8_name(place) as folder:
            model, processor = load_vlm(
                folder, device=chosen, dtype=kind, trust_remote_code=trust_remote_code, quantize=quantize
            )
        with reading(f"{source} as a judge"):
            judge = cls(model, processor, source, dialogue=question, max_pixels=max_pixels)
            # Some models load and cannot answer the dialogue: the error comes here and not at the first image.
            judge.score([np.zeros((64, 64, 3), dtype=np.uint8)], ["a red circle"])
            judge.share_prefix()
        judge.identity |= {"files": files_of(Path(place)), "quantize": quantize}
        judge.folder = Path(place)
        return judge

    def judge(self, images: Sequence[NDArray[np.uint8]], records: Sequence[dict[str, Any]]) -> list[Verdict]:
        """`score` with the records' prompts."""
        return self.score(images, [r["prompt"] for r in records])

    def score(self, images: Sequence[NDArray[np.uint8]], prompts: Sequence[str]) -> list[Verdict]:
        """Asks the dialogue's question of all pairs at once.

        Args:
            images: uint8 [height, width, 3], RGB; sizes may differ.
            prompts: one for each image.

        Returns:
            One verdict a pair. `yes_logprob` is the log-probability that the answer's first token is one of those
            that mean yes ("yes", "Yes"...), over the whole vocabulary; `no_logprob` likewise. Other pairs of the
            batch change it by the dtype's rounding at most; of a small judge, the number of threads does not.

        Raises:
            InputError: the model gives NaN, or has no memory for a single image.
        """
        from sanactl.model.cpu import Workers

        if not self._one_thread_each:
            return self._in_memory(images, prompts)
        parts = (
            self.inputs(images[first : first + PART], prompts[first : first + PART])
            for first in range(0, len(images), PART)
        )
        with Workers() as workers:
            return [verdict for found in workers.map(self._verdicts, parts) for verdict in found]

    def _in_memory(self, images: Sequence[NDArray[np.uint8]], prompts: Sequence[str]) -> list[Verdict]:
        return self._fitting.run(
            len(images),
            lambda part: self._verdicts(self.inputs(images[part], prompts[part])),
            lambda reason: InputError(
                f"judge {self.name} has not enough memory for one image: {reason}",
                hint="try --judge-option max_pixels=500000, --judge-option quantize=4bit or --dtype bf16",
            ),
        )

    def choose(self, pairs: Sequence[Pair], records: Sequence[dict[str, Any]]) -> list[Verdict]:
        """Which of two images fits the prompt better; see `sanactl.judging.backends.vlm_pairs.choose`."""
        from sanactl.judging.backends.vlm_pairs import choose

        return choose(self, pairs, [r["prompt"] for r in records])

    def inputs(self, images: Sequence[NDArray[np.uint8]], prompts: Sequence[str]) -> dict[str, Any]:
        """What the model is given for these pairs."""
        # A prompt that spells the image's token would claim an image of its own.
        asked = [self.dialogue.conversation(p.replace(self.image_token, " ")) for p in prompts]
        return self.processed([[image] for image in images], asked)

    def processed(
        self, images: Sequence[Sequence[NDArray[np.uint8]]], asked: Sequence[list[dict[str, Any]]]
    ) -> dict[str, Any]:
        """What the model is given for dialogues, each with its images."""
        import torch

        from sanactl.model.tensors import aligned

        texts = [self.text(conversation) for conversation in asked]
        inputs = self.processor(
            text=texts,
            images=[[picture(image, self.max_pixels) for image in some] for some in images],
            # A template that writes <bos> itself must not get a second one.
            add_special_tokens=not (self.bos and texts[0].startswith(self.bos)),
            padding=True,
            return_tensors="pt",
        )
        inputs = inputs.to(self.model.device, dtype=self.model.dtype)
        return {k: aligned(v) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}

    def text(self, conversation: list[dict[str, Any]], **options: Any) -> str:
        """A dialogue as the model reads it, by its chat template; `options` are the template's."""
        from transformers import ProcessorMixin

        chosen = {**self._chat, **options}
        if getattr(self.processor, "video_processor", self) is None:
            # SmolVLM's own method asks the processor of videos, which is not there (`load_processor`).
            return str(ProcessorMixin.apply_chat_template(self.processor, conversation, **chosen))
        return str(self.processor.apply_chat_template(conversation, **chosen))

    def _verdicts(self, inputs: dict[str, Any]) -> list[Verdict]:
        """The verdicts on the pairs of `inputs`, by the answer's first token."""
        return self.answers(inputs, self.yes, self.no)

    def answers(self, inputs: dict[str, Any], yes_tokens: list[int], no_tokens: list[int]) -> list[Verdict]:
        """Verdicts by the probability that the next token is one of some, or one of others.

        Raises:
            InputError: the model gives NaN.
        """
        import torch

        with torch.inference_mode():
            # Float64: log-probabilities near 0 differ only in late digits.
            logprobs = torch.log_softmax(self._next_logits(inputs).double(), dim=-1)
            yes = torch.logsumexp(logprobs[:, yes_tokens], dim=-1).tolist()
            no = torch.logsumexp(logprobs[:, no_tokens], dim=-1).tolist()
        if any(v != v for v in (*yes, *no)):
            raise InputError(f"judge {self.name} gives NaN", hint="run it in float32")
        return [Verdict.of(min(y, 0.0), min(n, 0.0)) for y, n in zip(yes, no, strict=True)]

    def flops(self, height: int, width: int) -> int | None:
        """FLOPs of judging one image of this size in pixels, with a prompt of 10 words; others differ little.

        None for a quantised model, whose products torch does not count, and where memory is not enough to try.
        """
        if self.identity.get("quantize"):
            return None
        if (height, width) not in self._flops:
            self._flops[height, width] = self._counted(height, width)
        return self._flops[height, width]

    def _counted(self, height: int, width: int) -> int | None:
        import numpy as np

        from sanactl.judging.backends.prefix import PROMPTS
        from sanactl.model.flops import count_flops

        try:
            inputs = self.inputs([np.zeros((height, width, 3), dtype=np.uint8)], PROMPTS[:1])
            return count_flops(lambda: self._next_logits(inputs))
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
        free_memory()
        return None

    def share_prefix(self) -> bool:
        """Computes the text before the image once, where the model allows it; returns whether it does."""
        from sanactl.judging.backends.prefix import IMAGES, PROMPTS, open_prefix

        self._prefix = None
        token = getattr(self.model.config, "image_token_id", None)
        if token is None:
            token = self.processor.tokenizer.convert_tokens_to_ids(self.image_token)
        if type(token) is not int:
            return False
        self._prefix = open_prefix(self.model, token, self.inputs(IMAGES, PROMPTS), self._plain_logits)
        return self._prefix is not None

    def _next_logits(self, inputs: dict[str, Any]) -> Any:
        """The logits [pairs, vocabulary] of the token that follows `inputs`."""
        shared = None if self._prefix is None else self._prefix.next_logits(inputs)
        return self._plain_logits(inputs) if shared is None else shared

    def _plain_logits(self, inputs: dict[str, Any]) -> Any:
        # generate() and not a plain forward: only it derives the position ids that each architecture wants from the
        # padding mask.
        output = self.model.generate(
            **inputs, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        return output.logits[0]
