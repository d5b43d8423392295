"""grow, prune, convert and log as they are typed: choices, plans, notes, the journal, the lineage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sanactl.bench.synthetic import SANA_1_6B, TINY, synthetic_checkpoint, synthetic_plan
from sanactl.checkpoint.open import open_checkpoint
from sanactl.checkpoint.write import write_checkpoint
from sanactl.cli.app import main
from sanactl.cli.render_plan import show_plan
from sanactl.optim import OPTIMIZERS
from sanactl.surgery.convert import plan_convert
from sanactl.surgery.describe import describe
from tests.program import Program, snapshot

IMPORTANCE = [5.0, 0.2, 0.3, 0.9, 0.0, 0.1]


@pytest.fixture
def deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with deep.st, six random blocks, and deep.importance.jsonl, made up for it."""
    monkeypatch.chdir(tmp_path)
    path = synthetic_checkpoint("deep.st", {**TINY, "num_layers": 6})
    digest = open_checkpoint(path).digest
    records = [
        {"kind": "block", "checkpoint": "deep.st", "digest": digest, "block": block, "importance": value}
        for block, value in enumerate(IMPORTANCE)
    ]
    Path("deep.importance.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path


def kept(path: str) -> list[int]:
    return open_checkpoint(path).lineage[-1]["arguments"]["blocks"]


@pytest.mark.parametrize(
    ("options", "blocks"),
    [
        (["--keep", "3"], [0, 2, 3]),
        (["--keep", "3", "--span"], [0, 1, 2]),
        (["--keep", "3", "--protect-tail", "1"], [0, 3, 5]),
        (["--keep", "4", "--span", "--protect-tail", "1"], [0, 3, 4, 5]),
        (["--keep", "4", "--span", "--protect-tail", "2"], [0, 3, 4, 5]),
        (["--params", "17K"], [0, 3]),
        (["--bytes", "110KB", "--span"], [0, 1, 2]),
        (["--blocks", "0-1,-1"], [0, 1, 5]),
        (["--drop", "1-4"], [0, 5]),
    ],
)
def test_what_prune_keeps(deep: Path, sanactl: Program, options: list[str], blocks: list[int]) -> None:
    (record,) = sanactl("prune", "deep.st", "--importance", "deep.importance.jsonl", *options, "-o", "x.st")
    assert kept("x.st") == blocks
    assert f"keeping {len(blocks)} of 6 blocks" in sanactl.said
    dropped = sorted(set(range(6)) - set(blocks))
    assert record["dropped"] == dropped
    assert record["dropped_importance"] == pytest.approx(
        sum(IMPORTANCE[b] for b in dropped) / sum(IMPORTANCE)
    )
    if options[0] == "--bytes":
        assert Path("x.st").stat().st_size <= 110_000


def test_prune_says_what_goes_and_what_is_idle(deep: Path, sanactl: Program) -> None:
    file = ["--importance", "deep.importance.jsonl"]
    sanactl("prune", "deep.st", *file, "--keep", "3")
    assert "blocks 1,4-5 go, with 4.6 % of the importance" in sanactl.said
    assert "no importance" not in sanactl.said
    sanactl("prune", "deep.st", *file, "--keep", "6", "-o", "all.st")
    assert "none goes" in sanactl.said
    assert "block 4 stays and has no importance" in sanactl.said
    sanactl("prune", "deep.st", "--drop", "2", "-o", "drop.st")
    assert "block 2 goes" in sanactl.said
    assert "%" not in sanactl.said
    runs = [json.loads(line) for line in Path(".sanactl/journal.jsonl").read_text().splitlines()]
    assert [[i["path"] for i in run["inputs"]] for run in runs] == [
        ["deep.st", "deep.importance.jsonl"],
        ["deep.st", "deep.importance.jsonl"],
        ["deep.st"],
    ]


def test_importance_of_the_pipe_is_named_in_the_journal(place: Path, sanactl: Program) -> None:
    blocks = sanactl("importance", "tiny.st", "--prompts", "-", "--steps", "1", stdin="a star\n")
    sanactl("prune", "--keep", "2")  # from the journal
    sanactl("prune", "--keep", "1", stdin="".join(json.dumps(record) + "\n" for record in blocks))
    runs = [json.loads(line) for line in Path(".sanactl/journal.jsonl").read_text().splitlines()][-2:]
    for run in runs:
        assert [i["path"] for i in run["inputs"]] == ["tiny.st", "tiny.importance.jsonl"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--keep", "3", "--drop", "1"], "--keep and --drop exclude each other"),
        (["--keep", "2,2"], "one depth twice"),
        (["--keep", "many"], "no number of blocks"),
        (["--keep", "9"], "keep 1 to 6"),
        (["--blocks", "0-2", "--span"], "--span does not go with --blocks"),
        (["--drop", "0-5"], "keep at least one"),
        (["--bytes", "1KB"], "not even one block"),
        (["--params", "1Q"], "1.6B"),
        (["--keep", "3", "--pipeline", "-o", "x.st"], "--pipeline writes a folder"),
        (["--keep", "3", "--link"], "--link goes with --pipeline"),
    ],
)
def test_impossible_pruning(deep: Path, sanactl: Program, options: list[str], says: str) -> None:
    before = snapshot(deep)
    sanactl("prune", "deep.st", "--importance", "deep.importance.jsonl", *options, code=2)
    assert says in sanactl.said.splitlines()[-1]
    assert snapshot(deep) == before


