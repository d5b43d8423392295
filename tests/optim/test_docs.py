"""docs/optim.md: its script runs, and its table of options is the truth."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from sanactl.optim import CAME8bit

PAGE = (Path(__file__).parents[2] / "docs" / "optim.md").read_text(encoding="utf-8")


def test_the_script_trains() -> None:
    script = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert script is not None
    names: dict[str, object] = {}
    exec(script[1], names)
    loss = names["loss"]
    assert loss.item() < 0.5  # type: ignore[attr-defined]


def test_every_option_is_in_the_table() -> None:
    options = set(inspect.signature(CAME8bit).parameters) - {"params", "lr"}
    assert options == set(re.findall(r"^\| `([a-z0-9_]+)` \|", PAGE, re.MULTILINE)) - {
        "linear",
        "zero",
        "dynamic",
    }
