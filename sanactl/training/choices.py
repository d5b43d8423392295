"""The settings of a run where the user left something to the checkpoint, the device or the defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sanactl.data.settings import DataSettings
from sanactl.errors import UsageError
from sanactl.optim.table import OPTIMIZERS
from sanactl.training.settings import SCALINGS, SCHEDULES, FinetuneSettings

if TYPE_CHECKING:
    from sanactl.checkpoint.open import Checkpoint

__all__ = ["check_choices", "finetune_settings", "precision_name", "reading_settings", "trained_name"]


def check_choices(
    *, optimizer: str, schedule: str, scale_lr: str, scheme: str = "", text_padding: str = "trim"
) -> None:
    """Refuses names that there are not.

    Raises:
        UsageError: such a name, with those that there are.
    """
    from sanactl.model.sampling_settings import TEXT_PADDING
    from sanactl.optim.blockwise import SCHEMES

    _check("--optimizer", optimizer, tuple(OPTIMIZERS))
    _check("--schedule", schedule, SCHEDULES)
    _check("--scale-lr", scale_lr, SCALINGS)
    _check("--text-padding", text_padding, TEXT_PADDING)
    if scheme:
        _check("--scheme", scheme, SCHEMES)


def finetune_settings(
    checkpoint: Checkpoint,
    *,
    lr: float | None = None,
    clip: float | None = None,
    precision: str | None = None,
    **chosen: Any,
) -> FinetuneSettings:
    """The settings of a run on this checkpoint.

    Args:
        lr: learning rate; None for the checkpoint's own, else the default.
        clip: bound of the gradient's norm; None for the checkpoint's own, else the default.
        precision: "fp32" or "bf16"; None for bf16 on a GPU and fp32 on a CPU.
        chosen: other fields of `FinetuneSettings`. Sizes and the handling of captions are the checkpoint's.

    Raises:
        UsageError: a precision that there is not.
        InputError: the checkpoint's own sampling defaults are out of range.
    """
    from sanactl.model.sampling_settings import sampling_settings

    sampling, own = sampling_settings(checkpoint), checkpoint.sampling
    return FinetuneSettings(
        **chosen,
        learning_rate=float(own.get("learning_rate", FinetuneSettings.learning_rate)) if lr is None else lr,
        clip=float(own.get("clip", FinetuneSettings.clip)) if clip is None else clip,
        height=sampling.height,
        width=sampling.width,
        max_sequence_length=sampling.max_sequence_length,
        complex_human_instruction=sampling.complex_human_instruction,
        precision=precision_name(precision, chosen.get("device")),
    )


def reading_settings(checkpoint: Checkpoint, settings: FinetuneSettings, **chosen: Any) -> DataSettings:
    """How the data of a run are read: in its sizes, with its seed.

    Args:
        chosen: other fields of `DataSettings`.
    """
    from sanactl.model.sampling_settings import pixels_per_latent

    return DataSettings(
        seed=settings.seed,
        height=settings.height,
        width=settings.width,
        multiple=pixels_per_latent(checkpoint) * int(checkpoint.config.get("patch_size", 1)),
        **chosen,
    )


def trained_name(checkpoint: Checkpoint, steps: int) -> str:
    """The name of an output that the user did not name: `base-ft100.st`."""
    return f"{checkpoint.name}-ft{steps}.st"


def _check(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{option} {value}: choose one of {', '.join(allowed)}")


def precision_name(asked: str | None, device: str | None) -> str:
    """accelerate's name of the precision that was asked for."""
    if asked == "fp16":
        raise UsageError(
            "--precision fp16: SANA's activations leave fp16's range and give NaN (NVlabs/Sana issue 65)",
            hint="use bf16",
        )
    if asked is None:
        import torch

        on_gpu = torch.cuda.is_available() and (device or "cuda").startswith("cuda")
        return "bf16" if on_gpu else "no"
    _check("--precision", asked, ("fp32", "no", "bf16"))
    return "no" if asked == "fp32" else asked
