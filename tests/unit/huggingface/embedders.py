"""Tiny checkpoints with random weights that embed, saved by sentence-transformers itself."""

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import processors
from transformers import AutoModel, PreTrainedTokenizerFast

from tests import tiny_models

TEXTS = ["Hello there", "a", "a longer text with several words in it, to be padded", "x" * 90]
PAD, CLS, SEP, VOCAB_SIZE = 256, 257, 258, 264
SMALL = tiny_models.SMALL | {
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 130,
    "pad_token_id": PAD,
}
TRANSFORMER_OPTIONS = ("max_seq_length", "do_lower_case")
KINDS: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"type_vocab_size": 1, "max_position_embeddings": 128 + PAD + 1},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48},
    "mpnet": {"max_position_embeddings": 128 + PAD + 1},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8},
    "qwen3": {"head_dim": 16, "num_key_value_heads": 1},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128},
}


def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, between a first and a last token as BERT has them."""
    core = tiny_models.byte_level(["[PAD]", "[CLS]", "[SEP]"])
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


def save_bare(kind: str, folder: Path) -> Path:
    """The model as transformers saves it."""
    torch.manual_seed(5)
    config = tiny_models.config_of(kind, **SMALL | KINDS[kind])
    model = AutoModel.from_config(config, dtype=torch.float32)
    return tiny_models.save(model, tokenizer(), folder)


def save_embedder(
    kind: str, folder: Path, pooling: Any = "mean", *more: Any, **options: Any
) -> Path:
    """The model as sentence-transformers saves it, with a pooling and what follows it."""
    bare = save_bare(kind, folder / "bare")
    kept = {name: options.pop(name) for name in TRANSFORMER_OPTIONS if name in options}
    transformer = Transformer(str(bare), **kept)
    include = options.pop("include_prompt", True)
    modules = [transformer, Pooling(32, pooling, include_prompt=include), *more]
    torch.manual_seed(6)
    saved = folder / "saved"
    SentenceTransformer(modules=modules, device="cpu", **options).save_pretrained(
        str(saved), create_model_card=False
    )
    return saved


def dense(size: int, out: int) -> Any:
    torch.manual_seed(7)
    return Dense(size, out, activation_function=torch.nn.Tanh())


def normalize() -> Any:
    return Normalize()


def reference(folder: Path, texts: list[str], **options: Any) -> torch.Tensor:
    """What sentence-transformers makes of texts, one at a time."""
    model = SentenceTransformer(str(folder), device="cpu")
    vectors = model.encode(texts, batch_size=1, show_progress_bar=False, **options)
    return torch.tensor(vectors)
