"""A digest says "the same" of the same bytes alone, whoever changed them and however, and reads each byte once."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sanactl.bench.synthetic import TINY, synthetic_checkpoint
from sanactl.checkpoint.open import Checkpoint, open_checkpoint
from sanactl.errors import InputError
from sanactl.files import content, direct_io, hash_cache
from sanactl.files.content import files_digest, known_hashes, span_hashes, zeros_hash
from sanactl.files.hash_cache import MAX_ENTRIES, cache_folder, recall, remember
from sanactl.files.passing import PassingHashes
from tests.program import Program

LARGE = {
    **TINY, "num_attention_heads": 8, "attention_head_dim": 32, "num_cross_attention_heads": 8,
    "cross_attention_head_dim": 32, "cross_attention_dim": 256, "num_layers": 4,
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "sanactl" / "hashes"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A checkpoint that is large enough to be remembered."""
    return synthetic_checkpoint(tmp_path / "large.st", LARGE)


def digest(path: Path) -> str:
    return open_checkpoint(path, native=True).digest


def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all reads from now on."""
    sizes: list[int] = []
    preadv = os.preadv

    def counted(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        done = preadv(descriptor, buffers, offset)
        sizes.append(done)
        return done

    monkeypatch.setattr(content.os, "preadv", counted)
    return sizes


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def test_a_hash_is_what_a_plain_reading_gives(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 256, 11_000_000, np.uint8).tobytes()
    (tmp_path / "x").write_bytes(data)
    spans = [
        (0, 5),
        (5, 0),
        (5, 100),
        (2, 50),
        (105, 9_000_000),
        (9_000_105, 1_999_895),
        (0, len(data)),
        (3, 1 << 20),
    ]
    leaf = 1 << 20

    def plain(start: int, count: int) -> bytes:
        parts = [
            hashlib.sha256(data[at : min(at + leaf, start + count)]).digest()
            for at in range(start, start + count, leaf)
        ]
        return (
            hashlib.sha256(b"".join(parts)).digest()
            if count > leaf
            else hashlib.sha256(data[start : start + count]).digest()
        )

    assert span_hashes(tmp_path / "x", spans) == {span: plain(*span) for span in spans}
    for count in (0, 1, leaf, leaf + 1, 3 * leaf):
        (tmp_path / "zeros").write_bytes(bytes(count))
        assert span_hashes(tmp_path / "zeros", [(0, count)])[0, count] == zeros_hash(count)


def test_bytes_that_pass_in_any_order_have_the_hash_of_the_whole() -> None:
    random = np.random.default_rng(1)
    for size in (1, 1 << 20, (1 << 20) + 1, 5_000_000):
        data = memoryview(random.integers(0, 256, size, np.uint8).tobytes())
        cuts = sorted({0, size, *random.integers(0, size, 40).tolist()})
        pieces = list(pairwise(cuts))
        random.shuffle(pieces)
        passing = PassingHashes()
        for start, stop in pieces[1:]:
            passing.add(7, size, start, data[start:stop])
        assert passing.hash(7, size) is None
        passing.add(7, size, pieces[0][0], data[slice(*pieces[0])])
        passing.add(7, size, pieces[0][0], data[slice(*pieces[0])])
        leaves = [hashlib.sha256(data[at : at + (1 << 20)]).digest() for at in range(0, size, 1 << 20)]
        assert passing.hash(7, size) == (leaves[0] if len(leaves) == 1 else content.joined(leaves))


def test_a_change_of_any_tensor_is_seen_with_all_times_set_back(large: Path) -> None:
    before, status = digest(large), os.stat(large)
    checkpoint = open_checkpoint(large)
    seen = {before}
    refs = list(checkpoint.tensors.values())
    for ref in (min(refs, key=lambda r: r.nbytes), max(refs, key=lambda r: r.nbytes), refs[-1]):
        flip(large, ref.offset + ref.nbytes // 2)
        os.utime(large, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert os.stat(large).st_size == status.st_size
        seen.add(digest(large))
        flip(large, ref.offset + ref.nbytes // 2)
    assert len(seen) == 4
    assert digest(large) == before


def test_changes_in_quick_succession_are_seen(large: Path) -> None:
    middle = large.stat().st_size // 2
    first = digest(large)
    for round in range(5):
        flip(large, middle)
        assert (digest(large) == first) == (round % 2 == 1)


def test_the_same_content_has_the_same_digest_in_every_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sanactl: Program
) -> None:
    monkeypatch.chdir(tmp_path)
    synthetic_checkpoint(tmp_path / "base.st")
    expected = digest(tmp_path / "base.st")
    shutil.copyfile("base.st", "copy.safetensors")
    for name, options in (("x.pth", []), ("folder", []), ("shards", ["--shard-size", "30KB"]), ("y.st", [])):
        (record,) = sanactl("convert", "base.st", "-o", name, *options)
        assert record["digest"] == digest(tmp_path / name) == expected
    assert digest(tmp_path / "copy.safetensors") == expected
    sanactl("convert", "base.st", "--dtype", "bf16", "-o", "other.st")
    assert digest(tmp_path / "other.st") != expected


def test_a_large_file_is_read_once(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sanactl: Program, cache: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    size = open_checkpoint(large).nbytes
    sizes = reads(monkeypatch)
    assert digest(large) == digest(large)
    assert size <= sum(sizes) < 1.01 * size
    sizes.clear()
    # what is copied from a checkpoint whose hashes are known, and what is zero, is not read again
    sanactl("prune", "large.st", "--blocks", "0,2,3")
    sanactl("convert", "large.st", "-o", "x.pth")
    sanactl("grow", "large.st", "--to", "6", "--init", "cyclic", "--zero-init")
    # nor what is computed on the way
    sanactl("grow", "large.st", "--to", "7")
    sanactl("convert", "large.st", "--dtype", "bf16")
    assert sum(sizes) == 0
    child = open_checkpoint(tmp_path / "large-d6.st")
    assert child.digest == child.digest
    assert sum(sizes) == 0
    shutil.rmtree(cache)
    for name in ("large-d3.st", "x.pth", "large-d6.st"):
        remembered = open_checkpoint(tmp_path / name, native=True).digest
        assert sanactl("inspect", name)[0]["digest"] == remembered
    assert sum(sizes) > size
    sizes.clear()
    # a plan that is only shown reads nothing
    shutil.rmtree(cache)
    sanactl("grow", "large.st", "--to", "9", "--dry-run")
    assert sum(sizes) == 0


@pytest.mark.parametrize("past_the_page_cache", [False, True])
def test_what_was_written_has_the_digest_that_reading_gives(
    past_the_page_cache: bool,
    large: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sanactl: Program,
    cache: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(direct_io, "DIRECT_FROM", 0 if past_the_page_cache else 1 << 60)
    for options in (
        ["grow", "large.st", "--to", "6"],
        ["grow", "large.st", "--to", "7", "--init", "progressive"],
        ["convert", "large.st", "--dtype", "fp16"],
        ["convert", "large.st", "-o", "x.pth"],
    ):
        (record,) = sanactl(*options)
        shutil.rmtree(cache)
        assert digest(Path(record["path"])) == record["digest"]


def test_results_of_a_changed_input_or_a_changed_result_are_not_handed_out(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sanactl: Program
) -> None:
    monkeypatch.chdir(tmp_path)
    sanactl("grow", "large.st", "--to", "6", "-o", "g.st")
    sanactl("grow", "large.st", "--to", "6", "-o", "g.st")
    assert "there already" in sanactl.said
    ref = open_checkpoint(large).tensors["transformer_blocks.0.attn2.to_v.bias"]
    flip(large, ref.offset)
    assert "exists" in sanactl.fails("grow", "large.st", "--to", "6", "-o", "g.st", code=2)
    flip(large, ref.offset)
    flip(tmp_path / "g.st", os.stat("g.st").st_size - 5)
    assert "has changed since" in sanactl.fails("grow", "large.st", "--to", "6", "-o", "g.st", code=2)


def test_a_damaged_crowded_or_forbidden_cache_only_costs_time(
    large: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = digest(large)
    (entry,) = cache.iterdir()
    good = entry.read_bytes()
    for damage in (b"", good[:-1], good[:-1] + bytes([good[-1] ^ 1]), b"\0" * len(good), good + b"x"):
        entry.write_bytes(damage)
        assert digest(large) == expected
    entry.unlink()
    entry.mkdir()
    assert digest(large) == expected
    shutil.rmtree(cache)
    cache.write_text("no folder")
    assert digest(large) == expected
    for home in ("/proc", "/nowhere/at/all", "~", "", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", home)
        monkeypatch.setenv("HOME", home)
        assert digest(large) == expected
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(hash_cache.os.path, "expanduser", lambda text: text)
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() is None
    assert digest(large) == expected
    assert not Path("~").exists()


def test_the_cache_is_bounded_and_shared(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"x")
    time.sleep(0.06)
    status = os.stat(file)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: remember(status, b"%d" % n, b"data %d" % n), range(MAX_ENTRIES + 50)))
    assert len(list(cache.iterdir())) <= MAX_ENTRIES
    assert recall(status, b"%d" % (MAX_ENTRIES + 49)) == b"data %d" % (MAX_ENTRIES + 49)
    assert recall(status, b"0") is None
    remember(status, b"too large", bytes(5 << 20))
    assert recall(status, b"too large") is None


def test_a_file_that_changes_while_it_is_read_is_told(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_checkpoint(large)
    preadv = os.preadv

    def meddling(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        done = preadv(descriptor, buffers, offset)
        flip(large, large.stat().st_size - 1)
        return done

    monkeypatch.setattr(content.os, "preadv", meddling)
    with pytest.raises(InputError, match="changed while it was being read"):
        _ = checkpoint.digest
    monkeypatch.undo()
    replaced = synthetic_checkpoint(large.parent / "other.st", LARGE, seed=1)
    checkpoint = open_checkpoint(large)
    os.replace(replaced, large)
    with pytest.raises(InputError, match="changed since it was opened"):
        _ = checkpoint.digest


def test_inspect_of_a_large_file_reads_its_header_alone(
    large: Path, monkeypatch: pytest.MonkeyPatch, sanactl: Program
) -> None:
    from sanactl.cli import inspect as command

    monkeypatch.setattr(command, "_AT_ONCE", 1 << 20)
    sizes = reads(monkeypatch)
    (record,) = sanactl("inspect", str(large))
    assert "digest" not in record
    assert not sizes
    (record,) = sanactl("inspect", str(large), "--digest")
    assert record["digest"] == digest(large)
    (record,) = sanactl("inspect", str(large))  # now it is known
    assert record["digest"] == digest(large)


def test_a_folder_of_files_is_known_by_every_byte(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"abc")
    (tmp_path / "big").write_bytes(bytes(17 << 20))
    files = [tmp_path / "small", tmp_path / "big"]
    before = files_digest(files, "x")
    assert before == files_digest(files, "x") != files_digest(files, "y")
    flip(tmp_path / "big", 9 << 20)
    assert files_digest(files, "x") != before
    assert known_hashes(tmp_path / "small", [(0, 3)])
    with pytest.raises(InputError):
        files_digest([tmp_path / "absent"])


def test_tensors_that_share_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    shapes = open_checkpoint(synthetic_checkpoint(tmp_path / "base.st"))
    pool = torch.zeros(max(r.nbytes // 4 for r in shapes.tensors.values()))
    torch.save(
        {n: pool[: r.nbytes // 4].view(r.shape) for n, r in shapes.tensors.items()}, tmp_path / "x.pth"
    )
    (tmp_path / "config.json").write_text(shapes.metadata["config"])
    with pytest.raises(InputError, match="share their bytes"):
        open_checkpoint(tmp_path / "x.pth", native=True)


def test_a_checkpoint_is_known_by_its_config_and_metadata_too(tmp_path: Path) -> None:
    base = open_checkpoint(synthetic_checkpoint(tmp_path / "base.st"))
    from dataclasses import replace

    variants: list[Checkpoint] = [
        replace(base, config=replace(base.config, norm_eps=1e-5)),
        replace(base, metadata={**base.metadata, "sanactl.sampling": '{"steps":9}'}),
        replace(base, tensors={n: r for n, r in base.tensors.items() if n != "proj_out.bias"}),
    ]
    assert len({base.digest, *(variant.digest for variant in variants)}) == 4
