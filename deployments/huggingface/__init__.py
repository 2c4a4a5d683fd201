"""Any decoder that transformers can generate with, behind our own engine."""
