"""Loading a checkpoint's modules: the transformer and the components that its header names."""

from __future__ import annotations

import logging
import re
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch

from sanactl.checkpoint.components import component_source
from sanactl.checkpoint.config import CONFIG_DEFAULTS
from sanactl.checkpoint.copy import Sources
from sanactl.checkpoint.given import published_components
from sanactl.checkpoint.open import Checkpoint
from sanactl.errors import InputError, UsageError
from sanactl.files.dtypes import WEIGHT_DTYPES, find_dtype
from sanactl.files.paths import utf8_name
from sanactl.model import stored
from sanactl.model.components import load_text_encoder, load_tokenizer, load_vae
from sanactl.model.schedulers import load_scheduler
from sanactl.model.tensors import TORCH_DTYPES, read_tensor

__all__ = [
    "Components",
    "component_dtype",
    "components_hint",
    "dtype_warning",
    "empty_transformer",
    "fill_position_embedding",
    "load_components",
    "load_transformer",
    "quiet_libraries",
    "resolve_dtype",
]

_NAMES = {"text_encoder": "text encoder", "vae": "VAE"}


@dataclass
class Components:
    """The loaded components of a transformer; a component is None if it was not asked for."""

    tokenizer: Any = None
    text_encoder: Any = None
    vae: Any = None
    scheduler: Any = None


def resolve_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """The dtype called `name` ("bf16", "bfloat16"); by default bf16 on an accelerator and fp32 on the CPU.

    Raises:
        UsageError: the dtype is unknown.
    """
    if name is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    found = find_dtype(name)
    if found is None:
        raise UsageError(f"unknown dtype {name!r}", hint=f"choose one of {', '.join(WEIGHT_DTYPES)}")
    return TORCH_DTYPES[found.name]


def component_dtype(dtype: torch.dtype, device: torch.device | str) -> torch.dtype:
    """The dtype of the text encoder and the VAE for a transformer in `dtype`; never fp16, because both overflow in it.

    diffusers' page on SANA recommends bf16 or fp32. Instead of fp16 it is bf16 on a GPU that has it, else fp32.
    """
    if dtype != torch.float16:
        return dtype
    if torch.device(device).type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32


# (heads, head size) of SANA-1.0's transformers of any depth: 0.6B and 1.6B.
_SANA_1_0 = ((36, 32), (70, 32))
_SANA_1_0_BF16 = re.compile(r"sana_\w*bf16", re.IGNORECASE)


def dtype_warning(checkpoint: Checkpoint, dtype: torch.dtype) -> str | None:
    """A warning if these weights are known to fail in this dtype, or None.

    The first releases of SANA-1.0 were trained in fp16: their activations pass fp16's largest number and are cut there,
    which neither bf16 nor fp32 does (NVlabs/Sana issue 47, diffusers issue 10336). The releases with BF16 in their name
    were trained in bf16. Nothing in shapes or dtypes of the files tells the two apart.
    """
    config = checkpoint.config
    heads = (config.num_attention_heads, config.attention_head_dim)
    if config.qk_norm is not None or heads not in _SANA_1_0 or dtype == torch.float16:
        return None
    if config.guidance_embeds or any(map(_SANA_1_0_BF16.search, _names(checkpoint))):
        return None
    name = next((short for short, d in WEIGHT_DTYPES.items() if TORCH_DTYPES[d.name] == dtype), str(dtype))
    return (
        f"{checkpoint.path} has the shape of SANA-1.0. Most releases of it were trained in fp16, and their images are broken"
        f" in {name}: then use --dtype fp16. It is right in {name} if it comes from a release with BF16 in its name"
    )


def _names(checkpoint: Checkpoint) -> list[str]:
    """The names of a checkpoint and of its ancestors."""
    parents = [parent for step in checkpoint.lineage for parent in step.get("parents") or ()]
    return [checkpoint.ref, str(checkpoint.path), *(str(parent.get("name")) for parent in parents)]


