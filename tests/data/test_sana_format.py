"""SANA's data format and its choice among captions, against its rules written out a second time."""

from __future__ import annotations

import json
import math
import os
import tarfile
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from sanactl.data import EncodedData, TableSource, open_examples
from sanactl.data.open import open_training_data
from sanactl.data.scored_captions import ScoredChoice, ScoreRule
from sanactl.errors import SanactlError, UsageError
from tests.data.sana_sets import LONG, LONGS, PROMPTS, VILA, VILAS, index, records, scored
from tests.layouts import captions_of, lines, opened, png, tar, write
from tests.program import Program


def probabilities(folder: str, thr: float, temperature: float) -> dict[str, dict[str, float]]:
    """For each key the probability of each caption, by the rules of SANA's loader, with its files and in its order."""
    found: dict[str, dict[str, float]] = {}
    for shard in json.load(open(f"{folder}/wids-meta.json"))["shardlist"]:
        path = f"{folder}/{shard['url']}"
        with tarfile.open(path) as archive:
            infos = {
                name.removesuffix(".json"): json.loads(archive.extractfile(name).read())  # type: ignore[union-attr]
                for name in archive.getnames()
                if name.endswith(".json")
            }
        for key, info in infos.items():
            for suffix in (LONG, VILA):
                side = path.replace(".tar", f"{suffix}.json")
                captions = json.load(open(side)) if os.path.exists(side) else {}
                for name, text in captions.get(key, {}).items():
                    info[suffix.replace(".", "_") if name == "prompt" else name] = text
            labels, weights, best, most = [], [], None, -math.inf
            for suffix in (f"{LONG}_clip_score", f"{VILA}_clip_score", "_prompt_clip_score"):
                side = path.replace(".tar", f"{suffix}.json")
                scores = json.load(open(side)) if os.path.exists(side) else {}
                for name, value in scores.get(key, {}).items():
                    if name in info and float(value) >= thr:
                        labels.append(name)
                        weights.append(float(value) ** (1 / max(temperature, 0.01)))
                    if name in info and float(value) > most:
                        best, most = name, float(value)
            chances: dict[str, float] = defaultdict(float)
            for label, weight in zip(labels, weights, strict=True):
                chances[info[label]] += weight / sum(weights)
            found[key] = dict(chances) or {info[best or "prompt"]: 1.0}
    return found


@pytest.mark.parametrize(
    ("thr", "temperature"), [(25.0, 0.1), (25.0, 1.0), (26.0, 0.1), (0.0, 0.5), (99.0, 0.1)]
)
def test_captions_come_as_often_as_by_the_rules(place: Path, thr: float, temperature: float) -> None:
    scored()
    examples = open_examples("set", caption_choice=f"clipscore:{thr}:{temperature}", min_clip_score=0)
    chances = probabilities("set", thr, temperature)
    choice = examples.captions
    assert isinstance(choice, ScoredChoice) and examples.count == 6
    assert choice.columns[0] == "prompt" and set(choice.columns) == {"prompt", "InternVL2-26B", "VILA1-5-13B"}
    draws = 1500
    for row, key in enumerate(sorted(chances)):
        texts = examples.texts(row)
        scores = examples.scores(row)  # type: ignore[attr-defined]
        picks = [choice.pick([bool(t) for t in texts], 3, position, scores) for position in range(draws)]
        seen = Counter(texts[pick] for pick in picks if pick is not None)
        assert sum(seen.values()) == draws
        assert {text for text, p in chances[key].items() if p > 0.01} <= set(seen) <= set(chances[key])
        for text, chance in chances[key].items():
            assert seen[text] / draws == pytest.approx(
                chance, abs=5 * math.sqrt(chance * (1 - chance) / draws) + 1e-9
            )


def test_the_rule_at_its_edges() -> None:
    both = (0, 1)
    rule = ScoredChoice(("a", "b"), (1, 1), ScoreRule(25, 0), both)  # a temperature of 0.01
    assert {rule.pick([True, True], 0, n, [25, 30]) for n in range(50)} == {1}
    assert rule.pick([True, True], 0, 0, [24.9, 24.8]) == 0
    assert rule.pick([True, True], 0, 0, [24.8, 24.9]) == 1
    assert rule.pick([True, False], 0, 0, [1, 99]) == 0  # an empty caption has no score
    assert rule.pick([False, True], 0, 0, [99, math.nan]) == 1
    assert rule.pick([True, True], 0, 0, [math.nan, math.nan]) == 0
    assert rule.pick([False, False], 0, 0, [30, 30]) is None
    zero = ScoredChoice(("a", "b"), (1, 1), ScoreRule(0, 0.1), both)
    picks = [zero.pick([True, True], 0, n, [0, 0]) for n in range(400)]
    assert 150 < picks.count(0) < 250
    assert picks == [zero.pick([True, True], 0, n, [0, 0]) for n in range(400)]
    large = ScoredChoice(("a", "b"), (1, 1), ScoreRule(25, 0), both)
    assert large.pick([True, True], 0, 0, [1e300, 1.0]) == 0
    # A caption with two scores has the weight of both.
    twice = ScoredChoice(("a", "b"), (1, 1), ScoreRule(25, 1), (0, 0, 1))
    picks = [twice.pick([True, True], 0, n, [30, 30, 30]) for n in range(3000)]
    assert picks.count(0) / 3000 == pytest.approx(2 / 3, abs=0.045)


