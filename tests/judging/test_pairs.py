"""`eval judge --pairs`: position bias, consistency and accuracy of choices between two images."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sanactl.errors import InputError
from sanactl.files.images import write_png
from sanactl.judging.audit.pairs import pairs_of
from sanactl.judging.backends.openai import ServerJudge
from sanactl.judging.backends.vlm import VlmJudge
from sanactl.judging.dialogue import DIALOGUES, pair_conversation
from sanactl.judging.registry import JUDGES
from sanactl.judging.tournament import Verdict
from sanactl.shapes.dataset import batch
from tests.program import Program


class Brighter:
    """Chooses the brighter image, with a bonus for the one shown first."""

    def __init__(self, rest: str, *, bonus: float = 0.0, mass: float = 1.0) -> None:
        self.name, self.bonus, self.mass = "brighter", bonus, mass
        self.identity = {"name": self.name, "bonus": bonus}

    def judge(self, images: Any, records: Any) -> list[Verdict]:
        return [Verdict.of(-0.1, -3.0) for _ in images]

    def choose(self, pairs: Any, records: Any) -> list[Verdict]:
        odds = [(float(a.mean()) - float(b.mean())) / 16 + self.bonus for a, b in pairs]
        found = [(-math.log1p(math.exp(-z)), -math.log1p(math.exp(z))) for z in odds]
        return [Verdict.of(yes + math.log(self.mass), no + math.log(self.mass)) for yes, no in found]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten prompts with three images each; a brighter image is right, and in every second prompt all are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(JUDGES, "brighter", lambda rest: Brighter(rest))
    monkeypatch.setitem(JUDGES, "biased", lambda rest: Brighter(rest, bonus=20.0, mass=0.1))
    monkeypatch.setitem(JUDGES, "single", lambda rest: Single())
    lines = []
    for p in range(10):
        for i in range(3):
            write_png(np.full((8, 8, 3), 40 + 60 * i + p, np.uint8), tmp_path / f"{p}-{i}.png")
            right = i == 2 or p % 2 == 1
            lines.append({"kind": "image", "path": f"{p}-{i}.png", "prompt": f"p{p}", "correct": right})
    Path("r.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


class Single:
    name, identity = "single", {"name": "single"}

    def judge(self, images: Any, records: Any) -> list[Verdict]:
        return [Verdict.of(-0.1, -3.0) for _ in images]


def scores_of(found: list[Any]) -> dict[str, Any]:
    return {r["metric"].removeprefix("judge_"): r for r in found if r["kind"] == "score"}


def test_a_fair_judge_and_a_biased_one(sanactl: Program) -> None:
    found = sanactl("eval", "judge", "r.jsonl", "--pairs", "--judge", "brighter", "--pairs-per-prompt", "2")
    assert [r for r in found if r["kind"] == "image"] == [json.loads(line) for line in Path("r.jsonl").open()]
    scores = scores_of(found)
    assert {n: scores[n]["value"] for n in ("position_first", "consistency", "choice_accuracy", "choice_accuracy_both")} == {
        "position_first": 0.5, "consistency": 1.0, "choice_accuracy": 1.0, "choice_accuracy_both": 1.0
    }  # fmt: skip
    assert scores["consistency"]["pairs"] == 20 and scores["consistency"]["pairs_of_right_and_wrong"] == 10
    assert "warning" not in sanactl.said
    found = sanactl("eval", "judge", "r.jsonl", "--pairs", "--judge", "biased", "-b", "3", "--force")
    scores = scores_of(found)
    assert scores["position_first"]["value"] == 1.0 and scores["consistency"]["value"] == 0.0
    # Each order is right by turns; both together cancel the bias.
    assert scores["choice_accuracy"]["value"] == 0.5 and scores["choice_accuracy_both"]["value"] == 1.0
    assert scores["choice_mass"]["value"] == pytest.approx(0.1)
    assert "names the first image in 100% of its answers" in sanactl.said
    assert "puts 0.1 of its probability on naming one of the images" in sanactl.said


def test_pairs_are_right_and_wrong_first_and_the_same_each_time() -> None:
    records = [json.loads(line) for line in Path("r.jsonl").open()]
    pairs = pairs_of(records, "correct", 2)
    assert sum(p.differs for p in pairs) == 10 and len(pairs) == 20
    assert {p.one["path"] for p in pairs_of(records, "correct", 9)} <= {r["path"] for r in records}
    assert pairs_of(records + records, "correct", 2) == pairs
    assert not any(p.differs for p in pairs_of(records, "nothing", 2))


def test_the_oracle_chooses_and_others_say_that_they_cannot(sanactl: Program) -> None:
    pictures, prompts = batch(range(2), size=64)
    lines = []
    for number, record in enumerate(prompts):
        for i, picture in enumerate(pictures):
            write_png(picture, Path(f"o{number}{i}.png"))
            lines.append({**record, "kind": "image", "path": f"o{number}{i}.png", "correct": number == i})
    Path("o.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    scores = scores_of(sanactl("eval", "judge", "o.jsonl", "--pairs", "--judge", "oracle"))
    assert scores["choice_accuracy"]["value"] == 1.0 and scores["position_first"]["value"] == 0.5
    # The built-in judge has not learned this question: some number, and no error.
    scores = scores_of(sanactl("eval", "judge", "o.jsonl", "--pairs", "-o", "b.jsonl"))
    assert 0 <= scores["position_first"]["value"] <= 1
    pairs = ("eval", "judge", "r.jsonl", "--pairs")
    assert "judge single cannot choose between two images" in sanactl.fails(
        *pairs, "--judge", "single", code=2
    )
    assert "--judge is for --pairs" in sanactl.fails("eval", "judge", "r.jsonl", "--judge", "single", code=2)
    assert "exclude each other" in sanactl.fails(*pairs, "-c", "c.json", code=2)
    Path("3-1.png").unlink()
    assert "3-1.png: no such image" in sanactl.fails(*pairs, "--judge", "brighter")
    Path("one.jsonl").write_text(json.dumps({"kind": "image", "path": "0-0.png", "prompt": "p"}) + "\n")
    assert "no prompt has two images" in sanactl.fails(
        "eval", "judge", "one.jsonl", "--pairs", "--judge", "brighter"
    )


def test_a_model_sees_both_images_and_their_order(judge_folder: Path) -> None:
    judge = VlmJudge.load(str(judge_folder), device="cpu")
    a, b = batch(range(2))[0]
    records = [{"prompt": "a photo of a heart"}] * 3
    one, turned, same = judge.choose([(a, b), (b, a), (a, b)], records)
    assert one.yes_logprob != turned.yes_logprob and one.yes_logprob == pytest.approx(
        same.yes_logprob, abs=1e-5
    )
    # Its tokenizer has no words for first and second: it answers whether the first is better.
    text = judge.text(pair_conversation("a photo of a heart", ("yes", "no")))
    inputs = judge.processor(text=[text], images=[[a, b]], add_special_tokens=False, return_tensors="pt")
    logits = judge.model(**inputs).logits[0, -1].double().log_softmax(-1)
    ids = judge.processor.tokenizer.convert_tokens_to_ids(["yes", "no"])
    assert [one.yes_logprob, one.no_logprob] == pytest.approx(logits[ids].tolist(), abs=1e-5)


def test_a_server_is_asked_with_two_images() -> None:
    class Client:
        base = "http://x/v1"

        def post_all(self, path: str, bodies: list[dict[str, Any]]) -> list[Any]:
            self.bodies = bodies
            top = [{"token": " First", "logprob": -0.2}, {"token": "second", "logprob": -2.0}]
            return [
                {"choices": [{"logprobs": {"content": [{**top[0], "top_logprobs": top}]}}]} for _ in bodies
            ]

    client: Any = Client()
    judge = ServerJudge(client, "m", DIALOGUES["paper"])
    a, b = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 9, np.uint8)
    (verdict,) = judge.choose([(a, b)], [{"prompt": "a heart"}])
    assert (verdict.yes_logprob, verdict.no_logprob) == pytest.approx((-0.2, -2.0))
    kinds = [part["type"] for part in client.bodies[0]["messages"][0]["content"]]
    assert kinds == ["text", "image_url", "image_url", "text"]
    urls = [
        p["image_url"]["url"] for p in client.bodies[0]["messages"][0]["content"] if p["type"] == "image_url"
    ]
    assert (
        urls[0] != urls[1] and "'first' or 'second'" in client.bodies[0]["messages"][0]["content"][3]["text"]
    )
    (single,) = [judge.body(a, "a heart")["messages"][0]["content"]]
    assert [part["type"] for part in single] == ["text", "image_url", "text"]
    with pytest.raises(InputError, match="no log-probabilities"):
        client.post_all = lambda path, bodies: [{"choices": [{}]}]
        judge.choose([(a, b)], [{"prompt": "a heart"}])
