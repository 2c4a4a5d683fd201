import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from openai._models import validate_type
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from transformers import AutoModelForCausalLM

from deployments.errors import (
    BackendTimeout,
    BackendUnavailable,
    ContextTooLong,
    InvalidRequest,
    StartError,
    UnsupportedEndpoint,
)
from deployments.exchange import EVENT_STREAM, JSON, Head, Tail
from deployments.huggingface.backend import HuggingFaceBackend
from deployments.huggingface.engine.engine import Engine
from tests.polling import until

from .asking import CHAT, COMPLETIONS, RECITED, ask, configured, exchange_of, started
from .gate import Gate
from .models import EOS, byte_tokenizer


def text_of(got: list[dict]) -> str:
    return "".join(c["delta"].get("content", "") for event in got for c in event["choices"])


async def test_answers_a_chat_as_openai_does(reciter: HuggingFaceBackend) -> None:
    """A chat's answer is whole, valid under OpenAI's own types, and names the resolved model."""
    got = await ask(reciter, CHAT, temperature=0)
    validate_type(type_=ChatCompletion, value=got.body)
    assert got.head == Head(200, JSON)
    assert got.body["choices"][0]["message"]["content"] == RECITED
    assert got.body["choices"][0]["finish_reason"] == "stop"
    assert (got.body["id"], got.body["model"]) == ("chatcmpl-r1", "tiny")


async def test_answers_a_completion_as_openai_does(reciter: HuggingFaceBackend) -> None:
    """A completion's answer is whole and valid under OpenAI's own types."""
    got = await ask(reciter, COMPLETIONS, prompt="a>", temperature=0, max_tokens=100)
    validate_type(type_=Completion, value=got.body)
    assert got.body["choices"][0]["text"] == RECITED
    assert got.body["id"] == "cmpl-r1"


async def test_counts_the_end_token(reciter: HuggingFaceBackend) -> None:
    """Usage counts the rendered prompt and every generated token, the end included, as vLLM."""
    got = await ask(reciter, CHAT, temperature=0)
    num_prompt, num_answer = len("user: Hello\n>"), len(RECITED.encode()) + 1
    assert got.tail == Tail(num_prompt, num_answer)
    assert got.body["usage"] == {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_answer,
        "total_tokens": num_prompt + num_answer,
    }


async def test_streams_in_openais_order(reciter: HuggingFaceBackend) -> None:
    """A stream is a role, then content, then a reason with an empty delta, then [DONE]."""
    got = await ask(reciter, CHAT, temperature=0, stream=True)
    for event in got.events:
        validate_type(type_=ChatCompletionChunk, value=event)
    deltas = [event["choices"][0]["delta"] for event in got.events]
    assert got.head == Head(200, EVENT_STREAM)
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert all(set(delta) == {"content"} for delta in deltas[1:-1])
    assert deltas[-1] == {}
    assert got.events[-1]["choices"][0]["finish_reason"] == "stop"
    assert text_of(got.events) == RECITED
    assert not any("usage" in event for event in got.events)


async def test_no_chunk_holds_part_of_a_character(reciter: HuggingFaceBackend) -> None:
    """A character made of several tokens arrives whole, never as U+FFFD."""
    got = await ask(reciter, CHAT, temperature=0, stream=True)
    texts = [event["choices"][0]["delta"].get("content") for event in got.events]
    assert "\U0001f642" in texts
    assert "\ufffd" not in "".join(text or "" for text in texts)


async def test_stream_reports_usage_when_asked(reciter: HuggingFaceBackend) -> None:
    """With include_usage one last event without choices has the usage, all others null."""
    options = {"include_usage": True}
    got = await ask(reciter, CHAT, temperature=0, stream=True, stream_options=options)
    *others, last = got.events
    assert all(event["usage"] is None for event in others)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == got.tail.completion_tokens


@pytest.mark.parametrize("stream", [False, True])
async def test_stop_strings_are_never_shown(reciter: HuggingFaceBackend, stream: bool) -> None:
    """A stop string that spans tokens ends the answer before it, streamed or not."""
    got = await ask(reciter, CHAT, temperature=0, stop=["STX", "STP"], stream=stream)
    text = text_of(got.events) if stream else got.body["choices"][0]["message"]["content"]
    assert text == RECITED.removesuffix("STP")
    assert got.tail.completion_tokens == len(RECITED.encode())


