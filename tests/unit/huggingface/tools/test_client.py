"""OpenAI's own client, through the real router: structured answers and tools as its users have
them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest
from openai import AsyncOpenAI, BadRequestError, pydantic_function_tool
from pydantic import BaseModel, Field

from serve_app.router import RouterApp
from tests.local_cluster import LocalCluster, serving

from ..asking import started
from .speaking import HERMES, save_noise, tokenizer

MESSAGES = [{"role": "user", "content": "Hello"}]


class Step(BaseModel):
    number: int = Field(ge=0, le=99)
    done: bool


class Answer(BaseModel):
    mood: Literal["good", "bad"]
    steps: list[Step] = Field(min_length=1, max_length=2)


class Weather(BaseModel):
    """What the weather is."""

    city: Literal["Paris", "Rome"]
    days: int = Field(ge=1, le=9)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncOpenAI]:
    """A client of a model of noise that can be given tools."""
    async with (
        started(save_noise(tmp_path, tokenizer(HERMES))) as backend,
        serving(RouterApp(LocalCluster({"tiny": backend}))) as url,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made,
    ):
        yield made


async def test_parse(client: AsyncOpenAI) -> None:
    """`parse` with a pydantic class gives an object of that class."""
    for seed in range(3):
        completion = await client.chat.completions.parse(
            model="tiny",
            messages=MESSAGES,  # type: ignore[arg-type]
            response_format=Answer,
            seed=seed,
            max_tokens=600,
        )
        assert isinstance(completion.choices[0].message.parsed, Answer)


async def test_tools_of_pydantic_classes(client: AsyncOpenAI) -> None:
    """Whole and streamed, a required call of a pydantic tool is parsed by the client, and its
    result can be sent back."""
    asked = {
        "model": "tiny",
        "messages": MESSAGES,
        "tools": [pydantic_function_tool(Weather)],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_tokens": 500,
        "seed": 5,
    }
    whole = await client.chat.completions.parse(**asked)  # type: ignore[call-overload]
    async with client.chat.completions.stream(**asked) as stream:  # type: ignore[arg-type]
        kinds = {event.type async for event in stream}
        streamed = await stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds
    for completion in (whole, streamed):
        assert completion.choices[0].finish_reason == "tool_calls"
        (call,) = completion.choices[0].message.tool_calls
        assert isinstance(call.function.parsed_arguments, Weather)
    result = {"role": "tool", "tool_call_id": call.id, "content": "Sunny"}
    turns = [*MESSAGES, whole.choices[0].message, result | {"tool_call_id": call.id}]
    last = await client.chat.completions.create(
        **(asked | {"messages": turns, "tool_choice": "none", "max_tokens": 2})
    )
    assert last.choices[0].finish_reason in {"length", "stop"}


async def test_refusals_are_bad_requests(client: AsyncOpenAI) -> None:
    """A schema that cannot be enforced is the client's BadRequestError, streamed or not."""
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "strin"}}}
    for stream in (False, True):
        with pytest.raises(BadRequestError) as refused:
            await client.chat.completions.create(
                model="tiny",
                messages=MESSAGES,  # type: ignore[arg-type]
                response_format=form,  # type: ignore[arg-type]
                stream=stream,
            )
        assert refused.value.param == "response_format"
