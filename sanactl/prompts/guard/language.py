"""Whether a prompt is in a script that models of English do not know."""

from __future__ import annotations

import unicodedata

__all__ = ["NON_ENGLISH_FROM", "is_non_english", "non_latin_share"]

# A prompt with a larger share counts as not English. One Greek letter in a sentence of 50 letters does not.
NON_ENGLISH_FROM = 0.02


def non_latin_share(text: str) -> float:
    """The share of characters that are not Latin letters, 0 to 1.

    Letters of all scripts count, symbols such as emoji, and invisible characters, which can split a word. Digits,
    punctuation and spaces do not count. Accents are Latin. So French is not told from English.
    """
    counted = latin = 0
    for character in text:
        if not (character.isalpha() or unicodedata.category(character) in ("So", "Cf")):
            continue
        counted += 1
        latin += character.isascii() or unicodedata.name(character, "").startswith("LATIN ")
    return 1 - latin / counted if counted else 0.0


def is_non_english(text: str) -> bool:
    """Whether more than `NON_ENGLISH_FROM` of the letters are not Latin."""
    return non_latin_share(text) > NON_ENGLISH_FROM
