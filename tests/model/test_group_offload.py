"""`--offload group` as on a GPU, where there is none: diffusers' groups with streams, whose copies are only noted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.hooks import group_offloading

from sanactl.checkpoint.builtin import asset
from sanactl.checkpoint.open import open_checkpoint
from sanactl.errors import UsageError
from sanactl.model.conditioning import Sana, sampling_settings
from sanactl.model.offload import Offload, check_offload

CPU, GPU = torch.device("cpu"), torch.device("cuda")
LAYERS = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Embedding)


class Stream:
    def synchronize(self) -> None:
        pass


class Backend:
    """In place of `torch.cuda`."""

    def __init__(self, device: object) -> None:
        self.Stream = self.current_stream = Stream

    def stream(self, stream: Stream) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class Gpu:
    """What would be on a GPU, and what was there when a layer computed.

    Attributes:
        there: parameters and buffers.
        grouped: those that come and go.
        blocks: the transformer's, each with its parameters.
        most: of the blocks that were there at once.
        layers: how many layers have computed, all of them with their weights there.
    """

    def __init__(self) -> None:
        self.there: set[Any] = set()
        self.grouped: set[Any] = set()
        self.blocks: list[set[Any]] = []
        self.most = self.layers = 0

    def come(self, group: Any, tensor: Any, source: Any, stream: Any) -> None:
        tensor.data = source.clone()
        self.there.add(tensor)

    def computes(self, layer: Any) -> None:
        own = set(layer.parameters(recurse=False))
        if not own & self.grouped:  # it is tried while it is loaded
            return
        assert own <= self.there, f"{layer} computes without its weights"
        self.layers += 1
        self.most = max(self.most, sum(block <= self.there for block in self.blocks))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """All decisions are diffusers' own: what belongs to a group, when it comes and goes, what comes ahead."""
    found = Gpu()
    kept = group_offloading.ModuleGroup

    @contextlib.contextmanager
    def pinned(group: Any) -> Iterator[Any]:
        yield group.cpu_param_dict

    leave = kept._offload_to_memory

    def left(group: Any) -> None:
        leave(group)
        tensors = [t for m in group.modules for t in (*m.parameters(), *m.buffers())]
        tensors += [*group.parameters, *group.buffers]
        found.there.difference_update(tensors)
        found.grouped.update(tensors)

    monkeypatch.setattr(group_offloading, "TorchDeviceBackend", Backend)
    monkeypatch.setattr(group_offloading, "send_to_device", lambda given, *_, **__: given)
    monkeypatch.setattr(kept, "_to_cpu", staticmethod(lambda tensor, _: tensor.data.clone()))
    monkeypatch.setattr(kept, "_pinned_memory_tensors", pinned)
    monkeypatch.setattr(kept, "_transfer_tensor_to_device", lambda *given: found.come(*given))
    monkeypatch.setattr(kept, "_offload_to_memory", left)
    for user in ("sampler", "text"):
        monkeypatch.setattr(f"sanactl.model.{user}.compute_device", lambda module: CPU)
    return found


def watch_layers(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside of the hooks, which are around a layer's `forward`."""
    for kind in LAYERS:

        def forward(layer: Any, *given: Any, plain: Any = kind.forward) -> Any:
            gpu.computes(layer)
            return plain(layer, *given)

        monkeypatch.setattr(kind, "forward", forward)


def sana(**settings: Any) -> Sana:
    base = open_checkpoint(asset("base.st"))
    found = Sana(
        base,
        sampling_settings(base, steps=2, fixed_batch=2, **settings),
        device=CPU,
        dtype=torch.float32,
        offload="group",
    )
    found.one_thread_each = False
    return found


def lazy(module: Any) -> list[str]:
    """Modules that still wait for the order of their layers."""
    name = group_offloading._LAZY_PREFETCH_GROUP_OFFLOADING
    return [
        path or "itself"
        for path, one in module.named_modules()
        if hasattr(one, "_diffusers_hook") and one._diffusers_hook.get_hook(name) is not None
    ]


@pytest.mark.parametrize("tiling", ["off", "on"])
def test_groups_are_there_when_they_compute(gpu: Gpu, monkeypatch: pytest.MonkeyPatch, tiling: str) -> None:
    """Text encoder, transformer and decoder, image by image or by tiles; the next block comes ahead, and no more of them."""
    size: dict[str, Any] = {"height": 576, "width": 64} if tiling == "on" else {}
    plain = [pixels for _, pixels in sana(**size, vae_tiling=tiling).draw(["a star"] * 4, [1, 2, 3, 4])]
    monkeypatch.setattr("sanactl.model.conditioning.Offload", lambda kind, _: Offload(kind, GPU))
    watch_layers(gpu, monkeypatch)
    found = sana(**size, vae_tiling=tiling)
    found.texts.prepare(["a star"])
    gpu.blocks = [set(block.parameters()) for block in found.transformer.transformer_blocks]
    drawn = [pixels for _, pixels in found.draw(["a star"] * 4, [1, 2, 3, 4])]
    assert all(np.array_equal(a, b) for a, b in zip(drawn, plain, strict=True))
    assert gpu.most == 2 < len(gpu.blocks)
    assert gpu.layers > 100 and not gpu.there
    assert {*found.transformer.parameters(), *found.components.vae.decoder.parameters()} <= gpu.grouped
    assert not lazy(found.transformer) and not lazy(found.components.vae)
    encoder = found.components.vae.encoder
    assert not any(hasattr(module, "_diffusers_hook") for module in encoder.modules())


def test_a_group_cannot_be_compiled() -> None:
    check_offload("model", GPU, compile=True)
    with pytest.raises(UsageError, match="--offload group and --compile exclude each other"):
        check_offload("group", GPU, compile=True)