async def test_max_tokens_ends_with_length(reciter: HuggingFaceBackend) -> None:
    """An answer cut by max_tokens says so and has no broken character at its end."""
    got = await ask(reciter, CHAT, temperature=0, max_completion_tokens=5)
    assert got.body["choices"][0]["finish_reason"] == "length"
    assert got.body["choices"][0]["message"]["content"] == "Hi, y"
    cut = await ask(reciter, CHAT, temperature=0, max_tokens=6)
    assert cut.body["choices"][0]["message"]["content"] == "Hi, y"


async def test_end_token_can_be_ignored_or_postponed(reciter: HuggingFaceBackend) -> None:
    """ignore_eos goes on to max_tokens; min_tokens keeps the end away until it is reached."""
    length = len(RECITED.encode())
    ignoring = await ask(reciter, CHAT, temperature=0, ignore_eos=True, max_tokens=length + 3)
    assert ignoring.tail.completion_tokens == length + 3
    later = await ask(reciter, CHAT, temperature=0, min_tokens=length + 2, max_tokens=length + 9)
    assert later.tail.completion_tokens > length + 1


async def test_stop_token_ids_end_the_answer(reciter: HuggingFaceBackend) -> None:
    """A stop token ends the answer, is counted, and is not shown."""
    got = await ask(reciter, CHAT, temperature=0, stop_token_ids=[ord(","), 10**9])
    assert got.body["choices"][0]["message"]["content"] == "Hi"
    assert got.tail.completion_tokens == 3


async def test_greedy_equals_generate(
    random_backend: HuggingFaceBackend, random_checkpoint: Path
) -> None:
    """Temperature 0 gives, token for token, what transformers' generate gives."""
    model = AutoModelForCausalLM.from_pretrained(random_checkpoint, dtype=torch.float32)
    for prompt in ([1, 2, 3], list(range(100, 160)), [65]):
        out = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=40)
        expected = out[0, len(prompt) :].tolist()
        options = {"temperature": 0, "max_tokens": 40, "logprobs": 0}
        got = await ask(random_backend, COMPLETIONS, prompt=prompt, **options)
        assert got.tail.completion_tokens == len(expected)
        shown = [token for token in expected if token < EOS]
        assert b"".join(map(token_bytes, got.body["choices"][0]["logprobs"]["tokens"])) == bytes(
            shown
        )


def token_bytes(token: str) -> bytes:
    if token.startswith("<|"):
        return b""
    return bytes.fromhex(token[2:]) if token.startswith("\\x") else token.encode()


async def test_n_choices_stream_with_their_index(random_backend: HuggingFaceBackend) -> None:
    """Each of n choices comes whole under its own index, and the prompt is counted once."""
    asked = {"n": 3, "max_tokens": 12, "seed": 5, "ignore_eos": True}
    whole = await ask(random_backend, CHAT, **asked)
    texts = [choice["message"]["content"] for choice in whole.body["choices"]]
    assert len(set(texts)) == 3
    streamed = await ask(random_backend, CHAT, **asked, stream=True)
    by_index = dict.fromkeys(range(3), "")
    for event in streamed.events:
        choice = event["choices"][0]
        by_index[choice["index"]] += choice["delta"].get("content", "")
    assert [by_index[i] for i in range(3)] == texts
    assert whole.tail == streamed.tail == Tail(len("user: Hello\n>"), 36)


