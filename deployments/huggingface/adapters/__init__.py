"""LoRA adapters of a checkpoint: found whole, put into the model, and chosen row by row."""
