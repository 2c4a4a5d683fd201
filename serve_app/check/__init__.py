"""`roundhouse check`: refuses a serve_config before anything is started. Begins in `report.py`."""
