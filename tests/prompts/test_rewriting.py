"""`relabel` and `rewrite` with the rules of the built-in world, and what becomes of their records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import sanactl as api
from sanactl.files.images import write_png
from sanactl.prompts.llm.protocol import Reply
from sanactl.prompts.llm.registry import MODELS
from sanactl.shapes.languages import translate
from sanactl.shapes.prompts import load_eval_prompts, scene_for
from sanactl.shapes.render import render
from tests.program import Program


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_evaluation_prompts_in_every_form(sanactl: Program) -> None:
    prompts = load_eval_prompts()[::7]
    Path("p.jsonl").write_text("".join(json.dumps(r) + "\n" for r in prompts))
    found = sanactl("relabel", "p.jsonl")
    for record, form in zip(found, ["en", "zh", "en-zh", "emoji"] * len(prompts), strict=True):
        assert record["prompt_form"] == form and record["id"].endswith(f"-{form}")
        assert record["prompt"] == translate(record["prompt_original"], form)
        assert ("prompt_llm" in record) == (form != "en")
    assert len({r["id"] for r in found}) == len(found)
    assert not Path(".sanactl/answers").exists() and not Path("relabel.failed.jsonl").exists()
    detailed = sanactl("rewrite", "p.jsonl")
    assert [r["id"] for r in detailed] == [r["id"] for r in prompts]
    assert {(r["prompt_style"], r["prompt_llm"]) for r in detailed} == {("detail", "shapes")}
    # The first original stays, whatever is done with the prompt.
    again = sanactl("relabel", "rewrite.jsonl", "--to", "zh")
    assert [r["prompt_original"] for r in again] == [r["prompt_original"] for r in detailed]
    assert {r["prompt_style"] for r in again} == {"detail"}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["relabel", "p.txt", "--to", "zh,fr"], 2, "no language form 'fr'; there are: en, zh, en-zh, emoji"),
        (["relabel", "p.txt", "--to", ""], 2, "no language form is given"),
        (["relabel", "p.txt", "--to", "zh,zh"], 2, "a language form comes twice"),
        (["rewrite", "p.txt", "--style", "chi"], 2, "the rules of the built-in world have no chi"),
        (["rewrite", "p.txt", "--style", "none.txt"], 1, "none.txt: no such file, and no style (detail, chi)"),
        (["rewrite", "p.txt", "--style", "p.txt"], 1, "p.txt: no {prompt} in it"),
        (["relabel", "p.txt", "--llm", "gpt"], 2, "no language model 'gpt'; give shapes, hf:FOLDER"),
        (["relabel", "p.txt", "--llm", "shapes:x"], 2, "shapes takes nothing after its name"),
        (["relabel", "p.txt", "--device", "cpu"], 2, "the language model shapes takes no device"),
        (["relabel", "p.txt", "--llm", "http://h/v1"], 2, "names no model"),
        (["relabel", "p.txt", "--llm", "http://h/v1#m", "--llm-option", "temperature=nan"], 2, "it takes a number"),
        (["relabel", "p.txt", "--llm", "http://h/v1#m", "--llm-option", "temperature=99"], 2, "from 0 to 10"),
        (["relabel", "p.txt", "--llm", "http://h/v1#m", "--llm-option", "colour=1"], 2, "has no option 'colour'"),
        (["relabel", "p.txt", "--llm", "http://h/v1#m", "--llm-option", "x"], 2, "--llm-option 'x' is not KEY=VALUE"),
        (["relabel", "p.txt", "--price", "1"], 2, "--price '1' is not IN,OUT"),
        (["relabel", "p.txt", "--price", "inf,nan"], 2, "is not IN,OUT"),
        (["relabel", "gone.txt"], 1, "gone.txt: no such prompt file"),
        (["relabel", "."], 1, "cannot be read (it is a folder)"),
        (["relabel", "empty.txt"], 1, "empty.txt: no prompts in it"),
        (["relabel", "p.txt", "-o", "o.jsonl", "--failed", "o.jsonl"], 2, "name the same file"),
        (["relabel", "p.txt", "-o", "no/such/o.jsonl"], 1, "no"),
        (["relabel", "p.txt", "--llm", "hf:none"], 1, "none: no such folder"),
        (["relabel", "p.txt", "--llm", "hf:"], 1, "hf:: no such folder"),
        (["relabel", "p.txt", "--llm", "hf:p.txt"], 1, "p.txt: a file"),
    ],
)  # fmt: skip
def test_wrong_calls_are_one_line(sanactl: Program, arguments: list[str], code: int, said: str) -> None:
    Path("p.txt").write_text("a photo of a star\n")
    Path("empty.txt").touch()
    assert said in sanactl.fails(*arguments, code=code)


def test_what_the_rules_do_not_know_fails(sanactl: Program) -> None:
    text = "a photo of a star\na photo of a dog\n"
    (found,) = sanactl("relabel", "-", "--to", "zh", stdin=text, code=1)
    assert found["prompt"] == "一张照片，上面有一个星形"
    assert "1 record failed ('a photo of a dog' is not a prompt of the built-in world" in sanactl.said
    assert "; --llm MODEL also takes other prompts; --allow-failed makes this no error" in sanactl.said
    (failed,) = map(json.loads, Path("relabel.failed.jsonl").read_text().splitlines())
    assert failed["id"] == "00001" and failed["prompt"] == "a photo of a dog"


def drawn(count: int) -> list[dict[str, Any]]:
    """Right images of the first counting prompts, as `sample` records them, with emoji as the drawn prompts."""
    records = [r for r in load_eval_prompts() if r["tag"] == "counting"][:count]
    rng = np.random.default_rng(0)
    found = []
    for number, record in enumerate(records):
        write_png(render(scene_for(record, rng)), Path(f"{number}.png"))
        new = {"prompt": translate(record["prompt"], "emoji"), "prompt_original": record["prompt"]}
        more = {
            "prompt_form": "emoji",
            "prompt_llm": "shapes",
            "prompt_id": record["id"],
            "path": f"{number}.png",
        }
        found.append({"kind": "image", **{k: v for k, v in record.items() if k != "id"}, **new, **more})
    return found


def test_scores_and_judges_go_by_the_original(sanactl: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    records = drawn(6)
    text = "".join(json.dumps(r) + "\n" for r in records)
    *images, score = sanactl("eval", "geneval", "-", stdin=text)
    assert score["value"] == 1 and score["prompts_rewritten"] == "emoji by shapes"
    assert score["benchmark"] == "6 of the built-in world's 360 prompts"
    assert [r["prompt_original"] for r in images] == [r["prompt_original"] for r in records]
    plain = [
        {k: v for k, v in r.items() if not k.startswith("prompt_") or k == "prompt_id"} for r in records[:2]
    ]
    mixed: list[Any] = api.evaluate([*plain, *records[2:]], "geneval")
    assert mixed[-1]["prompts_rewritten"] == "emoji by shapes: 4 images"
    assert "prompts_rewritten" not in api.evaluate(plain, "geneval")[-1]

    asked: list[str] = []

    class Listening:
        name, identity, reads = "listening", {"name": "listening"}, ("prompt",)

        def judge(self, images: Any, records: Any) -> Any:
            from sanactl.judging.tournament import Verdict

            asked.extend(r["prompt"] for r in records)
            return [Verdict.of(-0.1, -3.0) for _ in records]

    judged = api.judge(records, model=Listening())
    assert asked == [r["prompt_original"] for r in records]
    assert [r["prompt"] for r in judged] == [r["prompt"] for r in records]


class Parrot:
    """A model of another file: it says its message's last line."""

    name, batch_size, concurrency, keeps = "parrot", 3, 2, True
    identity: ClassVar = {"name": "parrot"}
    sizes: ClassVar[list[int]] = []

    def __init__(self, rest: str = "", *, suffix: str = "!") -> None:
        self.suffix = suffix

    def check(self, tasks: Any) -> None: ...

    def reply(self, asks: Any, stop: Any) -> list[Reply]:
        self.sizes.append(len(asks))
        return [Reply(f"{a.prompt}, {self.suffix}", "stop", 1, 1) for a in asks]


