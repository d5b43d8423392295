"""Language models that write and translate prompts."""
