"""Opening checkpoints: every layout that holds one, and everything that only looks like one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import SanaTransformer2DModel
from safetensors.numpy import load_file, save_file

from sanactl.bench.synthetic import TINY, synthetic_checkpoint, synthetic_plan
from sanactl.checkpoint.components import portable_components, resolve_components
from sanactl.checkpoint.decode import decode_metadata
from sanactl.checkpoint.metadata import encode_metadata
from sanactl.checkpoint.open import open_checkpoint
from sanactl.checkpoint.write import write_checkpoint
from sanactl.errors import InputError
from sanactl.files.safetensors import read_header
from sanactl.surgery.prune import plan_prune

INDEX = "diffusion_pytorch_model.safetensors.index.json"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return synthetic_checkpoint(tmp_path / "sharded", shard_size="30KB")


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def pipeline(folder: Path) -> Path:
    folder.mkdir()
    parts = {"vae": ["diffusers", "AutoencoderDC"], "text_encoder": ["transformers", "Gemma2Model"]}
    parts |= {
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "tokenizer": ["transformers", "GemmaTokenizer"],
    }
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "SanaPipeline", **parts}))
    for name in parts:
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{}")
    synthetic_checkpoint(folder / "transformer")
    return folder


def test_every_layout_opens_to_the_same_tensors(tmp_path: Path, sharded: Path) -> None:
    opened = {
        "file": open_checkpoint(synthetic_checkpoint(tmp_path / "base.st")),
        "folder": open_checkpoint(sharded),
        "pipeline": open_checkpoint(pipeline(tmp_path / "pipe")),
    }
    for kind, checkpoint in opened.items():
        assert checkpoint.kind == kind
        assert checkpoint.num_blocks == 4
        assert checkpoint.num_parameters == opened["file"].num_parameters == 27044
        assert checkpoint.config == opened["file"].config
        for name, ref in checkpoint.tensors.items():
            other = opened["file"].tensors[name]
            data = ref.file.read_bytes()[ref.offset : ref.offset + ref.nbytes]
            assert data == other.file.read_bytes()[other.offset : other.offset + other.nbytes]
    assert [checkpoint.name for checkpoint in opened.values()] == ["base", "sharded", "pipe"]
    assert len(opened["folder"].files) > 2
    vae = opened["pipeline"].components["vae"]
    assert vae == {"source": str(tmp_path / "pipe"), "subfolder": "vae"}
    assert opened["folder"].components == {}


def test_a_weights_file_with_its_config_beside_it_opens(tmp_path: Path) -> None:
    folder = synthetic_checkpoint(tmp_path / "model")
    file = folder / "diffusion_pytorch_model.safetensors"
    save_file(load_file(file), file, {"format": "pt"})  # as published: no config inside
    assert open_checkpoint(file).num_blocks == 4


def test_the_variant_that_is_there_is_taken(tmp_path: Path) -> None:
    folder = synthetic_checkpoint(tmp_path / "model", dtype="BF16")
    (folder / "diffusion_pytorch_model.safetensors").rename(
        folder / "diffusion_pytorch_model.bf16.safetensors"
    )
    assert open_checkpoint(folder).dtypes == {"BF16": 27044}
    half = synthetic_checkpoint(tmp_path / "half.st", dtype="F16")
    half.rename(folder / "diffusion_pytorch_model.fp16.safetensors")
    assert open_checkpoint(folder).dtypes == {"BF16": 27044}
    assert open_checkpoint(folder, variant="fp16").dtypes == {"F16": 27044}
    with pytest.raises(InputError, match="no variant int8"):
        open_checkpoint(folder, variant="int8")


def test_the_digest_tells_checkpoints_apart_and_follows_the_content(tmp_path: Path) -> None:
    one = open_checkpoint(synthetic_checkpoint(tmp_path / "one.st"))
    same = open_checkpoint(synthetic_checkpoint(tmp_path / "same.st"))
    other = open_checkpoint(synthetic_checkpoint(tmp_path / "other.st", seed=1))
    assert one.digest == same.digest != other.digest
    assert one.digest.startswith("sha256:")
    folder = synthetic_checkpoint(tmp_path / "folder")
    before = open_checkpoint(folder).digest
    edit(folder / "config.json", norm_eps=1e-5)
    assert open_checkpoint(folder).digest != before


def test_metadata_round_trip_and_portable_components(tmp_path: Path) -> None:
    components = {
        "vae": {"source": str(tmp_path / "parts"), "subfolder": "vae"},
        "text_encoder": {"source": "builtin:shapes", "subfolder": "text_encoder"},
        "tokenizer": {"source": "owner/name", "subfolder": "tokenizer"},
        "scheduler": {"source": "/elsewhere", "subfolder": "scheduler"},
    }
    portable = portable_components(components, tmp_path)
    assert portable["vae"]["source"] == "./parts"
    assert portable["scheduler"]["source"] == "/elsewhere"
    strings = encode_metadata(
        TINY, components=portable, sampling={"steps": 20}, lineage=[{"command": "grow"}]
    )
    assert all(isinstance(value, str) for value in strings.values())
    stored = decode_metadata(strings, "x")
    assert stored.config is not None
    assert stored.config["_class_name"] == "SanaTransformer2DModel"
    assert (stored.sampling, stored.lineage) == ({"steps": 20}, [{"command": "grow"}])
    assert resolve_components(stored.components, tmp_path) == components
    assert "modelspec.resolution" not in strings  # a latent of 4 channels says nothing about pixels
    assert encode_metadata({**TINY, "in_channels": 32})["modelspec.resolution"] == "256x256"


def test_components_move_with_their_folder(tmp_path: Path) -> None:
    (tmp_path / "a" / "vae").mkdir(parents=True)
    plan = synthetic_plan()
    plan.components = {"vae": {"source": str(tmp_path / "a"), "subfolder": "vae"}}
    write_checkpoint(plan, tmp_path / "a" / "base.st")
    (tmp_path / "a").rename(tmp_path / "b")
    child = write_checkpoint(
        plan_prune(open_checkpoint(tmp_path / "b" / "base.st"), [0]), tmp_path / "b" / "c.st"
    )
    assert open_checkpoint(child).components["vae"]["source"] == str(tmp_path / "b")


@pytest.mark.parametrize(
    "ref", ["absent.st", "./absent", "no/such/path", "a/b.safetensors", "x.pth", "~/absent.st"]
)
def test_a_missing_path_fails_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ref: str) -> None:
    monkeypatch.chdir(tmp_path)
    started = time.monotonic()
    with pytest.raises(InputError, match="does not exist"):
        open_checkpoint(ref)
    assert time.monotonic() - started < 0.5


def test_a_hub_id_without_a_network_is_one_line_and_quick(tmp_path: Path) -> None:
    code = "from sanactl.checkpoint.open import open_checkpoint; open_checkpoint('nobody-here/nothing-there')"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert "InputError: nobody-here/nothing-there does not exist here and cannot be downloaded" in done.stderr


def test_a_hub_id_comes_from_the_cache(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--owner--sana" / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    pipeline(snapshot)
    blobs = snapshot.parents[1] / "blobs"
    blobs.mkdir()
    weights = snapshot / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.rename(blobs / "abc")
    weights.symlink_to("../../../blobs/abc")  # as the cache lays them out
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    code = (
        "from sanactl.checkpoint.open import open_checkpoint; c = open_checkpoint('owner/sana');"
        "print(c.kind, c.name, c.num_blocks, c.components['vae'])"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "hub sana 4 {'source': 'owner/sana', 'subfolder': 'vae'}\n", done.stderr


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "", ".", "x\0y"])
def test_an_index_that_leaves_its_folder_is_refused(sharded: Path, name: str) -> None:
    index = json.loads((sharded / INDEX).read_text())["weight_map"]
    edit(sharded / INDEX, weight_map={**index, "proj_out.bias": name})
    with pytest.raises(InputError, match="outside its folder"):
        open_checkpoint(sharded)


def test_an_index_that_does_not_match_its_shards_is_refused(sharded: Path) -> None:
    good = json.loads((sharded / INDEX).read_text())["weight_map"]
    first, second = sorted(set(good.values()))[:2]
    for wrong, says in (
        ({**good, "proj_out.bias": "missing.safetensors"}, "names the shard missing.safetensors"),
        ({**good, "extra": first}, "does not hold it"),
        ({**good, "scale_shift_table": second}, "the index puts in"),
        ({}, "no weight_map"),
        ([], "no weight_map"),
        ({"a": 1}, "no weight_map"),
    ):
        edit(sharded / INDEX, weight_map=wrong)
        with pytest.raises(InputError, match=says):
            open_checkpoint(sharded)
    (sharded / INDEX).write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        open_checkpoint(sharded)


def test_of_an_index_and_a_whole_file_the_index_counts_as_in_diffusers(tmp_path: Path, sharded: Path) -> None:
    other = synthetic_checkpoint(tmp_path / "other.st", seed=1)
    (sharded / "diffusion_pytorch_model.safetensors").write_bytes(other.read_bytes())
    opened = open_checkpoint(sharded)
    assert len(opened.files) > 2
    assert "the index counts" in opened.notes[0]
    key = "proj_out.weight"
    loaded = SanaTransformer2DModel.from_pretrained(sharded).state_dict()[key].numpy()
    ref = opened.tensors[key]
    assert ref.file.read_bytes()[ref.offset : ref.offset + ref.nbytes] == loaded.tobytes()
    opened.files[1].unlink()
    with pytest.raises(
        InputError, match=r"holds both .* remove diffusion_pytorch_model\.safetensors\.index\.json"
    ):
        open_checkpoint(sharded)


@pytest.mark.parametrize(
    "value", [5, None, ["x"], {"a": 1}, "\ud800", "x" * 5000, "config.json", "pipe.safetensors"]
)
def test_an_index_that_names_what_is_no_shard_is_refused(sharded: Path, value: Any) -> None:
    os.mkfifo(sharded / "pipe.safetensors")
    index = json.loads((sharded / INDEX).read_text())["weight_map"]
    edit(sharded / INDEX, weight_map={**index, "proj_out.bias": value})
    with pytest.raises(InputError) as caught:
        open_checkpoint(sharded)
    assert len(str(caught.value)) < 400


def test_a_header_without_metadata_opens_with_null_for_it(tmp_path: Path) -> None:
    folder = synthetic_checkpoint(tmp_path / "model")
    file = folder / "diffusion_pytorch_model.safetensors"
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.dumps({**json.loads(data[8 : 8 + length]), "__metadata__": None}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    assert open_checkpoint(folder).num_blocks == 4


def test_a_truncated_shard_is_named(sharded: Path) -> None:
    shard = sorted(sharded.glob("*.safetensors"))[2]
    os.truncate(shard, shard.stat().st_size - 1)
    with pytest.raises(InputError, match=f"{shard.name} is truncated"):
        open_checkpoint(sharded)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_layers": 5}, "4 blocks and its config says num_layers 5"),
        ({"num_layers": 10**9}, "num_layers is 1000000000; sanactl takes at most"),
        ({"num_layers": -1}, "num_layers is -1"),
        ({"num_layers": "4"}, "num_layers is '4'"),
        ({"num_layers": True}, "num_layers is True"),
        ({"mlp_ratio": None}, "mlp_ratio"),
        ({"caption_channels": 13}, "caption_projection.linear_1.weight has the shape"),
        ({"qk_norm": None}, "unexpected tensor transformer_blocks.0.attn1.norm_q"),
        ({"qk_norm": ["x"]}, "qk_norm"),
        ({"qk_norm": "layer_norm_across_heads"}, "lacks the tensor transformer_blocks.0.attn1.norm_q.bias"),
        ({"_class_name": "FluxTransformer2DModel"}, "is a FluxTransformer2DModel"),
        ({"cross_attention_dim": None}, "cross_attention_dim"),
    ],
)
def test_a_config_that_does_not_fit_is_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    folder = synthetic_checkpoint(tmp_path / "model")
    edit(folder / "config.json", **change)
    with pytest.raises(InputError, match=says):
        open_checkpoint(folder)


def test_missing_blocks_and_gaps_in_their_numbers_are_named(tmp_path: Path) -> None:
    base = synthetic_checkpoint(tmp_path / "base.st")
    metadata, tensors = read_header(base).metadata, load_file(base)
    gone = "transformer_blocks.2.ff.conv_depth.bias"
    save_file({name: t for name, t in tensors.items() if name != gone}, tmp_path / "x.st", metadata)
    with pytest.raises(InputError, match=f"lacks the tensor {gone}"):
        open_checkpoint(tmp_path / "x.st")
    moved = {name.replace("transformer_blocks.3.", "transformer_blocks.7."): t for name, t in tensors.items()}
    save_file(moved, tmp_path / "x.st", metadata)
    with pytest.raises(InputError, match=r"lacks the tensor transformer_blocks\.3\."):
        open_checkpoint(tmp_path / "x.st")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("double_blocks.0.img_attn.qkv.weight", "FLUX"),
        ("model.diffusion_model.input_blocks.0.0.weight", "UNet"),
        ("blocks.0.cross_attn.kv_linear.weight", "sanactl convert"),
        ("transformer_blocks.0.attn1.to_q.lora_A.weight", "LoRA"),
        ("model.layers.0.self_attn.q_proj.weight", "language model"),
        ("decoder.conv_in.weight", "VAE"),
        ("something.else", "look like something.else"),
    ],
)
def test_another_models_file_is_called_what_it_seems_to_be(tmp_path: Path, name: str, kind: str) -> None:
    save_file({name: np.zeros(1, np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=kind):
        open_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize("key", ["config", "sanactl.components", "sanactl.sampling", "sanactl.lineage"])
@pytest.mark.parametrize("value", ["{", "3", '"x"', "[1]", '{"vae": 1}', "[" * 100_000])
def test_broken_metadata_is_an_input_error_or_ignored(tmp_path: Path, key: str, value: str) -> None:
    base = synthetic_checkpoint(tmp_path / "base.st")
    save_file(load_file(base), tmp_path / "x.st", {**read_header(base).metadata, key: value})
    try:
        open_checkpoint(tmp_path / "x.st")
    except InputError as error:
        assert "x.st" in str(error)  # noqa: PT017  (some of these values are valid for some of the keys)


def test_folders_and_files_that_hold_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no config\.json"):
        open_checkpoint(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text(json.dumps(dict(TINY)))
    with pytest.raises(InputError, match=r"no diffusion_pytorch_model\.safetensors"):
        open_checkpoint(tmp_path / "empty")
    (tmp_path / "empty" / "diffusion_pytorch_model.bin").touch()
    with pytest.raises(InputError, match="pickled"):
        open_checkpoint(tmp_path / "empty")
    (tmp_path / "x-00001-of-00002.safetensors").touch()
    with pytest.raises(InputError, match="one shard"):
        open_checkpoint(tmp_path / "x-00001-of-00002.safetensors")
    os.mkfifo(tmp_path / "pipe.st")
    os.symlink("loop.st", tmp_path / "loop.st")
    (tmp_path / "text.st").write_text("hello, I am no checkpoint")
    for name in ("pipe.st", "loop.st", "text.st"):
        with pytest.raises(InputError):
            open_checkpoint(tmp_path / name)
