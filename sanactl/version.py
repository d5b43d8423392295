"""The version, in a file that imports nothing: checkpoints and journals carry it."""

__version__ = "0.1.0"
