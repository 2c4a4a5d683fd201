"""The model's own stops, where they are worked out and laid under a request's."""

from typing import Any

import pytest

from deployments.stops import stop_ids
from deployments.vllm_engine.stops import Stops, path_of_exchange

from .families import SPECIAL, tokenizer

pytestmark = pytest.mark.filterwarnings("ignore")  # of vLLM and torch, when they are imported

STOPS = Stops(("\nUser",), frozenset({7}))
CHAT = "/v1/chat/completions"


def params(**settings: Any) -> Any:
    from vllm import SamplingParams

    return SamplingParams(**settings)


def test_strings_that_are_tokens() -> None:
    """A stop string that is a special token, which is never shown, stops by its id: whatever id a
    checkpoint gave it."""
    found = stop_ids(tokenizer("</s>"), ("<|end|>", "\nUser"), (49155,))
    assert found == {49155, SPECIAL.index("<|end|>")}


def test_a_requests_own_stops_stay() -> None:
    """The model's stops are added to a request's; its parameters are not changed in place."""
    path_of_exchange.set(CHAT)
    asked = params(stop="own", stop_token_ids=[1, 7], temperature=0.5)
    laid = STOPS.under(asked)
    assert (laid.stop, laid.stop_token_ids) == (["own", "\nUser"], [1, 7])
    assert laid.output_text_buffer_length == len("\nUser") - 1
    assert laid.temperature == 0.5
    assert (asked.stop, asked.stop_token_ids) == (["own"], [1, 7])


@pytest.mark.parametrize(
    ("path", "settings", "strings", "ids"),
    [
        (CHAT, {}, ["\nUser"], [7]),
        ("/v1/responses", {}, ["\nUser"], [7]),
        ("/v1/completions", {}, [], [7]),
        (CHAT, {"detokenize": False}, [], [7]),  # vLLM looks for strings in text only
        (CHAT, {"ignore_eos": True}, [], []),
    ],
)
def test_which_stops_count(
    path: str, settings: dict[str, Any], strings: list[str], ids: list[int]
) -> None:
    """Strings count where the template made the prompt, ids everywhere, neither for a request that
    ignores the end of text."""
    path_of_exchange.set(path)
    laid = STOPS.under(params(**settings))
    assert (laid.stop, laid.stop_token_ids) == (strings, ids)
