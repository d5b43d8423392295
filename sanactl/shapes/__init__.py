"""The built-in world: coloured shapes, their prompts in GenEval's form, a renderer and an exact detector.

It is small enough to ship and to train on a CPU, and none of it needs torch.
"""

from sanactl.shapes.vocabulary import COLORS, RELATIONS, SHAPES, TASKS

__all__ = ["COLORS", "RELATIONS", "SHAPES", "TASKS"]
