"""Checkpoints as strangers and accidents make them: one clear line, or the work is done.

Headers, configs, indexes, metadata and pickles, changed as JSON, as instructions and as bytes. Seeded, so that a failure
comes again: `FUZZ_SEED=7 FUZZ_CASES=5000 pytest tests/test_fuzz_checkpoints.py` tries others.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sanactl.bench.synthetic import synthetic_checkpoint, synthetic_plan
from sanactl.checkpoint.metadata import lineage_entry
from sanactl.checkpoint.write import write_checkpoint
from sanactl.cli.app import main
from sanactl.files.safetensors import read_header

SEED = int(os.environ.get("FUZZ_SEED", "0"))
CASES = int(os.environ.get("FUZZ_CASES", "90"))
PATIENCE = 2.0  # seconds of the processor for one command

# As JSON text, for not all of it can be written by json.dumps.
JUNK = [
    "null", "true", "false", "0", "-1", "1", "2", "7", "1.5", "-0.0", "1e308", "1e-320", "1e999", "-1e999", "NaN", "Infinity",
    "9" * 20, "9" * 400, "9" * 4299, "9" * 5000, "4611686018427387904", '""', '"x"', '"F32"', '"F8_E4M3"', '"F4"', '"../x"',
    '"/etc/passwd"', '"\\ud800"', '"a\\u0000b"', '"\\u001b[2J\\u0007"', '"[/bold]"', f'"{"x" * 5000}"', f'"{"../" * 40}etc"',
    "[]", "{}", "[null]", "[[]]", '["a"]', "[0, 0]", "[1, 2, 3]", '{"a": 1}', '{"source": 5}', "[" * 100 + "]" * 100,
    "[" * 100_000, '{"a":' * 70 + "1" + "}" * 70, '"fifo"', '"."', '"rms_norm"', '"SanaVideoTransformer3DModel"', "1e9", "1025",
    '"\\n"', '"é★\\ud83d\\ude00"', '[{"command": "prune", "arguments": {"blocks": [3]}}]', '"~"', "16777217", "[[[[1]]]]",
]  # fmt: skip
COMMANDS = [
    ["inspect", "{}"], ["inspect", "{}", "--tensors"], ["grow", "{}", "--to", "6", "-o", "out.st"], ["log", "{}"],
    ["grow", "{}", "--to", "9", "--init", "interpolate", "--dry-run"], ["prune", "{}", "--blocks", "0-1", "-o", "out"],
    ["convert", "{}", "-o", "out.pth"], ["convert", "{}", "-o", "out"], ["convert", "{}", "--dtype", "bf16", "-o", "out.st"],
    ["convert", "{}", "--pipeline", "-o", "out"], ["convert", "{}", "--config", "config.json", "-o", "out.st"],
]  # fmt: skip


class Raw(str):
    """JSON text that is put in as it stands."""

    __slots__ = ()


def written(value: Any) -> str:
    """JSON of a value that may have `Raw` parts."""
    marks: dict[str, str] = {}

    def marked(item: Any) -> Any:
        if isinstance(item, Raw):
            marks[f'"@{len(marks)}@"'] = str(item)
            return f"@{len(marks) - 1}@"
        if isinstance(item, dict):
            return {key: marked(inner) for key, inner in item.items()}
        return [marked(inner) for inner in item] if isinstance(item, list) else item

    text = json.dumps(marked(value))
    for mark, raw in marks.items():
        text = text.replace(mark, raw)
    return text


def disturb(value: Any, rng: random.Random) -> Any:
    """The value with one change somewhere inside."""
    if isinstance(value, dict | list) and value and rng.random() < 0.8:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = rng.choice(keys)
        copy = value.copy()
        what = rng.random()
        if what < 0.1:
            del copy[key]
        elif what < 0.2 and isinstance(copy, dict):
            copy[rng.choice(["", "x", "\x1b[2J", "__metadata__", "a\nb", "y" * 3000, str(key) + " "])] = (
                copy.pop(key)
            )
        elif what < 0.25 and isinstance(copy, list):
            copy.append(copy[key])
        else:
            copy[key] = disturb(copy[key], rng)
        return copy
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.5:
        return value + rng.choice([-1, 1, -value, 8, 1 << 31, 1 << 63, -(1 << 63)])
    return Raw(rng.choice(JUNK))


def disturb_bytes(data: bytes, rng: random.Random) -> bytes:
    """The bytes with a few changed, a piece repeated, or the end gone."""
    what = rng.random()
    if what < 0.15:
        return data[: rng.randrange(len(data))]
    at = rng.randrange(len(data))
    if what < 0.3:
        piece = data[at : at + rng.randrange(1, 200)]
        return data[:at] + piece * rng.randrange(2, 50) + data[at:]
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        changed[rng.randrange(min(len(data), 4000) if rng.random() < 0.8 else len(data))] = rng.randrange(256)
    return bytes(changed)


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file as JSON, and what follows it."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def joined(header: Any, rest: bytes) -> bytes:
    text = written(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + rest


def header_of(good: Path, rng: random.Random) -> str:
    header, rest = split((good / "base.st").read_bytes())
    Path("x.st").write_bytes(joined(disturb(header, rng), rest))
    return "x.st"


def metadata_of(good: Path, rng: random.Random) -> str:
    header, rest = split((good / "base.st").read_bytes())
    key = rng.choice(["config", "config", "sanactl.lineage", "sanactl.components", "sanactl.sampling"])
    value = json.loads(header["__metadata__"][key])
    for _ in range(rng.choice([1, 1, 3])):
        value = disturb(value, rng)
    header["__metadata__"][key] = written(value)
    Path("x.st").write_bytes(joined(header, rest))
    return "x.st"


def bytes_of(good: Path, rng: random.Random) -> str:
    name = rng.choice(["base.st", "native.pth", "native.pth"])
    Path("x" + Path(name).suffix).write_bytes(disturb_bytes((good / name).read_bytes(), rng))
    return "x" + Path(name).suffix


def folder_of(good: Path, rng: random.Random) -> str:
    shutil.copytree(good / "sharded", "x", symlinks=True)
    name = rng.choice(["config.json", "diffusion_pytorch_model.safetensors.index.json"])
    file = Path("x", name)
    what = rng.random()
    if what < 0.8:
        file.write_text(written(disturb(json.loads(file.read_text()), rng)), errors="surrogatepass")
    elif what < 0.9:
        file.write_bytes(disturb_bytes(file.read_bytes(), rng))
    else:
        rng.choice(sorted(Path("x").iterdir())).unlink()
    return "x"


def pipeline_of(good: Path, rng: random.Random) -> str:
    shutil.copytree(good / "sharded", "x/transformer")
    index: Any = {"_class_name": "SanaPipeline", "transformer": ["diffusers", "SanaTransformer2DModel"]}
    index |= {name: ["transformers", "X"] for name in ("vae", "text_encoder", "tokenizer", "scheduler")}
    for name in ("vae", "text_encoder", "tokenizer", "scheduler"):
        Path("x", name).mkdir()
        Path("x", name, "config.json").write_text(
            written(disturb({"_class_name": "Y", "a": 1}, rng)), errors="surrogatepass"
        )
    Path("x", "model_index.json").write_text(written(disturb(index, rng)), errors="surrogatepass")
    return "x"


PARTS = [b"(", b"t", b"\x85", b"\x86", b"2", b"0", b"1", b"}", b"]", b"u", b"s", b"a", b"e", b"R", b"b", b"Q", b"N", b"K\x01",
         b"q\x00", b"h\x00", b"h\x01", b"\x8f", b"\x90", b"\x91", b"\x88", b"X\x01\x00\x00\x00a", b"J\xff\xff\xff\xff", b".",
         b"ccollections\nOrderedDict\n", b"ctorch\nSize\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"cos\nsystem\n", b"\x81",
         b"ctorch\nfloat8_e4m3fn\n", b"\x8b\x04\x00\x00\x00\xff\xff\xff\x7f", b"L" + b"9" * 5000 + b"L\n", b"l", b"d", b"\x93",
         b"2\x86" * 60, b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f", b"cnumpy\nndarray\n", b"\x95\x00\x00\x00\x00\x00\x00\x00\xff"]  # fmt: skip


def pickle_of(good: Path, rng: random.Random) -> str:
    with zipfile.ZipFile(good / "native.pth") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    program = entries["archive/data.pkl"]
    for _ in range(rng.choice([1, 1, 2, 6])):
        at = rng.randrange(len(program) if rng.random() < 0.5 else 300)
        program = (
            program[:at]
            + rng.choice(PARTS) * rng.choice([1, 1, 1, 40])
            + program[at + rng.choice([0, 0, 1, 5]) :]
        )
    entries["archive/data.pkl"] = program
    if rng.random() < 0.2:
        entries.pop(rng.choice(sorted(entries)))
    kind = zipfile.ZIP_DEFLATED if rng.random() < 0.05 else zipfile.ZIP_STORED
    with zipfile.ZipFile("x.pth", "w", kind) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return "x.pth"


def config_of(good: Path, rng: random.Random) -> str:
    """A file that is whole, with a config beside it that is not."""
    config = json.loads(Path("config.json").read_text())
    Path("config.json").write_text(written(disturb(config, rng)), errors="surrogatepass")
    name = rng.choice(["native.pth", "base.st"])
    shutil.copyfile(good / name, name)
    return name


KINDS: list[Callable[[Path, random.Random], str]] = [
    header_of, metadata_of, metadata_of, bytes_of, folder_of, pipeline_of, pickle_of, pickle_of, config_of,
]  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole checkpoints of two blocks, in each layout."""
    folder = tmp_path_factory.mktemp("good")
    plan = synthetic_plan()
    plan.components = {
        name: {"source": "builtin:shapes", "subfolder": name}
        for name in ("vae", "text_encoder", "tokenizer", "scheduler")
    }
    plan.sampling = {"height": 64, "width": 64, "steps": 4, "guidance_scale": 4.5, "max_sequence_length": 16}
    parents = [{"name": "base", "digest": "sha256:0"}]
    plan.lineage = [
        lineage_entry("init", {"blocks": 6}, parents=[], blocks=6, seed=0),
        lineage_entry("prune", {"blocks": [0, 1, 2, 5]}, parents=parents, blocks=4),
    ]
    write_checkpoint(plan, folder / "base.st")
    synthetic_checkpoint(folder / "sharded", shard_size="40KB")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["convert", "base.st", "-o", "native.pth"]) == 0
    (folder / "config.json").write_text(read_header(folder / "base.st").metadata["config"])
    return folder


