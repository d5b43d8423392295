"""A config is taken for what it is: the fields of the real class, each with a possible value, and JSON that is JSON."""

from __future__ import annotations

import inspect
import json
import time
from pathlib import Path
from typing import Any

import pytest
from diffusers import SanaTransformer2DModel

from sanactl.bench.synthetic import SANA_1_6B, TINY, synthetic_checkpoint
from sanactl.checkpoint.config import CONFIG_DEFAULTS, MAX_BLOCKS, check_config
from sanactl.checkpoint.decode import decode_metadata
from sanactl.checkpoint.kinds import model_name
from sanactl.checkpoint.metadata import encode_metadata, lineage_entry
from sanactl.checkpoint.open import open_checkpoint
from sanactl.errors import InputError
from sanactl.files.json_values import MAX_DEPTH, brief, parse_json
from tests.program import Program


def test_fields_and_defaults_are_those_of_the_class() -> None:
    parameters = dict(inspect.signature(SanaTransformer2DModel.__init__).parameters)
    parameters.pop("self")
    assert {name: p.default for name, p in parameters.items()} == dict(CONFIG_DEFAULTS)


def test_a_config_is_its_settings_and_what_else_was_there() -> None:
    config = check_config({**TINY, "_diffusers_version": "0.42", "mine": [1, {"a": None}]}, "x")
    assert config.num_layers == config["num_layers"] == 4
    assert dict(config) == {**TINY, "_diffusers_version": "0.42", "mine": [1, {"a": None}]}
    assert check_config(config, "x") is config
    assert (config.width, config.cross_width) == (16, 16)


WRONG: dict[str, list[Any]] = {
    "num_layers": ["20", True, 1e400, float("nan"), -1, 0, None, 2.0, [4], {}, MAX_BLOCKS + 1, 10**5000],
    "norm_eps": [float("nan"), float("inf"), -1, "1e-6", None, True, 10**400],
    "out_channels": [10**4290],
    "sample_size": [1 << 40],
    "guidance_embeds": [1],
    "attention_bias": [None],
    "interpolation_scale": ["1"],
    "timestep_scale": [[]],
    "dropout": [2],
    "mlp_ratio": [0],
    "qk_norm": [{}],
    "_class_name": [5, ["SanaTransformer2DModel"], "\x1b[2J", "x" * 5000],
}


@pytest.mark.parametrize("change", [{key: value} for key, values in WRONG.items() for value in values])
def test_an_impossible_value_is_named_in_a_short_line(change: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        check_config({**TINY, **change}, "x.st")
    line = str(caught.value)
    assert "x.st" in line
    assert next(iter(change)).strip("_") in line or "_class_name" in change
    assert len(line) < 300
    assert line.isprintable()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": NaN}', "NaN"),
        ("[1, -Infinity]", "-Infinity"),
        ("1e400", "too large"),
        ("9" * 5000, "5,000 digits"),
        ('"\\ud800"', "surrogate"),
        ('{"\\udc00": 1}', "surrogate"),
        ("[" * 100_000, "deep"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "deep"),
        ('{"a": 1, "b": 2, "a": 3}', "'a' twice"),
        ("{", "character 1"),
        ("", "character 0"),
    ],
)
def test_what_is_json_for_python_alone_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_json(text, unique=True)


def test_json_that_is_accepted_can_be_written_again() -> None:
    text = "[" * MAX_DEPTH + '"\\ud83d\\ude00", 1.5, -3, null' + "]" * MAX_DEPTH
    assert json.loads(json.dumps(parse_json(text), allow_nan=False)) == json.loads(text)
    values: list[Any] = [10**5000, "x" * 10**6, [10**5000], {"a": {}}, [[]], "\x1b[2J", float("nan"), None]
    for value in values:
        assert len(brief(value)) < 100
        assert brief(value).isprintable()


BAD_METADATA: dict[str, list[str]] = {
    "sanactl.lineage": [
        '[{"command": "x", "parents": 5}]', '[{"command": "x", "parents": ["a"]}]', '[{"parents": [{"name": 1}]}]',
        '[{"command": "x", "arguments": 5}]', '[{"command": 1}]', '[{"blocks": "4"}]', '[{"seed": 1.5}]', "[7]",
        '[{"command": "prune", "arguments": {"blocks": [-1]}}]', '[{"command": "prune", "arguments": {"blocks": 9}}]',
        '[{"command": "grow", "arguments": {"to": 1000000000}}]', '[{"command": "grow", "arguments": {"position": []}}]',
        '[{"parents": [{"digest": ["sha256:x"]}]}]', "[" + "{}," * 5000 + "{}]",
    ],
    "sanactl.components": [
        '{"vae": {"source": "builtin:shapes", "subfolder": 5}}', '{"vae": {"source": ""}}', '{"vae": 3}', "[]",
        '{"vae": {"source": ["x"]}}', '{"vae": {"source": "a\\u0000"}}', '{"vae": {"source": "x", "revision": {}}}',
    ],
    "sanactl.sampling": [
        '{"steps": "20"}', '{"height": 1e400}', '{"width": -64}', '{"guidance_scale": null}', '{"flow_shift": "3"}',
        '{"max_sequence_length": 0}', '{"x": "\\ud800"}', '{"clip": NaN}', "3",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in BAD_METADATA.items() for value in values]
)
def test_metadata_of_ours_that_is_none_is_refused_where_it_is_read(key: str, value: str) -> None:
    with pytest.raises(InputError, match=f"x.st: .*{key}"):
        decode_metadata({key: value}, "x.st")


