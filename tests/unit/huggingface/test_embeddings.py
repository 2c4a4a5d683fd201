"""Embeddings are sentence-transformers' own, whatever is embedded beside them.

The models are random, saved and loaded by sentence-transformers itself; a real one is in
test_minilm.py.
"""

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
import torch
from transformers import T5Config, T5EncoderModel

from deployments.errors import (
    ContextTooLong,
    InvalidRequest,
    StartError,
    UnsupportedEndpoint,
)
from deployments.exchange import Tail
from deployments.huggingface.backend import HuggingFaceBackend
from serve_app.router import RouterApp
from tests.local_cluster import LocalCluster, serving

from .asking import CHAT, EMBEDDINGS, ask, configured, embedded, started
from .embedders import (
    CLS,
    KINDS,
    SEP,
    TEXTS,
    VOCAB_SIZE,
    dense,
    normalize,
    reference,
    save_bare,
    save_embedder,
    tokenizer,
)

# Of values around one: rounding in float32, which differs with the shapes of what is multiplied.
TOLERANCE = 1e-5

pytestmark = [
    # sentence-transformers and transformers speak of what they save, and of special tokens that
    # the tiny vocabulary does not have.
    pytest.mark.filterwarnings("ignore"),
]


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=TOLERANCE)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    return save_embedder("bert", folder, "mean", normalize(), max_seq_length=100)


@pytest_asyncio.fixture
async def backend(checkpoint: Path) -> AsyncIterator[HuggingFaceBackend]:
    async with started(checkpoint) as backend:
        yield backend


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind(kind: str, tmp_path: Path) -> None:
    """Encoders and decoders embed as sentence-transformers does, many texts in one batch."""
    saved = save_embedder(kind, tmp_path, "mean", normalize())
    async with started(saved) as backend:
        assert backend.engine.max_batch_tokens > 1000
        assert same(await embedded(backend, TEXTS), reference(saved, TEXTS))


RECIPES: dict[str, dict[str, Any]] = {
    "cls": {"pooling": "cls"},
    "max": {"pooling": "max"},
    "last": {"pooling": "lasttoken"},
    "sqrt": {"pooling": "mean_sqrt_len_tokens"},
    "weighted": {"pooling": "weightedmean"},
    "two": {"pooling": ("cls", "mean")},
    "dense": {"more": [lambda: dense(32, 16), normalize]},
    "prompt": {"prompts": {"query": "query: "}, "default_prompt_name": "query"},
    "prompt left out": {"prompts": {"q": "q: "}, "default_prompt_name": "q"}
    | {"include_prompt": False},
    "lower case": {"do_lower_case": True},
}


@pytest.mark.parametrize("name", RECIPES)
async def test_every_recipe(name: str, tmp_path: Path) -> None:
    """Pooling, dense layers, prompts and lower case are taken from the saved modules."""
    options = dict(RECIPES[name])
    more = [make() for make in options.pop("more", ())]
    saved = save_embedder("bert", tmp_path, options.pop("pooling", "mean"), *more, **options)
    async with started(saved) as backend:
        assert same(await embedded(backend, TEXTS), reference(saved, TEXTS))


@pytest.mark.parametrize("kind", ["bert", "qwen3"])
async def test_without_sentence_transformers_files(kind: str, tmp_path: Path) -> None:
    """A plain checkpoint without a language model's head embeds by sentence-transformers'
    defaults."""
    saved = save_bare(kind, tmp_path)
    async with started(saved) as backend:
        assert same(await embedded(backend, TEXTS), reference(saved, TEXTS))


async def test_a_language_model_on_request(random_checkpoint: Path) -> None:
    """A model that generates has no embeddings, unless its operator says `task: embed`: then they
    are its last token's states, and it no longer chats."""
    async with started(random_checkpoint) as backend:
        with pytest.raises(UnsupportedEndpoint):
            await ask(backend, EMBEDDINGS, input="a")
    async with started(random_checkpoint, task="embed") as backend:
        vectors = await embedded(backend, [[1, 2, 3], [4, 5]])
        with pytest.raises(UnsupportedEndpoint, match="/v1/embeddings"):
            await ask(backend, CHAT)
    from transformers import AutoModel

    model = AutoModel.from_pretrained(random_checkpoint).eval()
    with torch.inference_mode():
        states = [
            model(torch.tensor([ids])).last_hidden_state[0, -1] for ids in ([1, 2, 3], [4, 5])
        ]
    assert same(vectors, torch.stack(states))


async def test_pooling_of_the_operator(checkpoint: Path) -> None:
    """`pooling` in the args goes before that of the checkpoint."""
    settings = json.loads((checkpoint / "1_Pooling" / "config.json").read_bytes())
    assert settings["pooling_mode"] == "mean"
    async with started(checkpoint, pooling="cls") as backend:
        first = await embedded(backend, [[CLS, 65, SEP], [CLS, 65, 66, SEP]])
    assert not same(first, reference(checkpoint, ["A", "AB"]))


async def test_the_encoder_of_an_encoder_decoder(tmp_path: Path) -> None:
    """Of T5 the encoder embeds, as in sentence-transformers' T5 models."""
    torch.manual_seed(1)
    sizes = {"d_model": 32, "d_kv": 16, "num_heads": 2, "num_layers": 2, "d_ff": 48}
    config = T5Config(vocab_size=VOCAB_SIZE, pad_token_id=0, n_positions=128, **sizes)
    T5EncoderModel(config).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    async with started(tmp_path) as backend:
        assert same(await embedded(backend, TEXTS), reference(tmp_path, TEXTS))


