"""Tools: what a client may offer, how models call them, and how their calls are read."""
