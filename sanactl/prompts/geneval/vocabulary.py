"""GenEval's words: its tasks, classes, colours, relations and numbers; articles and plurals, its own and correct ones.

Source of the words and of the naive forms: GenEval's `prompts/create_prompts.py` (Ghosh et al. 2023), in its order.
"""

from __future__ import annotations

__all__ = [
    "COLORS", "INVERSE", "MEASURES", "NUMBERS", "OBJECTS", "RELATIONS", "TASKS", "naive_plural", "plural", "several",
    "single", "with_article",
]  # fmt: skip

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
RELATIONS = ("left of", "right of", "above", "below")
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
NUMBERS = {2: "two", 3: "three", 4: "four"}
# COCO's 80 classes in COCO's order. GenEval has names of its own for three: computer mouse, tv remote, computer
# keyboard (COCO: mouse, remote, keyboard).
OBJECTS = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "computer mouse", "tv remote",
    "computer keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock",
    "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip


# Things that English counts by another word: "two pairs of scissors", "a head of broccoli". Their own form is the same
# for one and for many.
MEASURES = {"scissors": "pair", "skis": "pair", "broccoli": "head"}
_PLURALS = {
    "person": "people",
    "sheep": "sheep",
    "knife": "knives",
    "computer mouse": "computer mice",
    **{name: name for name in MEASURES},
}


def with_article(words: str) -> str:
    """`words` with "a" or "an" in front, by the first letter.

    No word of GenEval's has another sound than its first letter says ("an hour", "a unicorn"), so this is correct.
    """
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def naive_plural(name: str) -> str:
    """The plural that the benchmark's prompts have: `knifes`, `sheeps`, `skises`."""
    return f"{name}es" if name.endswith("s") else f"{name}s"


def plural(name: str) -> str:
    """The correct plural of a class: `knives`, `sheep`, `skis`, `benches`; for `MEASURES` the word after "pairs of"."""
    if name in _PLURALS:
        return _PLURALS[name]
    return f"{name}es" if name.endswith(("s", "ch", "sh", "x")) else f"{name}s"


def single(name: str, color: str = "") -> str:
    """One object in correct words: "an apple", "a red car", "a pair of red scissors"."""
    words = f"{color} {name}".strip()
    return with_article(f"{MEASURES[name]} of {words}" if name in MEASURES else words)


def several(count: int, name: str) -> str:
    """2 to 4 objects in correct words: "two knives", "three pairs of skis"."""
    return f"{NUMBERS[count]} {f'{MEASURES[name]}s of ' if name in MEASURES else ''}{plural(name)}"
