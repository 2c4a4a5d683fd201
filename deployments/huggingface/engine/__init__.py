"""The thread that owns a model, and all that it takes to have many sequences in one batch."""