def test_a_plan_says_what_it_takes(deep: Path, sanactl: Program) -> None:
    (plan,) = sanactl("grow", "deep.st", "--to", "12", "--dry-run")
    assert (plan["image_tokens"], plan["text_tokens"]) == (64, 300)
    assert plan["flops_after"] > plan["flops_before"] > 0
    assert set(plan["training_memory"]) == set(OPTIMIZERS)
    for parts in plan["training_memory"].values():
        assert parts["weights"] == parts["gradients"] == 4 * plan["parameters_after"]
        assert parts["total"] == parts["weights"] + parts["gradients"] + parts["optimizer"]
    assert plan["training_memory"]["adamw"]["optimizer"] == 8 * plan["parameters_after"]
    (plan,) = sanactl("prune", "deep.st", "--drop", "0,5", "--dry-run")
    assert plan["dropped"] == [0, 5]
    assert plan["bytes_generated"] == 0
    (plan,) = sanactl("convert", "deep.st", "--dtype", "bf16", "--dry-run")
    assert plan["bytes_after"] * 2 == plan["bytes_before"]


def test_a_plan_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """At the published size, where the paper gives figures: 4.8B parameters; CAME-8bit saves most of AdamW's state."""
    plan = synthetic_plan({**SANA_1_6B, "num_layers": 60}, "BF16")
    show_plan([{"path": "x.st", **describe(plan), "dropped": [17, 18], "dropped_importance": 0.04}])
    shown = " ".join(capsys.readouterr().out.split())
    for text in (
        "plan for x.st (nothing is written)",
        "parameters 0 4.72B",
        "FLOPs a forward 0 8.89T",
        "1024 x 1024 pixels, 1,024 image and 300 text tokens",
        "blocks that go: 17-18 (4.0 % of the importance)",
        "--optimizer adamw 18.9 GB 18.9 GB 37.8 GB 75.5 GB",
        "--optimizer came8bit 18.9 GB 18.9 GB 4.82 GB 42.6 GB",
    ):
        assert text in shown, text


def test_a_lineage_needs_no_journal(deep: Path, sanactl: Program, capsys: pytest.CaptureFixture[str]) -> None:
    digests = [open_checkpoint("deep.st").digest]
    for arguments in (
        ["grow", "deep.st", "--to", "9", "--seed", "3", "-o", "grown"],
        ["convert", "grown", "--dtype", "bf16", "-o", "cast.pth"],
        ["convert", "cast.pth", "--config", "grown/config.json", "-o", "cast.st"],
        ["prune", "cast.st", "--blocks", "0-3", "-o", "last.st"],
    ):
        (record,) = sanactl(*arguments)
        digests.append(record["digest"])
    (deep / ".sanactl" / "journal.jsonl").unlink()
    (shown,) = sanactl("inspect", "last.st", "--json")
    steps = shown["lineage"]
    assert [step["command"] for step in steps] == ["grow", "convert", "prune"]
    assert [step["parents"][0]["digest"] for step in steps] == [digests[0], digests[1], digests[3]]
    assert [step["seed"] for step in steps] == [3, None, None]
    assert steps[0]["arguments"]["to"] == 9
    assert all(step["version"] for step in steps)
    (logged,) = sanactl("log", "last.st", "--json")
    assert logged["lineage"] == steps
    capsys.readouterr()
    assert main(["log", "last.st"]) == 0
    drawn = capsys.readouterr().out.splitlines()
    assert [line.strip("└─ ").split("  ")[0] for line in drawn] == ["deep", "grown", "cast", "last.st"]


def test_a_native_file_of_another_width_takes_a_config(deep: Path, sanactl: Program) -> None:
    checkpoint = open_checkpoint("deep.st")
    write_checkpoint(plan_convert(checkpoint, "x.pth"), "x.pth")
    sanactl("convert", "deep.st", "-o", "folder")
    torch.save({"state_dict": torch.load("x.pth", weights_only=True)["state_dict"]}, "bare.pth")
    said = sanactl.fails("convert", "bare.pth", "-o", "back.st")
    assert "--config config.json" in said
    sanactl("convert", "bare.pth", "--config", "folder/config.json", "-o", "back.st")
    assert open_checkpoint("back.st").config == checkpoint.config
    assert "named checkpoint" in sanactl.fails("convert", "--config", "folder/config.json", code=2)


