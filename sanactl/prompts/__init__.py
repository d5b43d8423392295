"""Prompts: GenEval's grammar, new prompts of it, and what a prompt means."""