def test_a_model_of_ones_own_and_a_template(sanactl: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "parrot", Parrot)
    Path("mine.txt").write_text("Say {prompt} {twice}\n")
    texts = [f"a dog of age {n}" for n in range(10)]
    Path("p.txt").write_text("\n".join(texts))
    arguments = ("rewrite", "p.txt", "--style", "mine.txt", "--llm", "parrot", "--llm-option", "suffix=yes")
    found = sanactl(*arguments)
    assert [r["prompt"] for r in found] == [f"{t}, yes" for t in texts]
    assert {r["prompt_style"] for r in found} == {"mine.txt"}
    assert max(Parrot.sizes) == 3 and sum(Parrot.sizes) == 10
    Parrot.sizes.clear()
    # The functions find the command's answers, and write what it writes.
    same = api.rewrite(
        texts, style="mine.txt", llm="parrot", llm_options={"suffix": "yes"}, output="api.jsonl"
    )
    assert same == found and not Parrot.sizes
    assert Path("api.jsonl").read_bytes() == Path("rewrite.jsonl").read_bytes()
    with pytest.raises(api.InputError, match="records that failed: 10"):
        api.relabel(texts, to="zh", llm="parrot", failed="f.jsonl")
    assert len(Path("f.jsonl").read_text().splitlines()) == 10
