"""The demo model as a folder: made new, loaded again, and saved so that readers never see half.

The weights are trained in float32 and stored in bfloat16.
"""

import shutil
from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from demo.tokenizer import END, MAX_POSITIONS, PAD, START, with_chat_template

MODEL_DIR = Path(__file__).parent / "model"


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Three million parameters; heads of 64, which every attention kernel supports."""
    start, end, pad = tokenizer.convert_tokens_to_ids([START, END, PAD])
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=start,
        eos_token_id=end,
        pad_token_id=pad,
    )
    return LlamaForCausalLM(config)


def loaded(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The weights of an earlier run, in float32; its optimizers start anew."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    return model.train(), with_chat_template(tokenizer)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Stores bfloat16 weights in a new folder, then swaps it in: readers never see half a model."""
    fresh, old = folder.with_suffix(".new"), folder.with_suffix(".old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    stored = LlamaForCausalLM(model.config).to(torch.bfloat16)
    stored.load_state_dict(model.state_dict())
    config = model.config
    stored.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        do_sample=False,
    )
    stored.save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    for file in fresh.iterdir():
        file.chmod(0o644)  # safetensors writes files that only their owner may read
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
