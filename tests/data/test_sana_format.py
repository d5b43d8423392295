"""SANA's data format and its choice among captions, against its rules written out a second time."""

from __future__ import annotations

import json
import math
import os
import tarfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from sanactl.data import EncodedData, TableSource, open_examples
from sanactl.data.open import open_training_data
from sanactl.data.scored_captions import ScoredChoice, ScoreRule, parse_caption_choice
from sanactl.errors import SanactlError, UsageError
from tests.layouts import captions_of, lines, opened, png, tar, write
from tests.program import Program

COLORS = ("red", "blue", "green", "purple", "orange", "yellow")
# In words that the built-in text encoder knows.
PROMPTS = [f"a photo of a {color} circle" for color in COLORS]
LONGS = [f"a photo of a {color} square" for color in COLORS]
VILAS = [f"a photo of a {color} triangle" for color in COLORS]
LONG, VILA = "_InternVL2-26B", "_VILA1-5-13B"


def sana(sides: dict[str, Any] | None = None) -> None:
    """Two shards of three images; `sides` by suffix, {key: ...} for all shards in one."""
    folder, listed = "set", []
    for shard in range(2):
        members: dict[str, bytes | str | None] = {}
        for i in range(3 * shard, 3 * shard + 3):
            members[f"{i:05d}.png"] = png(i)
            members[f"{i:05d}.json"] = json.dumps({"prompt": PROMPTS[i], "width": 16, "height": 16})
        tar(f"{folder}/{shard:03d}.tar", members)
        listed.append({"url": f"{shard:03d}.tar", "nsamples": 3})
        keys = {f"{i:05d}" for i in range(3 * shard, 3 * shard + 3)}
        for suffix, side in (sides or {}).items():
            mine = {key: said for key, said in side.items() if key in keys}
            write(f"{folder}/{shard:03d}{suffix}.json", json.dumps(mine))
    index(folder, *listed)


def index(folder: str, *shards: Any, **more: Any) -> None:
    write(f"{folder}/wids-meta.json", json.dumps({"wids_version": 1, "shardlist": list(shards), **more}))


def scored() -> None:
    """Rows with two good captions, with good ones of both files, with none good, with none at all."""
    sana(
        {
            LONG: {f"{i:05d}": {"InternVL2-26B": LONGS[i]} for i in (0, 1, 2, 4, 5)},
            VILA: {f"{i:05d}": {"VILA1-5-13B": VILAS[i]} for i in (0, 1, 2)},
            f"{LONG}_clip_score": {
                "00000": {"InternVL2-26B": "27.1037"},
                "00001": {"InternVL2-26B": "24.9999", "prompt": 30},
                "00002": {"InternVL2-26B": 21.5},
                "00003": {"InternVL2-26B": "40"},  # has no such caption
            },
            f"{VILA}_clip_score": {
                "00000": {"VILA1-5-13B": "25.0"},
                "00001": {"VILA1-5-13B": "26"},
                "00002": {"VILA1-5-13B": "24"},
            },
            "_prompt_clip_score": {
                "00000": {"prompt": "26.7331"},
                "00001": {"prompt": "27"},
                "00002": {"prompt": "22"},
                "00004": {"prompt": "21.99"},
                "00005": {"prompt": "nan"},
            },
        }
    )


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


def records(**more: Any) -> list[dict[str, Any]]:
    rows = []
    for i in range(4):
        write(f"{i}.png", png(i))
        rows.append({"kind": "image", "path": f"{i}.png", "prompt": PROMPTS[i], **more})
    return rows


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


def fault(reference: str | None = "set", **options: Any) -> str:
    with pytest.raises(SanactlError) as caught:
        opened(reference, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


GOOD = {"url": "000.tar", "nsamples": 3}


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ([], "wids-meta.json: lists no shards"),
        ([{"nsamples": 3}], "shard 1: has no url"),
        ([GOOD, {"url": 5, "nsamples": 3}], "shard 2: has no url"),
        (["000.tar"], "shard 1: has no url"),
        ([{"url": "000.tar"}], "its nsamples is None"),
        ([{"url": "000.tar", "nsamples": "3"}], "its nsamples is 3, not a number"),
        ([{"url": "000.tar", "nsamples": True}], "its nsamples is True"),
        ([{"url": "000.tar", "nsamples": -3}], "its nsamples is -3"),
        ([{"url": "000.tar", "nsamples": 4}], "000.tar: has 3 images, but wids-meta.json says 4"),
        ([{"url": "000.tar", "nsamples": 10**30}], "says 1,000,000"),
        ([GOOD, GOOD], "000.tar is listed twice"),
        ([GOOD, {"url": "./x/../000.tar", "nsamples": 3}], "listed twice"),
        ([GOOD, {"url": "8.tar", "nsamples": 1}, {"url": "9.tar", "nsamples": 1}], "set/8.tar is not there, and 1 more"),
        ([{"url": "https://host/000.tar", "nsamples": 3}], "https://host/000.tar is an address"),
        ([{"url": "pipe:cat x.tar", "nsamples": 3}], "is an address"),
        ([{"url": "../out.tar", "nsamples": 3}], "../out.tar leads out of set"),
        ([{"url": "x/../../out.tar", "nsamples": 3}], "leads out of set"),
        ([{"url": "/etc/out.tar", "nsamples": 3}], "leads out of set"),
        ([{"url": "/etc/passwd", "nsamples": 3}], "is no .tar file"),
        ([{"url": "a\0.tar", "nsamples": 3}], "has no url"),
    ],
)  # fmt: skip
def test_lists_of_shards_that_are_refused(place: Path, listed: list[Any], said: str) -> None:
    sana()
    index("set", *listed)
    assert said in fault()


