"""The paths by their names, without what it takes to run them."""

PATHS = ("engine", "api", "huggingface")
