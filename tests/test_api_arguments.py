"""What the functions of the Python interface take, and what goes wrong."""

from __future__ import annotations

import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import sanactl as api
from sanactl.files.progress import Progress
from sanactl.judging.registry import open_judge
from tests.program import snapshot
from tests.test_api import TWO


def test_prompts_come_in_several_forms(place: Path) -> None:
    from sanactl.api.inputs import as_prompts

    Path("p.txt").write_text("# a comment\na red circle\n", encoding="utf-8")
    forms: list[Any] = [
        "p.txt", Path("p.txt"), ["a red circle"], "a red circle", [{"text": "a red circle"}],
        ({"kind": "prompt", "prompt": p} for p in ["a red circle"]),
    ]  # fmt: skip
    found = [as_prompts(form, default="calib") for form in forms]
    assert all(f == [{"kind": "prompt", "prompt": "a red circle", "id": "00000"}] for f in found)
    assert len(as_prompts(None, default="calib")) == 100
    assert len(as_prompts(None, default="demo")) == 6
    assert len(as_prompts("shapes", default="demo")) == 360


def test_devices_and_dtypes_are_names_or_torch_objects(place: Path) -> None:
    assert api.convert("tiny.st", dtype=torch.float32, output="x.st").dtypes.keys() == {"F32"}
    assert api.convert("tiny.st", dtype="float32").path.name == "tiny-fp32.st"
    images = api.sample(
        "tiny.st", TWO[:1], count=1, steps=1, device=torch.device("cpu"), dtype=torch.float32, output="a"
    )
    names = api.sample("tiny.st", TWO[:1], count=1, steps=1, device="cpu", dtype="fp32", output="b")
    assert Path(images[0]["path"]).read_bytes() == Path(names[0]["path"]).read_bytes()
    for device, dtype in ((torch.device("cpu"), torch.float32), ("cpu", "fp32")):
        judged = api.judge(images, device=device, dtype=dtype)
        assert judged[0]["verdict"] in ("yes", "no")
    blocks = api.importance("tiny.st", TWO, steps=1, device=torch.device("cpu"), dtype=torch.bfloat16)
    assert len(blocks) == 3
    drawn = [{**images[0], "tag": "colors", "include": [{"class": "circle", "count": 1, "color": "red"}]}]
    score = api.evaluate(drawn, "geneval", device=torch.device("cpu"), dtype=torch.float32)[-1]
    assert typing.cast(Any, score)["metric"] == "geneval"


def test_components_complete_a_checkpoint_that_names_none(place: Path) -> None:
    from safetensors.torch import load_file, save_file

    api.convert("tiny.st", output="bare")
    weights = Path("bare/diffusion_pytorch_model.safetensors")
    save_file(load_file(weights), weights, metadata={"format": "pt"})
    bare = api.open_checkpoint("bare")
    with pytest.raises(api.InputError, match="components"):
        api.sample(bare, TWO[:1], count=1, steps=1, height=64, width=64)
    whole = api.open_checkpoint(bare, components="builtin:shapes")
    assert len(api.sample(whole, TWO[:1], count=1, steps=1, output="s")) == 1