def test_bad_lists_and_shards(place: Path) -> None:
    sana()
    for content, said in (
        ("{", "not JSON"),
        ("[]", "a JSON list"),
        (b"\xff\xfe\xfa", "not JSON"),
        ("[" * 9999, "not JSON"),
    ):
        write("set/wids-meta.json", content)
        assert said in fault()
    os.remove("set/wids-meta.json")
    os.mkdir("set/wids-meta.json")
    assert "wids-meta.json: is not a regular file" in fault()
    os.rmdir("set/wids-meta.json")
    index("set", {"url": "000.tar", "nsamples": 1})
    tar("set/000.tar", {"0.npy": b"latents", "0.json": "{}"})
    assert "has no images (latents in .npy files are not read)" in fault()
    tar("set/000.tar", {"0.png": png(), "0.json": "{"})
    assert "0.json: not JSON" in fault()
    write("set/000.tar", "no tar at all")
    assert "000.tar: not a whole .tar file" in fault()


@pytest.mark.parametrize(
    ("suffix", "content", "said"),
    [
        (LONG, "{", "set/000_InternVL2-26B.json: not JSON"),
        (LONG, "[1]", "a JSON list, not an object"),
        (LONG, '{"00000": "text"}', "00000: a str, not an object of captions or scores"),
        (LONG, '{"nobody": {"x": "y"}}', "names none of the images of its shard"),
        ("_prompt_clip_score", '{"00000": {"prompt": "high"}}', "000.tar, 00000: the score 'high' (*_prompt_clip_score.json, prompt) is no"),
        ("_prompt_clip_score", '{"00000": {"prompt": true}}', "the score 'True'"),
        ("_prompt_clip_score", '{"00000": {"prompt": [27]}}', "the score '[27]'"),
        ("_prompt_clip_score", '{"00000": {"prompt": NaN}}', "no caption has a score"),
        ("_prompt_clip_score", '{"00000": {"prompt": 1e999}}', "no caption has a score"),
        ("_prompt_clip_score", '{"00000": {"prompt": null}}', "no caption has a score"),
        ("_prompt_clip_score", "{}", "no caption has a score"),
        ("_prompt_clip_score", json.dumps({f"{i:05d}": {"prompt": 3} for i in range(3)}), "all of its images have a clip_score below 22"),
    ],
)  # fmt: skip
def test_side_files_that_are_refused(place: Path, suffix: str, content: str, said: str) -> None:
    sana()
    index("set", GOOD)
    write(f"set/000{suffix}.json", content)
    assert said in fault(caption_choice="clipscore")


@pytest.mark.parametrize(
    "text",
    ["", "clip", "clipscore:", "clipscore:x", "clipscore:-1", "clipscore:nan", "clipscore:25:-1", "clipscore:25:inf", "clipscore:1:2:3", "CLIPSCORE"],
)  # fmt: skip
def test_what_is_no_choice_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--caption-choice"):
        parse_caption_choice(text)


def test_a_rule_can_be_read_again() -> None:
    for text in (
        "clipscore",
        "clipscore:25",
        "clipscore:0:0",
        "clipscore:25.123456789:1e-9",
        "clipscore:1e300:3",
    ):
        rule = parse_caption_choice(text)
        assert parse_caption_choice(str(rule)) == rule
    assert str(parse_caption_choice("clipscore")) == "clipscore:25:0.1"


def test_choices_that_make_no_sense(place: Path) -> None:
    sana()
    assert "has weights" in fault(captions="prompt:0.7,x:0.3", caption_choice="clipscore")
    assert "--min-clip-score is for --caption-choice" in fault(min_clip_score=22.0)
    assert "--min-clip-score nan" in fault(caption_choice="clipscore", min_clip_score=math.nan)
    assert "is not for builtin:shapes" in fault("builtin:shapes", caption_choice="clipscore")
    with pytest.raises(SanactlError, match="no caption has a score; sanactl eval clip"):
        open_training_data(None, records=records(), caption_choice="clipscore")
    with pytest.raises(SanactlError, match=r"record of 0\.png: the score '\{\}'"):
        open_training_data(None, records=records(clip_score={}), caption_choice="clipscore")
    write("t.csv", "image,text,clip_score\n0.png,x,30\n1.png,y,\n")
    assert opened("t.csv", caption_choice="clipscore").examples.count == 2
    write("t.csv", "image,text,clip_score\n0.png,x,30\n1.png,y,-\n")
    assert "t.csv, line 3: the score '-' (clip_score) is no number" in fault(
        "t.csv", caption_choice="clipscore"
    )


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
