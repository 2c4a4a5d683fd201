"""What `roundhouse` can do, beside `check/` and `launch/`: a file a command."""
