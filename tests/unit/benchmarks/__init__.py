"""The benchmarks\x27 own parts; no peer is needed."""
