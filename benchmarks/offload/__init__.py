"""A model larger than its memory: the streamer beside accelerate's hooks, and the disk's bound."""
