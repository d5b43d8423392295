"""Models that answer questions about images: vision-language models, VQA models, servers."""
