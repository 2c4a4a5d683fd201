"""Exit status 0 if a URL answers within a few seconds. Downloads nothing."""

import sys
import urllib.request

TIMEOUT_S = 5

try:
    urllib.request.urlopen(sys.argv[1], timeout=TIMEOUT_S).close()
except (OSError, ValueError):
    sys.exit(1)
