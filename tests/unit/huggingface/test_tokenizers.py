"""Tokenizers that come as SentencePiece's file alone, as those of 2023's models do."""

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from transformers import AutoModelForCausalLM, GPTSw3Tokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from deployments.huggingface.engine.detokenizer import Detokenizer
from deployments.huggingface.engine.vocabulary import Vocabulary
from deployments.huggingface.loading.tokenizers import load_tokenizer

from .architectures import SMALL
from .asking import COMPLETIONS, ask, started

TEXTS = ["Hello world, this is a test of a tokenizer.", "[INST] What is that? [/INST] A tést."]
PROBES = [
    "Hello world",
    "\nnew\n\nline",
    "tést \U0001f642 \u65e5\u672c",
    "a  b   c ",
    "[INST] Hi [/INST]",
]
VOCAB_SIZE = 320
BOS, EOS = 1, 2


@pytest.fixture(scope="session")
def sentences() -> bytes:
    """SentencePiece's file, made as LLaMA's was: BPE, bytes for what is unknown, no padding."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 9),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCAB_SIZE,
        byte_fallback=True,
        pad_id=-1,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return model.getvalue()


@pytest.fixture
def folder(sentences: bytes, tmp_path: Path) -> Path:
    """A checkpoint with that file for a tokenizer."""
    torch.manual_seed(3)
    config = CONFIG_MAPPING["llama"](**SMALL | {"vocab_size": VOCAB_SIZE, "eos_token_id": EOS})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(sentences)
    return tmp_path


def configured(folder: Path, settings: dict[str, Any] | None) -> Vocabulary:
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return Vocabulary(load_tokenizer(folder, trust_remote_code=False))


FIRST_CONVERSION = {"tokenizer_class": "LLaMATokenizer"} | dict.fromkeys(
    ("bos_token", "eos_token", "unk_token"), ""
)


@pytest.mark.parametrize(
    "settings", [None, {"tokenizer_class": "LlamaTokenizer"}, FIRST_CONVERSION]
)
def test_llamas_read_as_sentencepiece_reads(
    folder: Path, sentences: bytes, settings: dict[str, Any] | None
) -> None:
    """Whatever its config says or leaves out, a text is what SentencePiece makes of it, after the
    beginning token; there is no padding token, and none is needed."""
    reference = sentencepiece.SentencePieceProcessor(model_proto=sentences)
    vocabulary = configured(folder, settings)
    for text in PROBES:
        assert vocabulary.encode(text, add_special_tokens=True) == (BOS, *reference.encode(text))
        assert vocabulary.decode(reference.encode(text)) == text
    assert (vocabulary.tokenizer.eos_token_id, vocabulary.tokenizer.pad_token) == (EOS, None)
    assert {BOS, EOS} <= vocabulary.special_ids


def test_a_checkpoint_may_want_no_beginning(folder: Path) -> None:
    """What the checkpoint does say is kept."""
    settings = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False}
    assert BOS not in configured(folder, settings).encode("Hello", add_special_tokens=True)


@pytest.mark.parametrize("slow", [False, True])
def test_streamed_text_is_the_whole_text(folder: Path, slow: bool) -> None:
    """Pieces put together are the text after the prompt: spaces before words are neither lost nor
    doubled, whatever comes first, with fast tokenizers and with SentencePiece's own."""
    if slow:
        vocabulary = Vocabulary(GPTSw3Tokenizer(str(folder / "tokenizer.model")))
    else:
        vocabulary = configured(folder, {"tokenizer_class": "LlamaTokenizer"})
    words = list(range(259, VOCAB_SIZE))  # after the special ones and the bytes
    chosen = random.Random(1)
    for num_prompt in (0, 1, 2, 7) * 25:
        prompt, answer = chosen.choices(words, k=num_prompt), chosen.choices(words, k=12)
        detokenizer = Detokenizer(vocabulary, (BOS, *prompt))
        streamed = "".join(map(detokenizer.add, answer))
        assert vocabulary.decode(prompt) + streamed == vocabulary.decode(prompt + answer)


def test_tokens_beyond_sentencepieces_own(folder: Path) -> None:
    """A model's output matrix may be larger than the vocabulary: such a token has no text."""
    vocabulary = Vocabulary(GPTSw3Tokenizer(str(folder / "tokenizer.model")))
    assert vocabulary.token_bytes(10**6) == b""
    assert vocabulary.token_bytes(vocabulary.encode(" world", False)[-1]).endswith(b"d")


async def test_such_a_checkpoint_is_served(folder: Path) -> None:
    """From the file to an answer, streamed as whole."""
    async with started(folder) as backend:
        asked = {"prompt": "Hello", "temperature": 0, "max_tokens": 12}
        whole = await ask(backend, COMPLETIONS, **asked)
        streamed = await ask(backend, COMPLETIONS, **asked, stream=True)
    text = "".join(event["choices"][0]["text"] for event in streamed.events)
    assert text == whole.body["choices"][0]["text"]
    assert whole.body["usage"]["prompt_tokens"] == 1 + len(
        configured(folder, None).encode("Hello", add_special_tokens=False)
    )
