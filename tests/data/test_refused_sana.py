"""Files in SANA's data format, and choices among captions, that are refused: one line says what is wrong."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from sanactl.data.open import open_training_data
from sanactl.data.scored_captions import parse_caption_choice
from sanactl.errors import SanactlError, UsageError
from tests.data.sana_sets import LONG, index, records, sana
from tests.layouts import opened, png, tar, write


def fault(reference: str = "set", **options: Any) -> str:
    with pytest.raises(SanactlError) as caught:
        opened(reference, **options)
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
