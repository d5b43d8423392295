"""Names of devices: a wrong one is one short line, for every command."""

from __future__ import annotations

import pytest
import torch

from sanactl.errors import UsageError
from sanactl.model.conditioning import pick_device
from sanactl.model.processes import open_accelerator


@pytest.mark.parametrize(
    "name", ["nowhere", "", "cuda:-1", "cuda:x", "meta", "meta:0", "cpu cpu", "x" * 10_000]
)
def test_a_name_that_is_no_device_is_one_short_line_with_names_that_are(name: str) -> None:
    for opened in (pick_device, lambda one: open_accelerator("no", one)):
        with pytest.raises(UsageError) as raised:
            opened(name)
        assert len(str(raised.value)) < 190
        assert "cpu" in str(raised.value)


def test_a_device_that_this_machine_lacks_is_named_without_torchs_long_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lacks(*size: int, device: torch.device) -> torch.Tensor:
        raise NotImplementedError(
            f"Could not run on {device}. " + "This could be because of one of 40 operators. " * 9
        )

    monkeypatch.setattr(torch, "empty", lacks)
    with pytest.raises(UsageError, match="--device mps: torch cannot use it here"):
        pick_device("mps")


def test_torchs_own_reason_is_shown_where_it_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(*size: int, device: torch.device) -> torch.Tensor:
        raise AssertionError("Torch not compiled with CUDA enabled\nand more")

    monkeypatch.setattr(torch, "empty", lacks)
    with pytest.raises(UsageError, match=r"--device cuda:1: Torch not compiled with CUDA enabled$"):
        pick_device("cuda:1")


def test_the_cpu_is_there() -> None:
    assert pick_device("cpu") == torch.device("cpu")
