"""`echo` with `logprobs`: what the model thinks of a prompt, exactly."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from openai._models import validate_type
from openai.types import Completion
from transformers import AutoModelForCausalLM

from deployments.errors import InvalidRequest
from deployments.huggingface.backend import HuggingFaceBackend
from deployments.huggingface.engine.capacity import Capacity
from deployments.huggingface.engine.generation import Choice, Sampling, Stopping
from deployments.huggingface.engine.sequence import Sequence

from .architectures import random_model
from .asking import COMPLETIONS, ask, started
from .scheduling import VOCABULARY, Collected, Event, run

PROMPT = [257, *b"caf\xc3\xa9 and more of it, well beyond one chunk", 256, 10]
TEXT = "caf\u00e9 and more of it, well beyond one chunk\n"


def scored(checkpoint: Path, ids: list[int]) -> torch.Tensor:
    """The log probabilities `(tokens - 1, vocab)` after each token but the last, by one forward."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)


def check_scores(logprobs: Any, expected: torch.Tensor, ids: list[int]) -> None:
    """Whether the first of the listed tokens are those of a prompt, with its scores."""
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    own = expected.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
    count = len(ids)
    assert logprobs["token_logprobs"][1:count] == pytest.approx(own, abs=1e-4)
    best = expected.max(-1).values.tolist()
    tops = logprobs["top_logprobs"][1:count]
    assert [max(top.values()) for top in tops] == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("chunk_tokens", [512, 7, 1])
async def test_scores_are_those_of_a_forward(random_checkpoint: Path, chunk_tokens: int) -> None:
    """Whatever the chunks of the prefill, each token of the prompt has the log probability that a
    plain forward gives it, the first one none; the answer's follow, each where its text begins."""
    expected = scored(random_checkpoint, PROMPT)
    asked = {"prompt": PROMPT, "echo": True, "logprobs": 3, "temperature": 0, "max_tokens": 4}
    async with started(random_checkpoint, prefill_chunk_tokens=chunk_tokens) as backend:
        got = await ask(backend, COMPLETIONS, **asked)
        plain = await ask(backend, COMPLETIONS, **(asked | {"echo": False}))
    body, answer = got.body, plain.body["choices"][0]
    choice = body["choices"][0]
    logprobs = choice["logprobs"]
    check_scores(logprobs, expected, PROMPT)
    assert choice["text"] == TEXT + answer["text"]
    assert logprobs["tokens"][len(PROMPT) :] == answer["logprobs"]["tokens"]
    offsets = [offset + len(TEXT) for offset in answer["logprobs"]["text_offset"]]
    assert logprobs["text_offset"][len(PROMPT) :] == offsets
    assert logprobs["tokens"][:4] == ["<|begin|>", "c", "a", "f"]
    assert logprobs["text_offset"][:7] == [0, 0, 1, 2, 3, 3, 4]
    logprobs["token_logprobs"][0], logprobs["top_logprobs"][0] = 0.0, {}  # OpenAI sends nulls, too,
    validate_type(type_=Completion, value=body)  # but its own types know of none


async def test_scored_prompts_harm_nobody(random_backend: HuggingFaceBackend) -> None:
    """Asked for at once, several prompts of many lengths have the scores that each has alone, and
    answers beside them are what they are alone."""
    prompts = [PROMPT[:length] for length in (1, 2, 9, 30)]
    asked = {"prompt": prompts, "echo": True, "logprobs": 0, "max_tokens": 1, "temperature": 0}
    alone = [await ask(random_backend, COMPLETIONS, **(asked | {"prompt": p})) for p in prompts]
    plain = {"prompt": "hello", "temperature": 0, "max_tokens": 20}
    expected = (await ask(random_backend, COMPLETIONS, **plain)).body["choices"]
    together, *others = await asyncio.gather(
        ask(random_backend, COMPLETIONS, **asked),
        *(ask(random_backend, COMPLETIONS, **plain) for _ in range(3)),
    )
    for choice, one in zip(together.body["choices"], alone, strict=True):
        own, other = (c["logprobs"]["token_logprobs"][1:] for c in (choice, one.body["choices"][0]))
        assert own == pytest.approx(other, abs=1e-4)
    assert [other.body["choices"] for other in others] == [expected] * 3


async def test_streams_begin_with_the_scores(random_backend: HuggingFaceBackend) -> None:
    """The first chunk of each choice is the prompt with its log probabilities."""
    asked = {"prompt": PROMPT, "echo": True, "logprobs": 1, "n": 2, "seed": 3, "max_tokens": 3}
    whole = await ask(random_backend, COMPLETIONS, **asked)
    streamed = await ask(random_backend, COMPLETIONS, **asked, stream=True)
    for index, choice in enumerate(whole.body["choices"]):
        chunks = [c for e in streamed.events for c in e["choices"] if c["index"] == index]
        assert chunks[0]["text"] == TEXT
        assert len(chunks[0]["logprobs"]["tokens"]) == len(PROMPT)
        for name in ("tokens", "text_offset", "token_logprobs"):
            listed = [x for c in chunks if c["logprobs"] for x in c["logprobs"][name]]
            assert listed == choice["logprobs"][name]


async def test_the_prompt_alone(
    random_backend: HuggingFaceBackend, random_checkpoint: Path
) -> None:
    """max_tokens 0 scores a prompt and generates nothing; it needs echo."""
    asked = {"prompt": PROMPT, "echo": True, "max_tokens": 0}
    got = await ask(random_backend, COMPLETIONS, **asked, logprobs=2)
    choice = got.body["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (TEXT, "length")
    assert got.body["usage"]["completion_tokens"] == 0
    check_scores(choice["logprobs"], scored(random_checkpoint, PROMPT), PROMPT)
    assert len(choice["logprobs"]["tokens"]) == len(PROMPT)
    bare = await ask(random_backend, COMPLETIONS, **asked)
    assert bare.body["choices"][0]["logprobs"] is None
    with pytest.raises(InvalidRequest) as refused:
        await ask(random_backend, COMPLETIONS, **(asked | {"echo": False}))
    assert refused.value.param == "max_tokens"


class Scored(Sequence):
    """A sequence that asks for the scores of its prompt, or does not."""

    def __init__(self, prompt: tuple[int, ...], scored: bool) -> None:
        self.sink = Collected()
        sampling = Sampling(temperature=0, num_logprobs=1)
        choice = Choice(0, prompt, sampling, Stopping(max_tokens=3), scored=scored)
        super().__init__(choice, VOCABULARY, self.sink)


def test_scores_are_for_those_who_ask() -> None:
    """Prompts in the queue together, asked to be scored or not: each gets what it asked for."""
    asked = [Scored(tuple(PROMPT[1:9]), scored) for scored in (False, True, False, True)]
    run(random_model("llama"), Capacity(), [Event(0, sequence) for sequence in asked])  # type: ignore[arg-type]
    assert [len(sequence.sink.deltas[0].prompt_scores) for sequence in asked] == [0, 7, 0, 7]
    assert len({sequence.context for sequence in asked}) == 1
