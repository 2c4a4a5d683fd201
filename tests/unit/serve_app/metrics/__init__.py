"""What is counted, and how it leaves the process."""
