"""GenEval's prompts: its vocabulary, the official 553, new ones."""
