"""What a backend is, and each of them. Knows nothing of Ray, nor of serve_app."""