def test_progress_is_silent_a_bar_or_an_object(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Seen(Progress):
        done = 0

        def advance(self, count: int = 1, **fields: str) -> None:
            self.done += count

    seen = Seen()
    api.sample("tiny.st", TWO, count=1, steps=1, output="a", progress=seen)
    assert seen.done == 2
    capfd.readouterr()
    api.sample("tiny.st", TWO, count=1, steps=1, output="b")
    assert capfd.readouterr() == ("", "")
    api.sample("tiny.st", TWO, count=1, steps=1, output="c", progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "sampling: 100%" in err


def test_what_a_person_should_know_is_a_warning_at_the_call(place: Path) -> None:
    with pytest.warns(UserWarning, match="fp16 holds nothing above") as told:
        api.convert("tiny.st", dtype="fp16")
    assert told[0].filename == __file__


WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: api.grow("none.st", 6), api.InputError, "none.st"),
    (lambda: api.grow("tiny.st"), api.UsageError, "number of blocks"),
    (lambda: api.grow("tiny.st", 6, init="magic"), api.UsageError, "unknown init"),
    (lambda: api.grow("tiny.st", 6, link=True), api.UsageError, "pipeline"),
    (lambda: api.grow("tiny.st", 6, seed=-1), api.UsageError, "seed"),
    (lambda: api.grow("tiny.st", 6, output="tiny.st"), api.OutputExistsError, "tiny.st"),
    (lambda: api.prune("tiny.st"), api.UsageError, "one of"),
    (lambda: api.prune("tiny.st", keep=2), api.UsageError, "no importance"),
    (lambda: api.prune("tiny.st", keep=2, importance=[]), api.InputError, "no block record"),
    (lambda: api.prune("tiny.st", keep=2, importance=[{"kind": "block"}]), api.InputError, "record 1"),
    (lambda: api.convert("tiny.st"), api.UsageError, "already"),
    (lambda: api.convert("tiny.st", dtype=torch.int8), api.UsageError, "unknown dtype 'int8'"),
    (lambda: api.importance("tiny.st", []), api.InputError, "no prompts"),
    (lambda: api.importance("tiny.st", [" "]), api.InputError, "prompt 1: is empty"),
    (lambda: api.importance("tiny.st", [{"prompt": 3}]), api.InputError, "'prompt' that is not text"),
    (lambda: api.importance("tiny.st", [3]), api.InputError, "prompt 1: a int, not a record"),  # type: ignore[list-item]
    (lambda: api.sample("tiny.st", "none.txt"), api.InputError, "none.txt"),
    (lambda: api.sample("tiny.st", TWO, count=0), api.UsageError, "at least 1"),
    (lambda: api.sample("tiny.st", TWO, steps=0), api.UsageError, "steps"),
    (lambda: api.sample("tiny.st", TWO, device="abacus"), api.UsageError, "abacus"),
    (lambda: api.sample("tiny.st", TWO, sheet="x.txt"), api.UsageError, "x.txt"),
    (lambda: api.judge([], model="oracle"), api.InputError, "no image record"),
    (lambda: api.judge([{"path": "x.png"}], model="oracle"), api.InputError, "without 'prompt'"),
    (lambda: api.judge("none.jsonl", model="oracle"), api.InputError, "none.jsonl"),
    (lambda: api.judge([], keep=1, all=True), api.UsageError, "exclude"),
    (lambda: api.judge([], model="oracle", judges=["oracle"]), api.UsageError, "exclude"),
    (lambda: api.evaluate([], "beauty"), api.UsageError, "no metric 'beauty'"),
    (lambda: api.evaluate([], "geneval", depth=3), api.UsageError, "no option 'depth'"),
    (lambda: api.finetune("tiny.st", optimizer="magic"), api.UsageError, "magic"),
    (lambda: api.finetune("tiny.st", precision=torch.float16), api.UsageError, "fp16"),
    (
        lambda: api.finetune("tiny.st", [{"path": "x.png", "prompt": "a"}], steps=1),
        api.InputError,
        "image records",
    ),
    (lambda: api.open_checkpoint(api.open_checkpoint("tiny.st"), variant="x"), api.UsageError, "open"),
    (lambda: api.filter([]), api.UsageError, "no condition"),
    (lambda: api.filter([], where=["judge_score >"]), api.UsageError, "judge_score"),
    (lambda: api.filter([], correct=True, by="x"), api.UsageError, "by is for"),
    (lambda: api.filter([], top=0), api.UsageError, "at least 1"),
    (lambda: api.geneval_prompts(seed=1), api.UsageError, "official"),
    (lambda: api.geneval_prompts(split="train", exclude="none.txt"), api.InputError, "none.txt"),
    (lambda: api.shapes_prompts(split="test"), api.UsageError, "choose one of"),
    (lambda: api.shapes_prompts(weights={"counting": -1}), api.UsageError, "counting"),
    (lambda: api.doctor(only=["disks"]), api.UsageError, "no such check"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_faults_are_errors_of_their_kind_and_leave_nothing(
    place: Path, call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    before = snapshot(place)
    with pytest.raises(error) as raised:
        call()
    assert type(raised.value) is error
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert snapshot(place) == before


def test_a_judge_that_was_stopped_goes_on_from_its_output(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verdicts are kept as the command keeps them, where `output` is given."""
    images = api.sample("tiny.st", TWO, count=2, steps=1)
    judge = open_judge()
    stream = api.iter_judge(iter(images), model=judge, batch_size=2, output="w.jsonl")
    first = next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert not Path("w.jsonl").exists()
    asked: list[int] = []
    ask = judge.judge

    def count(images: Any, records: Any) -> Any:
        asked.append(len(images))
        return ask(images, records)

    monkeypatch.setattr(judge, "judge", count)
    assert api.judge(images, model=judge, batch_size=2, output="w.jsonl")[0] == first
    assert len(Path("w.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    assert asked == [2]
    api.judge(images, model=judge, batch_size=2, output="again.jsonl", no_cache=True)
    api.judge(images, model=judge)  # no output: nothing is kept or looked up
    assert asked == [2, 2, 2, 4]
