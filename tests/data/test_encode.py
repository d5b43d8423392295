"""`encode`: training from shards is training from the images; a folder that was made in parts is the whole one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from sanactl.checkpoint.open import open_checkpoint
from sanactl.data import EncodedData, open_examples, open_training_data
from sanactl.data.encode import EncodeSettings, _Job, encode
from sanactl.errors import InputError
from sanactl.files.progress import Progress
from sanactl.training.finetune import FinetuneSettings, finetune
from tests.pictures import MIXED, SQUARE, image_records, spoil, write_folder, write_tars
from tests.program import Program, snapshot

TRAINING = FinetuneSettings(
    steps=5, batch_size=4, learning_rate=1e-5, warmup=2, clip=1.0, max_sequence_length=16,
    complex_human_instruction=False, text_dropout=0.3,
)  # fmt: skip
ENCODING = EncodeSettings(height=64, width=64, max_sequence_length=16, complex_human_instruction=False)
SMALL = replace(ENCODING, shard_bytes=30_000)  # three rows with one caption, two with two


def losses(data: str, name: str, settings: FinetuneSettings = TRAINING, **options: Any) -> list[float]:
    source = open_training_data(data, seed=0, height=64, width=64, **options)
    curve: list[float] = []
    finetune(
        open_checkpoint("tiny.st"),
        source,
        settings,
        target=Path(name),
        on_step=lambda p: curve.append(p["loss"]),
    )
    return curve


def encoded(
    reference: str, target: str, settings: EncodeSettings = ENCODING, **options: Any
) -> dict[str, Any]:
    named = {k: options.pop(k) for k in ("captions", "streaming") if k in options}
    examples = open_examples(reference, **named)
    return encode(open_checkpoint("tiny.st"), examples, Path(target), settings, **options)


class StopAfter(Progress):
    """Ctrl-C after so many shards."""

    def __init__(self, shards: int) -> None:
        self.left = shards

    def advance(self, count: int = 1, **fields: str) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("buckets", [False, True])
def test_training_from_shards_is_training_from_images(place: Path, buckets: bool) -> None:
    """The same examples, captions, dropped captions and noise: the same loss, in fp32."""
    write_folder(place / "shots", 10, MIXED if buckets else SQUARE)
    captions = "text:0.6,short:0.4"
    encoded("shots", "latents", replace(SMALL, buckets=buckets), captions=captions)
    assert len(list(place.glob("latents/0*.safetensors"))) == 5
    images = losses("shots", "a.st", captions=captions, buckets=buckets)
    shards = losses("latents", "b.st")
    assert shards == pytest.approx(images, rel=1e-5)
    # Fewer columns than were encoded can be chosen for training.
    assert losses("latents", "c.st", captions="short") == pytest.approx(
        losses("shots", "d.st", captions="short", buckets=buckets), rel=1e-5
    )


def test_half_precision_is_close(place: Path) -> None:
    write_folder(place / "shots", 6)
    exact = losses("shots", "a.st")
    for dtype in ("bf16", "fp16"):
        encoded("shots", dtype, replace(ENCODING, dtype=dtype))
        assert losses(dtype, f"{dtype}.st") == pytest.approx(exact, rel=0.02)
    assert load_file("fp16/00000.safetensors")["latents"].dtype == np.float16


def test_a_cache_is_training_from_images(place: Path) -> None:
    write_folder(place / "shots", 8, MIXED)
    plain = losses("shots", "a.st", buckets=True)
    assert losses("shots", "b.st", replace(TRAINING, cache=20), buckets=True) == pytest.approx(
        plain, rel=1e-5
    )


def test_shards_hold_what_the_encoders_give(place: Path) -> None:
    """Against the components, called one image and one caption at a time."""
    import torch

    from sanactl.model.loading import load_components
    from sanactl.model.text import encode_prompts
    from tests.pictures import picture

    write_folder(place / "shots", 3)
    encoded("shots", "latents", captions="text,short")
    tensors = load_file("latents/00000.safetensors")
    assert tensors["shapes"][:, :2].tolist() == [[8, 8]] * 3
    components = load_components(open_checkpoint("tiny.st"), parts=("tokenizer", "text_encoder", "vae"))
    latents = tensors["latents"].reshape(3, 8, 8, 8)
    start = 0
    for row in range(3):
        image, text = picture(row)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            wanted = components.vae.encode(pixels).latent * components.vae.config.scaling_factor
        assert np.allclose(latents[row], wanted[0].numpy(), atol=1e-4)
        for column, caption in enumerate((text, "" if row == 0 else f"short {row}")):
            tokens = int(tensors["shapes"][row, 2 + column])
            if not caption:
                assert tokens == 0
                continue
            whole, mask = encode_prompts(
                components.tokenizer, components.text_encoder, [caption], max_sequence_length=16
            )
            assert tokens == int(mask.sum())
            kept = tensors["text"][start : start + tokens]
            assert np.allclose(kept, whole[0, :tokens].numpy(), atol=1e-4)
            start += tokens
    assert start == len(tensors["text"])


def test_a_stopped_run_goes_on(place: Path) -> None:
    write_folder(place / "shots", 10)
    encoded("shots", "whole", SMALL)
    for shards in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            encoded("shots", "parts", SMALL, progress=StopAfter(shards))
        with pytest.raises(InputError, match=r"is not finished.*same sanactl encode"):
            open_training_data("parts", seed=0, height=64, width=64)
    written = {p.name: p.stat().st_mtime_ns for p in place.glob("parts/0*")}
    assert sorted(written) == ["00000.safetensors", "00001.safetensors"]
    encoded("shots", "parts", SMALL)
    assert {p.name: p.stat().st_mtime_ns for p in place.glob("parts/0*") if p.name in written} == written
    assert snapshot(place / "parts") == snapshot(place / "whole")


def test_shards_do_not_depend_on_the_processes(place: Path) -> None:
    """What each of three processes does, one after the other."""
    write_tars(place / "tars", 2, 5)
    encoded("tars", "whole", SMALL, streaming=True)
    for rank in (0, 2, 1):
        examples = open_examples("tars", streaming=True)
        job = _Job(open_checkpoint("tiny.st"), examples, Path("parts"), SMALL, "cpu", Progress())
        job.begin(False)
        job.shards(rank, 3)
    job.folder.complete("tars", 0)
    assert snapshot(place / "parts") == snapshot(place / "whole")
    assert len(list(place.glob("whole/0*"))) == 4


@pytest.mark.slow
def test_two_processes_encode_as_one(place: Path, sanactl: Program) -> None:
    write_folder(place / "shots", 8)
    few = ("encode", "tiny.st", "--data", "shots", "--shard-size", "30KB", "-o")
    (record,) = sanactl(*few, "one")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--rdzv-backend",
        "c10d",
    ]
    command += ["--rdzv-endpoint", "localhost:0", "-m", "sanactl", *few, "two"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {**record, "latents": "two"}
    assert snapshot(place / "two") == snapshot(place / "one")


def test_the_command_and_training_from_its_folder(place: Path, sanactl: Program) -> None:
    write_folder(place / "shots", 5)
    (record,) = sanactl("encode", "tiny.st", "--data", "shots", "-o", "latents")
    assert (record["kind"], record["latents"], record["examples"]) == ("checkpoint", "latents", 5)
    assert "skipped" not in record
    assert "5 examples" in sanactl.said
    before = snapshot(place / "latents")
    assert sanactl("encode", "tiny.st", "--data", "shots", "-o", "latents") == [record]
    assert snapshot(place / "latents") == before
    sanactl("finetune", "tiny.st", "--data", "latents", "--steps", "1", "-b", "2", "-o", "out.st")
    said = sanactl.fails("encode", "tiny.st", "--data", "shots", "-o", "latents", "--buckets", code=2)
    assert "latents was encoded from other data or with other settings" in said
    sanactl("encode", "tiny.st", "--data", "shots", "-o", "latents", "--buckets", "--force")
    (place / "other").mkdir()
    (place / "other/mine.txt").write_text("mine")
    said = sanactl.fails("encode", "tiny.st", "--data", "shots", "-o", "other", "--force", code=2)
    assert "other already exists" in said
    sanactl("encode", "tiny.st", "--count", "3")  # the built-in world
    assert open_training_data("tiny-latents", seed=0, height=64, width=64).step(0, 2)[1] == (64, 64)
    assert "--count" in sanactl.fails("encode", "tiny.st", "-o", "endless", code=2)


def test_image_records_are_encoded_from_a_pipe(place: Path, sanactl: Program) -> None:
    write_folder(place / "shots", 3)
    lines = "".join(json.dumps(r) + "\n" for r in image_records(place / "shots"))
    (record,) = sanactl("encode", "tiny.st", "--data", "-", "-o", "latents", stdin=lines)
    assert record["examples"] == 3


def test_a_stream_in_buckets_up_to_a_count(place: Path) -> None:
    write_tars(place / "tars", 2, 4)
    summary = encoded("tars", "few", replace(SMALL, count=5, buckets=True), streaming=True)
    assert summary["examples"] == 5
    assert encoded("tars", "all", replace(SMALL, count=50), streaming=True)["examples"] == 8


def long_captions(place: Path, count: int) -> None:
    folder = write_folder(place / "shots", count)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for row in rows[1::3]:
        row["text"] = "a very long caption, " * 20
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_captions_that_are_cut_are_counted(
    place: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, from both commands: exact while encoding, and before training for a sample of large data."""
    long_captions(place, 9)
    told = "warning: 3 of 9 captions have more than the 16 tokens that the model is given, and are cut; the first is"
    encode_it = ("encode", "tiny.st", "--data", "shots", "--shard-size", "30KB", "-o", "latents")
    train_it = ("finetune", "tiny.st", "--data", "shots", "--steps", "1", "-b", "2", "-o")
    for command in (encode_it, (*train_it, "a.st")):
        sanactl(*command)
        assert sanactl.said.count("captions") == 1
        assert f"{told} 'a very long caption, a very long caption," in sanactl.said
    sanactl(*encode_it)  # all is there
    assert "captions" not in sanactl.said
    write_tars(place / "tars", 1, 3)
    sanactl("encode", "tiny.st", "--data", "tars", "--streaming", "-o", "streamed")
    assert "captions" not in sanactl.said
    monkeypatch.setattr("sanactl.data.long_captions.LOOKED_AT", 3)
    sanactl(*train_it, "b.st", "--captions", "short:1,text:1")
    assert "warning: 1 of 5 captions in a sample of 3 of 9 examples have more than" in sanactl.said


