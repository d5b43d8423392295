"""A guard from a causal language model, by the probability that its answer is yes: ShieldGemma and its like."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError
from sanactl.prompts.guard.policies import CONTROL, Policy, PolicySet, find_policies
from sanactl.prompts.guard.protocol import Finding

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sanactl.model.files import ModelFiles

__all__ = ["CausalGuard"]

# A tokenizer may be a SentencePiece model, and a chat template a file of its own.
_PATTERNS = ("*.json", "*.txt", "*.safetensors", "*.model", "*.jinja")
_PROBE = "a red circle"
_GATED = "google/shieldgemma"  # where their Hub ids begin
_MOST_REASON = 200  # characters
# What configs call the most tokens.
_LIMITS = ("max_position_embeddings", "n_positions", "max_sequence_length")


class CausalGuard:
    """A language model that is asked about one policy after the other.

    P(yes) is the softmax over the logits of the tokens "Yes" and "No" at the last position, as ShieldGemma's model card
    computes it. The policies of one prompt are one batch, padded on the left; prompts are never in one batch. So a
    prompt's probabilities do not depend on other prompts.

    Args:
        model: a causal language model with `generate`.
        tokenizer: its own.
        name: the guard's name in records.
        policies: what is asked.

    Raises:
        InputError: the tokenizer has no token "Yes" or "No", or cannot pad.
    """

    keeps = True

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        policies: PolicySet,
    ) -> None:
        import torch
        import transformers

        from sanactl.model.cpu import one_thread_each

        self.model: Any = model.eval()
        self.tokenizer: Any = tokenizer
        self.name, self.asked = name, policies
        self.policies = tuple(policy.name for policy in policies.policies)
        # The next token follows the last column, so padding is on the left.
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        if tokenizer.pad_token is None:
            raise InputError(f"{name}: its tokenizer has no token to pad with", hint="take another model")
        self.yes, self.no = (self._token(answer) for answer in ("Yes", "No"))
        self.longest = self._longest()
        self._special = sorted({*map(str, tokenizer.all_special_tokens), *CONTROL})
        template = str(getattr(tokenizer, "chat_template", None) or "")
        # ShieldGemma's own template says what the policies' text says; a model without one gets the text, too.
        own = not template or "guideline" in template or "policy expert" in template
        self.form = "text" if own else "chat"
        if "guardian_config" in template:  # Granite Guardian: its template has the question
            self.form = "guardian"
        self.identity: dict[str, Any] = {
            "dtype": str(model.dtype),
            "device": model.device.type,
            "policies": [policies.text("", policy) for policy in policies.policies],
            "form": self.form,
            "versions": [torch.__version__, transformers.__version__],
        }
        self._threads = one_thread_each(model.device, sum(p.numel() for p in model.parameters()))

    @classmethod
    def load(
        cls, source: str, device: str | None = None, dtype: str | None = None, policy: str | None = None
    ) -> CausalGuard:
        """Loads a model with its tokenizer, and asks it about a harmless prompt.

        Args:
            source: a folder, or a Hub id `owner/name`.
            device, dtype, policy: see `sanactl.prompts.guard.registry.open_guard`.

        Raises:
            UsageError: no such device, dtype or policy.
            InputError: there is no such model, its licence has not been accepted, or it cannot be loaded or run.
        """
        policies = find_policies(policy)
        from transformers import AutoTokenizer

        from sanactl.model.conditioning import pick_device
        from sanactl.model.files import load_model
        from sanactl.model.guard import offline, reading
        from sanactl.model.loading import resolve_dtype

        where = pick_device(device)
        kind = resolve_dtype(dtype, where)
        files = _found_files(source)
        model = load_model(files, "AutoModelForCausalLM", where, kind)
        with offline(files.folder), reading(f"{source} as a guard"):
            tokenizer = AutoTokenizer.from_pretrained(str(files.folder), trust_remote_code=False)
        guard = cls(model, tokenizer, source, policies)
        guard.identity["digest"] = files.digest
        guard._probe()
        return guard

    def check(self, prompts: Sequence[str]) -> list[Finding]:
        """See `sanactl.prompts.guard.protocol.Guard`.

        A prompt that the model fails on has a fault. If the model then fails on a harmless prompt, too, it is the model's.

        Raises:
            InputError: the model no longer runs.
        """
        from sanactl.model.cpu import Workers

        if not self._threads:
            found = [self._found(given) for given in map(self._given, prompts)]
        else:
            with Workers() as workers:
                # A tokenizer is not for several threads; the model is.
                found = list(workers.map(self._found, map(self._given, prompts)))
        if any(one.probabilities is None and (one.fault or "").startswith("the model") for one in found):
            self._probe()
        return found

    def _probe(self) -> None:
        """Asks about a harmless prompt.

        Raises:
            InputError: the model does not run.
        """
        found = self._found(self._given(_PROBE))
        if found.fault is not None:
            raise InputError(
                f"{self.name} does not run as a guard: {found.fault}",
                hint="try another --device or --dtype, or another model",
            )

    def _given(self, prompt: str) -> Any:
        """What the model is given for a prompt, or the finding where it cannot be asked."""
        if special := [token for token in self._special if token in prompt]:
            return Finding(None, f"the prompt has the control token {special[0]}")
        try:
            if len(prompt) > self.longest:  # perhaps far too long to be read with every policy
                length = len(self.tokenizer(prompt, add_special_tokens=False)["input_ids"])
                if length > self.longest:
                    return self._too_long(length)
            texts = [self._text(prompt, policy) for policy in self.asked.policies]
            bos = self.tokenizer.bos_token or ""
            rows = self.tokenizer(
                texts,
                # A template that writes <bos> itself must not get a second one.
                add_special_tokens=not (bos and texts[0].startswith(bos)),
                return_token_type_ids=False,
            )
            length = max(map(len, rows["input_ids"]))
            if length > self.longest:
                return self._too_long(length)
            return self.tokenizer.pad(rows, return_tensors="pt")
        except Exception as error:
            return Finding(None, f"the model's tokenizer failed: {_reason(error)}")

    def _too_long(self, length: int) -> Finding:
        return Finding(
            None, f"the prompt is too long: {length:,} tokens, and the model takes {self.longest:,}"
        )

    def _text(self, prompt: str, policy: Policy) -> str:
        if self.form == "text":
            return self.asked.text(prompt, policy)
        message, more = self.asked.text(prompt, policy, control=False), dict[str, Any]()
        if self.form == "guardian":
            message = prompt
            more["guardian_config"] = {"risk_name": policy.name, "risk_definition": policy.words}
        return str(
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": message}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,  # templates without this switch ignore it
                **more,
            )
        )

    def _found(self, given: Any) -> Finding:
        """The finding on what `_given` gave. No exception of the model passes: it is a fault."""
        import torch

        if isinstance(given, Finding):
            return given
        try:
            with torch.inference_mode():
                logits = self._next_logits(given.to(self.model.device)).double()
                pair = logits[:, [self.yes, self.no]]
                yes = torch.softmax(pair, dim=-1)[:, 0].tolist()
                mass = torch.softmax(logits, dim=-1)[:, [self.yes, self.no]].sum(dim=-1).min().item()
                finite = bool(torch.isfinite(pair).all())
        except Exception as error:
            fault = f"the model failed: {_reason(error)}"
        else:
            if finite and math.isfinite(mass):
                return Finding(tuple(min(max(p, 0.0), 1.0) for p in yes), mass=min(max(mass, 0.0), 1.0))
            fault = "the model gave NaN"
        if torch.cuda.is_available():
            # After a lack of memory the next prompt may fit.
            with contextlib.suppress(Exception):
                torch.cuda.empty_cache()
        return Finding(None, fault)

    def _next_logits(self, given: Any) -> Any:
        """The logits [policies, vocabulary] of the token that follows."""
        # generate() and not a plain forward: only it derives the position ids that each architecture wants from the
        # padding mask.
        output = self.model.generate(
            **given,
            max_new_tokens=1,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        return output.logits[0]

    def _token(self, answer: str) -> int:
        """The id of an answer's token, as the model card takes it."""
        number = self.tokenizer.get_vocab().get(answer)
        if number is None:
            ids = self.tokenizer.encode(answer, add_special_tokens=False)
            if len(ids) != 1 or ids[0] == self.tokenizer.unk_token_id:
                raise InputError(
                    f"{self.name}: its tokenizer has no token for {answer!r}",
                    hint="take a model that answers yes or no",
                )
            number = ids[0]
        return int(number)

    def _longest(self) -> int:
        """The most tokens that the model takes."""
        config = self.model.config.get_text_config()
        limits = [getattr(config, name, None) for name in _LIMITS]
        limits.append(self.tokenizer.model_max_length)
        # A tokenizer without a limit has a huge one.
        known = [n for n in limits if type(n) is int and 0 < n < 10**9]
        return min(known, default=10**9)


def _found_files(source: str) -> ModelFiles:
    """The model's files. Where a gated one cannot be downloaded, the error also names its licence."""
    from sanactl.model.files import model_files

    try:
        return model_files(source, (), "a guard", patterns=_PATTERNS)
    except InputError as error:
        if not source.startswith(_GATED) or "is gated" in error.message:
            raise
        licence = (
            f"{source} is gated: accept its licence at https://huggingface.co/{source}, then hf auth login"
        )
        raise InputError(error.message, hint=f"{licence}{f'; {error.hint}' if error.hint else ''}") from None


def _reason(error: BaseException) -> str:
    """An exception as a part of a line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MOST_REASON else text[:_MOST_REASON] + "..."
