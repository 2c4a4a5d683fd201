"""Tiny checkpoints with random weights that embed, saved by sentence-transformers itself."""

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from deployments.huggingface.vocabulary import BYTE_OF_CHAR

PAD, CLS, SEP, VOCAB_SIZE = 256, 257, 258, 264
SMALL = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 130,
    "initializer_range": 0.5,
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
    core = Tokenizer(models.BPE(vocab=dict(BYTE_OF_CHAR), merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["[PAD]", "[CLS]", "[SEP]"])
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


def save_bare(kind: str, folder: Path) -> Path:
    """The model as transformers saves it."""
    torch.manual_seed(5)
    config = CONFIG_MAPPING[kind](**SMALL | KINDS[kind])
    AutoModel.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


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
