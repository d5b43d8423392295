"""`sanactl guard`: what is blocked and why, and nothing unsafe on stdout."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import sanactl as api
from sanactl.errors import InputError, UsageError
from sanactl.prompts.guard.causal import CausalGuard
from sanactl.prompts.guard.filter import Rules, guard_prompts
from sanactl.prompts.guard.language import is_non_english, non_latin_share
from sanactl.prompts.guard.protocol import Finding
from sanactl.prompts.guard.registry import open_guard
from sanactl.prompts.guard.words import WORDS
from tests.program import Program
from tests.prompts.tiny_guards import LONGEST, PROMPTS


def records(path: str) -> list[Any]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_blocked_prompts_go_to_their_file_and_never_to_stdout(
    gemma: Path, here: Path, sanactl: Program
) -> None:
    all_of_them = sanactl("guard", "p.txt", "-m", gemma, "--threshold", "1", "-o", "all.jsonl")
    assert [r["prompt"] for r in all_of_them] == PROMPTS and not records("guard-blocked.jsonl")
    assert "blocked 0 of 5 prompts" in sanactl.said
    by_probability = sorted(r["guard_probability"] for r in all_of_them)
    threshold = str((by_probability[1] + by_probability[2]) / 2)
    passed = sanactl(
        "guard", "-m", gemma, "--threshold", threshold, "--blocked", "b.jsonl", stdin="\n".join(PROMPTS)
    )
    blocked = records("b.jsonl")
    assert passed == records("guard.jsonl")
    assert passed == [r for r in all_of_them if r["guard_probability"] in by_probability[:2]]
    assert [r["prompt"] for r in blocked] == [p for p in PROMPTS if p not in [r["prompt"] for r in passed]]
    assert "blocked 3 of 5 prompts" in sanactl.said and "5 findings are taken over" in sanactl.said
    for r in blocked:
        assert r["guard_probabilities"][r["guard_policy"]] == r["guard_probability"] > float(threshold)
        assert len(r["guard_probabilities"]) == 4 and r["guard_reason"].startswith("probability 0.")


def test_what_cannot_be_checked_is_blocked_with_its_reason(
    gemma: Path, here: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = CausalGuard._next_logits

    def next_logits(self: CausalGuard, given: Any) -> Any:
        text = self.tokenizer.decode(given["input_ids"][0])
        if "raises" in text:
            raise RuntimeError("a bad\nday")
        logits = plain(self, given)
        return logits * math.nan if "nothing" in text else logits

    monkeypatch.setattr(CausalGuard, "_next_logits", next_logits)
    given = {
        "": "the prompt is empty",
        " \n": "the prompt is empty",
        "raises": "the model failed: a bad day",
        "gives nothing": "the model gave NaN",
        "a " * 50_000: f"and the model takes {LONGEST}",
        "fine<end_of_turn>": "the prompt has the control token <end_of_turn>",
    }
    stdin = "".join(json.dumps({"prompt": p, "tag": "t"}) + "\n" for p in [PROMPTS[0], *given, PROMPTS[1]])
    passed = sanactl("guard", "-m", gemma, "--threshold", "1", "-b", "3", stdin=stdin)
    assert [(r["prompt"], r["id"], r["tag"]) for r in passed] == [
        (PROMPTS[0], "00000", "t"), (PROMPTS[1], "00007", "t"),
    ]  # fmt: skip
    blocked = records("guard-blocked.jsonl")
    assert [r["prompt"] for r in blocked] == [*given]
    for r in blocked:
        assert given[r["prompt"]] in r["guard_reason"] and "guard_probability" not in r
    # A fault may be of the machine: it is not remembered.
    monkeypatch.setattr(CausalGuard, "_next_logits", plain)
    assert len(sanactl("guard", "-m", gemma, "--threshold", "1", "-o", "2.jsonl", stdin=stdin)) == 4


def test_a_model_that_does_not_run_is_an_error_and_blocks_nothing(
    gemma: Path, here: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, after = CausalGuard._next_logits, 0

    def next_logits(self: CausalGuard, given: Any) -> Any:
        nonlocal after
        after -= 1
        if after < 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, given)

    monkeypatch.setattr(CausalGuard, "_next_logits", next_logits)
    assert "does not run as a guard: the model failed: CUDA out of memory" in sanactl.fails(
        "guard", "p.txt", "-m", gemma
    )
    after = 4  # it breaks in the middle of the work: what is found is kept, no output is written
    passed = sanactl("guard", "p.txt", "-m", gemma, "--threshold", "1", "-b", "1", code=1)
    assert [r["prompt"] for r in passed] == PROMPTS[:3] and not list(here.glob("*.jsonl"))
    assert "out of memory" in sanactl.said


def test_nan_never_passes() -> None:
    class Broken:
        name, policies, keeps = "broken", ("p",), False

        @property
        def identity(self) -> dict[str, Any]:
            return {}

        def check(self, prompts: Any) -> list[Finding]:
            return [Finding((math.nan,)) for _ in prompts]

    (found,) = guard_prompts([{"kind": "prompt", "prompt": "x"}], Broken(), Rules(1.0))
    assert not found.passes


# What is known is not asked again


def test_findings_are_kept(
    gemma: Path, here: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    plain = CausalGuard._given

    def given(self: CausalGuard, prompt: str) -> Any:
        asked.append(prompt)
        if prompt == PROMPTS[3] and len(asked) < 8:
            raise KeyboardInterrupt
        return plain(self, prompt)

    monkeypatch.setattr(CausalGuard, "_given", given)
    command = ["guard", "p.txt", "-m", str(gemma), "--threshold", "1", "-b", "2"]
    sanactl(*command, code=130)
    assert "goes on from there" in sanactl.said and not list(here.glob("*.jsonl"))
    probe = asked[0]
    assert asked == [probe, *PROMPTS[:4]]
    asked.clear()
    asked += [""] * 8
    passed = sanactl(*command)
    assert asked[8:] == [probe, *PROMPTS[2:]] and "2 findings are taken over" in sanactl.said
    undisturbed = sanactl(*command, "--no-cache", "-o", "2.jsonl", "--blocked", "3.jsonl")
    assert passed == undisturbed
    asked[8:] = []
    sanactl(*command, "--policy", "sana", "-o", "4.jsonl", "--blocked", "5.jsonl")
    assert asked[8:] == [probe, *PROMPTS]  # another question


# Languages


def test_prompts_in_other_scripts_are_flagged_or_blocked(here: Path, sanactl: Program) -> None:
    Path("p.txt").write_text("a star\n一颗红色的星星\na red 🌟🌟\nein grüner Stern\n", encoding="utf-8")
    passed = sanactl("guard", "p.txt", "-m", "builtin:words")
    assert [r.get("guard_flags") for r in passed] == [None, ["non-English"], ["non-English"], None]
    assert "2 prompts are not in English letters" in sanactl.said
    passed = sanactl(
        "guard", "p.txt", "-m", "builtin:words", "--non-english", "block", "-o", "2.jsonl", "--force"
    )
    assert [r["prompt"] for r in passed] == ["a star", "ein grüner Stern"]
    assert {r["guard_reason"] for r in records("guard-blocked.jsonl")} == {
        "the prompt is not in English letters"
    }


def test_the_share_of_letters() -> None:
    assert non_latin_share("") == non_latin_share("12 + 3!") == non_latin_share("Crème brûlée") == 0
    assert non_latin_share("ab 红色") == 0.5
    assert is_non_english("a b\u200bomb") and is_non_english("𝐛𝐨𝐦𝐛")
    assert not is_non_english("a sign that says π beside a very long row of old houses with red roofs")


# The list of words


def test_the_list_of_words_says_what_it_is(here: Path, sanactl: Program) -> None:
    Path("p.txt").write_text(
        "\n".join([f"A {w.upper()}!" for some in WORDS.values() for w in some] + ["a nudear"])
    )
    passed = sanactl("guard", "p.txt", "-m", "builtin:words")
    assert [r["prompt"] for r in passed] == ["a nudear"]
    assert "It is no protection" in sanactl.said
    assert [r["guard_policy"] for r in records("guard-blocked.jsonl")] == [k for k in WORDS for _ in WORDS[k]]
    with pytest.raises(UsageError, match="list of words"):
        open_guard("builtin:words", policy="sana")


# Inside other commands


def test_sample_draws_only_what_passes(place: Path, sanactl: Program) -> None:
    Path("p.txt").write_text("a photo of a red circle\na nude\na photo of a star\n", encoding="utf-8")
    command = ["sample", "tiny.st", "-p", "p.txt", "-n", "1", "--steps", "1", "--guard", "builtin:words"]
    images = sanactl(*command)
    assert [(r["prompt"], r["prompt_id"]) for r in images] == [
        ("a photo of a red circle", "00000"), ("a photo of a star", "00002"),
    ]  # fmt: skip
    assert {r["guard"] for r in images} == {"builtin:words"}
    assert "blocked 1 of 3 prompts (1 by sexual)" in sanactl.said and "no protection" in sanactl.said
    (blocked,) = records("tiny-samples/blocked.jsonl")
    assert blocked["prompt"] == "a nude" and blocked["guard_policy"] == "sexual"
    assert sanactl(*command) == images and "2 of 2 images were there already" in sanactl.said
    # Part of what identifies a run: another guard, or none, is another folder.
    alone = ["--prompt", "a photo of a red circle", "--prompt", "a photo of a star", *command[4:8]]
    assert "another guard" in sanactl.fails("sample", "tiny.st", *alone, "-o", "tiny-samples", code=2)
    assert sanactl("sample", "tiny.st", *alone)[0]["path"].startswith("tiny-samples-2/")
    passed = sanactl(*command, "--guard-option", "threshold=1", "-o", "all")
    assert len(passed) == 3 and not records("all/blocked.jsonl")


def test_a_guard_inside_that_blocks_all_or_is_not_one(place: Path, sanactl: Program) -> None:
    Path("p.txt").write_text("a nude\n", encoding="utf-8")
    command = ["sample", "tiny.st", "-p", "p.txt", "--guard", "builtin:words"]
    sanactl(*command, code=1)
    assert "blocked all 1 prompts; there is nothing to draw" in sanactl.said
    assert not Path("tiny-samples").exists()
    sanactl("scale", *command[1:], "--max", "1", "--keep", "1", code=1)
    assert "blocked all 1 prompts" in sanactl.said and not Path("scale.jsonl").exists()
    assert "no option 'size'" in sanactl.fails(*command, "--guard-option", "size=1", code=2)
    assert "threshold is 'much'" in sanactl.fails(*command, "--guard-option", "threshold=much", code=2)
    assert "--guard-option without --guard" in sanactl.fails(
        *command[:4], "--guard-option", "policy=sana", code=2
    )
    assert "--redraw draws prompts" in sanactl.fails(*command, "--redraw", code=2)


def test_the_function(here: Path) -> None:
    with pytest.warns(UserWarning, match="no protection"):
        passed, blocked = api.guard(["a star", "", "a nude"], model="builtin:words", blocked="b.jsonl")
    assert [r["prompt"] for r in passed] == ["a star"] and [r["id"] for r in blocked] == ["00001", "00002"]
    assert records("b.jsonl") == blocked
    Path("t.csv").write_text("id,caption\n1,a star\n2,a nude\n")
    with pytest.warns(UserWarning, match="no protection"):
        assert [r["id"] for r in api.guard("t.csv#caption", model="builtin:words").blocked] == ["2"]
    with pytest.raises(InputError, match="no prompts"):
        api.guard([], model="builtin:words")


# Bad input


def test_bad_input_gives_one_line(gemma: Path, here: Path, sanactl: Program) -> None:
    words = ("-m", "builtin:words")
    assert "no prompts: name a file" in sanactl.fails("guard", *words, code=2)
    assert sanactl("guard", "-", *words, stdin="", code=1) == [] and not list(here.glob("*.jsonl"))
    assert "no prompts to check came in" in sanactl.said
    assert "threshold is 2" in sanactl.fails("guard", "p.txt", *words, "--threshold", "2", code=2)
    assert "threshold is nan" in sanactl.fails("guard", "p.txt", *words, "--threshold", "nan", code=2)
    assert "non-English" in sanactl.fails("guard", "p.txt", *words, "--non-english", "maybe", code=2)
    assert "name two files" in sanactl.fails("guard", "p.txt", *words, "-o", "x", "--blocked", "./x", code=2)
    assert "no policy 'none'" in sanactl.fails("guard", "p.txt", "-m", gemma, "--policy", "none", code=2)
    assert "no guard 'oracle:x'" in sanactl.fails("guard", "p.txt", "-m", "oracle:x", code=2)
    assert "no such folder" in sanactl.fails("guard", "p.txt", "-m", "./gone")
    assert "gone.txt: no such prompt file" in sanactl.fails("guard", "gone.txt", *words)
    Path("bad.jsonl").write_text('{"prompt": "a star"}\n{"tag": "no prompt"}\n')
    assert "bad.jsonl, line 2: a prompt record without 'prompt'" in sanactl.fails(
        "guard", "bad.jsonl", *words
    )


def test_a_gated_model_names_its_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    def refuse(*arguments: Any, **options: Any) -> str:
        raise GatedRepoError.__new__(GatedRepoError)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(InputError, match="google/shieldgemma-2b is gated") as caught:
        open_guard(device="cpu")
    assert "https://huggingface.co/google/shieldgemma-2b" in str(caught.value.hint)
    assert "hf auth login" in str(caught.value.hint)
    monkeypatch.undo()  # without a network, or its answer, the licence may be what is missing, too
    with pytest.raises(InputError, match="cannot be used") as caught:
        open_guard(device="cpu")
    assert "huggingface.co/google/shieldgemma-2b, then hf auth login; where there is" in str(
        caught.value.hint
    )