def test_a_set_is_read_with_its_side_files(place: Path) -> None:
    scored()
    source = opened("set")
    assert captions_of(source) == sorted(PROMPTS)
    assert "6 examples of set (SANA's data format, a webdataset of 2 .tar files)" in source.about
    mixed = opened("set", captions="prompt,InternVL2-26B")
    assert set(mixed.batch(range(60))[1]) <= {*PROMPTS, *LONGS}
    # By score: image 4 is left out, its prompt has less than 22; 5 has no score that is a number.
    chosen = opened("set", caption_choice="clipscore")
    assert chosen.examples.count == 5
    assert "left out: 1 scores that are not finite, 1 images with a clip_score below 22" in chosen.about
    seen = set(chosen.batch(range(300))[1])
    assert seen >= {PROMPTS[0], LONGS[0], VILAS[0], PROMPTS[1], VILAS[1], PROMPTS[3], PROMPTS[5], VILAS[2]}
    assert not seen & {PROMPTS[4], LONGS[4], LONGS[2], PROMPTS[2], LONGS[5]}
    # A function of (seed, position), in any parts; and another identity than without scores.
    whole = chosen.batch(range(40))[1]
    assert [chosen.batch([p])[1][0] for p in reversed(range(40))] == whole[::-1]
    assert whole != opened("set", caption_choice="clipscore", seed=1).batch(range(40))[1]
    others = [opened("set", caption_choice=c) for c in ("clipscore:25:0.2", "clipscore:26")]
    assert len({s.identity for s in (source, mixed, chosen, *others)}) == 5
    # A score that changes makes other data; the list by itself names the same.
    assert opened("set/wids-meta.json", caption_choice="clipscore").identity == chosen.identity
    side = Path("set/000_prompt_clip_score.json")
    side.write_text(side.read_text().replace("26.7331", "26.7332"))
    assert opened("set", caption_choice="clipscore").identity != chosen.identity
    # Some captions alone; the first of them where none has a score.
    some = opened("set", captions="InternVL2-26B,prompt", caption_choice="clipscore:25:0.1", min_clip_score=0)
    assert set(some.batch(range(200))[1]) >= {PROMPTS[4], LONGS[5]}


def test_a_stream_has_the_captions_and_no_scores(place: Path) -> None:
    scored()
    source = open_training_data(
        "set", seed=0, height=16, width=16, streaming=True, captions="InternVL2-26B:2,prompt:1"
    )
    assert isinstance(source, TableSource)
    assert set(source.batch(range(60))[1]) <= {*PROMPTS, *LONGS}
    with pytest.raises(UsageError, match="--caption-choice is not for a stream"):
        opened("set", streaming=True, caption_choice="clipscore")


def test_names_of_side_files(place: Path) -> None:
    """The longest shard name that fits; the entry `prompt` of a side file is called as the file is."""
    for name, text in (("1", "one"), ("10", "ten")):
        tar(f"set/{name}.tar", {"a/x.png": png(), "a/x.json": json.dumps({"prompt": text})})
        write(f"set/{name}_v1.5.json", json.dumps({"./a/x": {"prompt": f"side {text}"}}))
    write("set/10.json", json.dumps({"a/x": {"extra": "more ten"}}))
    write("set/100.json", "not of a shard")
    write("set/other.json", "nor this")
    index("set", {"url": "1.tar", "nsamples": 1}, {"url": "./10.tar", "nsamples": 1})
    tar("set/11.tar", {"x.png": png(), "x.txt": "x"})
    examples = open_examples("set", captions="_v1_5,extra,prompt")
    assert [examples.texts(row) for row in range(2)] == [
        ["side one", "", "one"],
        ["side ten", "more ten", "ten"],
    ]
    assert "left out: 1 .tar files that wids-meta.json does not list" in examples.about
    write("set/10_v1.5.json", json.dumps({"a/x": {"prompt": "side ten"}, "a/y": {"prompt": "lost"}}))
    assert "1 captions and scores of images that are not in their shard" in open_examples("set").about


