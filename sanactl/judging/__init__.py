"""Judges, which say whether an image matches its prompt, and the ranking of images by their verdicts."""