async def test_company_changes_nothing(backend: HuggingFaceBackend) -> None:
    """Alone, in one request and among many requests at a time, a text has the same vector."""
    alone = torch.cat([await embedded(backend, [text]) for text in TEXTS])
    assert same(await embedded(backend, TEXTS), alone)
    asked = [TEXTS[n % 4 :] for n in range(12)]
    got = await asyncio.gather(*(embedded(backend, texts) for texts in asked))
    assert all(same(vectors, alone[n % 4 :]) for n, vectors in enumerate(got))


async def test_the_forms_of_input(backend: HuggingFaceBackend) -> None:
    """A string, token ids and lists of either are the same input; tokens are counted."""
    ids = [CLS, *b"Hello", SEP]
    expected = await embedded(backend, ["Hello"])
    for form in ("Hello", ids, [ids]):
        assert same(await embedded(backend, form), expected)
    got = await ask(backend, EMBEDDINGS, input=["Hello", "Hello"])
    assert got.tail == Tail(2 * len(ids), 0)
    assert got.body["usage"] == {"prompt_tokens": 2 * len(ids), "total_tokens": 2 * len(ids)}


async def test_dimensions(backend: HuggingFaceBackend, tmp_path: Path) -> None:
    """`dimensions` shortens vectors; those of a model that normalises have length one again, as
    OpenAI's have, and others stay what they were."""
    whole = await embedded(backend, TEXTS)
    short = await embedded(backend, TEXTS, dimensions=7)
    assert same(short, torch.nn.functional.normalize(whole[:, :7], dim=-1))
    assert same(await embedded(backend, TEXTS, dimensions=32), whole)
    plain = save_embedder("bert", tmp_path)
    async with started(plain) as other:
        short = await embedded(other, TEXTS, dimensions=7)
    assert same(short, reference(plain, TEXTS, truncate_dim=7))


@pytest.mark.parametrize(
    ("fields", "param", "kind"),
    [
        ({"input": "x" * 99}, "input", ContextTooLong),
        ({"input": ["a", [1] * 101]}, "input", InvalidRequest),
        ({"input": [[1], [1] * 101]}, "input", ContextTooLong),
        ({"input": ""}, "input", InvalidRequest),
        ({"input": []}, "input", InvalidRequest),
        ({"input": [VOCAB_SIZE]}, "input", InvalidRequest),
        ({"input": [-1]}, "input", InvalidRequest),
        ({"input": 5}, "input", InvalidRequest),
        ({}, "input", InvalidRequest),
        ({"input": "a", "dimensions": 33}, "dimensions", InvalidRequest),
        ({"input": "a", "dimensions": 0}, "dimensions", InvalidRequest),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", InvalidRequest),
        ({"input": "a", "truncate": True}, "truncate", InvalidRequest),
        ({"input": ["a"] * 2049}, "input", InvalidRequest),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_refused(
    backend: HuggingFaceBackend, fields: dict[str, Any], param: str, kind: type[InvalidRequest]
) -> None:
    """A wrong field is named, and a text longer than `max_seq_length` is no silent cut."""
    with pytest.raises(InvalidRequest) as refused:
        await ask(backend, EMBEDDINGS, **fields)
    assert refused.value.param == param
    assert type(refused.value) is kind


async def test_base64(backend: HuggingFaceBackend) -> None:
    """On request a vector is the bytes of its float32, the lowest first, in base64."""
    got = await ask(backend, EMBEDDINGS, input=TEXTS, encoding_format="base64")
    raw = [base64.b64decode(item["embedding"]) for item in got.body["data"]]
    assert same(
        torch.tensor([struct.unpack("<32f", r) for r in raw]), await embedded(backend, TEXTS)
    )


async def test_through_the_router(backend: HuggingFaceBackend) -> None:
    """The strict openai client gets the floats, and the usual one, which asks for base64 by itself
    and is too strict for that otherwise; chat is a 404 that says what the model is for."""
    expected = await embedded(backend, TEXTS)
    async with (
        serving(RouterApp(LocalCluster({"tiny": backend}))) as url,
        openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key="-", max_retries=0, _strict_response_validation=True
        ) as client,
    ):
        usual = client.with_options(_extra_kwargs={"_strict_response_validation": False})
        strict = client.embeddings.create(model="tiny", input=TEXTS, encoding_format="float")
        for got in await asyncio.gather(strict, usual.embeddings.create(model="tiny", input=TEXTS)):
            assert same(torch.tensor([item.embedding for item in got.data]), expected)
            assert (got.model, got.object) == ("tiny", "list")
        with pytest.raises(openai.NotFoundError) as refused:
            await client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "Hello"}]
            )
        assert refused.value.code == "unsupported_endpoint"
        with pytest.raises(openai.BadRequestError) as too_long:
            await client.embeddings.create(model="tiny", input="x" * 200)
        assert too_long.value.code == "context_length_exceeded"


async def test_what_is_not_for_embedders(checkpoint: Path, tmp_path: Path) -> None:
    """Settings that would do nothing end the start."""
    for settings in ({"quantization": "int8"}, {"adapters": {"a": "/a"}}):
        with pytest.raises(StartError, match=next(iter(settings))):
            await HuggingFaceBackend("tiny", configured(checkpoint, **settings)).start()
    with pytest.raises(StartError, match="131 is more than the 130"):
        await HuggingFaceBackend("tiny", configured(checkpoint, max_model_len=131)).start()
