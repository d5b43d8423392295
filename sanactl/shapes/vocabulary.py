"""The closed vocabulary of the built-in world: its colours, shapes, relations and tasks.

The order of colours, relations and tasks is GenEval's (Ghosh et al. 2023, `prompts/create_prompts.py`).
"""

from __future__ import annotations

# RGB values spread in CIE Lab (distance CIE76): the nearest two of them and the background, white and grey,
# are 45 apart, the nearest two colours 49 (blue, purple). What a sampler got a little wrong keeps its name.
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (220, 15, 35),
    "orange": (255, 145, 5),
    "yellow": (255, 235, 30),
    "green": (20, 165, 50),
    "blue": (20, 100, 235),
    "purple": (150, 10, 150),
    "pink": (255, 150, 205),
    "brown": (120, 60, 10),
    "black": (8, 8, 8),
    "white": (252, 252, 252),
}

# Mid grey: every colour is at least 122 away from it (Euclidean, in RGB).
BACKGROUND = 128
BACKGROUND_JITTER = 10

# Decided: six, no more. A sampler and a judge that learn in an hour on two cores have to tell them apart.
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "heart", "cross")

PLURALS: dict[str, str] = {name: name + ("es" if name.endswith("s") else "s") for name in SHAPES}

TASKS: tuple[str, ...] = ("single_object", "two_object", "counting", "colors", "position", "color_attr")

RELATIONS: tuple[str, ...] = ("left of", "right of", "above", "below")

NUMBERS: dict[int, str] = {2: "two", 3: "three", 4: "four"}

# What a prompt calls the image. GenEval has "a photo of" alone; six shapes need more phrasings for a small
# task to have enough distinct prompts. Each is used with its article and without.
MEDIA: tuple[str, ...] = (
    "photo",
    "picture",
    "image",
    "drawing",
    "painting",
    "sketch",
    "print",
    "rendering",
    "illustration",
    "poster",
)


def with_article(words: str) -> str:
    """`words` with "a" or "an" in front, by the first letter as in GenEval."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


PHRASES: tuple[str, ...] = tuple(f"{with_article(m)} of" for m in MEDIA) + tuple(f"{m} of" for m in MEDIA)
