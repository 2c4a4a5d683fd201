"""`serve`: a serve_config in the foreground, start to end, leaving nothing behind."""