def test_what_is_written_can_be_read_again() -> None:
    entry = lineage_entry("finetune", {"clip": float("inf"), "data": Path("x").parts}, parents=[], blocks=4)
    strings = encode_metadata(TINY, lineage=[entry] * 1500)
    stored = decode_metadata(strings, "x")
    assert len(stored.lineage) == 1000
    assert stored.lineage[0]["arguments"] == {"clip": "inf", "data": ["x"]}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({}, "SANA-1.5 1.6B"),
        ({"num_layers": 60}, "SANA-1.5 4.8B"),
        ({"qk_norm": None}, "SANA 1.6B"),
        ({"guidance_embeds": True}, "SANA-Sprint 1.6B"),
        ({"qk_norm": None, "num_attention_heads": 36, "num_layers": 28}, "SANA 0.6B"),
        ({"num_layers": 30}, "SANA-1.5 of 30 blocks, width 2,240"),
    ],
)
def test_a_model_is_called_by_its_published_name(change: dict[str, Any], name: str) -> None:
    assert model_name(check_config({**SANA_1_6B, **change}, "x")) == name


@pytest.mark.parametrize(
    "name", ["SanaVideoTransformer3DModel", "SanaControlNetModel", "SanaWMTransformer3DModel"]
)
def test_a_relative_of_sana_is_refused_in_one_line(place: Path, sanactl: Program, name: str) -> None:
    (place / "x").mkdir()
    (place / "x" / "config.json").write_text(json.dumps({"_class_name": name, "num_layers": 20}))
    (place / "x" / "diffusion_pytorch_model.safetensors").write_bytes((place / "tiny.st").read_bytes())
    for command in (["inspect", "x"], ["grow", "x", "--to", "30"], ["convert", "x", "-o", "y.st"]):
        line = sanactl.fails(*command)
        assert name in line
        assert "does not work on" in line


@pytest.mark.parametrize("depth", [str(MAX_BLOCKS + 1), "3000000", "9" * 30, "9" * 5000])
def test_a_huge_depth_is_refused_at_once(place: Path, sanactl: Program, depth: str) -> None:
    started = time.process_time()
    line = sanactl.fails("grow", "tiny.st", "--to", depth, "--dry-run", code=2)
    assert time.process_time() - started < 1
    assert f"{MAX_BLOCKS:,}" in line or len(depth) == 5000
    assert len(line) < 400 or len(depth) == 5000


def test_a_depth_of_thousands_is_planned_in_seconds(place: Path, sanactl: Program) -> None:
    for init in ("partial", "cyclic", "progressive"):
        started = time.process_time()
        (record,) = sanactl("grow", "tiny.st", "--to", str(MAX_BLOCKS), "--init", init, "--dry-run")
        assert record["blocks_after"] == MAX_BLOCKS
        assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "options",
    [
        ["--blocks", "0-999999999"],
        ["--blocks", "0," * 100_000 + "3"],
        ["--blocks", "9" * 5000],
        ["--drop", "0-2," * 50_000 + "0"],
        ["--keep", "9" * 5000],
        ["--keep", ",".join(map(str, range(1, 5000)))],
        ["--params", "9" * 5000],
        ["--bytes", "9" * 5000],
    ],
)
def test_long_lists_and_huge_numbers_of_blocks_take_no_time(
    place: Path, sanactl: Program, options: list[str]
) -> None:
    started = time.process_time()
    line = sanactl.fails("prune", "tiny.st", *options, code=2)
    assert time.process_time() - started < 1
    assert len(line) < 500


def test_a_block_named_often_is_kept_once(place: Path, sanactl: Program) -> None:
    (record,) = sanactl("prune", "tiny.st", "--blocks", "0-1," * 50_000 + "1,0", "--dry-run")
    assert record["dropped"] == [2]
    assert sanactl("grow", "tiny.st", "--to", "5", "--position", "1", "--dry-run")
    assert "position" in sanactl.fails("grow", "tiny.st", "--to", "5", "--position", "9" * 5000, code=2)


def test_inspect_and_grow_agree_on_a_config(place: Path, sanactl: Program, tmp_path: Path) -> None:
    folder = synthetic_checkpoint(tmp_path / "model")
    text = (folder / "config.json").read_text()
    for value in ("NaN", "1e400", '"\\ud800"', "9" * 5000, "[" * 200 + "]" * 200):
        (folder / "config.json").write_text(text.replace("{", f'{{"other": {value},', 1))
        assert sanactl.fails("inspect", "model") == sanactl.fails("grow", "model", "--to", "6")
    (folder / "config.json").write_text(text.replace("{", '{"other": [1, "a", {"b": null}],', 1))
    sanactl("grow", "model", "--to", "6", "-o", "g")
    assert open_checkpoint(tmp_path / "g").config["other"] == [1, "a", {"b": None}]
