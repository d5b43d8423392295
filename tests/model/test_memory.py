"""Memory that is given back before the next model is loaded."""

from __future__ import annotations

import pytest
import torch

from sanactl.model.memory import free_memory


@pytest.mark.parametrize("newer", [True, False])
def test_page_locked_memory_is_given_back_where_torch_can(
    newer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch 2.11, which sanactl allows, has no such function."""
    given: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given.append("the GPU's"))
    if newer:
        monkeypatch.setattr(
            torch.accelerator, "empty_host_cache", lambda: given.append("page-locked"), raising=False
        )
    else:
        monkeypatch.delattr(torch.accelerator, "empty_host_cache", raising=False)
    free_memory()
    assert given == ["the GPU's", *(["page-locked"] if newer else [])]
