"""How Roundhouse behaves as models, load and routers grow, with echoes for models."""

import os

# Ray's default for local clusters, which a driver must say, and before Ray is imported.
os.environ.setdefault("RAY_AUTH_MODE", "token")
