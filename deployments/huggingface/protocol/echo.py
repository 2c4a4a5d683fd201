"""Prompts that answers repeat, with the log probabilities of their tokens where those are asked."""

from dataclasses import dataclass, replace

from deployments.huggingface.engine.detokenizer import Detokenizer
from deployments.huggingface.engine.generation import Delta, Score, TokenLogprob
from deployments.huggingface.engine.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Echo:
    """A prompt. `offsets` is where the text of each of its tokens begins; empty if nobody asks."""

    text: str
    ids: tuple[int, ...]
    offsets: tuple[int, ...]
    vocabulary: Vocabulary

    def alone(self, delta: Delta) -> Delta:
        """What comes before the first piece of an answer."""
        logprobs = self._logprobs(delta.prompt_scores) if self.offsets else ()
        return Delta(delta.index, self.text, num_tokens=0, logprobs=logprobs)

    def shifted(self, delta: Delta) -> Delta:
        """A piece of an answer, where it is in the whole text."""
        logprobs = (replace(t, offset=t.offset + len(self.text)) for t in delta.logprobs)
        return replace(delta, logprobs=tuple(logprobs))

    def before(self, delta: Delta) -> Delta:
        """Prompt and answer as one."""
        prompt, answer = self.alone(delta), self.shifted(delta)
        logprobs = prompt.logprobs + answer.logprobs
        return replace(answer, text=prompt.text + answer.text, logprobs=logprobs)

    def _logprobs(self, scores: tuple[Score, ...]) -> tuple[TokenLogprob, ...]:
        token_bytes = self.vocabulary.token_bytes
        first = TokenLogprob(token_bytes(self.ids[0]), None, (), 0)
        others = zip(self.ids[1:], self.offsets[1:], scores, strict=True)
        return first, *(
            TokenLogprob(
                token_bytes(token),
                logprob,
                tuple((token_bytes(other), value) for other, value in top),
                offset,
            )
            for token, offset, (logprob, top) in others
        )


def echo_of(text: str | None, ids: tuple[int, ...], vocabulary: Vocabulary, scored: bool) -> Echo:
    """The echo of a prompt: its text as the client wrote it, or what its token ids stand for."""
    text = vocabulary.decode(list(ids)) if text is None else text
    return Echo(text, ids, _offsets(ids, vocabulary) if scored else (), vocabulary)


def _offsets(ids: tuple[int, ...], vocabulary: Vocabulary) -> tuple[int, ...]:
    detokenizer = Detokenizer(vocabulary, ())
    offsets, num_chars = [], 0
    for token in ids:
        offsets.append(num_chars)
        num_chars += len(detokenizer.add(token))
    return tuple(offsets)
