"""Trains the demo model from nothing, on text it generates itself, and writes it to demo/model.

`python -m demo.train` takes 2400 steps; a step took 0.45 to 0.6 s on two quiet cores. The learning
rate falls to nothing at the last step or the last minute, whichever is nearer, so a slow machine
still ends with a settled model. A usable checkpoint replaces the output folder every few minutes.
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from demo.checkpoint import MODEL_DIR, loaded, new_model, save
from demo.evaluate import held_out, score
from demo.packing import Batch, Packer, shuffled
from demo.text import long_text, training_text, worksheets
from demo.tokenizer import train_tokenizer

PEAK_RATE = 3e-3
MATRIX_DIMS = 2
WARMUP_STEPS = 150
BATCH_TOKENS = 3072
CHECKPOINT_EVERY_S = 360.0
REPORT_EVERY_STEPS = 50


def endless_batches(packer: Packer, seed: int) -> Iterator[Batch]:
    """Fresh text for ever: no conversation is trained on twice but by chance."""
    rng = Random(seed)
    while True:
        talks = training_text(rng, 10_000) + worksheets(rng, 1200)
        batches = packer.batches(rng.sample(talks, len(talks)), row_tokens=256)
        batches += packer.batches(long_text(rng, 40), row_tokens=768)
        yield from shuffled(batches, rng)


def loss_of(model: LlamaForCausalLM, batch: Batch) -> Tensor:
    """Cross entropy of the assistant's tokens; only they pass through the output layer."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(
            input_ids=batch.tokens, position_ids=batch.positions, use_cache=False
        ).last_hidden_state
        spoken = batch.labels >= 0
        logits = model.lm_head(hidden[spoken])
    losses = torch.nn.functional.cross_entropy(
        logits.float(), batch.labels[spoken], reduction="none"
    )
    weights = batch.weights[spoken]
    return (losses * weights).sum() / weights.sum()


def optimizers_of(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for embeddings and norms.

    AdamW alone took 400 steps to the loss that this reached in 250.
    Source: https://kellerjordan.github.io/posts/muon/
    """
    matrices = [weight for weight in model.model.layers.parameters() if weight.ndim == MATRIX_DIMS]
    chosen = {id(weight) for weight in matrices}
    others = [weight for weight in model.parameters() if id(weight) not in chosen]
    muon = torch.optim.Muon(
        matrices, lr=PEAK_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
    )
    adam = torch.optim.AdamW(others, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    return [muon, adam]


@dataclass(frozen=True)
class Plan:
    """What the command line asks for."""

    num_steps: int
    budget_s: float
    seed: int
    folder: Path
    resume: bool


class Trainer:
    """One run."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.started_s = plan, time.monotonic()
        torch.manual_seed(plan.seed)
        if plan.resume:
            self.model, self.tokenizer = loaded(plan.folder)
        else:
            self.tokenizer = train_tokenizer(plan.seed)
            self.model = new_model(self.tokenizer)
        self.batches = endless_batches(Packer(self.tokenizer, BATCH_TOKENS), plan.seed)
        self.optimizers = optimizers_of(self.model)
        self.schedules = [
            torch.optim.lr_scheduler.LambdaLR(optimizer, self.rate) for optimizer in self.optimizers
        ]

    def elapsed_s(self) -> float:
        return time.monotonic() - self.started_s

    def rate(self, step: int) -> float:
        """The share of the peak rate: a short warm-up, then a cosine in steps or in time."""
        progress = min(1.0, max(step / self.plan.num_steps, self.elapsed_s() / self.plan.budget_s))
        cosine = 0.5 + 0.5 * math.cos(progress * math.pi)
        return min(1.0, (step + 1) / WARMUP_STEPS) * max(cosine, 0.005)

    def step(self) -> float:
        loss = loss_of(self.model, next(self.batches))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        return float(loss.detach())

    def checkpoint(self, num_each: int) -> None:
        save(self.model, self.tokenizer, self.plan.folder)
        self.model.eval()
        shares = score(self.model, self.tokenizer, held_out(num_each))
        self.model.train()
        print("saved; held-out:", *(f"{task} {share:.0%}," for task, share in shares.items()))

    def run(self) -> None:
        print(f"{self.model.num_parameters():,} parameters", flush=True)
        step, saved_s, losses = 0, 0.0, []
        while step < self.plan.num_steps and self.elapsed_s() < self.plan.budget_s:
            losses.append(self.step())
            step += 1
            if step % REPORT_EVERY_STEPS == 0:
                mean = sum(losses) / len(losses)
                print(f"step {step}: {self.elapsed_s():.0f} s, loss {mean:.4f}", flush=True)
                losses = []
            if self.elapsed_s() - saved_s > CHECKPOINT_EVERY_S:
                self.checkpoint(num_each=4)
                saved_s = self.elapsed_s()
        self.checkpoint(num_each=50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--minutes", type=float, default=30.0, help="at most (default 30)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=MODEL_DIR, help="the model's folder")
    parser.add_argument("--resume", action="store_true", help="go on from the folder's weights")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    budget_s = options.minutes * 60
    Trainer(Plan(options.steps, budget_s, options.seed, options.output, options.resume)).run()


if __name__ == "__main__":
    main()
