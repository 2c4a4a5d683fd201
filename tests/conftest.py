"""Set before anything is imported: Ray and Hugging Face read their environment once."""

import os

from hypothesis import HealthCheck, settings

os.environ["RAY_AUTH_MODE"] = "token"  # Ray's default for local clusters; clients must say it
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# The same examples each time, however slow the machine: what a change has not broken must not fail
# it by chance. `--hypothesis-profile=default` looks for others.
settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")
