"""A chat model of transformers: the real classes, tiny, with random weights that the test saves."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from sanactl.prompts.llm.protocol import Ask
from sanactl.prompts.llm.registry import open_llm
from tests.program import Program

TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }} : {{ m['content'] }} </s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant : {% endif %}"
    "{% if enable_thinking is defined and not enable_thinking %}now {% endif %}"
)
WORDS = [
    "user",
    "assistant",
    ":",
    "now",
    "a",
    "photo",
    "of",
    "star",
    "heart",
    "circle",
    "two",
    "three",
    "red",
    "blue",
    "and",
    "the",
    "Prompt",
    "Answer",
]


def save_model(folder: Path, *, template: str | None = TEMPLATE, seed: int = 0) -> Path:
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    words = ["<unk>", "<s>", "</s>", *WORDS]
    plain = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    plain.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>", eos_token="</s>", bos_token="<s>")  # fmt: skip
    tokenizer.chat_template = template
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.6, eos_token_id=2, bos_token_id=1,
        pad_token_id=None,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("chat") / "model")


def replies(model: Any, messages: list[str], seed: int = 0) -> list[Any]:
    return model.reply([Ask(m, seed, "detail", m) for m in messages], threading.Event())


MESSAGES = ["a star", "two red circle and a blue heart", "the photo of three star", "heart"]


def test_answers_are_those_of_generate_for_each_message_alone(folder: Path) -> None:
    import torch

    model: Any = open_llm(f"hf:{folder}", device="cpu", answer_tokens=12)
    found = replies(model, MESSAGES)
    assert len({r.text for r in found}) > 1
    for message, reply in zip(MESSAGES, found, strict=True):
        text = model._tokenizer.apply_chat_template(
            [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )  # fmt: skip
        assert text.endswith("assistant : now ")
        ids = torch.tensor([model._tokenizer(text, add_special_tokens=False)["input_ids"]])
        # By hand: the likeliest token again and again.
        tokens: list[int] = []
        with torch.inference_mode():
            while len(tokens) < 12 and (not tokens or tokens[-1] != 2):
                logits = model._model(torch.cat([ids, torch.tensor([tokens], dtype=torch.long)], 1)).logits
                tokens.append(int(logits[0, -1].argmax()))
        words = model._tokenizer.decode([t for t in tokens if t > 2], skip_special_tokens=True)
        assert [w for w in reply.text.split() if w != "<unk>"] == words.split()
        assert (reply.finish == "stop") == (tokens[-1] == 2)
        assert (reply.tokens_in, reply.tokens_out) == (ids.shape[1], len(tokens))


def test_sampling_depends_on_the_seed_and_not_on_the_others(folder: Path) -> None:
    model = open_llm(f"hf:{folder}", device="cpu", temperature=2.0, answer_tokens=12)
    assert model.batch_size == 1
    first = [replies(model, [m], 1)[0] for m in MESSAGES]
    assert [replies(model, [m], 1)[0] for m in reversed(MESSAGES)] == first[::-1]
    assert [replies(model, [m], 2)[0] for m in MESSAGES] != first


def test_a_message_that_is_too_long_is_refused_alone(folder: Path) -> None:
    model = open_llm(f"hf:{folder}", device="cpu", answer_tokens=12)
    short, long = replies(model, ["a star", "star " * 200])
    assert short.refusal is None
    assert long.refusal == "the message has 207 tokens, and the model takes 128 with the answer"


def test_through_the_command_line(
    folder: Path, tmp_path: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template of one's own; whatever such a model says, each prompt becomes a record or a failure."""
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text("Prompt : {prompt} Answer :")
    Path("p.txt").write_text("".join(f"{m}\n" for m in MESSAGES))
    command = ["rewrite", "p.txt", "--style", "t.txt", "--llm", f"hf:{folder}", "--device", "cpu", "--dtype", "bf16",
               "--llm-option", "answer_tokens=12", "--llm-option", "batch_size=3", "--allow-failed"]  # fmt: skip
    found = sanactl(*command, "-o", "o.jsonl", "--failed", "f.jsonl")
    failed = (
        [json.loads(x) for x in Path("f.jsonl").read_text().splitlines()] if Path("f.jsonl").exists() else []
    )
    assert sorted(r.get("prompt_original", r["prompt"]) for r in found + failed) == sorted(MESSAGES)
    kept = Path(".sanactl/answers").iterdir().__next__().read_bytes()
    again = sanactl(*command, "-o", "o2.jsonl", "--failed", "f2.jsonl")
    assert again == found and "request" not in sanactl.said
    assert Path(".sanactl/answers").iterdir().__next__().read_bytes() == kept


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("template", "has no chat template; take an instruction-tuned model"),
        ("weights", "holds no model.safetensors"),
        ("config", "no model in this folder (no config.json)"),
        ("tokenizer", "as a chat model cannot be used"),
        ("device", "--device nowhere"),
    ],
)
def test_models_that_cannot_be_used(
    folder: Path, tmp_path: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch, damage: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, "m")
    if damage == "template":
        Path("m/chat_template.jinja").unlink()
    elif damage == "weights":
        Path("m/model.safetensors").unlink()
    elif damage == "config":
        Path("m/config.json").unlink()
    elif damage == "tokenizer":
        Path("m/tokenizer.json").write_text("{")
    device = ["--device", "nowhere"] if damage == "device" else []
    line = sanactl.fails("rewrite", "a star here", "--llm", "hf:m", *device, code=2 if device else 1)
    assert said in line
