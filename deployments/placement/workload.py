"""What a model needs beside its weights: keys and values, activations, logits.

Upper bounds of what the huggingface engine allocates, by its own rules: columns are as many as the
longest row's, caches grow with spare columns, prompts go in by chunks.
"""

from dataclasses import dataclass

from deployments.placement.geometry import Geometry, LayerCache

SPARE_COLUMNS = 16  # as deployments.huggingface.engine.room, which the tests compare
SPARE_SHARE = 8
DEFAULT_CHUNK_TOKENS = 512
# float32 copies of a row of logits that sampling may hold at a time: raw, adjusted, sorted with
# their indices, probabilities and their sums.
NUM_LOGIT_COPIES = 8
# Residual, normalised and projected hidden states; gate, up and their product.
NUM_HIDDEN_COPIES = 6
NUM_MLP_COPIES = 3
NUM_SCORE_COPIES = 4


@dataclass(frozen=True, slots=True)
class Workload:
    """So many sequences at a time, each so many tokens long, prompt and answer together."""

    batch: int = 8
    context: int = 2048
    chunk_tokens: int = DEFAULT_CHUNK_TOKENS


@dataclass(frozen=True, slots=True)
class Working:
    """Bytes beside the weights while a workload runs."""

    cache_bytes: int
    activation_bytes: int
    logits_bytes: int
    joining_bytes: int  # of a prompt's keys and values while the batch makes room for them

    @property
    def total_bytes(self) -> int:
        """All that a step needs whose passes are of weights that stream: then a prompt joins at
        once, a layer at a time."""
        return self.cache_bytes + self.activation_bytes + self.logits_bytes


def working(geometry: Geometry, workload: Workload, element_bytes: int) -> Working:
    """What `workload` needs; `element_bytes` is the size of a number of the model's dtype."""
    return Working(
        cache_bytes=cache_bytes(geometry, workload, element_bytes),
        activation_bytes=_activation_bytes(geometry, workload, element_bytes),
        logits_bytes=NUM_LOGIT_COPIES * 4 * workload.batch * geometry.vocab_size,
        joining_bytes=_joining_bytes(geometry, workload, element_bytes),
    )


def cache_bytes_per_token(geometry: Geometry, element_bytes: int) -> int:
    """What one more token of one sequence takes in all layers, short of any window."""
    return element_bytes * sum(cache.num_elements for cache in geometry.caches)


def cache_bytes(geometry: Geometry, workload: Workload, element_bytes: int) -> int:
    """Keys and values of the batch, with their spare columns, and one layer of them once more:
    the one that is being copied when rows join or columns run out."""
    num_elements = [cache.num_elements * _num_columns(cache, workload) for cache in geometry.caches]
    return workload.batch * element_bytes * (sum(num_elements) + max(num_elements))


def _joining_bytes(geometry: Geometry, workload: Workload, element_bytes: int) -> int:
    num_elements = [cache.num_elements * _num_columns(cache, workload) for cache in geometry.caches]
    return element_bytes * sum(num_elements) if workload.batch > 1 else 0


def _num_columns(cache: LayerCache, workload: Workload) -> int:
    if cache.window is not None and cache.window < workload.context:
        return min(workload.context, cache.window + 1)
    return workload.context + max(SPARE_COLUMNS, workload.context // SPARE_SHARE)


def _activation_bytes(geometry: Geometry, workload: Workload, element_bytes: int) -> int:
    """The widest moment of a layer, in a prefill chunk or in a step of the whole batch."""
    num_tokens = max(min(workload.chunk_tokens, workload.context), workload.batch)
    heads = 3 * geometry.num_heads * geometry.head_dim
    width = NUM_HIDDEN_COPIES * geometry.hidden_size + heads
    width += NUM_MLP_COPIES * geometry.intermediate_size
    return 4 * num_tokens * width + _attention_bytes(geometry, workload, element_bytes)


def _attention_bytes(geometry: Geometry, workload: Workload, element_bytes: int) -> int:
    """Masks, the keys and values repeated for every head, and, in some architectures, scores."""
    num_tokens = max(min(workload.chunk_tokens, workload.context), workload.batch)
    pairs = num_tokens * workload.context
    num_columns = max(_num_columns(cache, workload) for cache in geometry.caches)
    repeated = 2 * workload.batch * num_columns * geometry.num_heads * geometry.head_dim
    scores = NUM_SCORE_COPIES * geometry.num_heads * pairs * 4 if geometry.is_eager else 0
    return 8 * pairs + repeated * element_bytes + scores
