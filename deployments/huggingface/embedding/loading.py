"""From a checkpoint to a model that embeds, or to a sentence that says why there is none."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import normalizers
from transformers import AutoModel, AutoModelForTextEncoding

from deployments.config import HuggingFaceConfig
from deployments.errors import StartError
from deployments.huggingface.checkpoint.fit import check_weights
from deployments.huggingface.checkpoint.whole import Checkpoint, check_folder
from deployments.huggingface.embedding.encoder import Encoder, TokenIds
from deployments.huggingface.embedding.pooling import head
from deployments.huggingface.embedding.recipe import Recipe, read_recipe
from deployments.huggingface.embedding.request import EmbeddingModel
from deployments.huggingface.engine.vocabulary import Vocabulary
from deployments.huggingface.loading import remote_code
from deployments.huggingface.loading.build import filled, skeleton
from deployments.huggingface.loading.loader import max_model_len, translated
from deployments.huggingface.loading.self_check import agree, tolerance
from deployments.huggingface.loading.tokenizers import load_tokenizer
from deployments.progress import Progress, Report

logger = logging.getLogger(__name__)

BATCH_TOKENS = {"cuda": 16384, "cpu": 2048}  # enough to keep either busy, in well under a second
# Heads that no vector comes from, and that many checkpoints have lost.
UNUSED_WEIGHTS = ("pooler.",)
PROBE_LENGTHS = (3, 19, 9)
REFUSED: dict[str, object] = {"adapters": {}, "memory": None, "quantization": "none"}


@dataclass(frozen=True, slots=True)
class LoadedEmbedder:
    """A model in memory, what requests must know, and the tokens of one pass, padding included."""

    encoder: Encoder
    model: EmbeddingModel
    max_batch_tokens: int


def load_embedder(folder: Path, config: HuggingFaceConfig, report: Report) -> LoadedEmbedder:
    """Loads a checkpoint; takes as long as that takes. Raises: StartError."""
    for setting, neutral in REFUSED.items():
        if getattr(config, setting) != neutral:
            raise StartError(f"`{setting}` is not for a model that embeds. Leave it out.")
    recipe = read_recipe(folder, config.pooling)
    checkpoint = check_folder(recipe.folder, config.allow_pickle, decoder_only=False)
    with translated(checkpoint.folder):
        return _load(checkpoint, recipe, config, report)


def _load(
    checkpoint: Checkpoint, recipe: Recipe, config: HuggingFaceConfig, report: Report
) -> LoadedEmbedder:
    remote_code.announce(checkpoint.folder, config.trust_remote_code)
    report(Progress("reading the tokenizer"))
    tokenizer = load_tokenizer(checkpoint.folder, config.trust_remote_code)
    if recipe.do_lower_case:
        _lower_case(tokenizer)
    limit = recipe.max_seq_length
    model = _model(checkpoint, config, report)
    report(Progress("checking the model"))
    vocabulary = Vocabulary(tokenizer)
    encoder = Encoder(
        model, head(recipe.steps, model.device), recipe.pooling, _prompt_length(recipe, vocabulary)
    )
    vocab_size = model.get_input_embeddings().weight.shape[0]
    longest = _max_model_len(model, tokenizer, config.max_model_len, limit)
    probes = probes_of(vocab_size, longest)
    facts = EmbeddingModel(
        vocabulary,
        encoder.encode(probes[:1]).shape[1],
        longest,
        vocab_size,
        recipe.prompt,
        recipe.normalizes,
    )
    return LoadedEmbedder(encoder, facts, batch_tokens(encoder, model, probes, config))


def _model(checkpoint: Checkpoint, config: HuggingFaceConfig, report: Report) -> Any:
    """The model without any head. Raises: StartError, and what transformers and torch raise."""
    empty = skeleton(checkpoint.folder, config, AutoModel, AutoModelForTextEncoding)
    empty.config.use_cache = False
    model, info = filled(empty, checkpoint, config, torch.cuda.is_available(), report)
    needed = {name for name in info["missing_keys"] if not name.startswith(UNUSED_WEIGHTS)}
    check_weights(checkpoint.folder, {**info, "missing_keys": needed})
    return model.eval()


def _lower_case(tokenizer: Any) -> None:
    backend = tokenizer.backend_tokenizer
    own = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])


def _prompt_length(recipe: Recipe, vocabulary: Vocabulary) -> int:
    """How many tokens at the left are the prompt, and not to be pooled."""
    if recipe.include_prompt or not recipe.prompt:
        return 0
    ids = vocabulary.encode(recipe.prompt, add_special_tokens=True)
    return len(ids) - (ids[-1] in vocabulary.special_ids)


def _max_model_len(model: Any, tokenizer: Any, asked: int | None, usual: int | None) -> int:
    """The operator's limit, else that of sentence-transformers, else the tokenizer's and the
    model's. Raises: StartError for more than there are positions."""
    positions = max_model_len(model.config, tokenizer, None) - _position_offset(model)
    if asked is not None and asked > positions:
        raise StartError(
            f"max_model_len: {asked} is more than the {positions} tokens that the model can take."
        )
    return asked or min(positions, usual or tokenizer.model_max_length)


def _position_offset(model: Any) -> int:
    """RoBERTa and its kin begin to count behind the padding's id."""
    tables = (getattr(module, "position_embeddings", None) for module in model.modules())
    padding_ids = (getattr(table, "padding_idx", None) for table in tables)
    return next((padding_id + 1 for padding_id in padding_ids if padding_id is not None), 0)


def probes_of(vocab_size: int, longest: int) -> list[TokenIds]:
    """Inputs of different lengths, their tokens far apart."""
    lengths = [max(1, min(length, longest)) for length in PROBE_LENGTHS]
    return [tuple((7919 * (n + k) + k) % vocab_size for k in range(n)) for n in lengths]


def batch_tokens(
    encoder: Encoder, model: Any, probes: list[TokenIds], config: HuggingFaceConfig
) -> int:
    """How many tokens a pass may have; 1 lets each input run alone, if company would change it."""
    together = encoder.encode(probes)
    alone = torch.cat([encoder.encode([probe]) for probe in probes])
    limit = tolerance(model)
    if all(agree(*pair, limit) for pair in zip(alone, together, strict=True)):
        return config.max_batch_tokens or BATCH_TOKENS[encoder.device.type]
    logger.warning(
        "%s does not give the same embeddings in a batch as alone, so it is given one input at a "
        "time",
        type(model).__name__,
    )
    return 1
