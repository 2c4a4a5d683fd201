"""Texts to vectors: checkpoints that embed, as sentence-transformers defines them."""
