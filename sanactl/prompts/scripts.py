"""Which scripts a text is in: Han characters, Latin words, emoji."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["HAN", "Scripts", "count_scripts"]

HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]+(?:['’-][A-Za-z\u00c0-\u024f]+)*")
# Kana and Hangul: a text with them is Japanese or Korean, whatever Han characters it has.
_OTHER = re.compile("[\u3040-\u30ff\uac00-\ud7af]")
# Pictures of Unicode's emoji blocks, keycaps, and signs that the selector makes pictures.
_EMOJI = re.compile(
    "[\U0001f000-\U0001f2ff\U0001f300-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u231a-\u23ff\u2b50\u25a0-\u25ff\u3030\u303d]"
    "|[\u2190-\u21ff\u2900-\u297f\u00a9\u00ae\u203c\u2049\u2122\u2139]\ufe0f|[0-9#*]\ufe0f?\u20e3"
)


@dataclass(frozen=True)
class Scripts:
    """How much of a text is in which script.

    Attributes:
        han: Han characters.
        latin: Latin words.
        emoji: pictures.
        other: kana and Hangul syllables.
    """

    han: int
    latin: int
    emoji: int
    other: int

    @property
    def chinese(self) -> float:
        """The share of Chinese, 0 to 1; a Chinese word has about two characters."""
        words = self.han / 2 + self.latin
        return self.han / 2 / words if words else 0.0


def count_scripts(text: str) -> Scripts:
    """Counts a text's characters and words."""
    return Scripts(*(len(pattern.findall(text)) for pattern in (HAN, _LATIN, _EMOJI, _OTHER)))
