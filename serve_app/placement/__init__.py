"""What replicas ask Ray for, and which nodes could give it. Begins in `request.py`."""
