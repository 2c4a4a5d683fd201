"""Set before anything is imported: Ray and Hugging Face read their environment once."""

import os

os.environ["RAY_AUTH_MODE"] = "token"  # Ray's default for local clusters; clients must say it
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
