"""Judges: who looks at an image and its prompt and says yes or no, and the tournament among their verdicts."""
