"""Scores from questions about images: DPG-Bench, Soft-TIFA, and who answers."""
