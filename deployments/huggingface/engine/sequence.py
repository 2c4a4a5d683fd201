"""One answer being generated: logits go in, text goes to the sink.

It knows nothing of batches or of the model; for each token the engine asks what is `banned`, and
then calls `take`, on one thread.
"""

from deployments.errors import RoundhouseError
from deployments.huggingface.engine.detokenizer import Detokenizer
from deployments.huggingface.engine.generation import Choice, Delta, Score, Sink, TokenLogprob
from deployments.huggingface.engine.grammar import Grammar, Matcher
from deployments.huggingface.engine.sampling import Sampled, Sampler
from deployments.huggingface.engine.vocabulary import Vocabulary
from deployments.stops import StopStrings

NO_TOKENS: frozenset[int] = frozenset()


class Sequence:
    """A choice on its way.

    `matcher` is how far it is in the grammar that it must follow, if there is one. `cancelled` is
    set by the engine when nobody wants it any more; `suspects` when a step that it was in failed:
    it then runs with those only that have the same.
    """

    def __init__(
        self, choice: Choice, vocabulary: Vocabulary, sink: Sink, grammar: Grammar | None = None
    ) -> None:
        self.cancelled = False
        self.finished = False
        self.suspects: object | None = None
        self.sampler = Sampler(choice.sampling, choice.prompt_ids)
        self.matcher = grammar.matcher() if grammar else None
        self._choice = choice
        self._vocabulary = vocabulary
        self._sink = sink
        self._detokenizer = Detokenizer(vocabulary, choice.prompt_ids, choice.shown_ids)
        self._stops = StopStrings(choice.stopping.strings)
        self._tokens: list[int] = []
        self._num_tokens_sent = 0
        self._num_chars = 0  # of all text so far, held back or not
        self._num_chars_out = 0  # of the text that no stop string can take back
        self._pieces: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._scores: tuple[Score, ...] = ()
        self._scored = not choice.scored

    @property
    def adapter(self) -> str | None:
        """The name of the adapter that makes it, None for the base model."""
        return self._choice.adapter

    @property
    def num_prompt_top(self) -> int | None:
        """How many alternatives to each token of the prompt are wanted; None if it needs no
        scores, or has them."""
        return None if self._scored else self._choice.sampling.num_logprobs

    @property
    def ended(self) -> bool:
        """Whether it needs no further token."""
        return self.finished or self.cancelled

    @property
    def context(self) -> tuple[int, ...]:
        """The prompt and the answer so far."""
        return (*self._choice.prompt_ids, *self._tokens)

    @property
    def num_context_tokens(self) -> int:
        """The length of the context."""
        return len(self._choice.prompt_ids) + len(self._tokens)

    @property
    def max_context_tokens(self) -> int:
        """The length that the context may come to."""
        return len(self._choice.prompt_ids) + self._choice.stopping.max_tokens

    @property
    def last_token(self) -> int:
        """The newest token of the answer, which has one."""
        return self._tokens[-1]

    @property
    def banned(self) -> frozenset[int]:
        """The tokens that may not come next, whatever the model says."""
        early = len(self._tokens) < self._choice.stopping.min_tokens
        return self._choice.stopping.token_ids if early else NO_TOKENS

    def take_scores(self, scores: tuple[Score, ...]) -> None:
        """Takes the scores of the prompt, before the first token."""
        self._scores, self._scored = scores, True

    def take(self, sampled: Sampled) -> None:
        """Takes the next token; sets `finished` at the end."""
        if not self._choice.stopping.max_tokens:  # only the prompt was of interest
            self._finish("length")
            return
        if self.matcher is not None and not self._follow(self.matcher, sampled.token):
            return
        self._tokens.append(sampled.token)
        if sampled.token in self._choice.stopping.token_ids:
            self._finish("stop")
        else:
            self._take(sampled)

    def fail(self, error: RoundhouseError) -> None:
        """Ends the choice with an error, unless it has ended."""
        if not self.finished:
            self.finished = True
            self._sink.fail(error)

    def _follow(self, matcher: Matcher, token: int) -> bool:
        """Whether the answer goes on with a token. If not, it has ended."""
        if matcher.accepting and not matcher.allows(token):
            self._finish("stop")  # nothing was allowed: `min_tokens` bans the end, which is here
            return False
        try:
            matcher.take(token)
        except RoundhouseError as error:
            self.fail(error)
            return False
        return True

    def _take(self, sampled: Sampled) -> None:
        text = self._detokenizer.add(sampled.token)
        if self._choice.sampling.num_logprobs is not None:
            self._logprobs.append(self._logprob(sampled))
        self._num_chars += len(text)
        armed = len(self._tokens) > self._choice.stopping.min_tokens
        self._put(self._stops.add(text, armed))
        if self._stops.found:
            self._drop_logprobs()
            self._finish("stop")
        elif self.matcher is not None and self.matcher.ended:
            self._finish("stop")
        elif len(self._tokens) >= self._choice.stopping.max_tokens:
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
            len(self._tokens) - self._num_tokens_sent,
            tuple(self._logprobs[:count]),
            finish_reason,
            self._scores,
        )
        self._scores = ()
        self._pieces.clear()
        del self._logprobs[:count]
        self._num_tokens_sent = len(self._tokens)
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
