"""The catalogue: its facts, its templates, and every family of it served through the router."""
