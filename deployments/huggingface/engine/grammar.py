"""Grammars that answers must follow, compiled by llguidance for the tokens of one vocabulary.

llguidance and not xgrammar: what it cannot enforce of a JSON schema it refuses, where xgrammar
drops it; a schema costs a millisecond, not a pass over the vocabulary; what a hostile one may cost
is bounded; it needs the bytes of the tokens only, so any tokenizer will do; and it is one wheel,
where xgrammar wants Triton. vLLM brings both.
"""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployments.body import MAX_ECHO_CHARS
from deployments.errors import InvalidRequest, RoundhouseError
from deployments.huggingface.engine.blanks import MAX_BLANKS, Blanks
from deployments.huggingface.engine.grammar_tokens import TokenBytes, llguidance_tokenizer
from deployments.huggingface.engine.vocabulary import Vocabulary
from deployments.schema_parts import check_parts

MAX_KEPT_GRAMMARS = 128
# Any layout of JSON; see blanks.py for how much of it.
JSON_OPTIONS = {"whitespace_flexible": True, "lenient": False, "coerce_one_of": False}
# The model chooses how to spell what is certain to come, as it does elsewhere; forced, each step
# would call the tokenizer.
PREAMBLE = '%llguidance {"no_forcing": true}\n'
SILENT = 0  # llguidance's log level: what it prints would repeat what clients sent
PLACE = re.compile(r"^at \d+\(\d+\): (failed to compile JSON schema: )?")
MATCHED_NOTHING = "The model gave a token that the answer's grammar does not allow."


@dataclass(frozen=True, slots=True)
class Source:
    """A grammar in llguidance's variant of Lark. `param` is what the client asked it with; a
    `free` one lets the model say what it likes, so that its answers end as others do."""

    lark: str
    param: str
    free: bool = False


def json_rule(schema: Mapping[str, Any]) -> str:
    """What stands in Lark for JSON that is valid under `schema`, references into it included."""
    return f"%json {json.dumps({**schema, 'x-guidance': JSON_OPTIONS})}"


def json_source(schema: Mapping[str, Any], param: str) -> Source:
    """The grammar of JSON that is valid under `schema`, and nothing around it.

    Raises: InvalidRequest for one that is too large.
    """
    check_parts([schema], param)
    return Source(f"start: {json_rule(schema)}", param)


class Matcher:
    """How far one answer has come in its grammar, which knows tokens below `num_tokens` only.
    Where `blanks` are given, no more than `MAX_BLANKS` of them follow each other."""

    def __init__(
        self, state: Any, num_tokens: int, param: str, blanks: Blanks | None = None
    ) -> None:
        self.state = state
        self.num_tokens = num_tokens
        self._param = param
        self._blanks = blanks
        self._num_blanks = 0

    @property
    def ended(self) -> bool:
        """Whether nothing may follow, the end token aside."""
        return bool(self.state.is_stopped())

    @property
    def accepting(self) -> bool:
        """Whether the answer may end here."""
        return bool(self.state.is_accepting())

    def take(self, token: int) -> None:
        """Goes on by a token.

        Raises: InvalidRequest when the grammar has become too complex to follow, RoundhouseError
        for a token that it does not allow.
        """
        self._check()
        if not self.state.validate_tokens([token]) or not self.state.consume_token(token):
            self._check()
            raise RoundhouseError(MATCHED_NOTHING)
        if self._blanks is not None:
            self._num_blanks = self._blanks.count(token, self._num_blanks)

    def narrow(self, bits: Any) -> None:
        """Takes from the mask `(words,)` of what may come next, in place, what is not the
        grammar's to forbid."""
        if (
            self._blanks is not None
            and self._num_blanks >= MAX_BLANKS
            and self._blanks.may_be_forbidden(self.state)
        ):
            self._blanks.forbid(bits)

    def allows(self, token: int) -> bool:
        """Whether a token may come next."""
        return bool(self.state.validate_tokens([token]))

    def _check(self) -> None:
        if self.state.is_error():
            raise InvalidRequest(
                f"Invalid '{self._param}': the grammar is too complex to be enforced. "
                f"{_reason(self.state.get_error())}",
                param=self._param,
            )


@dataclass(frozen=True, slots=True)
class Grammar:
    """A compiled grammar, for any number of answers."""

    start: Any
    num_tokens: int
    param: str
    blanks: Blanks | None = None

    def matcher(self) -> Matcher:
        """A matcher at the grammar's beginning."""
        return Matcher(self.start.deep_copy(), self.num_tokens, self.param, self.blanks)


class Grammars:
    """Compiles grammars and keeps those used last. All methods may be called from any thread.

    To be made while the model is loaded: llguidance takes seconds to sort a large vocabulary, and
    no other thread can do anything meanwhile.
    """

    def __init__(self, vocabulary: Vocabulary, vocab_size: int, eos_ids: frozenset[int]) -> None:
        tokens = TokenBytes(vocabulary, vocab_size, eos_ids)
        self._tokenizer = llguidance_tokenizer(tokens)
        self._blanks = Blanks(tokens.tokens)
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Any] = OrderedDict()

    def __len__(self) -> int:
        """How many grammars are kept."""
        return len(self._kept)

    def compile(self, source: Source) -> Grammar:
        """May take seconds for a schema of megabytes, without keeping other threads waiting.

        Raises: InvalidRequest for what cannot be enforced.
        """
        with self._lock:
            start = self._kept.get(source.lark)
        if start is None:
            start = self._compiled(source)
        with self._lock:
            self._kept[source.lark] = start
            self._kept.move_to_end(source.lark)
            while len(self._kept) > MAX_KEPT_GRAMMARS:
                self._kept.popitem(last=False)
        blanks = None if source.free else self._blanks
        return Grammar(start, self._tokenizer.vocab_size, source.param, blanks)

    def _compiled(self, source: Source) -> Any:
        from llguidance import LLMatcher, LLParserLimits

        limits = LLParserLimits(verbose_errors=False)
        lark = PREAMBLE + source.lark
        start = LLMatcher(self._tokenizer, lark, log_level=SILENT, limits=limits)
        if start.is_error():
            raise InvalidRequest(
                f"Invalid '{source.param}': this model's server cannot enforce it. "
                f"{_reason(start.get_error())}",
                param=source.param,
            )
        return start


def _reason(error: str) -> str:
    """llguidance's finding, without the place in a Lark source that the client has not written."""
    return PLACE.sub("", error.strip().partition("\n")[0])[:MAX_ECHO_CHARS]
