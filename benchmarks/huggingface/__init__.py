"""The Hugging Face engine beside transformers' own."""