def faults(code: int, out: str, err: str, seconds: float) -> list[str]:
    """What is wrong with how a command ended."""
    lines = [line for line in err.splitlines() if line]
    found = [word for word in ("Traceback", "please report it") if word in err]
    found += [f"exit code {code}"] if code not in (0, 1, 2) else []
    found += ["no line says why"] if code and not lines else []
    found += [f"{seconds:.1f} s"] if seconds > PATIENCE else []
    found += ["a line of more than 1,000 characters"] if any(len(line) > 1000 for line in lines) else []
    found += (
        ["control characters"] if any((ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 for c in err) else []
    )
    for line in filter(lambda line: line.startswith("{"), out.splitlines()):
        try:
            json.loads(line, parse_constant=lambda name: found.append(f"{name} in a record"))
        except ValueError:
            found.append("a record that is no JSON")
    return found


def test_a_damaged_checkpoint_is_one_line_or_the_work_is_done(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bad: list[str] = []
    ends = [0, 0, 0]
    for case in range(CASES):
        seed = f"{SEED}-{case}"
        rng = random.Random(seed)
        folder = tmp_path / "work"
        folder.mkdir()
        monkeypatch.chdir(folder)
        shutil.copyfile(good / "config.json", "config.json")
        name = KINDS[case % len(KINDS)](good, rng)
        for command in rng.sample(COMMANDS, 2):
            before = {path.name for path in folder.iterdir()}
            capsys.readouterr()
            started = time.process_time()
            code = main([word.replace("{}", name) for word in command])
            seconds = time.process_time() - started
            said = capsys.readouterr()
            found = faults(code, said.out, said.err, seconds)
            left = {path.name for path in folder.iterdir()} - before - {".sanactl"}
            found += [f"left behind: {sorted(left)}"] if code and left else []
            if found:
                bad.append(f"seed {seed}, {' '.join(command)}: {'; '.join(found)}: {said.err.strip()[-300:]}")
            ends[min(code, 2)] += 1
            for path in (folder / "out", folder / "out.st", folder / "out.pth"):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(folder)
    assert not bad, f"{len(bad)} of {2 * CASES} commands:\n" + "\n".join(bad[:20])
    assert ends[0] > CASES // 20, (
        ends
    )  # some changes do no harm, so that what lies behind the checks is tried too
    assert ends[1] > CASES // 2, ends