def test_records_and_metadata_with_scores(place: Path) -> None:
    rows = records(long="long", clip_score=28.0, long_clip_score=28.0)
    rows[1]["clip_score"] = 24.0
    rows[2] |= {"clip_score": 21.0}
    del rows[3]["clip_score"], rows[3]["long_clip_score"]
    options = {"seed": 0, "height": 16, "width": 16, "caption_choice": "clipscore"}
    source = open_training_data(None, records=rows, **options)  # type: ignore[arg-type]
    assert isinstance(source, TableSource) and source.examples.count == 3
    seen = Counter(source.batch(range(300))[1])
    assert (
        set(seen) == {PROMPTS[0], PROMPTS[3], "long"}
        and 30 < seen[PROMPTS[0]] < 70
        and seen[PROMPTS[3]] == 100
    )
    write("images.jsonl", lines(*rows))
    told = opened("images.jsonl", **options)
    assert told.batch(range(300))[1] == source.batch(range(300))[1]
    # The same in a metadata file, whose first caption is `text`, and in a webdataset's .json.
    rows = [{**row, "file_name": row["path"], "text": row["prompt"]} for row in rows]
    for row in rows:
        del row["kind"], row["path"], row["prompt"]
    write("metadata.jsonl", lines(*rows))
    assert opened("metadata.jsonl", **options).batch(range(300))[1] == source.batch(range(300))[1]
    members: list[tuple[str, bytes | str]] = []
    for i, row in enumerate(rows):
        members += [
            (f"{i}.png", png(i)),
            (f"{i}.json", json.dumps({**row, "prompt": row["text"], "text": None})),
        ]
    tar("shots/0.tar", members)
    assert opened("shots", **options).batch(range(300))[1] == source.batch(range(300))[1]


def test_what_export_writes_is_read_as_the_records_are(place: Path, sanactl: Program) -> None:
    rows = records(long="a long one", clip_score=26.5, long_clip_score=27.25)
    rows[0]["clip_score"], rows[1]["long"] = 21.0, None
    del rows[2]["clip_score"], rows[2]["long_clip_score"]
    write("images.jsonl", lines(*rows))
    texts = ("--text-field", "prompt", "--text-field", "long")
    sanactl("export", "images.jsonl", "--to", "sana", *texts, "--shard-size", "2", "-o", "set")
    plain, chosen = opened("set"), opened("set", caption_choice="clipscore")
    assert captions_of(plain) == sorted(PROMPTS[:4])
    assert "a webdataset of 2 .tar files" in plain.about and "left out" not in plain.about
    told = opened("images.jsonl", caption_choice="clipscore")
    assert chosen.examples.count == told.examples.count == 3
    assert chosen.batch(range(90))[1] == told.batch(range(90))[1]
    assert set(chosen.batch(range(90))[1]) == {*PROMPTS[1:4], "a long one"}


def test_what_is_encoded_is_chosen_as_the_images_are(place: Path, sanactl: Program) -> None:
    """At every position of the stream, and by another rule, too."""
    scored()
    (made,) = sanactl("encode", "tiny.st", "--data", "set", "--caption-choice", "clipscore", "-o", "latents")
    assert made["examples"] == 5
    settings = json.loads(Path("latents/index.json").read_text())["settings"]
    assert settings["caption_choice"] == "clipscore:25:0.1" and settings["captions"].startswith("prompt:1,")
    known: dict[str, bytes] = {}
    for rule in (None, "clipscore:26:5"):
        data = open_training_data("latents", seed=2, caption_choice=rule)
        images = opened("set", seed=2, caption_choice=rule or "clipscore")
        assert isinstance(data, EncodedData)
        captions = images.batch(range(80))[1]
        assert len(set(captions)) > 5
        for position, caption in enumerate(captions):
            text = data.encoded([position], [False])[1].numpy().tobytes()
            assert known.setdefault(caption, text) == text
    assert len(set(known.values())) == len(known)
    # By weight, where only columns are named; all of one column is that column.
    data = open_training_data("latents", seed=2, captions="VILA1-5-13B")
    assert isinstance(data, EncodedData) and not isinstance(data.captions, ScoredChoice)
    said = sanactl.fails(
        "finetune",
        "tiny.st",
        "--data",
        "latents",
        "--min-clip-score",
        "3",
        "--caption-choice",
        "clipscore",
        code=2,
    )
    assert "--min-clip-score is for encode" in said
    assert "has weights" in sanactl.fails(
        "finetune", "tiny.st", "-d", "set", "--captions", "a:2", "--caption-choice", "clipscore", code=2
    )
    # What has no scores says so.
    index_file = Path("latents/index.json")
    changed = json.loads(index_file.read_text())
    changed["settings"]["scored"] = [9]
    index_file.write_text(json.dumps(changed))
    with pytest.raises(SanactlError, match="impossible scores"):
        open_training_data("latents")
    del changed["settings"]["scored"], changed["settings"]["caption_choice"]
    index_file.write_text(json.dumps(changed))
    with pytest.raises(SanactlError, match="not a shard of encoded data"):
        open_training_data("latents")
    with pytest.raises(SanactlError, match="was encoded without scores"):
        open_training_data("latents", caption_choice="clipscore")