def test_bad_pictures_are_left_out(place: Path, sanactl: Program) -> None:
    folder = write_folder(place / "shots", 6)
    spoil(folder / "001.png")
    spoil(folder / "004.png")
    few = ("encode", "tiny.st", "--data", "shots", "-o", "latents")
    sanactl(*few, code=1)
    assert "001.png" in sanactl.said and "--max-bad" in sanactl.said
    sanactl(*few, "--max-bad", "1", code=1)
    assert "004.png" in sanactl.said and "--max-bad allows 1" in sanactl.said
    (record,) = sanactl(*few, "--max-bad", "2")
    assert (record["examples"], record["skipped"]) == (4, 2)
    index = json.loads((place / "latents/index.json").read_text())
    assert [Path(line.split(":")[0]).name for line in index["skipped"]] == ["001.png", "004.png"]
    # Shards that are there already count.
    encoded("shots", "small", replace(SMALL, max_bad=2))
    (place / "small/00001.safetensors").unlink()
    with pytest.raises(InputError, match=r"004\.png.*--max-bad allows 1"):
        encoded("shots", "small", replace(SMALL, max_bad=1))


def test_neither_encoder_is_needed_for_training(place: Path, sanactl: Program) -> None:
    """With their weights gone the components are known by name; with others in their place they are refused."""
    write_folder(place / "shots", 4)
    sanactl("convert", "tiny.st", "--pipeline", "--copy", "-o", "pipe")
    sanactl("encode", "pipe", "--data", "shots", "-o", "latents")
    train = ("finetune", "pipe", "--data", "latents", "--steps", "1", "-b", "2", "-o")
    (weights,) = (place / "pipe/vae").glob("*.safetensors")
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    assert "made with another vae" in sanactl.fails(*train, "a.st")
    weights.unlink()
    for file in (place / "pipe/text_encoder").glob("*.safetensors"):
        file.unlink()
    sanactl(*train, "a.st")
    # The same weights elsewhere are the same components.
    sanactl("finetune", "tiny.st", "--data", "latents", "--steps", "1", "-b", "2", "-o", "b.st")