def load_transformer(
    checkpoint: Checkpoint,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    keep: bool = False,
) -> Any:
    """The checkpoint's `SanaTransformer2DModel`, in eval mode.

    Args:
        keep: keep the weights of a large model in their file's dtype, where the cast to `dtype` is exact
            (`sanactl.model.stored`).

    Raises:
        InputError: if the weights do not fit the config, or the file changed since it was opened.
    """
    keep = keep and checkpoint.num_parameters >= stored.LARGE
    model = empty_transformer(checkpoint)
    state: dict[str, torch.Tensor] = {}
    with closing(Sources(checkpoint.stamps)) as sources:
        for name, ref in checkpoint.tensors.items():
            tensor = read_tensor(sources, ref)
            state[name] = tensor.to(device).to(stored.kept_dtype(tensor.dtype, dtype) if keep else dtype)
        sources.check()
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    if missing or unexpected:
        what = f"lacks {missing[0]}" if missing else f"has {unexpected[0]}, which its config does not know"
        raise InputError(f"{checkpoint.path}: {what}")
    fill_position_embedding(model, checkpoint)
    if keep:
        stored.cast_in_use(model, dtype)
        return model.eval()
    return model.to(device=device, dtype=dtype).eval()


def empty_transformer(checkpoint: Checkpoint) -> Any:
    """The checkpoint's `SanaTransformer2DModel` on the meta device."""
    from diffusers import SanaTransformer2DModel

    quiet_libraries()
    with torch.device("meta"):
        return SanaTransformer2DModel(**_config(checkpoint))


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    # Settings of later versions of diffusers are ignored, as in diffusers; the tensors' shapes were checked before.
    return {key: checkpoint.config[key] for key in CONFIG_DEFAULTS}


def fill_position_embedding(model: Any, checkpoint: Checkpoint) -> None:
    """The sine-cosine table is a buffer that no checkpoint stores: compute it as a fresh module does."""
    if getattr(model.patch_embed, "pos_embed", None) is None:
        return
    fresh = type(model)(**{**_config(checkpoint), "num_layers": 0})
    model.patch_embed.pos_embed = fresh.patch_embed.pos_embed


def load_components(
    checkpoint: Checkpoint,
    *,
    parts: tuple[str, ...] = ("tokenizer", "text_encoder", "vae", "scheduler"),
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    keep: bool = False,
) -> Components:
    """Load the named components.

    Args:
        keep: keep the text encoder's weights in their file's dtype (`load_text_encoder`).

    Raises:
        InputError: if the checkpoint names none, or what it names cannot be loaded.
    """
    quiet_libraries()
    dtype = component_dtype(dtype, device)
    found = Components()
    for part in parts:
        entry = checkpoint.components.get(part)
        if entry is None:
            raise InputError(
                f"{checkpoint.path}: names no {part}",
                hint=components_hint(checkpoint),
            )
        source, options = component_source(checkpoint, entry)
        try:
            with utf8_name(source) as place:
                setattr(found, part, _load_part(part, place, options, device, dtype, keep))
        except InputError as error:
            raise InputError(
                f"{checkpoint.path}: its {_NAMES.get(part, part)}: {error.message}", hint=error.hint
            ) from error
    channels = checkpoint.config.in_channels
    if found.vae is not None and found.vae.config.latent_channels != channels:
        raise InputError(
            f"{checkpoint.path}: its VAE makes latents of {found.vae.config.latent_channels} channels, and the transformer"
            f" takes {channels}",
            hint="name the VAE that it was trained with",
        )
    return found


def components_hint(checkpoint: Checkpoint) -> str:
    """What to do where a checkpoint does not name its components."""
    known = published_components(checkpoint.config)
    if known is None:
        return "--components FOLDER|HUB-ID names the pipeline that it belongs to"
    return f"--components {known} takes those of the published pipeline"


def quiet_libraries() -> None:
    """Hide progress bars and notes of the model libraries; their errors are still shown."""
    import diffusers
    import transformers

    # On import, bitsandbytes reports an optional kernel that nothing here uses.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()


def _load_part(
    part: str, source: str, options: dict[str, Any], device: Any, dtype: torch.dtype, keep: bool
) -> Any:
    if part == "tokenizer":
        return load_tokenizer(source, options)
    if part == "scheduler":
        return load_scheduler(source, options)
    if part == "vae":
        return load_vae(source, options, device=device, dtype=dtype)
    return load_text_encoder(source, options, device=device, dtype=dtype, keep=keep)
