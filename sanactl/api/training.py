"""`sanactl.finetune`: flow matching on images with captions."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sanactl.api.inputs import (
    CheckpointLike,
    DeviceLike,
    DtypeLike,
    PathLike,
    Records,
    as_progress,
    as_records,
    as_target,
    check_seed,
    device_name,
    open_checkpoint,
    opened,
    precision_name,
)
from sanactl.checkpoint.open import Checkpoint
from sanactl.data.settings import DataSettings
from sanactl.files.progress import Progress
from sanactl.training.settings import FinetuneSettings

__all__ = ["finetune"]


def finetune(
    checkpoint: CheckpointLike,
    data: Records | None = None,
    *,
    captions: str | None = DataSettings.captions,
    caption_choice: str | None = DataSettings.caption_choice,
    min_clip_score: float | None = DataSettings.min_clip_score,
    buckets: bool = DataSettings.buckets,
    streaming: bool = DataSettings.streaming,
    max_bad: int = DataSettings.max_bad,
    workers: int | None = FinetuneSettings.workers,
    text_dropout: float = FinetuneSettings.text_dropout,
    flow_shift: float = FinetuneSettings.flow_shift,
    text_padding: str = FinetuneSettings.text_padding,
    steps: int = FinetuneSettings.steps,
    batch_size: int = FinetuneSettings.batch_size,
    lr: float | None = None,
    scale_lr: str = FinetuneSettings.scale_lr,
    optimizer: str = FinetuneSettings.optimizer,
    scheme: str = FinetuneSettings.scheme,
    schedule: str = FinetuneSettings.schedule,
    warmup: int = FinetuneSettings.warmup,
    clip: float | None = None,
    weight_decay: float = FinetuneSettings.weight_decay,
    ema: float = FinetuneSettings.ema,
    train_new_blocks_only: bool = FinetuneSettings.new_blocks_only,
    lora: int = FinetuneSettings.lora,
    teacher: CheckpointLike | None = None,
    teacher_weight: float = FinetuneSettings.teacher_weight,
    feature_weight: float = FinetuneSettings.feature_weight,
    accumulate: int = FinetuneSettings.accumulate,
    gradient_checkpointing: bool = FinetuneSettings.gradient_checkpointing,
    fsdp: bool = FinetuneSettings.fsdp,
    offload_optimizer: bool = FinetuneSettings.offload_optimizer,
    precision: DtypeLike | None = None,
    device: DeviceLike | None = FinetuneSettings.device,
    cache: int = FinetuneSettings.cache,
    save_every: int = FinetuneSettings.save_every,
    keep_last: int = FinetuneSettings.keep_last,
    tracker: str | None = FinetuneSettings.tracker,
    resume: bool = FinetuneSettings.resume,
    seed: int = FinetuneSettings.seed,
    components: PathLike | None = None,
    revision: str | None = None,
    output: PathLike | None = None,
    force: bool = False,
    progress: bool | Progress = False,
    on_step: Callable[[dict[str, Any]], None] | None = None,
) -> Checkpoint:
    """Trains a checkpoint by flow matching. Ctrl-C saves the state; the same call goes on from there.

    Args:
        checkpoint: what to start from: a path, a Hub id, or an opened checkpoint.
        data: images with captions: image records in a list, or what docs/data.md lists (a folder, a dataset id, .tar or
            .parquet files, ...); by default the built-in world's endless stream.
        captions: columns to take captions from, with weights ("text:0.7,short:0.3").
        caption_choice: "clipscore:25:0.1" draws among an image's captions by their CLIP scores, as SANA's code does.
        min_clip_score: with it, the smallest CLIP score of the prompt of images that are used; None is 22.
        buckets, streaming, max_bad: keep aspect ratios; read a dataset as a stream; damaged images to skip.
        workers: processes that read images ahead; None is up to 4 on a GPU, none on a CPU.
        text_dropout: share of the captions that are replaced by the empty prompt, 0 to 1.
        flow_shift: shift of the noise levels towards noise.
        text_padding: "trim" pads the texts of a part of a batch to the next of a few lengths, "full" to the longest that
            there may be.
        steps: updates of the weights. The paper recovers a pruned model in 100.
        batch_size: images of a step, over all processes and accumulated parts.
        lr: learning rate; None is the checkpoint's own, else 2e-5.
        scale_lr: "none", or by the "sqrt" or "linear" ratio of `batch_size` to 256.
        optimizer: one of `sanactl.optim.OPTIMIZERS`; `scheme` is the quantization scheme of came8bit's first moment.
        schedule, warmup: of the learning rate: "constant", "cosine" or "linear"; steps until it has its value.
        clip: largest norm of the gradient, 0 sets no bound; None is the checkpoint's own, else 0.1.
        weight_decay, ema: decoupled weight decay; decay of the weights' average, which is then written.
        train_new_blocks_only, lora: train the blocks that `grow` added; adapters of this rank.
        teacher: the checkpoint that was pruned, to learn from as well.
        teacher_weight, feature_weight: share of the teacher's velocity in the loss; weight of the blocks' outputs.
        offload_optimizer: keep the optimizer's state in the machine's memory while a GPU trains.
        accumulate, gradient_checkpointing, precision: less memory for more time; "fp32" or "bf16" (autocast) or a
            `torch.dtype`, None is bf16 on a GPU and fp32 on a CPU.
        fsdp: divide weights, gradients and optimizer state among the processes of a launcher (FSDP2).
        device: where to train, a name or a `torch.device`; None is the best there is.
        cache: encode this many images once, and train only on these; 0: none.
        save_every, keep_last, resume: steps between saved states (0: ten minutes); how many are kept; go on from one.
        tracker: also log to "tensorboard", "wandb" or "trackio".
        seed: of data, noise, noise levels and dropped captions.
        components, revision: see `sanactl.open_checkpoint`.
        output: the .st file to write; by default `NAME-ftSTEPS.st` in the current folder.
        force: replace it where it is there.
        progress: True for a bar of the steps.
        on_step: called after each step with "step", "loss", "lr", "grad_norm", "images_per_second".

    Returns:
        the trained checkpoint, opened. The loss of every step is in `NAME.train.jsonl` beside it.

    Raises:
        UsageError: settings that do not go together or that there are not.
        InputError: bad data; another run makes the same output right now.
        OutputExistsError: the output is there from something else, and `force` was not given.
        TrainingError: the loss is not finite or diverged; the run was terminated, with its state saved.

    Source: section 2.4 (recovery), section 2.3 (CAME-8bit); flow matching as in the reference code.
    """
    from sanactl.data import open_training_data
    from sanactl.errors import TrainingError
    from sanactl.model.processes import open_processes
    from sanactl.training.checks import check_run
    from sanactl.training.choices import check_choices, finetune_settings, reading_settings, trained_name
    from sanactl.training.figures import FiguresFile, figures_path
    from sanactl.training.finetune import finetune as train
    from sanactl.training.outputs import check_outputs

    check_choices(
        optimizer=optimizer, schedule=schedule, scale_lr=scale_lr, scheme=scheme, text_padding=text_padding
    )
    check_seed(seed)
    found = opened(checkpoint, revision, components)
    settings = finetune_settings(
        found,
        lr=lr,
        clip=clip,
        precision=precision_name(precision),
        steps=steps,
        batch_size=batch_size,
        accumulate=accumulate,
        scale_lr=scale_lr,
        optimizer=optimizer,
        scheme=scheme,
        schedule=schedule,
        warmup=warmup,
        weight_decay=weight_decay,
        text_dropout=text_dropout,
        flow_shift=flow_shift,
        text_padding=text_padding,
        ema=ema,
        seed=seed,
        gradient_checkpointing=gradient_checkpointing,
        fsdp=fsdp,
        offload_optimizer=offload_optimizer,
        new_blocks_only=train_new_blocks_only,
        lora=lora,
        teacher_weight=teacher_weight,
        feature_weight=feature_weight,
        cache=cache,
        workers=workers,
        save_every=save_every,
        keep_last=keep_last,
        device=device_name(device),
        tracker=tracker,
        resume=resume,
    )
    reading = reading_settings(
        found,
        settings,
        captions=captions,
        caption_choice=caption_choice,
        min_clip_score=min_clip_score,
        buckets=buckets,
        streaming=streaming,
        max_bad=max_bad,
    )
    taught_by = None if teacher is None else open_checkpoint(teacher)
    target = as_target(output, trained_name(found, steps))
    check_run(found, settings, taught_by)
    check_outputs(target, force=force, tracker=tracker)
    named = data is None or isinstance(data, str | os.PathLike)
    source = open_training_data(
        os.fspath(data) if isinstance(data, str | os.PathLike) else None,
        reading,
        records=None if named or data is None else list(as_records(data, "image")),
    )
    sink, first = as_progress(progress), open_processes().is_main_process
    figures = FiguresFile(figures_path(Path(target)), target, sink.note)

    def step(point: dict[str, Any]) -> None:
        if first:
            figures.add(point)
        if on_step is not None:
            on_step(point)

    with figures:
        summary = train(
            found,
            source,
            settings,
            target=target,
            teacher=taught_by,
            force=force,
            progress=sink,
            on_step=step,
        )
    if not summary["finished"]:
        raise TrainingError(
            f"terminated at step {summary['step']} of {summary['of']}; its state is in {summary['state']}",
            hint="the same call goes on from there",
        )
    if first:
        figures.finish()
    return open_checkpoint(target)