def test_another_size_or_reading_is_refused(place: Path) -> None:
    write_folder(place / "shots", 2)
    encoded("shots", "latents")
    for change, said in (
        ({"height": 128, "width": 128}, "resolution"),
        ({"max_sequence_length": 20}, "max sequence length 16"),
        ({"complex_human_instruction": True}, "complex human instruction"),
    ):
        with pytest.raises(InputError, match=said):
            losses("latents", "out.st", replace(TRAINING, **change))


def rewritten(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        index = json.loads((folder / "index.json").read_text())
        change(index)
        (folder / "index.json").write_text(json.dumps(index))

    return damage


def wrong_shapes(folder: Path) -> None:
    from safetensors.numpy import save_file

    tensors = load_file(folder / "00000.safetensors")
    tensors["shapes"] = tensors["shapes"].copy()
    tensors["shapes"][0, 0] = 2**31 - 1
    save_file(tensors, folder / "00000.safetensors")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "00000.safetensors").unlink(), "00000.safetensors"),
        (lambda f: (f / "00000.safetensors").write_bytes((f / "00000.safetensors").read_bytes()[:900]), "truncated"),
        (lambda f: (f / "empty.safetensors").write_bytes(b"x" * 20), "empty.safetensors"),
        (wrong_shapes, "impossible"),
        (rewritten(lambda i: i["shards"][0].update(file="../00000.safetensors")), "no shard's name"),
        (rewritten(lambda i: i["shards"][0].update(count=7)), "not those that the index tells of"),
        (rewritten(lambda i: i["settings"].update(channels=4)), "does not fit"),
        (rewritten(lambda i: i["settings"].update(channels=10**9)), "impossible channels"),
        (rewritten(lambda i: i["settings"].update(factor="8")), "no factor"),
        (rewritten(lambda i: i["settings"].update(resolution=[64])), "impossible resolution"),
        (rewritten(lambda i: i.update(shards=[])), "no examples"),
        (rewritten(lambda i: i.update(shards=None)), "lists no shards"),
    ],
)  # fmt: skip
def test_damaged_folders(
    place: Path, tmp_path_factory: pytest.TempPathFactory, damage: Callable[[Path], None], said: str
) -> None:
    made = tmp_path_factory.getbasetemp() / "encoded-for-damage"
    if not made.exists():
        write_folder(place / "shots", 2)
        encoded("shots", str(made))
    shutil.copytree(made, place / "latents")
    damage(place / "latents")
    with pytest.raises(InputError, match=said):
        EncodedData(place / "latents", 0)
