"""One answer being generated: logits go in, text goes to the sink.

It knows nothing of batches or of the model; whatever engine runs it calls `advance` once for each
token, on one thread.
"""

from torch import Tensor

from deployments.errors import RoundhouseError
from deployments.huggingface.detokenizer import Detokenizer
from deployments.huggingface.generation import Choice, Delta, Sink, TokenLogprob
from deployments.huggingface.sampling import Sampled, Sampler
from deployments.huggingface.vocabulary import Vocabulary
from deployments.stops import StopStrings

NO_TOKENS: frozenset[int] = frozenset()


class Sequence:
    """A choice on its way. `cancelled` is set by the engine when nobody wants it any more."""

    def __init__(self, choice: Choice, vocabulary: Vocabulary, sink: Sink) -> None:
        self.prompt_ids = choice.prompt_ids
        self.cancelled = False
        self.finished = False
        self._choice = choice
        self._vocabulary = vocabulary
        self._sink = sink
        self._sampler = Sampler(choice.sampling, choice.prompt_ids)
        self._detokenizer = Detokenizer(vocabulary, choice.prompt_ids)
        self._stops = StopStrings(choice.stopping.strings)
        self._num_tokens = 0
        self._num_tokens_sent = 0
        self._num_chars = 0  # of all text so far, held back or not
        self._num_chars_out = 0  # of the text that no stop string can take back
        self._pieces: list[str] = []
        self._logprobs: list[TokenLogprob] = []

    def advance(self, logits: Tensor) -> int:
        """Chooses the next token from logits `(vocab,)` and takes it; sets `finished` at the
        end."""
        early = self._num_tokens < self._choice.stopping.min_tokens
        sampled = self._sampler.sample(
            logits, self._choice.stopping.token_ids if early else NO_TOKENS
        )
        self._num_tokens += 1
        if sampled.token in self._choice.stopping.token_ids:
            self._finish("stop")
        else:
            self._take(sampled)
        return sampled.token

    def fail(self, error: RoundhouseError) -> None:
        """Ends the choice with an error, unless it has ended."""
        if not self.finished:
            self.finished = True
            self._sink.fail(error)

    def _take(self, sampled: Sampled) -> None:
        text = self._detokenizer.add(sampled.token)
        if self._choice.sampling.num_logprobs is not None:
            self._logprobs.append(self._logprob(sampled))
        self._num_chars += len(text)
        armed = self._num_tokens > self._choice.stopping.min_tokens
        self._put(self._stops.add(text, armed))
        if self._stops.found:
            self._drop_logprobs()
            self._finish("stop")
        elif self._num_tokens >= self._choice.stopping.max_tokens:
            self._finish("length")
        elif self._choice.streamed and self._pieces:
            self._send(None)

    def _put(self, text: str) -> None:
        if text:
            self._pieces.append(text)
            self._num_chars_out += len(text)

    def _finish(self, reason: str) -> None:
        self._put(self._stops.flush())
        self.finished = True
        self._send(reason)

    def _send(self, finish_reason: str | None) -> None:
        count = len(self._logprobs) if finish_reason else self._num_logprobs_out()
        delta = Delta(
            self._choice.index,
            "".join(self._pieces),
            self._num_tokens - self._num_tokens_sent,
            tuple(self._logprobs[:count]),
            finish_reason,
        )
        self._pieces.clear()
        del self._logprobs[:count]
        self._num_tokens_sent = self._num_tokens
        self._sink.add(delta)

    def _num_logprobs_out(self) -> int:
        """How many of the waiting tokens have their text out, at least its beginning."""
        return sum(token.offset < self._num_chars_out for token in self._logprobs)

    def _drop_logprobs(self) -> None:
        """Forgets the tokens of a stop string: those listed are those of the text."""
        del self._logprobs[self._num_logprobs_out() :]

    def _logprob(self, sampled: Sampled) -> TokenLogprob:
        token_bytes = self._vocabulary.token_bytes
        top = tuple((token_bytes(token), logprob) for token, logprob in sampled.top)
        return TokenLogprob(token_bytes(sampled.token), sampled.logprob, top, self._num_chars)
