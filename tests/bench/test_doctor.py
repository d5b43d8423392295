"""`doctor`: a sound machine passes, and each kind of damage is found and named."""

from __future__ import annotations

import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants

from sanactl.bench.doctor import disk, packages, products, registry, sample
from sanactl.bench.doctor.finding import Finding, Place, ok
from sanactl.bench.doctor.registry import CHECKS, Check
from sanactl.bench.doctor.run import examine
from sanactl.checkpoint.builtin import asset
from sanactl.files.safetensors import read_header
from sanactl.judging import registry as judges
from sanactl.judging.tournament import Verdict
from sanactl.optim import tiled
from sanactl.records.records import Record
from sanactl.scoring.detectors.shapes import ShapesDetector
from tests.program import Program, on_terminal


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def found(name: str, place: Place | None = None) -> list[Record]:
    return list(examine(place or Place("cpu"), [name]))


def only_wrong(name: str) -> Record:
    """The one row that is wrong."""
    (row,) = (r for r in found(name) if r["state"] == "wrong")
    assert "\n" not in row["says"]
    return row


def test_a_sound_machine_passes(sanactl: Program) -> None:
    rows = sanactl("doctor", "--device", "cpu")
    assert list(dict.fromkeys(r["check"] for r in rows)) == list(CHECKS)
    assert {(r["kind"], r["metric"]) for r in rows} == {("score", "doctor")}
    assert {r["state"] for r in rows} <= {"ok", "warning"}
    of = {(r["check"], r["of"]): r for r in rows}
    assert of["versions", "packages"]["versions"]["torch"] == version("torch")
    assert 0 < of["dtypes", "cpu fp32"]["value"] < of["dtypes", "cpu fp16"]["value"] < 1e-3
    assert "not checked: no GPU" in of["kernels", "kernels"]["says"]
    assert of["sample", "cpu fp32"]["value"] < 0.2
    assert not list(Path.cwd().iterdir())


def test_something_wrong_ends_with_exit_code_1(sanactl: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "product", lambda a, b: (a @ b) * 1.05)
    rows = sanactl("doctor", "--only", "dtypes", "--only", "folder", "--device", "cpu", code=1)
    assert [(r["check"], r["state"]) for r in rows] == [
        ("folder", "ok"), ("dtypes", "wrong"), ("dtypes", "wrong"), ("dtypes", "wrong"), ("dtypes", "ok"),
    ]  # fmt: skip
    assert "cannot be trusted: dtypes; the rows say why" in sanactl.said
    assert "at most 1e-05 is allowed" in rows[1]["says"]


@pytest.mark.parametrize(
    "arguments", [("--only", "disks"), ("--device", "nowhere"), ("--device", "cuda:77"), ("--device", "meta")]
)
def test_names_that_there_are_not(sanactl: Program, arguments: tuple[str, str]) -> None:
    assert arguments[1] in sanactl.fails("doctor", *arguments, code=2)


def test_a_check_that_raises_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(place: Place) -> Iterator[Finding]:
        yield ok("first", "fine")
        raise AttributeError("no such thing\nin this version")

    monkeypatch.setattr(registry, "cut", cut, raising=False)
    monkeypatch.setitem(CHECKS, "cut", Check("", f"{registry.__name__}:cut"))
    monkeypatch.setitem(CHECKS, "gone", Check("", "sanactl.bench.doctor.nothing:check"))
    rows = list(examine(Place("cpu"), ["cut", "gone", "folder"]))
    assert [(r["of"], r["state"]) for r in rows] == [
        ("first", "ok"), ("error", "wrong"), ("error", "wrong"), ("this folder", "ok"),
    ]  # fmt: skip
    assert rows[1]["says"] == "AttributeError: no such thing"
    assert rows[2]["says"].startswith("ModuleNotFoundError: No module named")


