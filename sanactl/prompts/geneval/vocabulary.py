"""GenEval's words: its tasks, classes, colours, relations and numbers, and its rules of articles and plurals.

Source: GenEval's `prompts/create_prompts.py` (Ghosh et al. 2023), in its order.
"""

from __future__ import annotations

__all__ = ["COLORS", "NUMBERS", "OBJECTS", "RELATIONS", "TASKS", "naive_plural", "with_article"]

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
RELATIONS = ("left of", "right of", "above", "below")
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


def with_article(words: str) -> str:
    """`words` with "a" or "an" in front, by the first letter."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def naive_plural(name: str) -> str:
    """The plural that the benchmark's prompts have: `knifes`, `sheeps`, `skises`."""
    return f"{name}es" if name.endswith("s") else f"{name}s"
