"""`sanactl.grow`, `sanactl.prune`, `sanactl.convert`: bytes from file to file, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.api.inputs import (
    CheckpointLike,
    DtypeLike,
    PathLike,
    Records,
    as_progress,
    as_records,
    as_target,
    check_seed,
    dtype_name,
    open_checkpoint,
    opened,
    warn,
)
from sanactl.checkpoint.open import Checkpoint
from sanactl.checkpoint.target import target_kind
from sanactl.checkpoint.write import Plan, write_checkpoint
from sanactl.errors import UsageError
from sanactl.files.progress import Progress
from sanactl.surgery.grow import Growth

if TYPE_CHECKING:
    from sanactl.surgery.choice import Wish

__all__ = ["convert", "grow", "prune"]

SHARD_SIZE = "5GB"


def grow(
    checkpoint: CheckpointLike,
    to: int | None = None,
    *,
    init: str = Growth.init,
    drop_last: int | None = Growth.drop_last,
    position: str | int = Growth.position,
    zero_init: bool | None = Growth.zero_init,
    qk_norm: bool = Growth.qk_norm,
    sigma: float = Growth.sigma,
    sigma_depthwise: float = Growth.sigma_depthwise,
    sigma_noise: float = Growth.sigma_noise,
    seed: int = Growth.seed,
    verify: bool = False,
    pipeline: bool = False,
    link: bool = False,
    shard_size: str | int = SHARD_SIZE,
    components: PathLike | None = None,
    revision: str | None = None,
    output: PathLike | None = None,
    force: bool = False,
    progress: bool | Progress = False,
) -> Checkpoint:
    """Makes a checkpoint deeper and keeps what it knows.

    Args:
        checkpoint: the parent: a path, a Hub id, or an opened checkpoint.
        to: blocks of the result. May be left out with `qk_norm`.
        init: how new blocks begin: "partial" (random, the identity), "cyclic" or "replicate" (copies), "progressive"
            (the block before plus noise), "interpolate" (between two blocks).
        drop_last: leave out this many last blocks first; None is 2 for partial, else 0.
        position: where new blocks go: "end", "interleave", or the number of the kept block before which they go.
        zero_init: new blocks and copies begin as the identity; None is yes for partial, else no.
        qk_norm: insert SANA-1.5's QK norms, of weights one, into a SANA-1.0 checkpoint.
        sigma, sigma_depthwise: standard deviations of partial's weights and of its depth-wise convolutions.
        sigma_noise: standard deviation of progressive's noise.
        seed: of all that is drawn.
        verify: run parent and child on random latents in fp32 on the CPU, and fail where they must not differ.
        pipeline, link, shard_size: write a pipeline folder; with links to its components; in files of this size.
        components, revision: see `sanactl.open_checkpoint`.
        output: a .st or .safetensors file, or a folder; by default `NAME-dTO.st` in the current folder.
        force: replace an output that is there.
        progress: True for a bar of the bytes written.

    Returns:
        the child, opened. Its file is written whole or not at all.

    Raises:
        UsageError: impossible numbers, an unknown `init`, an output that cannot be written.
        OutputExistsError: the output is there, and `force` was not given.
        InputError: the parent is no SANA checkpoint.
        SanactlError: no space; with `verify`, a child that is not the function that it should be.

    Source: section 2.2, figure 11; QK norms: appendix C.
    """
    from sanactl.surgery.grow import plan_grow, plan_qk_norm
    from sanactl.surgery.names import grown_name

    if to is None and not qk_norm:
        raise UsageError("grow needs `to`, the number of blocks", hint="for example to=60")
    check_seed(seed)
    parent = opened(checkpoint, revision, components)
    if to is None:
        plan = plan_qk_norm(parent)
    else:
        growth = Growth(
            to=to,
            init=init,
            drop_last=drop_last,
            zero_init=zero_init,
            sigma=sigma,
            sigma_depthwise=sigma_depthwise,
            sigma_noise=sigma_noise,
            seed=seed,
            position=position,
            qk_norm=qk_norm,
        )
        plan = plan_grow(parent, growth)
    target = as_target(output, grown_name(parent, to, pipeline=pipeline))
    child = _written(plan, target, force, shard_size, _form(pipeline, link), as_progress(progress))
    if verify:
        from sanactl.sampling.verify import verified_difference

        verified_difference(parent, child, plan.lineage[-1]["arguments"])
    return child


def prune(
    checkpoint: CheckpointLike,
    keep: int | None = None,
    *,
    params: str | int | None = None,
    bytes: str | int | None = None,
    blocks: str | Sequence[int] | None = None,
    drop: str | Sequence[int] | None = None,
    importance: Records | None = None,
    span: bool = False,
    protect_head: int = 0,
    protect_tail: int = 0,
    pipeline: bool = False,
    link: bool = False,
    shard_size: str | int = SHARD_SIZE,
    components: PathLike | None = None,
    revision: str | None = None,
    output: PathLike | None = None,
    force: bool = False,
    progress: bool | Progress = False,
) -> Checkpoint:
    """Keeps the most important blocks, in their order. One of the first five options says what stays.

    Args:
        checkpoint: the parent: a path, a Hub id, or an opened checkpoint.
        keep: this many blocks, the most important ones.
        params: as many blocks as come closest to this many parameters: "1.6B" or a number.
        bytes: as many blocks as fit into a file of this size: "4GB" or a number.
        blocks: exactly these, from 0, in a list or as "0-9,-1".
        drop: all but these.
        importance: block records (of `sanactl.importance`) or a file of them; needed for `keep`, `params`, `bytes`.
        span: drop one contiguous span of blocks, that with the least total importance.
        protect_head, protect_tail: this many first and last blocks stay in any case.
        pipeline, link, shard_size, components, revision, force, progress: as of `sanactl.grow`.
        output: a .st or .safetensors file, or a folder; by default `NAME-dKEPT.st` in the current folder.

    Returns:
        the child, opened. Its file is written whole or not at all; `lineage[-1]["arguments"]["blocks"]` has the
        numbers of the blocks that stayed.

    Raises:
        UsageError: none or several of the options, a depth or a block that there is not.
        InputError: no importance where it is needed, or that of another checkpoint.
        OutputExistsError: the output is there, and `force` was not given.

    Source: section 2.4, figure 5; spans: Gromov et al. 2024.
    """
    from sanactl.surgery.choice import Wish, importance_values
    from sanactl.surgery.names import pruned_name
    from sanactl.surgery.prune import plan_prune

    wish = Wish(
        _text(keep),
        _text(params),
        _text(bytes),
        _text(blocks),
        _text(drop),
        protect=(protect_head, protect_tail),
        span=span,
    )
    wish.check()
    parent = opened(checkpoint, revision, components)
    _check_one_depth(wish, parent)
    values = None
    if importance is not None:
        where = str(importance) if isinstance(importance, str | Path) else "the importance"
        values = importance_values(parent, list(as_records(importance, "block")), where)
    elif wish.by_importance:
        raise UsageError(
            f"no importance of {parent.source}",
            hint="importance=sanactl.importance(checkpoint), or name blocks with blocks=",
        )
    choice = wish.choices(parent, values)[0]
    target = as_target(output, pruned_name(parent, len(choice.kept), pipeline=pipeline))
    plan = plan_prune(parent, choice.kept)
    return _written(plan, target, force, shard_size, _form(pipeline, link), as_progress(progress))


def convert(
    checkpoint: CheckpointLike,
    *,
    dtype: DtypeLike | None = None,
    config: PathLike | Mapping[str, Any] | None = None,
    variant: str | None = None,
    components: PathLike | None = None,
    revision: str | None = None,
    pipeline: bool = False,
    link: bool = False,
    shard_size: str | int = SHARD_SIZE,
    output: PathLike | None = None,
    force: bool = False,
    progress: bool | Progress = False,
) -> Checkpoint:
    """Changes a checkpoint's format, loss-free, or its dtype. The output's name decides the format.

    Args:
        checkpoint: a path, a Hub id, or an opened checkpoint.
        dtype: cast every tensor, rounding to nearest even: "bf16", "fp16", "fp32", or a `torch.dtype`. None keeps all
            bytes as they are.
        config, variant: see `sanactl.open_checkpoint`.
        output: a .st or .safetensors file, a .pth (native layout) or a folder (diffusers transformer, or with
            `pipeline` a whole pipeline); by default `NAME.st` or `NAME-DTYPE.st` in the current folder.
        components, revision, pipeline, link, shard_size, force, progress: as of `sanactl.grow`.

    Returns:
        the result, opened. It is written whole or not at all.

    Raises:
        UsageError: an unknown dtype, a suffix that is not written, an output that is the input.
        InputError: the checkpoint is none, or holds what the layout or the dtype cannot.
        OutputExistsError: the output is there, and `force` was not given.

    Source: docs/checkpoints.md; the native layout is the reference code's (NVlabs/Sana).
    """
    from sanactl.files.dtypes import find_dtype
    from sanactl.surgery.convert import plan_convert
    from sanactl.surgery.names import converted_name

    parent = open_checkpoint(
        checkpoint, revision=revision, variant=variant, config=config, components=components
    )
    name = dtype_name(dtype)
    known = find_dtype(name) if name is not None else None
    short = known.short if known is not None else name
    target = as_target(output, converted_name(parent, short, pipeline=pipeline))
    if output is None and parent.path.absolute() == target.absolute():
        raise UsageError(f"{parent.path} is a .st file already", hint="name another output, or a dtype")
    plan = plan_convert(parent, target, name)
    return _written(plan, target, force, shard_size, _form(pipeline, link), as_progress(progress))


def _form(pipeline: bool, link: bool) -> bool | None:
    """Whether a pipeline's components are links; None where no pipeline is written."""
    if link and not pipeline:
        raise UsageError("link goes with pipeline")
    return link if pipeline else None


def _written(
    plan: Plan, target: Path, force: bool, shard_size: str | int, link: bool | None, progress: Progress
) -> Checkpoint:
    for warning in plan.warnings:
        warn(warning)
    if link is None:
        write_checkpoint(plan, target, force, shard_size=shard_size, progress=progress)
    else:
        if target_kind(target) != "folder":
            raise UsageError(
                f"pipeline writes a folder, and {target} names a file", hint="leave the suffix out"
            )
        from sanactl.checkpoint.pipeline import write_pipeline

        write_pipeline(plan, target, force, link=link, shard_size=shard_size, progress=progress)
    child = open_checkpoint(target)
    child.read_hashes(progress, plan.known_hashes())
    return child


def _text(value: str | int | Iterable[int] | None) -> str | None:
    """An option as the command line has it: a number or a list of block numbers as text."""
    if value is None or isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) else ",".join(map(str, value))


def _check_one_depth(wish: Wish, parent: Checkpoint) -> None:
    if len(wish.depths(parent)) > 1:
        raise UsageError(
            "keep takes one depth, and one checkpoint is returned", hint="call prune for each depth"
        )
