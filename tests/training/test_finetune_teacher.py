"""`finetune --teacher`: what a pruned checkpoint learns from the one that was pruned."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sanactl.checkpoint.builtin import asset
from sanactl.checkpoint.open import open_checkpoint
from sanactl.errors import UsageError
from sanactl.model.loading import load_transformer
from sanactl.training.ancestry import kept_blocks, new_blocks
from sanactl.training.teacher import Teacher, matching_blocks
from tests.program import Program

SHORT = ("--steps", "3", "-b", "2", "--lr", "1e-3", "--text-dropout", "0")


def inputs() -> tuple[torch.Tensor, ...]:
    made = torch.Generator().manual_seed(0)
    config = open_checkpoint("tiny.st").config
    shape = (2, config["in_channels"], 4, 4)
    return (
        torch.randn(shape, generator=made), torch.randn(shape, generator=made), torch.tensor([0.2, 0.8]),
        torch.randn(2, 5, config["caption_channels"], generator=made), torch.ones(2, 5),
    )  # fmt: skip


def test_the_lineage_tells_which_blocks_were_kept(place: Path, sanactl: Program) -> None:
    tiny, base = open_checkpoint("tiny.st"), open_checkpoint(asset("base.st"))
    sanactl("prune", "tiny.st", "--blocks", "0,2", "-o", "two.st")
    sanactl("finetune", "two.st", "--steps", "1", "-b", "2", "-o", "trained.st")
    trained = open_checkpoint("trained.st")
    assert kept_blocks(trained, tiny) == [0, 2]
    assert kept_blocks(trained, open_checkpoint("two.st")) == [0, 1]
    sanactl("init", "shapes")
    assert kept_blocks(trained, open_checkpoint("base.st")) == [0, 9]
    sanactl("grow", "two.st", "--to", "3", "--drop-last", "0", "-o", "grown.st")
    assert kept_blocks(open_checkpoint("grown.st"), tiny) is None
    assert kept_blocks(base, tiny) is None


def test_the_blocks_keep_their_numbers_through_what_keeps_them(place: Path, sanactl: Program) -> None:
    """Casts, formats and training, on the student's side and on the teacher's."""
    sanactl("prune", "tiny.st", "--blocks", "0,2", "-o", "two.st")
    sanactl("convert", "two.st", "--dtype", "bf16", "-o", "two-bf16.st")
    sanactl("finetune", "two-bf16.st", "--steps", "1", "-b", "2", "-o", "trained.st")
    sanactl("convert", "trained.st", "--dtype", "fp32", "-o", "wide.st")
    sanactl("prune", "wide.st", "--blocks", "1", "-o", "one.st")
    sanactl("convert", "tiny.st", "--dtype", "bf16", "-o", "tiny-bf16.st")
    sanactl("finetune", "tiny-bf16.st", "--steps", "1", "-b", "2", "-o", "taught.st")
    sanactl("convert", "tiny.st", "-o", "folder")
    wide, one = open_checkpoint("wide.st"), open_checkpoint("one.st")
    for teacher in ("tiny.st", "tiny-bf16.st", "taught.st", "folder"):
        assert kept_blocks(wide, open_checkpoint(teacher)) == [0, 2], teacher
        assert kept_blocks(one, open_checkpoint(teacher)) == [2], teacher
    assert kept_blocks(one, wide) == [1]
    assert kept_blocks(wide, wide) == [0, 1]
    assert kept_blocks(open_checkpoint("tiny.st"), wide) is None
    sanactl("finetune", "wide.st", *SHORT, "--teacher", "tiny-bf16.st", "-o", "out.st")
    assert "velocities alone" not in sanactl.said
    points = [json.loads(line) for line in Path("out.train.jsonl").read_text().splitlines()]
    assert all(p["feature_loss"] > 0 for p in points)


def test_growth_on_the_way_is_told(place: Path, sanactl: Program) -> None:
    sanactl("grow", "tiny.st", "--to", "4", "--drop-last", "1", "-o", "grown.st")
    sanactl("finetune", "grown.st", *SHORT, "--teacher", "tiny.st", "-o", "out.st")
    assert "grown.st was not only pruned but grown since it was tiny.st: velocities alone" in sanactl.said
    sanactl("prune", "grown.st", "--blocks", "0,3", "-o", "cut.st")
    assert kept_blocks(open_checkpoint("cut.st"), open_checkpoint("grown.st")) == [0, 3]


@pytest.mark.parametrize(
    "entry",
    [
        "prune", None, {}, {"command": ["prune"]}, {"command": "prune", "arguments": 3},
        {"command": "prune", "arguments": {"blocks": [0, "1"]}, "blocks": 2},
        {"command": "prune", "arguments": {"blocks": [0, -1]}, "blocks": 2},
        {"command": "prune", "arguments": {"blocks": [1, 0]}, "blocks": 2},
        {"command": "prune", "arguments": {"blocks": [0, 10**30]}, "blocks": 2},
        {"command": "prune", "arguments": {"blocks": [0]}, "blocks": 1},
        {"command": "grow", "arguments": {"to": 10**9, "from": 2, "init": "partial"}, "blocks": 10**9},
        {"command": "grow", "arguments": {"to": 3}, "blocks": 3},
        {"command": "grow", "arguments": {"to": 3, "from": 1, "init": "sideways"}, "blocks": 3},
        {"command": "grow", "arguments": {"to": 3, "from": 1, "init": "partial", "position": []}, "blocks": 3},
        {"command": "grow", "arguments": {"to": 3, "from": 1, "init": "partial", "drop_last": 1}, "blocks": 3},
    ],
)  # fmt: skip
def test_a_lineage_that_makes_no_sense_tells_nothing(place: Path, entry: Any) -> None:
    tiny = open_checkpoint("tiny.st")
    if isinstance(entry, dict) and entry.get("command") == "prune":
        entry = {**entry, "parents": [{"digest": tiny.digest}]}
    strange = replace(tiny, lineage=[*tiny.lineage, entry])
    strange.__dict__["digest"] = "sha256:another"
    assert kept_blocks(strange, tiny) is None
    with pytest.raises(UsageError, match="does not tell which blocks are new"):
        new_blocks(strange)


def test_a_block_matches_what_the_next_kept_one_read() -> None:
    assert matching_blocks([0, 1, 4, 6], 8) == [0, 3, 5, 7]
    assert matching_blocks([2], 3) == [2]


def test_a_model_misses_nothing_of_itself(place: Path) -> None:
    tiny = open_checkpoint("tiny.st")
    student, model = load_transformer(tiny), load_transformer(tiny)
    errors = Teacher(model, student, [0, 1, 2]).errors(student, *inputs())
    assert errors.velocity.tolist() == errors.features.tolist() == [0, 0]
    assert (errors.data > 0).all()


def test_each_thread_finds_the_hidden_states_of_its_own_part(place: Path) -> None:
    """And a forward pass that nobody asked about leaves none behind."""
    student, model = (
        load_transformer(open_checkpoint("tiny.st")),
        load_transformer(open_checkpoint(asset("base.st"))),
    )
    teacher = Teacher(model, student, [0, 4, 9])
    batches = [tuple(t[n : n + 1] for t in inputs()) for n in range(2)]
    with torch.no_grad():
        wanted = [teacher.errors(student, *batch) for batch in batches]
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda n: teacher.errors(student, *batches[n % 2]), range(8)))
        student(batches[0][0], batches[0][3], batches[0][2])
    assert wanted[0].features != wanted[1].features
    assert all(errors == wanted[n % 2] for n, errors in enumerate(found))
    assert not vars(teacher._features._asked).get("found")


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_hidden_states_are_those_of_the_forward_pass(place: Path, checkpointing: bool) -> None:
    """Against the same hidden states taken one block after the other."""
    tiny = open_checkpoint("tiny.st")
    student, model = load_transformer(tiny).train(), load_transformer(tiny)
    if checkpointing:
        student.enable_gradient_checkpointing()
    with torch.no_grad():
        student.transformer_blocks[1].ff.conv_point.weight.mul_(2)
    seen: dict[str, list[torch.Tensor]] = {"student": [], "teacher": []}
    for name, one in (("student", student), ("teacher", model)):
        for block in one.transformer_blocks:
            block.register_forward_hook(lambda m, i, o, name=name: seen[name].append(o.detach()))
    errors = Teacher(model, student, [0, 1, 2]).errors(student, *inputs())
    expected = torch.stack([
        (s - t).square().flatten(1).mean(1) / t.square().flatten(1).mean(1)
        for s, t in zip(seen["student"], seen["teacher"], strict=True)
    ]).mean(0)  # fmt: skip
    assert torch.allclose(errors.features, expected)
    assert errors.features.min() > 0
    errors.features.sum().backward()
    gradient = student.transformer_blocks[1].ff.conv_point.weight.grad
    assert gradient is not None and gradient.abs().max() > 0
    assert student.proj_out.weight.grad is None  # hidden states do not depend on what comes behind them
    assert all(p.grad is None for p in model.parameters())


def test_a_pruned_checkpoint_comes_nearer_to_its_teacher(place: Path, sanactl: Program) -> None:
    sanactl("prune", "tiny.st", "--blocks", "0,2", "-o", "two.st")
    found = {}
    for name, weight in (
        ("taught", "1"),
        ("alone", "0"),
    ):  # the same steps; without weight it is only measured
        (record,) = sanactl(
            "finetune", "two.st", "--teacher", "tiny.st", "--steps", "20", "-b", "4", "--cache", "4", "--lr", "5e-4",
            "--warmup", "1", "--optimizer", "adamw", "--teacher-weight", weight, "--feature-weight", weight,
            "-o", f"{name}.st",
        )  # fmt: skip
        assert record["loss"] > 0
        points = [json.loads(line) for line in Path(f"{name}.train.jsonl").read_text().splitlines()]
        found[name] = [sum(p[key] for p in points[-5:]) for key in ("teacher_loss", "feature_loss")]
    assert found["taught"][0] < 0.95 * found["alone"][0]
    assert found["taught"][1] < 0.95 * found["alone"][1]
    entry = open_checkpoint("taught.st").lineage[-1]
    assert entry["arguments"]["teacher"]["digest"] == open_checkpoint("tiny.st").digest


def test_the_teacher_is_part_of_what_a_run_is(place: Path, sanactl: Program) -> None:
    sanactl("prune", "tiny.st", "--blocks", "0,2", "-o", "two.st")
    sanactl("finetune", "two.st", *SHORT, "-o", "out.st")
    assert "already exists" in sanactl.fails(
        "finetune", "two.st", *SHORT, "--teacher", "tiny.st", "-o", "out.st", code=2
    )
    sanactl("finetune", "two.st", *SHORT, "--teacher", "tiny.st", "-o", "taught.st")
    assert Path("out.st").read_bytes() != Path("taught.st").read_bytes()
    # With nothing of the teacher in the loss the steps are those without it.
    sanactl(
        "finetune", "two.st", *SHORT, "--teacher", "tiny.st", "--teacher-weight", "0", "--feature-weight", "0",
        "-o", "none.st",
    )  # fmt: skip
    alone, none = (load_transformer(open_checkpoint(f"{name}.st")).state_dict() for name in ("out", "none"))
    assert all(torch.equal(alone[name], none[name]) for name in alone)


def test_a_teacher_of_another_kind(place: Path, sanactl: Program) -> None:
    from sanactl.bench.synthetic import synthetic_checkpoint

    synthetic_checkpoint("other.st")
    said = sanactl.fails("finetune", "tiny.st", *SHORT, "--teacher", "other.st", code=2)
    assert "cannot teach" in said
    sanactl("init", "shapes")
    sanactl("init", "base.st", "--scratch", "-o", "stranger.st")
    sanactl("finetune", "tiny.st", "--steps", "1", "-b", "2", "--teacher", "stranger.st")
    assert "velocities alone" in sanactl.said


def test_student_and_teacher_see_the_same_whole_timesteps(
    place: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, list[torch.Tensor]] = {}

    def watched(checkpoint: Any, **options: Any) -> Any:
        model = load_transformer(checkpoint, **options)

        def note(module: Any, arguments: Any, named: dict[str, Any]) -> None:
            seen.setdefault(len(module.transformer_blocks), []).append(named["timestep"])

        model.register_forward_pre_hook(note, with_kwargs=True)
        return model

    sanactl("prune", "tiny.st", "--blocks", "0,2", "-o", "two.st")
    monkeypatch.setattr("sanactl.training.models.load_transformer", watched)  # the student's
    monkeypatch.setattr("sanactl.model.loading.load_transformer", watched)  # the teacher's
    sanactl("finetune", "two.st", *SHORT, "--teacher", "tiny.st", "-o", "out.st")
    ours, theirs = (torch.cat(seen[blocks]) for blocks in (2, 3))
    assert torch.equal(ours, theirs)
    assert len(set(ours.tolist())) > 3
    assert torch.equal(ours, ours.floor()) and ours.min() >= 0 and ours.max() < 1000
