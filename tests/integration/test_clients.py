"""The real openai client against the shipped configuration, over real HTTP and real Serve."""

import asyncio
import uuid

import openai
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODELS = ("demo", "demo-hf", "gpt-4", "gpt-3.5-turbo", "echo")
GENERATING = ("demo", "demo-hf")
QUESTIONS = (
    "What is 7+5?",
    "What is the capital of France?",
    "Repeat: lantern",
    "Count from 1 to 12.",
    "Answer in JSON: what is 3+4?",
)


def user(content: str) -> list[openai.types.chat.ChatCompletionMessageParam]:
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize("model", MODELS)
async def test_chat(client: openai.AsyncOpenAI, model: str) -> None:
    """A chat completion is valid to the strict client, with text, a reason and usage."""
    answer = await client.chat.completions.create(
        model=model, messages=user("Repeat: lantern"), temperature=0
    )
    assert "lantern" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


@pytest.mark.parametrize("model", MODELS)
async def test_chat_stream(client: openai.AsyncOpenAI, model: str) -> None:
    """A stream is valid to the strict client, and with include_usage ends in the usage."""
    stream = await client.chat.completions.create(
        model=model,
        messages=user("Repeat: lantern"),
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert "lantern" in text
    assert chunks[-1].usage is not None
    assert chunks[-1].choices == []


@pytest.mark.parametrize("model", MODELS)
async def test_completions(client: openai.AsyncOpenAI, model: str) -> None:
    """Plain completions are valid to the strict client."""
    answer = await client.completions.create(model=model, prompt="one two", max_tokens=4)
    assert answer.object == "text_completion"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0


async def test_it_answers(client: openai.AsyncOpenAI) -> None:
    """The demo model answers what its README says it does."""
    for question, expected in (("What is 7+5?", "12"), (QUESTIONS[1], "Paris")):
        answer = await client.chat.completions.create(
            model="demo", messages=user(question), temperature=0
        )
        assert expected in (answer.choices[0].message.content or "")


@pytest.mark.parametrize("question", QUESTIONS)
async def test_same_greedy_answer(client: openai.AsyncOpenAI, question: str) -> None:
    """vLLM and transformers give the same greedy answer with the same weights."""
    answers = await asyncio.gather(
        *(
            client.chat.completions.create(model=model, messages=user(question), temperature=0)
            for model in GENERATING
        )
    )
    first, second = answers
    assert first.choices[0].message.content == second.choices[0].message.content
    assert first.usage is not None
    assert second.usage is not None
    assert first.usage.completion_tokens == second.usage.completion_tokens


@pytest.mark.parametrize("model", GENERATING)
async def test_parameters(client: openai.AsyncOpenAI, model: str) -> None:
    """n, stop, seed, logprobs and max_completion_tokens have their effect."""
    answer = await client.chat.completions.create(
        model=model,
        messages=user("Count from 1 to 20."),
        n=2,
        seed=1,
        temperature=0.01,  # vLLM refuses n for greedy sampling
        stop=["5"],
        logprobs=True,
        top_logprobs=1,
        max_completion_tokens=40,
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert [choice.finish_reason for choice in answer.choices] == ["stop", "stop"]
    content = answer.choices[0].message.content or ""
    assert "4" in content
    assert "5" not in content
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.content


async def test_models(client: openai.AsyncOpenAI) -> None:
    """The models are listed, API models without a key too, and each can be asked for."""
    listed = {model.id: model async for model in client.models.list()}
    assert {*MODELS, "keyless", "echo-too"} <= set(listed)
    one = await client.models.retrieve("demo-hf")
    assert (one.model_extra or {})["backend"] == "huggingface"
    assert (one.model_extra or {})["state"] == "running"


async def test_alias(client: openai.AsyncOpenAI) -> None:
    """An alias is answered by its model, which the answer names."""
    raw = await client.chat.completions.with_raw_response.create(
        model="chat", messages=user("Repeat: lantern")
    )
    assert raw.headers["x-served-by"] == "demo"
    assert raw.parse().model == "demo"


async def test_concurrency(client: openai.AsyncOpenAI) -> None:
    """Many streams at once, over several models, each get their own answer."""

    async def ask(model: str, nonce: str) -> str:
        stream = await client.chat.completions.create(
            model=model, messages=user(f"Repeat: {nonce}"), stream=True, temperature=0
        )
        return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

    pairs = [(model, uuid.uuid4().hex[:6]) for model in ("echo", "gpt-4", "echo-too")] * 16
    answers = await asyncio.gather(*(ask(model, nonce) for model, nonce in pairs))
    assert [nonce in text for (_, nonce), text in zip(pairs, answers, strict=True)] == [True] * 48
