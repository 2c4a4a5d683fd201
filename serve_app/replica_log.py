"""Where a replica's log goes: to the process's own stderr, which Ray shows and keeps.

In throughput mode Serve takes `sys.stderr` over and keeps a thousand lines back before it writes
one, so that a warning at the start would be seen the next day.
"""

import logging
import sys

LOGGERS = ("deployments", "roundhouse")
FORMAT = "%(levelname)s %(message)s"


def log_to_stderr() -> None:
    """Lets what backends and router log be seen, from INFO on, and at once."""
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(logging.Formatter(FORMAT))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
