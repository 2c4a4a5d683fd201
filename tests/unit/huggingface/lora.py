"""Adapters with random weights for the tests, and what PEFT itself says with them."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from .scheduling import generated


def save_adapter(model: Any, folder: Path, seed: int, **settings: Any) -> Path:
    """Trained far enough to say something else than the base. The model itself is used up."""
    torch.manual_seed(seed)
    chosen = {"r": 4, "lora_alpha": 16, "target_modules": "all-linear"} | settings
    peft = get_peft_model(model, LoraConfig(init_lora_weights=False, **chosen))
    for name, parameter in peft.named_parameters():
        if "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    peft.save_pretrained(folder)
    return folder


def generated_with(
    model: Any, adapter: Path, prompt: tuple[int, ...], max_tokens: int
) -> list[int]:
    """What PEFT's generate says greedily with one adapter alone. The model is used up."""
    peft = PeftModel.from_pretrained(model, str(adapter)).eval()
    return generated(peft.base_model.model, prompt, max_tokens)