async def test_the_same_seed_gives_the_same_text(random_backend: HuggingFaceBackend) -> None:
    """A seed makes sampled text repeatable; another seed gives another text."""
    texts = [
        (await ask(random_backend, COMPLETIONS, prompt="x", seed=seed)).body["choices"][0]["text"]
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


async def test_many_prompts_of_any_form(reciter: HuggingFaceBackend) -> None:
    """Strings and token ids, one or several, are answered in order, and echoed when asked."""
    asked = {"temperature": 0, "max_tokens": 2, "echo": True, "n": 2}
    for prompts in (["a>", "b>"], [list(b"a>"), list(b"b>")]):
        got = await ask(reciter, COMPLETIONS, prompt=prompts, **asked)
        assert [c["text"] for c in got.body["choices"]] == ["a>Hi", "a>Hi", "b>Hi", "b>Hi"]
        assert got.tail == Tail(4, 8)
        streamed = await ask(reciter, COMPLETIONS, prompt=prompts, **asked, stream=True)
        texts = [c["text"] for event in streamed.events for c in event["choices"] if not c["index"]]
        assert "".join(texts) == "a>Hi"


async def test_chat_logprobs_list_the_tokens_of_the_text(reciter: HuggingFaceBackend) -> None:
    """Log probabilities come with each token of the text, whole or streamed, ends left out."""
    asked = {"temperature": 0, "logprobs": True, "top_logprobs": 2, "stop": "STP"}
    whole = await ask(reciter, CHAT, **asked)
    validate_type(type_=ChatCompletion, value=whole.body)
    content = whole.body["choices"][0]["logprobs"]["content"]
    assert bytes(b for token in content for b in token["bytes"]).decode() + "STP" == RECITED
    assert all(len(token["top_logprobs"]) == 2 and token["logprob"] <= 0 for token in content)
    assert content[0]["top_logprobs"][0]["token"] == content[0]["token"] == "H"
    streamed = await ask(reciter, CHAT, **asked, stream=True)
    parts = [e["choices"][0]["logprobs"] for e in streamed.events if e["choices"][0]["logprobs"]]
    assert [token for part in parts for token in part["content"]] == content


async def test_completion_logprobs_have_their_offsets(reciter: HuggingFaceBackend) -> None:
    """The completions form lists tokens, log probabilities and where each token's text begins."""
    got = await ask(reciter, COMPLETIONS, prompt=">", temperature=0, logprobs=1, max_tokens=4)
    validate_type(type_=Completion, value=got.body)
    logprobs = got.body["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["H", "i", ",", " "]
    assert logprobs["text_offset"] == [0, 1, 2, 3]
    assert logprobs["top_logprobs"][1] == {"i": logprobs["token_logprobs"][1]}


async def test_too_long_is_refused_before_anything_runs(reciter: HuggingFaceBackend) -> None:
    """A prompt and answer longer than the context are refused, naming the field to change."""
    with pytest.raises(ContextTooLong) as too_much:
        await ask(reciter, CHAT, max_tokens=250)
    assert too_much.value.param == "max_tokens"
    with pytest.raises(ContextTooLong) as too_long:
        await ask(reciter, CHAT, messages=[{"role": "user", "content": "x" * 300}])
    assert too_long.value.param == "messages"
    with pytest.raises(ContextTooLong) as full:
        await ask(reciter, COMPLETIONS, prompt="x" * 256, max_tokens=1)
    assert full.value.param == "prompt"
    almost = await ask(reciter, COMPLETIONS, prompt="x" * 255, ignore_eos=True)
    assert almost.tail == Tail(255, 1)


async def test_other_endpoints_are_unsupported(reciter: HuggingFaceBackend) -> None:
    """An endpoint that is not there is a 404, whatever the body."""
    with pytest.raises(UnsupportedEndpoint):
        await ask(reciter, "/v1/embeddings", input="x")


@pytest.mark.parametrize("prompt", [[260], [-1], ""])
async def test_prompts_the_model_cannot_read(reciter: HuggingFaceBackend, prompt: object) -> None:
    """Token ids that the model lacks, and prompts without a token, are the client's error."""
    with pytest.raises(InvalidRequest) as wrong:
        await ask(reciter, COMPLETIONS, prompt=prompt)
    assert wrong.value.param == "prompt"


async def test_template_refusals_are_the_clients(reciter: HuggingFaceBackend) -> None:
    """What a chat template refuses comes back as a 400 with the template's own words."""
    turns = [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]
    with pytest.raises(InvalidRequest, match="system first"):
        await ask(reciter, CHAT, messages=turns)


async def test_a_model_without_a_template_takes_no_messages(
    random_checkpoint: Path, tmp_path: Path
) -> None:
    """A base model says that it has no chat template, and still completes."""
    copy(random_checkpoint, tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    async with started(tmp_path) as backend:
        with pytest.raises(InvalidRequest, match="no chat template"):
            await ask(backend, CHAT)
        assert (await ask(backend, COMPLETIONS, prompt="x")).tail.completion_tokens > 0


async def test_content_parts_are_one_text(reciter: HuggingFaceBackend) -> None:
    """Text parts and developer messages are rendered as the template knows them."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    turns = [{"role": "developer", "content": parts}, {"role": "assistant", "content": None}]
    got = await ask(reciter, CHAT, messages=turns, max_tokens=1)
    assert got.tail.prompt_tokens == len("system: a\nb\nassistant: \n>")


async def test_the_operators_template_is_used(reciter_checkpoint: Path, tmp_path: Path) -> None:
    """config.chat_template replaces the checkpoint's own."""
    (tmp_path / "mine.jinja").write_text("{{ messages[0].content }}>")
    settings = {"chat_template": str(tmp_path / "mine.jinja")}
    async with started(reciter_checkpoint, **settings) as backend:
        got = await ask(backend, CHAT, max_tokens=1)
    assert got.tail.prompt_tokens == len("Hello>")


async def test_a_deadline_ends_the_answer(random_backend: HuggingFaceBackend) -> None:
    """When the deadline passes the request fails as a timeout and frees the engine."""
    stream = random_backend.exchange(exchange_of(CHAT, deadline_s=0.0, ignore_eos=True))
    with pytest.raises(BackendTimeout):
        await anext(stream)
    assert (await ask(random_backend, CHAT, max_tokens=1)).tail.completion_tokens == 1


async def test_concurrent_requests_do_not_mix(random_backend: HuggingFaceBackend) -> None:
    """Requests asked at once get the answers they get alone."""
    asked = [{"prompt": p, "temperature": 0, "max_tokens": 20} for p in ("a", "b", "c", "d")]
    alone = [(await ask(random_backend, COMPLETIONS, **a)).body["choices"] for a in asked]
    together = await asyncio.gather(*(ask(random_backend, COMPLETIONS, **a) for a in asked))
    assert [got.body["choices"] for got in together] == alone


async def test_not_started_and_stopped_are_unavailable(random_checkpoint: Path) -> None:
    """Before start and after stop a backend is unhealthy and answers nothing."""
    backend = HuggingFaceBackend("tiny", configured(random_checkpoint))
    assert backend.card().models == ("tiny",)
    with pytest.raises(BackendUnavailable):
        await backend.check_health()
    await backend.start()
    await backend.check_health()
    await backend.stop()
    await backend.stop()
    with pytest.raises(BackendUnavailable):
        await backend.check_health()
    with pytest.raises(BackendUnavailable):
        await ask(backend, CHAT)


def is_closed(engine: Engine) -> bool:
    """Whether it takes nothing more."""
    try:
        engine.check()
    except BackendUnavailable:
        return True
    return False


async def test_stopping_fails_what_is_running(reciter: HuggingFaceBackend, gate: Gate) -> None:
    """A stop in mid-stream ends the stream with an error, never cleanly."""
    engine = reciter.engine
    gate.hold(after=2)
    stream = reciter.exchange(exchange_of(CHAT, temperature=0, stream=True))
    assert isinstance(await anext(stream), Head)
    await gate.reached()
    stopping = asyncio.create_task(reciter.stop())
    await until(lambda: is_closed(engine))
    gate.open()
    await stopping
    with pytest.raises(BackendUnavailable):
        _ = [item async for item in stream]


async def test_stopped_while_loading_stays_stopped(random_checkpoint: Path) -> None:
    """A stop that comes during start wins."""
    backend = HuggingFaceBackend("tiny", configured(random_checkpoint))
    starting = asyncio.create_task(backend.start())
    await asyncio.sleep(0)
    await backend.stop()
    with pytest.raises(StartError):
        await starting
    with pytest.raises(BackendUnavailable):
        await backend.check_health()


def copy(checkpoint: Path, folder: Path) -> None:
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())


def save_with_defaults(checkpoint: Path, folder: Path, **defaults: object) -> None:
    copy(checkpoint, folder)
    config = folder / "generation_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | defaults))


async def test_the_checkpoints_sampling_defaults_hold(
    random_checkpoint: Path, tmp_path: Path
) -> None:
    """What generation_config.json says of sampling holds where a request says nothing."""
    save_with_defaults(random_checkpoint, tmp_path, do_sample=True, top_k=1)
    async with started(tmp_path) as backend:
        asked = {"prompt": "x", "max_tokens": 12}
        got = [await ask(backend, COMPLETIONS, **asked, seed=seed) for seed in (1, 2)]
        greedy = await ask(backend, COMPLETIONS, **asked, temperature=0)
        free = await ask(backend, COMPLETIONS, **asked, top_k=0, seed=1)
    texts = [g.body["choices"][0]["text"] for g in (*got, greedy)]
    assert texts[0] == texts[1] == texts[2] != free.body["choices"][0]["text"]


async def test_what_of_the_checkpoint_does_not_hold_is_said(
    random_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What generation_config.json asks of generate besides is named in a warning, and only that."""
    save_with_defaults(random_checkpoint, tmp_path, top_k=1, no_repeat_ngram_size=3, num_beams=1)
    async with started(tmp_path):
        assert "generation_config.json has no_repeat_ngram_size, which is not" in caplog.text


def test_importing_the_backend_loads_no_torch() -> None:
    """The router's process can name the backend without paying for torch or transformers."""
    code = (
        "import sys, deployments.huggingface.backend;"
        "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'tokenizers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_tests_tokenizer_knows_every_byte() -> None:
    """The tests' own tokenizer gives a token for each byte, so that characters can be split."""
    assert byte_tokenizer()("\U0001f642")["input_ids"] == list("\U0001f642".encode())
