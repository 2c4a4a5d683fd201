"""From a whole checkpoint to transformers' model on its device, or to the reason why not.

The class is the one that transformers has for the config, or the checkpoint's own where its code is
trusted. Weights that are missing end the start: nothing is filled in.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from deployments.config import HuggingFaceConfig
from deployments.huggingface.checkpoint.fit import check_generates, check_layers, check_weights
from deployments.huggingface.checkpoint.whole import Checkpoint, encoder_decoder
from deployments.huggingface.loading import accelerated, attention, packing, quantization
from deployments.huggingface.loading.weights import (
    LOADING,
    CountedTensor,
    converted,
    opened,
    stored_dtype,
)
from deployments.huggingface.streaming import streamed
from deployments.huggingface.streaming.freed_memory import return_freed_memory
from deployments.placement.planner import Plan
from deployments.progress import Progress, Report

logger = logging.getLogger(__name__)


def build(
    checkpoint: Checkpoint, config: HuggingFaceConfig, plan: Plan | None, report: Report
) -> Any:
    """The model, its weights where `plan` puts them.

    Raises: StartError, and what transformers and torch raise.
    """
    empty = skeleton(checkpoint.folder, config)
    quantization.refuse(config, empty, plan is not None and plan.streams)
    if plan is not None and plan.streams:
        return _streaming(empty, checkpoint, config, plan, report).eval()
    on_gpu = torch.cuda.is_available() if plan is None else plan.question.budget.has_gpu
    if config.quantization != "none" and not on_gpu:
        return_freed_memory()  # what packing takes is much beside what it makes
    model, info = filled(empty, checkpoint, config, on_gpu, report)
    check_weights(checkpoint.folder, info)
    check_layers(checkpoint.folder, info, model)
    quantization.check(model, config.quantization)
    return model.eval()


def filled(
    empty: Any, checkpoint: Checkpoint, config: HuggingFaceConfig, on_gpu: bool, report: Report
) -> tuple[Any, Mapping[str, Any]]:
    """The model with its weights, all of them in one place, and what transformers says of them.

    Raises: StartError, and what transformers and torch raise.
    """
    implementation = empty.config._attn_implementation
    model_class = type(empty)
    with opened(checkpoint.files, report) as weights, quantization.convertible(model_class):
        dtype = _dtype(config.dtype, empty.config, weights)
        kept = dtype if config.quantization == "none" else None
        with converted(checkpoint.files, weights, kept), packing.by_pieces():
            model, info = model_class.from_pretrained(
                None,
                config=empty.config,
                state_dict=weights,
                dtype=dtype,
                attn_implementation=implementation,
                device_map={"": "cuda" if on_gpu else "cpu"},
                generation_config=_generation_config(checkpoint.folder, empty),
                ignore_mismatched_sizes=True,  # else it raises without their names
                output_loading_info=True,
                **quantization.options(config, dtype, empty),
            )
    return model, info


def _streaming(
    empty: Any, checkpoint: Checkpoint, config: HuggingFaceConfig, plan: Plan, report: Report
) -> Any:
    """By the ring wherever the weights can be used as they lie in the files, else by accelerate."""
    if config.memory is None or config.memory.streaming != "accelerate":
        try:
            disk = config.memory.disk if config.memory else None
            kept = quantization.skipped_modules(config, empty)
            model = streamed.load(empty, plan, Path(disk) if disk else None, report, kept)
            model.generation_config = _generation_config(checkpoint.folder, empty)
            return model
        except streamed.Unstreamable as exc:
            name = type(empty).__name__
            logger.warning("%s is streamed by accelerate, which is slower: %s", name, exc)
    report(Progress(LOADING))
    model, missing = accelerated.load(empty, checkpoint.folder, config, plan)
    check_weights(checkpoint.folder, {"missing_keys": missing})
    return model


def skeleton(
    folder: Path,
    config: HuggingFaceConfig,
    auto_class: Any = AutoModelForCausalLM,
    encoder_class: Any = None,
) -> Any:
    """The model without weights: it says what class transformers makes of the checkpoint.
    `encoder_class` is for those whose encoder alone is a model. Raises: StartError.
    """
    trusted = {"trust_remote_code": config.trust_remote_code}
    architecture = AutoConfig.from_pretrained(folder, local_files_only=True, **trusted)
    if encoder_class is not None and type(architecture) in encoder_class._model_mapping:
        auto_class = encoder_class
    elif architecture.is_encoder_decoder:
        raise encoder_decoder(str(folder), architecture.architectures)
    if auto_class is AutoModelForCausalLM:
        check_generates(folder, architecture)
    with torch.device("meta"):
        return auto_class.from_config(
            architecture, **trusted, **attention.options(config.attn_implementation, architecture)
        )


def _dtype(asked: str, architecture: Any, weights: Mapping[str, CountedTensor]) -> torch.dtype:
    """What is asked for, else what the config says, else what the files hold."""
    named = architecture.dtype if asked == "auto" else asked
    if named is None:
        return stored_dtype(weights)
    dtype: torch.dtype = getattr(torch, named) if isinstance(named, str) else named
    return dtype


def _generation_config(folder: Path, skeleton: Any) -> Any:
    if (folder / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    return getattr(skeleton, "generation_config", None)
