"""`filter`: what passes, unchanged; and the loop from samples to training that it closes."""

from __future__ import annotations

import json
import random
import shlex
import shutil
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from sanactl.errors import InputError, UsageError
from sanactl.scoring.filter import Condition, Filter, filter_records
from tests.fork_server import python_command
from tests.pictures import image_records, write_folder
from tests.program import Program


def record(number: int, **more: Any) -> dict[str, Any]:
    return {"kind": "image", "path": f"{number}.png", "prompt": f"prompt {number % 2}", **more}


RECORDS = [
    record(0, correct=True, judge_score=0.5, tag="colors", settings={"steps": 4}),
    record(1, correct=False, judge_score=-0.2, tag="position"),
    record(2, correct=True, judge_score=0.9, tag="colors"),
    record(3, correct=True, judge_score=0.1, tag="counting"),
    record(4, correct=True, judge_score=0.7, tag="colors", größe=7),
]


def passed(**options: Any) -> list[str]:
    got = list(filter_records(RECORDS, Filter(**options)))
    assert all(any(r is one for one in RECORDS) for r in got)
    return "".join(Path(r["path"]).stem for r in got)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("condition", "which"),
    [
        ("judge_score > 0.4", "024"),
        ("0.05 < judge_score <= 0.5", "03"),
        ("judge_score < -0.1", "1"),
        ("tag == 'colors' and judge_score >= 0.7", "24"),
        ('tag in ["position", "counting"] or judge_score == 0.9', "123"),
        ("not correct", "1"),
        ("correct == true", "0234"),
        ("settings.steps == 4", "0"),
        ("'or' in tag", "024"),
        ("not settings.steps == 4", "1234"),
        ("tag != null", "01234"),
        ("correct and judge_score > 0.6", "24"),
        ("correct and not judge_score > 0.6", "03"),
        ("-0.3 < judge_score < 0.2 < 1 != 2", "13"),
        ("judge_score < " + "9" * 1900, "01234"),
        ("größe == 7", "4"),
        ("judge_score < 1e999", "01234"),
        ("judge_score > 0.4  # in a comment: 9", "024"),
    ],
)
def test_conditions(condition: str, which: str) -> None:
    assert passed(conditions=[Condition(condition)]) == which


@pytest.mark.parametrize(
    "text",
    [
        "", "a >", "a = 1", "open('x')", "__import__('os').system('x')", "a.b()", "[x for x in y] == a", "a + 1 > 2",
        "lambda: 1", "a[0] > 1", "(1).real > 0", "f'{a}' == 'x'", "a if b else c", "a > 1; b", "2 ** 99 > a",
        "a is None", "~a == 1", "9**9**9 > a", "(a := 1) > 0", "a == 1j", "a > ...", "a == {}", "{a} == a", "*a > 1", "await a", "yield a",
        "a >\n1", "a\x00 > 1", "a ≥ 1", "clip-score > 25", "'\ud800' == a", "a > " + "9" * 5000, "a.b[0].c == 1", "().__class__.__bases__ == a",
        "a @ b > 1", "'%s' % a == 'x'", "class > 1", "a" + ".a" * 900, "not " * 400 + "a", "a == [" + "[" * 100 + "]" * 100 + "]", "x" * 3000, "(" * 500 + "a" + ")" * 500, "b'x' == a",
    ],
)  # fmt: skip
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--where"):
        Condition(text)


def test_correct_ones_and_so_many_of_a_prompt() -> None:
    assert passed(correct=True) == "0234"
    assert passed(correct=True, per_prompt=1) == "03"
    assert passed(per_prompt=2) == "0123"
    assert passed(top=1) == "23"
    assert passed(top=2, correct=True) == "234"
    assert passed(top=2, per_prompt=1) == "23"
    assert passed(conditions=[Condition("judge_score>0"), Condition("tag=='colors'")], top=1) == "2"


def test_fields_that_no_record_has() -> None:
    with pytest.raises(InputError, match="no record has the field 'scor'"):
        passed(conditions=[Condition("scor > 1")])
    with pytest.raises(InputError, match="'clip_score'"):
        passed(top=1, by="clip_score")
    for name, hint in (
        ("judge_scor", "did you mean judge_score?"),
        ("zzz", "the records have kind, path, prompt, correct, judge_score, tag, settings, größe"),
        ("Tags", "did you mean tag?"),
    ):
        with pytest.raises(InputError) as caught:
            passed(conditions=[Condition(f"{name} > 1")])
        assert caught.value.hint == hint
    with pytest.raises(InputError) as caught:
        list(filter_records([record(0)], Filter(correct=True)))
    assert "eval geneval gives correct" in str(caught.value.hint)
    with pytest.raises(InputError) as caught:
        list(filter_records([record(0, **{f"a{n}\n": n for n in range(90)})], Filter([Condition("z")])))
    assert "and 73 more" in str(caught.value.hint) and "\n" not in str(caught.value.hint)
    with pytest.raises(InputError, match="not a number"):
        passed(top=1, by="tag")
    with pytest.raises(InputError, match=r"0\.png.*--where"):
        passed(conditions=[Condition("tag > 1")])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clip_score > 25", "the text '27.1' > the number 25"),
        ("25 <= clip_score", "the number 25 <= the text '27.1'"),
        ("correct < 'x'", "the truth value True < the text 'x'"),
        ("a.b > 1", "a list > the number 1"),
        ("a > 1", "an object > the number 1"),
        ("1 in clip_score", "the number 1 in the text '27.1'"),
        ("clip_score in 5", "the text '27.1' in the number 5"),
        ("-clip_score > 1", "the text '27.1' has no negative"),
    ],
)
def test_values_that_cannot_be_compared_are_named(text: str, said: str) -> None:
    records = [record(0, clip_score="27.1", correct=True, a={"b": [1]})]
    with pytest.raises(InputError) as caught:
        list(filter_records(records, Filter([Condition(text)])))
    assert f"0.png: --where {text!r}: {said}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ("quotation marks" in str(caught.value)) == ("the text" in said)


