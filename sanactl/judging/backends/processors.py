"""A model's processor for images and text, also where the packages for its videos are missing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["load_processor", "thinking_off"]

# Names of the switch in chat templates of models that can think before they answer.
_SWITCHES = ("enable_thinking", "thinking")
_lock = threading.Lock()


def load_processor(place: str) -> Any:
    """The processor of a folder or Hub id, without code of its repository.

    `AutoProcessor` makes the processor of videos, too, for which transformers needs torchvision (its issues 48558
    and 45042); images have one that needs Pillow alone. Where torchvision is missing, the processor has none
    for videos, which a judge never sees.

    Raises:
        Exception: of the library; for example, an ImportError that names a package that images need.
    """
    from transformers import AutoProcessor
    from transformers.utils import is_torchvision_available

    with _without_packages_for_videos(torchvision=is_torchvision_available()):
        return AutoProcessor.from_pretrained(place, trust_remote_code=False)


@contextmanager
def _without_packages_for_videos(*, torchvision: bool) -> Iterator[None]:
    """Inside, transformers needs no num2words; and without torchvision it takes None for a processor of videos."""
    from transformers import ProcessorMixin
    from transformers.models.auto.video_processing_auto import AutoVideoProcessor
    from transformers.models.smolvlm import processing_smolvlm

    check = ProcessorMixin.check_argument_for_proper_class

    def check_others(self: Any, name: str, argument: Any) -> Any:
        return None if argument is None and name == "video_processor" else check(self, name, argument)

    # SmolVLM asks for num2words, which spells the number of a video's frames.
    changed: list[tuple[Any, str, Any]] = [
        (processing_smolvlm, "num2words", processing_smolvlm.num2words or str)
    ]
    if not torchvision:
        changed += [
            (AutoVideoProcessor, "from_pretrained", staticmethod(lambda *arguments, **options: None)),
            (ProcessorMixin, "check_argument_for_proper_class", check_others),
        ]
    with _lock:
        before = [(owner, name, vars(owner)[name]) for owner, name, _ in changed]
        try:
            for owner, name, value in changed:
                setattr(owner, name, value)
            yield
        finally:
            for owner, name, value in before:
                setattr(owner, name, value)


def thinking_off(template: Any) -> dict[str, bool]:
    """The options that switch thinking off in a chat template; none where it has no switch.

    Args:
        template: Jinja text, or a dictionary of such texts by name.
    """
    texts = template.values() if isinstance(template, dict) else [template]
    text = "\n".join(t for t in texts if isinstance(t, str))
    return {name: False for name in _SWITCHES if name in text}
