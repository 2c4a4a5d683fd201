"""Side by side with the peers, one command: `python -m benchmarks --help`. Imported by nothing."""
