"""A vision-language model that is trained: which of its weights, adapters, and what a saved state holds of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from sanactl.errors import InputError

if TYPE_CHECKING:
    from sanactl.training.judge.settings import TuningSettings

__all__ = ["TrainedModel"]

# Names of the part between vision tower and language model in transformers' classes.
_PROJECTOR = re.compile(r"projector|connector|merger|aligner|resampler|abstractor|perceiver|mlp1")
# Attributes of attention and other modules that are shares of dropped values.
_DROPOUTS = ("dropout", "attention_dropout", "activation_dropout", "resid_dropout", "hidden_dropout")


class TrainedModel:
    """A model, and which of its parameters are trained; `sanactl.training.state` saves these alone.

    Dropout is off, as in NVILA's and LLaVA's training, so that a step is a function of its batch.

    Args:
        model: an image-text-to-text model of transformers; its `requires_grad` and dropout are set.
        settings: `train`, `lora`, `quantize`, `gradient_checkpointing`.
        name: of the model, for errors.

    Attributes:
        named: the parameters that are trained, with their names.

    Raises:
        InputError: the part that is to be trained cannot be told from the rest.
    """

    def __init__(self, model: Any, settings: TuningSettings, name: str) -> None:
        self.model, self.lora = model, bool(settings.lora)
        if settings.gradient_checkpointing:
            _recompute_activations(model)
        if settings.quantize:
            from peft import prepare_model_for_kbit_training

            prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        model.requires_grad_(False)
        if settings.lora:
            _add_adapters(model, settings.lora, name)
        else:
            for parameter in _chosen(model, settings.train, name):
                parameter.requires_grad_(True)
        for parameter in model.parameters():
            if parameter.requires_grad:  # peft gives adapters the dtype of the weights under them
                parameter.data = parameter.data.float()
        model.train()
        _without_dropout(model)
        self.named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """The parameters that are trained."""
        return (p for _, p in self.named)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The parameters that are trained, by name."""
        return {name: parameter.detach() for name, parameter in self.named}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Loads what `state_dict` gave."""
        for name, parameter in self.named:
            parameter.data.copy_(state[name])

    def write_into(self, model: Any) -> None:
        """Copies what was learned into another copy of the model that was started from; adapters are added to its weights."""
        weights = dict(model.named_parameters())
        with torch.no_grad():
            if not self.lora:
                for name, parameter in self.named:
                    weights[name].copy_(parameter)
                return
            for name, module in self.model.named_modules():
                if hasattr(module, "get_delta_weight"):
                    weight = weights[f"{name}.weight"]
                    delta = module.get_delta_weight("default").to("cpu", torch.float32)
                    weight.copy_(weight.float() + delta)


def _recompute_activations(model: Any) -> None:
    """Gradient checkpointing of every layer; not the reentrant kind, which has no gradients of chosen tensors."""
    options = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):  # its name from transformers 5.20 on
        model.activation_checkpointing_enable(options)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


def _chosen(model: Any, train: str, name: str) -> Iterator[torch.nn.Parameter]:
    if train == "all":
        yield from model.parameters()
        return
    language = _language_model(model, name)
    inside = {id(p) for p in language.parameters()}
    head = model.get_output_embeddings()
    if head is not None:
        inside |= {id(p) for p in head.parameters()}
    projector = [p for n, p in model.named_parameters() if id(p) not in inside and _PROJECTOR.search(n)]
    if train == "projector+llm" and not projector:
        raise InputError(f"{name}: its projector is not known", hint="--train all or --train llm")
    yield from (p for p in model.parameters() if id(p) in inside)
    if train == "projector+llm":
        yield from projector


def _language_model(model: Any, name: str) -> Any:
    language = model.get_decoder()
    if language is None or language is model:
        raise InputError(
            f"{name}: its language model is not a part of its own", hint="train all of it (--train all)"
        )
    return language


def _add_adapters(model: Any, rank: int, name: str) -> None:
    """Adapters on every linear layer of the language model, the usual choice for QLoRA (Dettmers et al. 2023)."""
    from peft import LoraConfig

    language = _language_model(model, name)
    prefix = next(n for n, module in model.named_modules() if module is language)
    linear = {
        n.rpartition(".")[2] for n, m in language.named_modules() if n and isinstance(m, torch.nn.Linear)
    }
    if not linear:
        raise InputError(f"{name}: its language model has no linear layer for --lora")
    targets = rf"{re.escape(prefix)}\..*\b(?:{'|'.join(sorted(linear))})"
    model.add_adapter(LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=targets))


def _without_dropout(model: torch.nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
        for attribute in _DROPOUTS:
            if isinstance(getattr(module, attribute, None), float):
                setattr(module, attribute, 0.0)
