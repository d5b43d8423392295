"""Flow matching, sampling, and loading SANA with its companions."""
