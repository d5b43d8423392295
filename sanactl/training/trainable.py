"""Which parameters are trained: all, those of the blocks that growth added, or low-rank adapters beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sanactl.errors import UsageError
from sanactl.model.sharded import scatter
from sanactl.training.sharding import any_sharded, fill

if TYPE_CHECKING:
    import torch

    from sanactl.training.settings import FinetuneSettings

__all__ = ["ADAPTED", "Trainable", "choose_trained"]

ADAPTED = ["to_q", "to_k", "to_v", "to_out.0"]  # of self- and cross-attention, the usual choice


def choose_trained(model: Any, settings: FinetuneSettings, blocks: list[int] | None = None) -> None:
    """Turns `requires_grad` off for parameters that are not trained, and adds adapters.

    Args:
        model: a `SanaTransformer2DModel`.
        settings: `new_blocks_only` and `lora` choose.
        blocks: the new blocks, where only these are trained.

    Raises:
        UsageError: peft is not installed.
    """
    if blocks is not None:
        model.requires_grad_(False)
        for block in blocks:
            model.transformer_blocks[block].requires_grad_(True)
    if settings.lora:
        _add_adapter(model, settings.lora)


class Trainable:
    """A model, and which of its parameters are trained. It is a `Stateful` of `sanactl.training.stored`.

    Args:
        model: a `SanaTransformer2DModel` after `choose_trained`; it may be sharded.
        lora: whether it has adapters.

    Attributes:
        named: the parameters that are trained, with their names.
    """

    def __init__(self, model: Any, lora: bool = False) -> None:
        self.model, self.lora = model, lora
        self.named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """The parameters that are trained."""
        return (p for _, p in self.named)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The model's tensors by the names of a checkpoint, with adapters added to the weights that they adapt."""
        state: dict[str, torch.Tensor] = dict(self.model.state_dict())
        if not self.lora:
            return state
        for name, module in self.model.named_modules():
            if hasattr(module, "get_delta_weight"):
                weight = state[f"{name}.base_layer.weight"]
                state[f"{name}.base_layer.weight"] = weight + module.get_delta_weight("default").to(
                    weight.dtype
                )
        return {k.replace(".base_layer.", "."): v for k, v in state.items() if ".lora_" not in k}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads what `state_dict` gave. Adapters are loaded by `load_extra`; the weights under them are the checkpoint's.

        Args:
            state: tensors; `Source`s for a sharded model.
        """
        if self.lora:
            return
        if any_sharded(self.parameters()):
            fill(self.model.state_dict(), state)
        else:
            self.model.load_state_dict(state)

    def extra(self) -> dict[str, torch.Tensor]:
        """What `state_dict` does not have: the adapters by themselves."""
        return {name: p.detach() for name, p in self.named} if self.lora else {}

    def load_extra(self, extra: Mapping[str, torch.Tensor]) -> None:
        """Loads what `extra` gave."""
        for name, parameter in self.named if self.lora else ():
            scatter(extra[name], parameter)


def _add_adapter(model: Any, rank: int) -> None:
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise UsageError("--lora needs the package peft", hint="pip install 'sanactl[lora]'") from error
    model.requires_grad_(False)
    model.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=ADAPTED))
