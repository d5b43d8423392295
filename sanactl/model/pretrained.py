"""A transformers model from a folder or the Hub, with its weights checked against its config."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

import torch

from sanactl.model import stored
from sanactl.model.guard import Weights, check_loaded, check_size, pin_attention
from sanactl.model.tensors import TORCH_DTYPES, TensorFile, own_memory, steady_files

__all__ = ["load_checked", "load_kept", "place_on"]


def load_checked(
    auto_class: Any,
    source: str,
    weights: Weights | None,
    dtype: torch.dtype,
    options: Mapping[str, Any] | None = None,
    *,
    unneeded: str | None = None,
    **loading: Any,
) -> Any:
    """Loads a model without code of its repository.

    Args:
        auto_class: AutoModel, AutoModelForImageTextToText...
        source: a folder or a Hub id.
        weights: what the folder holds; None where that is not known before it is loaded.
        dtype: of the model.
        options: where to look, for config and weights (subfolder, revision).
        unneeded: a regular expression of tensors that may be missing, since nothing is computed with them.
        **loading: more options of `from_pretrained` for the weights.

    Raises:
        InputError: the weights are not those of the config.
    """
    from transformers import AutoConfig

    found = dict(options or {})
    config = AutoConfig.from_pretrained(source, trust_remote_code=False, **found)
    pin_attention(config)
    if weights is not None:
        with torch.device("meta"):
            built = auto_class.from_config(copy.deepcopy(config), trust_remote_code=False)
        check_size(built, weights, f"{source}/config.json")
    with steady_files(source) as mapped:
        model, info = auto_class.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # `check_loaded` names the tensor
            output_loading_info=True,
            **{**found, **loading, **mapped},
        )
    if unneeded is not None:
        wanted = [n for n in map(str, info.get("missing_keys") or ()) if not re.fullmatch(unneeded, n)]
        info = {**info, "missing_keys": wanted}
    check_loaded(info, source)
    return model


def load_kept(auto_class: Any, source: str, weights: Weights, dtype: torch.dtype) -> Any | None:
    """A model on the CPU that computes in `dtype`, with weights in the narrower dtype of a local folder's files.

    Each tensor is read once, into memory of this process. Results are those of `load_checked`.

    Args:
        auto_class, source, weights: see `load_checked`.

    Returns:
        None if the model is small, or the files have several dtypes or one that is not exact in `dtype`
        (`sanactl.model.stored`).

    Raises:
        InputError: the weights are not those of the config.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig

    kinds = {TORCH_DTYPES[info.dtype] for info in weights.tensors.values()}
    kept = kinds.pop() if len(kinds) == 1 else dtype
    if kept == dtype or stored.kept_dtype(kept, dtype) != kept or weights.numel < stored.LARGE:
        return None
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    pin_attention(config)
    # Buffers that no file holds are made in `dtype`; in a narrower one they would be rounded.
    with init_empty_weights(include_buffers=False):
        model = auto_class.from_config(copy.deepcopy(config), dtype=dtype, trust_remote_code=False)
    check_size(model, weights, f"{source}/config.json")
    files = {path: TensorFile(path) for path in dict.fromkeys(weights.files.values())}
    state = {name: files[path].read(name) for name, path in weights.files.items()}
    for file in files.values():
        file.check()
        file.close()
    # The library knows how names in files and in the model correspond.
    loaded, info = type(model).from_pretrained(
        None,
        config=config,
        state_dict=state,
        dtype=kept,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    check_loaded(info, source)
    model.load_state_dict(loaded.state_dict(), assign=True)
    stored.cast_in_use(model, dtype)
    return model


def place_on(model: Any, device: Any) -> Any:
    """The model on a device, its tensors in memory of their own and no longer in the file."""
    model = model.to(device)
    own_memory(model)
    return model
