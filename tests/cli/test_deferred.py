"""What a command does not use is not imported at its start, and is there when it is used."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sanactl.cli.frame import deferred

# Packages that no step of sampling, measuring, judging and scoring uses.
UNUSED = (
    "bitsandbytes", "datasets", "matplotlib", "pandas", "peft", "pyarrow", "requests", "scipy.stats", "sklearn",
    "torch._dynamo", "torch._inductor", "torchvision", "triton", "diffusers.models.controlnets",
    "diffusers.models.transformers.transformer_flux", "diffusers.models.unets.unet_3d_condition",
)  # fmt: skip
# Where torchvision is installed, transformers imports it for images, and it imports torch's compiler.
WITH_TORCHVISION = ("torchvision", "torch._dynamo", "torch._inductor", "triton")
COMMANDS = (
    ["sample", "--prompts", "p.jsonl", "--steps", "1", "-n", "2", "-o", "images"],
    ["importance", "--prompts", "p.jsonl", "--steps", "1"],
    ["judge", "images/images.jsonl", "--keep", "1", "-o", "best.jsonl"],
    ["eval", "geneval", "images/images.jsonl"],
)
# Runs the commands, and prints which modules were imported; then uses the compiler.
SCRIPT = """
import json, sys
from sanactl.cli.app import main
codes = [main(command) for command in json.loads(sys.argv[1])]
early = sorted(sys.modules)

from diffusers.models.attention_processor import Attention
import torch
from torch._dynamo import trace_rules
with open("found.json", "w") as file:
    json.dump({
        "codes": codes,
        "modules": early,
        "marked": id(Attention) in trace_rules._allowed_callable_ids.function_ids,
        "compiler": torch._dynamo is sys.modules["torch._dynamo"],
    }, file)
"""


def test_unused_packages_are_not_imported_and_work_when_used(tmp_path: Path) -> None:
    prompt = {
        "prompt": "a photo of a red circle",
        "tag": "colors",
        "include": [{"class": "circle", "count": 1, "color": "red"}],
    }
    (tmp_path / "p.jsonl").write_text(json.dumps(prompt) + "\n")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(COMMANDS)],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["codes"] == [0, 0, 0, 0]
    there = WITH_TORCHVISION if importlib.util.find_spec("torchvision") else ()
    unused = set(UNUSED) - set(there)
    imported = {m for m in found["modules"] if any(m == u or m.startswith(f"{u}.") for u in unused)}
    assert imported == set()
    assert {"torch", "diffusers", "transformers"} <= set(found["modules"])
    assert found["marked"] and found["compiler"]


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages, and the finder in use for `user`, `needs` and the package `zoo`."""
    table = {f"{n}_of_test": ("heavy_of_test",) for n in ("user", "needs", "missing")}
    monkeypatch.setattr(deferred, "_STAND_INS", {**table, "missing_of_test": ("nowhere_of_test",)})
    monkeypatch.setattr(deferred, "_PACKAGES", ("zoo_of_test",))
    monkeypatch.setattr(sys, "meta_path", [deferred._Finder(), *sys.meta_path])
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "heavy_of_test.py").write_text(
        "class Base: pass\ndef double(x): return 2 * x\nTABLE = {'a': 1}\n"
    )
    yield tmp_path
    for name in [m for m in sys.modules if m.partition(".")[0].endswith("_of_test")]:
        del sys.modules[name]


def test_a_stand_in_is_used_until_the_package_is(packages: Path) -> None:
    (packages / "user_of_test.py").write_text(
        "import heavy_of_test as whole\nfrom heavy_of_test import Base, double\n"
        "def annotated(x: Base | None) -> None: pass\n"
    )
    import user_of_test as user

    assert not isinstance(3, user.Base)
    assert "heavy_of_test" not in sys.modules
    assert user.double(4) == 8
    heavy = sys.modules["heavy_of_test"]
    assert isinstance(heavy.Base(), user.Base) and not isinstance(3, user.Base)
    assert user.whole.TABLE is heavy.TABLE
    assert issubclass(type("Sub", (heavy.Base,), {}), user.Base)


def test_a_module_that_needs_the_package_at_once_gets_it(packages: Path) -> None:
    (packages / "needs_of_test.py").write_text(
        "from heavy_of_test import Base, TABLE\nruns = globals().get('runs', 0) + 1\n"
        "class Sub(Base): pass\nfirst = sorted(TABLE | {'b': 2})\n"
    )
    import needs_of_test as needs

    assert needs.Sub.__mro__[1] is sys.modules["heavy_of_test"].Base
    assert (needs.first, needs.runs) == (["a", "b"], 1)


def test_a_package_that_is_not_installed_is_missing(packages: Path) -> None:
    (packages / "missing_of_test.py").write_text(
        "try:\n    import nowhere_of_test\nexcept ImportError:\n    nowhere_of_test = None\n"
    )
    import missing_of_test as missing

    assert missing.nowhere_of_test is None


def test_a_package_of_many_modules_is_executed_when_a_name_is_looked_up(packages: Path) -> None:
    (packages / "zoo_of_test").mkdir()
    (packages / "zoo_of_test" / "__init__.py").write_text("from .cat import CAT\nfrom .dog import DOG\n")
    for name in ("cat", "dog"):
        (packages / "zoo_of_test" / f"{name}.py").write_text(f"{name.upper()} = '{name}'\n")
    from zoo_of_test.cat import CAT

    assert CAT == "cat" and "zoo_of_test.dog" not in sys.modules
    from zoo_of_test import DOG

    assert DOG == "dog"
    with pytest.raises(AttributeError, match="has no attribute 'BIRD'"):
        _ = sys.modules["zoo_of_test"].BIRD


def test_installed_packages_are_listed_when_one_is_looked_up() -> None:
    calls = []

    def listed() -> dict[str, list[str]]:
        calls.append(1)
        return {"PIL": ["pillow"]}

    found = deferred._Distributions(listed)
    assert not calls
    assert (
        found["PIL"] == ["pillow"]
        and found.get("sklearn") is None
        and [*found] == ["PIL"]
        and len(found) == 1
    )
    assert calls == [1]