def test_null_is_as_good_as_none() -> None:
    records = [record(0, judge_score=None, tag=None), record(1, judge_score=0.5, tag="colors")]
    for text in ("judge_score > 0.1", "0 < judge_score", "judge_score <= 9", "'col' in tag", "tag >= 'a'"):
        assert list(filter_records(records, Filter([Condition(text)]))) == records[1:]
    assert list(filter_records(records, Filter([Condition("tag == null")]))) == records[:1]
    assert list(filter_records(records, Filter(top=2))) == records[1:]


def test_the_best_of_many_are_found_without_holding_them() -> None:
    """Against sorting; with equal values, and with whole numbers among them."""
    rng = random.Random(1)
    scores = [rng.choice([0.25, 0.5, 1, -3, 10**25, rng.random()]) for _ in range(3000)]
    records = [record(i, judge_score=s, prompt_id=str(rng.randrange(7))) for i, s in enumerate(scores)]
    for top in (1, 3, 1000):
        groups: dict[tuple[str, str], list[int]] = {}
        for i, r in enumerate(records):
            groups.setdefault((r["prompt_id"], r["prompt"]), []).append(i)
        best = sorted(i for g in groups.values() for i in sorted(g, key=lambda i: (-scores[i], i))[:top])
        assert list(filter_records(iter(records), Filter(top=top))) == [records[i] for i in best]
    many = (record(i, judge_score=i % 97, fill="x" * 50_000 + str(i)) for i in range(4000))
    tracemalloc.start()
    assert len(list(filter_records(many, Filter(top=2)))) == 4
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_records_pass_as_they_come(place: Path, sanactl: Program) -> None:
    (place / "r.jsonl").write_text("".join(json.dumps(r) + "\n" for r in RECORDS))
    got = sanactl("filter", "r.jsonl", "--correct", "--where", "judge_score > 0.4", "--per-prompt", "2")
    assert got == [RECORDS[0], RECORDS[2]]
    assert "2 of 5 images passed" in sanactl.said
    assert [json.loads(line) for line in (place / "filter.jsonl").read_text().splitlines()] == got
    assert "no condition is given" in sanactl.fails("filter", "r.jsonl", code=2)
    assert "no record has" in sanactl.fails("filter", "r.jsonl", "--where", "x == 1")
    assert sanactl("filter", "r.jsonl", "--where", "judge_score > 5", "-o", "none.jsonl") == []
    assert "0 of 5" in sanactl.said


def test_the_first_record_passes_before_the_last_has_come(place: Path) -> None:
    lines = iter(RECORDS)
    stream = filter_records(lines, Filter(correct=True))
    assert next(stream) is RECORDS[0]
    assert next(lines) is RECORDS[1]


def test_the_loop_from_samples_to_training(place: Path, sanactl: Program) -> None:
    """sample | eval geneval | filter --correct | finetune, by pipes.

    Three blocks draw nothing that is correct, so their samples are joined by pictures that are.
    """
    from sanactl.shapes.dataset import scene_and_prompt

    drawn = sanactl("sample", "tiny.st", "--prompts", "shapes", "--limit", "2", "-n", "1", "--steps", "1")
    folder = write_folder(place / "shots", 4)
    right = [
        {**scene_and_prompt(i)[1], **r, "prompt_id": f"extra-{i}"}
        for i, r in enumerate(image_records(folder))
    ]
    (place / "images.jsonl").write_text("".join(json.dumps(r) + "\n" for r in [*drawn, *right]))
    run = shlex.join([*python_command(), "-m", "sanactl"])
    script = (
        f"set -o pipefail; cat images.jsonl | {run} eval geneval | {run} filter --correct --per-prompt 10"
        f" | {run} finetune tiny.st --data - --steps 1 -b 2 -o tuned.st"
    )
    bash = shutil.which("bash") or "bash"
    done = subprocess.run([bash, "-c", script], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    (made,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert made["path"] == "tuned.st"
    kept = [json.loads(line) for line in (place / "filter.jsonl").read_text().splitlines()]
    assert {r["path"] for r in right} <= {r["path"] for r in kept}
    assert all(r["correct"] for r in kept)
    assert f"{len(kept)} of {len(drawn) + 4} images passed" in done.stderr
    assert f"{len(kept)} image records" in done.stderr