def test_variants_of_a_folder(deep: Path, sanactl: Program) -> None:
    sanactl("convert", "deep.st", "-o", "folder")
    sanactl("convert", "deep.st", "--dtype", "fp16", "-o", "half")
    weights = "diffusion_pytorch_model.safetensors"
    Path("folder", weights.replace(".", ".fp16.", 1)).write_bytes(Path("half", weights).read_bytes())
    sanactl("convert", "folder", "-o", "plain.st")
    sanactl("convert", "folder", "--variant", "fp16", "-o", "variant.st")
    assert list(open_checkpoint("plain.st").dtypes) == ["F32"]
    assert list(open_checkpoint("variant.st").dtypes) == ["F16"]
    assert "no variant bf16" in sanactl.fails("convert", "folder", "--variant", "bf16", "-o", "x.st")


@pytest.mark.parametrize(
    ("dtype", "target", "warned"),
    [
        ("F16", "bf16", True),
        ("F32", "bf16", True),
        ("BF16", "bf16", False),
        ("BF16", "fp16", True),
        ("F16", "fp32", False),
    ],
)
def test_casts_that_break_old_weights_warn(
    deep: Path, sanactl: Program, dtype: str, target: str, warned: bool
) -> None:
    """SANA-1.0 has no QK norms; its fp16 releases break in bf16, and fine-tuning in fp16 gives NaN."""
    synthetic_checkpoint("old.st", {**TINY, "qk_norm": None}, dtype)
    sanactl("convert", "old.st", "--dtype", target, "-o", "cast.st")
    assert ("warning" in sanactl.said) == warned
    if warned:
        assert ("issue 47" if target == "bf16" else "issue 65") in sanactl.said


def test_sana_1_5_may_be_cast_to_bf16(deep: Path, sanactl: Program) -> None:
    sanactl("convert", "deep.st", "--dtype", "bf16", "-o", "cast.st")
    assert "warning" not in sanactl.said


def test_a_verification_cut_short_is_taken_up_again(
    deep: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sanactl.sampling import verify

    def interrupted(*_: object) -> float:
        raise KeyboardInterrupt

    run = ("grow", "deep.st", "--to", "7", "--drop-last", "0", "--verify")
    with monkeypatch.context() as patch:
        patch.setattr(verify, "largest_difference", interrupted)
        assert sanactl(*run, code=130) == []
    written = Path("deep-d7.st").stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(verify, "largest_difference", lambda *_: 0.5)
        assert sanactl(*run, code=1) == []
        assert "the file is kept for inspection: do not use it" in sanactl.said
    (record,) = sanactl(*run)
    assert record["largest_difference"] == 0
    assert "there already" in sanactl.said
    assert Path("deep-d7.st").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--sigma", "1e30"], "--sigma 1e+30"),
        (["--sigma-depthwise", "9000"], "--sigma-depthwise 9000"),
        (["--init", "progressive", "--sigma-noise", "8000"], "--sigma-noise 8000"),
    ],
)
def test_a_sigma_that_fp16_cannot_hold(deep: Path, sanactl: Program, options: list[str], named: str) -> None:
    synthetic_checkpoint("half.st", TINY, "F16")
    for dry in ([], ["--dry-run"]):
        said = sanactl.fails("grow", "half.st", "--to", "30", *options, *dry, code=2)
        assert f"{named} draws values that F16 weights cannot hold" in said
    sanactl("grow", "deep.st", "--to", "30", *options)  # fp32 holds them
    assert "F32" in sanactl.fails("grow", "deep.st", "--to", "8", "--sigma", "1e38", code=2)


def test_grow_says_which_blocks_it_leaves_out(deep: Path, sanactl: Program) -> None:
    sanactl("grow", "deep.st", "--to", "12")
    assert "leaving out blocks 4-5 and adding 8 new; --drop-last 0 keeps all" in sanactl.said
    sanactl("grow", "deep.st", "--to", "12", "--drop-last", "1", "-o", "one.st")
    assert "leaving out block 5 and adding 7 new" in sanactl.said
    sanactl("grow", "deep.st", "--to", "12", "--drop-last", "0", "-o", "all.st")
    assert "leaving out" not in sanactl.said


def test_the_journal_knows_a_pipeline_by_its_own_folder(place: Path, sanactl: Program) -> None:
    sanactl("convert", "tiny.st", "--pipeline", "-o", "pipe")
    sanactl("prune", "pipe", "--drop", "1", "-o", "last.st")
    runs = [json.loads(line) for line in Path(".sanactl/journal.jsonl").read_text().splitlines()]
    assert runs[0]["outputs"][0]["path"] == runs[1]["inputs"][0]["path"] == "pipe"
