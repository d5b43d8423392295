"""A chat model of transformers, on this machine: batched, and greedy unless a temperature is given."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sanactl.errors import InputError, UsageError
from sanactl.files.paths import user_path
from sanactl.prompts.llm.protocol import Ask, Reply

__all__ = ["ChatModel"]

# Switches of chat templates that make a model think at length before it answers.
_SWITCHES = ("enable_thinking", "thinking")


class ChatModel:
    """Answers messages with a causal language model.

    Padding is on the left and masked, so the answers of a batch are those of each message alone but for the last digits
    of the arithmetic.

    Args:
        model: with `generate`.
        tokenizer: with a chat template.
        name: the model's name in records.
        batch_size: messages at once.
        temperature: 0 for greedy decoding; otherwise each message is sampled by itself, with its own seed.
        answer_tokens: the most tokens of an answer.

    Raises:
        InputError: there is no chat template.
    """

    concurrency = 1
    keeps = True
    divides = True

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        name: str,
        *,
        batch_size: int = 8,
        temperature: float = 0.0,
        answer_tokens: int = 512,
    ) -> None:
        import torch
        import transformers

        from sanactl.model.memory import Fitting

        if not tokenizer.chat_template:
            raise InputError(
                f"{name}: its tokenizer has no chat template", hint="take an instruction-tuned model"
            )
        self._model, self._tokenizer, self.name = model.eval(), tokenizer, name
        self.batch_size = 1 if temperature > 0 else batch_size
        self._temperature, self._most = temperature, answer_tokens
        template = str(tokenizer.chat_template)
        self._switches = {switch: False for switch in _SWITCHES if switch in template}
        limit = getattr(model.config, "max_position_embeddings", None)
        self._limit = limit if isinstance(limit, int) and limit > 0 else None
        self._fitting = Fitting()
        self.identity: dict[str, Any] = {
            "name": name,
            "commit": getattr(model.config, "_commit_hash", None),
            "dtype": str(model.dtype),
            "device": model.device.type,
            "template": template,
            "temperature": temperature,
            "answer_tokens": answer_tokens,
            "versions": [torch.__version__, transformers.__version__],
        }

    @classmethod
    def load(
        cls,
        source: str,
        *,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int = 8,
        temperature: float = 0.0,
        answer_tokens: int = 512,
    ) -> ChatModel:
        """Loads a model and its tokenizer.

        Args:
            source: a folder with a config.json, or a Hub id `owner/name`.
            device: "cpu", "cuda", "cuda:1"...; by default the GPU if there is one.
            dtype: "fp32", "bf16" or "fp16"; by default bf16 on a GPU and fp32 on a CPU.
            batch_size, temperature, answer_tokens: see the class.

        Raises:
            UsageError: no such device or dtype, or an option out of range.
            InputError: there is no such model, or it cannot be loaded.
        """
        for option, value, low, high in (
            ("batch_size", batch_size, 1, 4096),
            ("temperature", temperature, 0, 10),
            ("answer_tokens", answer_tokens, 1, 1_000_000),
        ):
            if not low <= value <= high:
                raise UsageError(f"{option} is {value:g}", hint=f"it takes a number from {low} to {high:,}")
        place, folder = _place(source)
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        from sanactl.files.lfs import refuse_pointers
        from sanactl.model.conditioning import pick_device
        from sanactl.model.guard import offline, read_config, reading, weight_files
        from sanactl.model.loading import resolve_dtype
        from sanactl.model.pretrained import load_checked, place_on

        chosen = pick_device(device)
        kind = resolve_dtype(dtype, chosen)
        weights = None
        if folder is not None:
            logging.disable_progress_bar()  # it is for downloads
            refuse_pointers(folder)
            read_config(folder)
            weights = weight_files(folder, "model")
        logging.set_verbosity_error()
        with offline(folder), reading(f"{place} as a chat model"):
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
            model = place_on(load_checked(AutoModelForCausalLM, place, weights, kind), chosen)
            found = cls(
                model, tokenizer, f"hf:{source}", batch_size=batch_size, temperature=temperature, answer_tokens=answer_tokens
            )  # fmt: skip
            # Some models load and cannot answer: the error comes here, not at the first prompt.
            found._tokens(Ask("a red circle", 0, "", ""))
        if folder is not None:
            found.identity["files"] = _files_of(folder)
        return found

    def check(self, tasks: Sequence[str]) -> None:
        """It takes any message."""

    def reply(self, asks: Sequence[Ask], stop: threading.Event) -> list[Reply]:
        from sanactl.model.guard import reading

        found: list[Reply | None] = [None] * len(asks)
        tokens = [self._tokens(ask) for ask in asks]
        for place, ids in enumerate(tokens):
            if self._limit is not None and len(ids) + self._most > self._limit:
                found[place] = Reply(
                    "", refusal=f"the message has {len(ids):,} tokens, and the model takes {self._limit:,} with the answer"
                )  # fmt: skip
        places = [place for place, reply in enumerate(found) if reply is None]

        def compute(some: slice) -> list[Reply]:
            chosen = places[some]
            return self._generate([tokens[p] for p in chosen], [asks[p].seed for p in chosen])

        def refusal(reason: str) -> InputError:
            return InputError(
                f"{self.name}: too little memory for one message ({reason})", hint="--device cpu"
            )

        with reading(self.name):
            replies = self._fitting.run(len(places), compute, refusal)
        for place, reply in zip(places, replies, strict=True):
            found[place] = reply
        return [reply for reply in found if reply is not None]

    def _tokens(self, ask: Ask) -> list[int]:
        """The conversation as the chat template writes it."""
        text = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": ask.message}], tokenize=False, add_generation_prompt=True, **self._switches
        )  # fmt: skip
        # The template has written the special tokens.
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        known = self._model.get_input_embeddings().num_embeddings
        if ids and max(ids) >= known:
            raise InputError(
                f"{self.name}: the tokenizer gives the token {max(ids):,}, and the model knows {known:,}",
                hint="they are not of one model",
            )
        return ids

    def _generate(self, messages: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[Reply]:
        import torch

        longest, device = max(map(len, messages)), self._model.device
        pad = 0  # any token: it is masked
        ids = torch.tensor([[pad] * (longest - len(m)) + [*m] for m in messages], device=device)
        mask = torch.tensor([[0] * (longest - len(m)) + [1] * len(m) for m in messages], device=device)
        how: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if self._temperature > 0:
            how = {"do_sample": True, "temperature": self._temperature}
        devices = [device] if device.type == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices):
            torch.manual_seed(seeds[0])
            output = self._model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=self._most, pad_token_id=pad, **how
            )
        replies = []
        for message, row in zip(messages, output[:, longest:].tolist(), strict=True):
            count = next((n for n, token in enumerate(row) if token in self._ends), len(row))
            text = self._tokenizer.decode(row[:count], skip_special_tokens=True)
            ended = count < len(row)
            tokens = min(count + 1, len(row))
            replies.append(Reply(text, "stop" if ended else "length", len(message), tokens))
        return replies

    @property
    def _ends(self) -> set[int]:
        """The tokens that end an answer."""
        named = getattr(self._model.generation_config, "eos_token_id", None)
        listed = named if isinstance(named, list) else [named]
        return {int(token) for token in (*listed, self._tokenizer.eos_token_id) if token is not None}


def _place(source: str) -> tuple[str, Path | None]:
    """The folder or Hub id to load, and the folder if it is one."""
    path = user_path(source)
    if source and path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"{source}: no model in this folder (no config.json)")
        return str(path), path
    if source and path.exists():
        raise InputError(f"{source}: a file; a chat model is a folder with config.json and a tokenizer")
    if source.count("/") != 1 or source.startswith((".", "/", "~")) or source.endswith("/"):
        raise InputError(
            f"{source or 'hf:'}: no such folder", hint="give hf:FOLDER, or a Hub id hf:OWNER/NAME"
        )
    return source, None


def _files_of(folder: Path) -> list[list[Any]]:
    """Which files a folder holds, and their state: other weights are another model."""
    found = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in found]
