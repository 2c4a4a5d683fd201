import torch

from deployments.errors import BackendUnavailable
from deployments.huggingface.engine.generation import Choice, Sampling, Stopping
from deployments.huggingface.engine.penalties import adjusted
from deployments.huggingface.engine.sampling import sample
from deployments.huggingface.engine.sequence import Sequence
from deployments.huggingface.engine.vocabulary import Vocabulary

from .models import EOS, VOCAB_SIZE, byte_tokenizer
from .scheduling import Collected


class Told(Collected):
    """A sink that says what came together."""

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def num_tokens(self) -> int:
        return sum(delta.num_tokens for delta in self.deltas)


def advance(sequence: Sequence, raw: torch.Tensor) -> None:
    """A step of the engine for logits `(vocab,)`."""
    logits = adjusted([sequence.sampler], [sequence.banned], raw[None])
    sequence.take(sample([sequence.sampler], logits, raw[None])[0])


def say(text: bytes, streamed: bool = True, end: bool = True, **stopping: object) -> Told:
    """What a sequence sends when the model says these bytes, and then the end token."""
    sink = Told()
    rules = {"max_tokens": 100, "token_ids": frozenset({EOS})} | stopping
    sampling = Sampling(temperature=0, num_logprobs=0)
    choice = Choice(0, (65,), sampling, Stopping(**rules), streamed)  # type: ignore[arg-type]
    sequence = Sequence(choice, Vocabulary(byte_tokenizer()), sink)
    for token in [*text, EOS] if end else text:
        if not sequence.finished:
            advance(sequence, torch.nn.functional.one_hot(torch.tensor(token), VOCAB_SIZE).float())
    return sink


def test_streamed_text_comes_by_token() -> None:
    """Streamed, each token's text is sent at once; otherwise all comes in one piece."""
    assert [delta.text for delta in say(b"abc").deltas] == ["a", "b", "c", ""]
    whole = say(b"abc", streamed=False)
    assert [(d.text, d.num_tokens, d.finish_reason) for d in whole.deltas] == [("abc", 4, "stop")]


def test_text_that_may_begin_a_stop_string_waits() -> None:
    """What may begin a stop string is sent once it does not, together with what follows it."""
    sink = say(b"one<two<|x", strings=("<|",))
    assert [d.text for d in sink.deltas] == ["o", "n", "e", "<t", "w", "o", ""]
    assert sink.num_tokens == 9
    assert sink.deltas[-1].finish_reason == "stop"


def test_held_text_is_sent_at_the_end() -> None:
    """An answer that ends by itself, or by length, loses none of the text that was held back."""
    assert say(b"a<", strings=("<|",)).text == "a<"
    assert say(b"ab<", strings=("<|",), max_tokens=3).text == "ab<"


def test_logprobs_match_the_text() -> None:
    """However text is held back or cut, the tokens listed are those of the text sent so far."""
    for strings in ((), ("\u00e9\u00e9",), ("b\u00e9",), ("zzz",)):
        sink = say("a\u00e9b\u00e9\u00e9c".encode(), strings=strings)
        for count in range(len(sink.deltas) + 1):
            deltas = sink.deltas[:count]
            tokens = b"".join(t.token for delta in deltas for t in delta.logprobs)
            assert tokens.decode() == "".join(delta.text for delta in deltas)


def test_min_tokens_keeps_stop_strings_and_ends_away() -> None:
    """Before min_tokens neither a stop string nor an end token ends the answer."""
    sink = say(b"xxyxx", strings=("x",), min_tokens=2)
    assert (sink.text, sink.num_tokens) == ("xxy", 4)
    assert say(b"", end=True, min_tokens=1, max_tokens=1).deltas[-1].finish_reason == "length"


def test_length_and_stop_at_once_is_stop() -> None:
    """A stop string completed by the last allowed token is a stop."""
    sink = say(b"ab", strings=("b",), max_tokens=2)
    assert (sink.text, sink.deltas[-1].finish_reason) == ("a", "stop")


def test_a_sequence_ends_once() -> None:
    """A failure after the end is not reported."""
    sink = Told()
    choice = Choice(0, (65,), Sampling(temperature=0), Stopping(max_tokens=1))
    sequence = Sequence(choice, Vocabulary(byte_tokenizer()), sink)
    advance(sequence, torch.zeros(VOCAB_SIZE))
    sequence.fail(BackendUnavailable())
    assert not sink.errors
