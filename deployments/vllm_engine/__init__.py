"""Models that vLLM serves, behind its own engine and its own OpenAI server."""
