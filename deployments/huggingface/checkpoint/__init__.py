"""A checkpoint's files: where they come from, whether they are whole, and what is in them."""
