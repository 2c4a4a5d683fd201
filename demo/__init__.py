"""The demo model: a tiny Llama trained from scratch, and the scripts that made it."""