def test_packages_that_are_missing_or_old(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(name: str) -> str:
        if name == "scipy":
            raise packages.PackageNotFoundError
        return "4.57.0" if name == "transformers" else version(name)

    monkeypatch.setattr(packages, "version", other)
    says = {r["of"]: r["says"] for r in found("versions") if r["state"] == "wrong"}
    assert says.keys() == {"transformers", "scipy"}
    assert "transformers 4.57.0 is installed, and sanactl needs >=5.4; pip install" in says["transformers"]
    assert "scipy is not installed" in says["scipy"]


def test_pages_that_are_not_shared_and_writes_that_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "share", lambda *arguments: True)
    assert only_wrong("folder")["of"] == "reflink"
    monkeypatch.undo()
    monkeypatch.setattr(disk, "_write_directly", lambda *arguments: True)
    assert only_wrong("folder")["of"] == "direct writes"


def test_a_folder_that_cannot_be_written_and_a_full_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (row,) = found("folder", Place("cpu", tmp_path / "gone"))
    assert (row["state"], "cannot be written" in row["says"]) == ("warning", True)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    assert [r["state"] for r in found("disk")] == ["warning", "warning", "ok"]


def test_caches_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def none() -> str:
        raise FileNotFoundError("no usable temporary directory")

    place = Place("cpu")
    vars(place)["devices"] = [torch.device("cuda", 0)]
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    monkeypatch.setattr(disk.os, "access", lambda path, mode: Path(path) != tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(disk.tempfile, "gettempdir", none)
    says = {r["of"]: r["says"] for r in found("disk", place) if r["state"] == "warning"}
    assert says.keys() - {"this folder"} == {"Hub cache", "temporary files", "kernel cache"}
    assert "nothing can be downloaded; HF_HOME names another" in says["Hub cache"]
    assert "TRITON_CACHE_DIR" in says["kernel cache"]


def test_files_that_cannot_grow(tmp_path: Path) -> None:
    """As on a full disk: a limit of the process, whose signal Python ignores."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        (row,) = found("folder", Place("cpu", tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (row["state"], "cannot be written (file too large)" in row["says"]) == ("warning", True)


def test_a_gpu_that_fails_hides_no_other_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*arguments: Any) -> None:
        raise RuntimeError(
            "CUDA error: GPU has fallen off the bus\nCUDA kernel errors might be reported later"
        )

    place = Place(None)
    vars(place)["devices"] = [torch.device("cuda", 0), torch.device("cpu")]
    monkeypatch.setattr(torch.cuda, "get_device_name", lost)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lost)
    for check in ("devices", "dtypes"):
        rows = found(check, place)
        broken, rest = [r for r in rows if "cuda" in r["of"]], [r for r in rows if "cuda" not in r["of"]]
        assert broken[0]["state"] == "wrong" and rest and {r["state"] for r in rest} == {"ok"}
    assert found("devices", place)[0]["says"] == "RuntimeError: CUDA error: GPU has fallen off the bus"


def test_a_machine_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    ours = ("sanactl.bench.kernels", "sanactl.bench.one_matrix", "sanactl.optim.triton_")
    for name in [name for name in sys.modules if name.startswith(ours)]:  # other tests have imported them
        package, _, last = name.rpartition(".")
        monkeypatch.delattr(sys.modules[package], last, raising=False)
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)
    (row,) = found("kernels")
    assert (row["state"], "triton is not installed" in row["says"]) == ("warning", True)


def test_products_that_are_less_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    def ten_bits(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        if a.dtype == torch.bfloat16:
            raise RuntimeError("not implemented for 'BFloat16'\nat line 3")
        return (a.half().float() @ b.half().float()).to(a.dtype)

    monkeypatch.setattr(products, "product", ten_bits)
    fp32, bf16, fp16, _ = found("dtypes")
    assert (fp32["state"], "TF32" in fp32["says"]) == ("warning", True)
    assert (bf16["state"], bf16["says"][-31:]) == ("warning", ": not implemented for 'BFloat16'"[-31:])
    assert fp16["state"] == "ok"
    monkeypatch.setattr(products, "product", lambda a, b: (a @ b) * float("nan"))
    assert [r["state"] for r in found("dtypes")][:3] == ["wrong"] * 3


def test_kernels_that_differ_from_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own functions in the place of the kernels, so that neither a GPU nor the interpreter is needed."""
    kernels = pytest.importorskip("sanactl.bench.kernels")
    fake = SimpleNamespace(
        square_sums=tiled.square_sums, residual_sums=tiled.residual_sums, apply=tiled.apply
    )
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(kernels, "triton_kernels", fake)
    assert {(r["of"], r["state"], r["value"]) for r in found("kernels")} == {
        ("square_sums", "ok", 0), ("residual_sums", "ok", 0), ("apply", "ok", 0),
    }  # fmt: skip
    fake.square_sums = lambda g: tuple(s * 1.001 for s in tiled.square_sums(g))
    row = only_wrong("kernels")
    assert row["of"] == "square_sums" and "SANACTL_NO_TRITON=1" in row["says"]
    fake.square_sums = lambda g: tuple(s * float("nan") for s in tiled.square_sums(g))
    assert only_wrong("kernels")["of"] == "square_sums"


@pytest.mark.parametrize("damage", ["step", "moment"])
def test_steps_that_differ_from_the_reference(monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    right = tiled.apply

    def other(p: Any, g: Any, m: Any, u_factors: Any, step: Any, *rest: Any) -> None:
        if damage == "step":
            step = (step[0] * 1.01, step[1])
        right(p, g, m, u_factors, step, *rest)
        if damage == "moment":
            m.values.add_(1)

    monkeypatch.setattr(tiled, "apply", other)
    assert "parameter" in {r["of"] for r in found("optimizer") if r["state"] == "wrong"}


def test_a_detector_that_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShapesDetector, "detect", lambda self, images, classes: [[] for _ in images])
    assert "does not find what was drawn for" in only_wrong("detector")["says"]


def test_a_judge_that_says_yes_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    yes = SimpleNamespace(name="j", judge=lambda images, records: [Verdict("yes", -0.1, -2.4)] * len(images))
    monkeypatch.setattr(judges, "open_judge", lambda *spec, **options: yes)
    row = only_wrong("judge")
    assert (row["of"], row["value"]) == ("j", 0.5)
    assert "on a picture of something else" in row["says"]


def test_a_judge_that_is_damaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sanactl.judging.backends import builtin

    shutil.copytree(asset("judge"), tmp_path / "judge")
    weights = tmp_path / "judge" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    monkeypatch.setattr(builtin, "asset", lambda name: tmp_path / name)
    assert "truncated" in only_wrong("judge")["says"]


def other_base(change: Callable[[bytearray, int], None]) -> Path:
    """A copy of the built-in base with changed bytes; `change` also gets where the tensors begin."""
    path = Path("base.st")
    data = bytearray(asset("base.st").read_bytes())
    change(data, min(t.offset for t in read_header(asset("base.st")).tensors.values()))
    path.write_bytes(data)
    return path.absolute()


def test_images_of_damaged_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def zeros(data: bytearray, start: int) -> None:
        data[start + 100_000 : start + 400_000] = bytes(300_000)

    base = other_base(zeros)
    monkeypatch.setattr(sample, "asset", lambda name: base if name == "base.st" else asset(name))
    says = only_wrong("sample")["says"]
    assert "detector finds" in says and "install sanactl again" in says


def test_images_that_differ_from_the_stored_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = sample.read_stored(sample.STORED)
    shape = (len(stored["images"]), 64, 64, 3)
    monkeypatch.setattr(sample, "draw", lambda *arguments: np.full(shape, 128, np.uint8))
    says = only_wrong("sample")["says"]
    assert f"finds {shape[0]} wrong" in says and says.endswith("images cannot be trusted")


def test_a_base_that_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    base = other_base(lambda data, start: data.__delitem__(slice(start + 9, None)))
    monkeypatch.setattr(sample, "asset", lambda name: base)
    assert "truncated" in only_wrong("sample")["says"]


def test_the_stored_numbers_are_of_the_files_that_ship() -> None:
    """If this fails after a new base was made: python -m sanactl.bench.doctor.sample."""
    stored = sample.read_stored(sample.STORED)
    assert stored["digest"] == sample.files_digest([asset(name) for name in sample.FILES])


def test_a_table_on_a_terminal(tmp_path: Path) -> None:
    code, shown = on_terminal(["doctor", "--only", "folder"], tmp_path)
    assert code == 0
    assert "what was found" in shown and "this folder" in shown and "{" not in shown
