import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from deployments.huggingface.engine.detokenizer import MAX_HELD_TOKENS, Detokenizer
from deployments.huggingface.engine.vocabulary import Vocabulary

from .models import EOS, byte_tokenizer

TEXT = "na\u00efve \u2014 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u4f60\u597d!"


@pytest.fixture(scope="module")
def by_bytes() -> Vocabulary:
    return Vocabulary(byte_tokenizer())


@pytest.fixture(scope="module")
def by_words() -> Vocabulary:
    """Words with a mark for the space before them, and bytes for all else, as Llama has them."""
    words = ["\u2581Hello", "\u2581there", "\u2581", "s"]
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)}
    vocab |= {word: 256 + n for n, word in enumerate(words)}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    to_bytes = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    core.decoder = decoders.Sequence([*to_bytes, decoders.Strip(" ", 1, 0)])
    return Vocabulary(PreTrainedTokenizerFast(tokenizer_object=core))


def test_characters_come_whole(by_bytes: Vocabulary) -> None:
    """Characters of several tokens appear at their last token, and all text arrives."""
    detokenizer = Detokenizer(by_bytes, (65,))
    pieces = [detokenizer.add(byte) for byte in TEXT.encode()]
    assert "".join(pieces) == TEXT
    assert all("\ufffd" not in piece for piece in pieces)
    assert [piece for piece in pieces if piece] == list(TEXT)


def test_an_unfinished_character_is_not_shown(by_bytes: Vocabulary) -> None:
    """Half a character gives nothing."""
    detokenizer = Detokenizer(by_bytes, ())
    assert [detokenizer.add(byte) for byte in b"\xf0\x9f\x99"] == ["", "", ""]


def test_bytes_of_no_character_do_not_block(by_bytes: Vocabulary) -> None:
    """Bytes that can never be a character are let go, and what follows them is right."""
    detokenizer = Detokenizer(by_bytes, ())
    junk = [detokenizer.add(0xFF) for _ in range(10 * MAX_HELD_TOKENS)]
    assert any(junk)
    assert detokenizer.add(ord("a")).endswith("a")
    assert detokenizer.add(ord("b")) == "b"


def test_special_tokens_are_skipped(by_bytes: Vocabulary) -> None:
    """Special tokens have no text, and do not come between the bytes of a character."""
    detokenizer = Detokenizer(by_bytes, (EOS,))
    assert [detokenizer.add(token) for token in (0xC3, EOS, 0xB6, EOS)] == ["", "", "\u00f6", ""]


def test_leading_spaces_depend_on_the_prompt(by_words: Vocabulary) -> None:
    """A space before the first word of an answer is kept when a prompt comes before it."""
    assert Detokenizer(by_words, (256,)).add(257) == " there"
    assert Detokenizer(by_words, ()).add(257) == "there"


def test_byte_fallback_after_words(by_words: Vocabulary) -> None:
    """Bytes between words are characters, also directly after another character of bytes."""
    detokenizer = Detokenizer(by_words, (256,))
    ids = [257, *"\u00e9\U0001f642".encode(), 259, 256]
    assert "".join(map(detokenizer.add, ids)) == " there\u00e9\U0001f642s Hello"


def test_cost_does_not_grow(by_bytes: Vocabulary) -> None:
    """The thousandth token costs what the first one costs: the context is bounded."""
    detokenizer = Detokenizer(by_bytes, tuple(range(32, 120)))
    sizes = set()
    for token in list(TEXT.encode()) * 20 + [0xFF] * 100 + [EOS] * 1000:
        detokenizer.add(token)
        sizes.add(len(detokenizer._ids))
    assert max(sizes) <= 2 * MAX_HELD_TOKENS


def test_bytes_of_tokens(by_bytes: Vocabulary, by_words: Vocabulary) -> None:
    """A token's bytes have its leading space, and are exact for parts of characters."""
    assert by_bytes.token_bytes(0xF0) == b"\xf0"
    assert by_bytes.token_bytes(32) == b" "
    assert by_bytes.token_bytes(EOS) == b"<|end|>"
    assert by_bytes.token_bytes(10**6) == b""
    assert by_words.token_bytes(256) == b" Hello"
    assert by_words.token_bytes(0xC3) == b"\xc3"
