"""Vectors as the JSON of /v1/embeddings."""

import base64
from typing import Any

import msgspec
from torch import Tensor
from torch.nn.functional import normalize

from deployments.huggingface.embedding.request import Prepared


def body(vectors: Tensor, prepared: Prepared, normalizes: bool, model: str) -> bytes:
    """The answer. Shortened vectors have length one again, where the model's have."""
    if prepared.dimensions < vectors.shape[1]:
        vectors = vectors[:, : prepared.dimensions]
        vectors = normalize(vectors, dim=-1) if normalizes else vectors
    data = [
        {"object": "embedding", "index": index, "embedding": embedding}
        for index, embedding in enumerate(_encoded(vectors, prepared.as_base64))
    ]
    usage = {"prompt_tokens": prepared.num_tokens, "total_tokens": prepared.num_tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": model, "usage": usage})


def _encoded(vectors: Tensor, as_base64: bool) -> list[Any]:
    """Numbers, or the bytes of little-endian float32, as OpenAI sends them."""
    if not as_base64:
        return list(vectors.tolist())
    rows = vectors.numpy().astype("<f4")
    return [base64.b64encode(row.tobytes()).decode() for row in rows]
