"""Reading sanactl's strings in a checkpoint's header: config, components, sampling defaults and lineage.

`sanactl.checkpoint.metadata` writes them. Each is checked once, here. Unknown keys are kept. A key of sanactl with a value
of the wrong type is refused, so other code can rely on the types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sanactl.checkpoint.config import MAX_BLOCKS
from sanactl.errors import InputError
from sanactl.files.json_values import brief, parse_json, shown

__all__ = ["MAX_STEPS", "Stored", "decode_metadata"]

MAX_STEPS = 1000  # of a lineage
_MAX_VALUE = 16_000_000  # characters of one of the strings
_MAX_PIXELS = 1 << 16  # a side
_OLD_COMPONENTS = "sanactl.companions"  # the name before version 0.2

_Check = Callable[[Any], bool]


@dataclass(frozen=True)
class Stored:
    """What a header holds beside its tensors. Headers of other programs have none of it.

    Attributes:
        config: of the transformer, not yet checked by `check_config`; or None.
        components: component name to {"source", "subfolder", "revision"}.
        sampling: default sampling settings.
        lineage: how the checkpoint was made, oldest step first.
    """

    config: dict[str, Any] | None = None
    components: dict[str, dict[str, Any]] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    lineage: list[dict[str, Any]] = field(default_factory=list)


def decode_metadata(metadata: Mapping[str, str], where: str) -> Stored:
    """Read back what `encode_metadata` wrote.

    Raises:
        InputError: a key of sanactl has a value of the wrong type or range.
    """
    config = _read(metadata, "config", dict, where)
    key = "sanactl.components" if "sanactl.components" in metadata else _OLD_COMPONENTS
    components = _read(metadata, key, dict, where) or {}
    sampling = _read(metadata, "sanactl.sampling", dict, where) or {}
    lineage = _read(metadata, "sanactl.lineage", list, where) or []
    for name, entry in components.items():
        _check_component(name, entry, f"{where}: the header's {key}")
    _check_fields(sampling, _SAMPLING, f"{where}: the header's sanactl.sampling")
    if len(lineage) > MAX_STEPS:
        raise InputError(f"{where}: the header's sanactl.lineage has {len(lineage):,} steps")
    for number, step in enumerate(lineage, 1):
        _check_step(step, f"{where}: step {number} of the header's sanactl.lineage")
    return Stored(config, components, sampling, lineage)


def _read(metadata: Mapping[str, str], key: str, kind: type, where: str) -> Any:
    if key not in metadata:
        return None
    text = metadata[key]
    if len(text) > _MAX_VALUE:
        raise InputError(f"{where}: the header's {key} has {len(text):,} characters")
    try:
        value = parse_json(text)
    except ValueError as error:
        raise InputError(f"{where}: the header's {key} is not valid JSON ({error})") from error
    if not isinstance(value, kind):
        name = {"dict": "an object", "list": "a list"}[kind.__name__]
        raise InputError(f"{where}: the header's {key} is {brief(value)}, not {name}")
    return value


def _text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _optional_text(value: Any) -> bool:
    return value is None or _text(value)


def _whole(low: int, high: int) -> _Check:
    return lambda value: type(value) is int and low <= value <= high


def _number(low: float, high: float) -> _Check:
    return lambda value: type(value) in (int, float) and low <= value <= high


def _switch(value: Any) -> bool:
    return type(value) is bool


def _blocks(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) <= MAX_BLOCKS and all(_whole(0, MAX_BLOCKS)(n) for n in value)
    )


def _position(value: Any) -> bool:
    return value in ("end", "interleave") or _whole(0, MAX_BLOCKS)(value)


def _seed(value: Any) -> bool:
    return value is None or type(value) is int


# The check of each key: of the sampling defaults, of a lineage step, of a step's arguments.
_SAMPLING: Mapping[str, _Check] = {
    "height": _whole(1, _MAX_PIXELS),
    "width": _whole(1, _MAX_PIXELS),
    "steps": _whole(1, 10_000),
    "guidance_scale": _number(-1e4, 1e4),
    "flow_shift": lambda value: value is None or _number(1e-6, 1e4)(value),
    "max_sequence_length": _whole(1, 1 << 16),
    "complex_human_instruction": lambda value: isinstance(value, bool | str | list | None),
    "negative_prompt": _text,
    "learning_rate": _number(0, 1e4),
    "clip": _number(0, 1e9),
}
_STEP: Mapping[str, _Check] = {
    "command": _text,
    "version": _text,
    "seed": _seed,
    "blocks": _whole(0, MAX_BLOCKS),
    "arguments": lambda value: isinstance(value, dict),
    "parents": lambda value: isinstance(value, list) and len(value) <= MAX_STEPS,
}
_PARENT: Mapping[str, _Check] = {"name": _text, "digest": _optional_text}
_ARGUMENTS: Mapping[str, Mapping[str, _Check]] = {
    "prune": {"blocks": _blocks},
    "grow": {
        "from": _whole(1, MAX_BLOCKS),
        "to": _whole(1, MAX_BLOCKS),
        "init": _text,
        "drop_last": _whole(0, MAX_BLOCKS),
        "position": _position,
        "zero_init": _switch,
        "qk_norm": _switch,
    },
}
_COMPONENT: Mapping[str, _Check] = {
    "source": lambda value: _text(value) and bool(value),
    "subfolder": _optional_text,
    "revision": _optional_text,
}


def _check_fields(value: Any, checks: Mapping[str, _Check], where: str) -> None:
    if not isinstance(value, dict):
        raise InputError(f"{where} is {brief(value)}, not an object")
    for key, holds in checks.items():
        if key in value and not holds(value[key]):
            raise InputError(f"{where} has an impossible {key}: {brief(value[key])}")


def _check_component(name: str, entry: Any, where: str) -> None:
    if not isinstance(entry, dict) or "source" not in entry:
        raise InputError(f"{where} gives no source for {shown(name)}")
    _check_fields(entry, _COMPONENT, f"{where}: its {shown(name)}")


def _check_step(step: Any, where: str) -> None:
    _check_fields(step, _STEP, where)
    for parent in step.get("parents", []):
        _check_fields(parent, _PARENT, f"{where}: a parent")
    _check_fields(
        step.get("arguments", {}), _ARGUMENTS.get(step.get("command", ""), {}), f"{where}: arguments"
    )
