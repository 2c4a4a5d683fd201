from collections import Counter

import pytest
import torch

from deployments.huggingface.engine.generation import Sampling
from deployments.huggingface.engine.penalties import adjusted
from deployments.huggingface.engine.sampling import LOWEST_LOGPROB, Sampled, Sampler, sample

from .operations import Operations

LOGITS = torch.tensor([0.0, 1.0, 2.0, 3.0, -1.0])
NONE: frozenset[int] = frozenset()


def step(sampler: Sampler, raw: torch.Tensor = LOGITS, banned: frozenset[int] = NONE) -> Sampled:
    return sample([sampler], adjusted([sampler], [banned], raw[None]), raw[None])[0]


def draws(sampling: Sampling, count: int = 300, banned: frozenset[int] = NONE) -> Counter[int]:
    sampler = Sampler(sampling, prompt_ids=(3,))
    return Counter(step(sampler, LOGITS, banned).token for _ in range(count))


def test_zero_temperature_takes_the_likeliest() -> None:
    """Temperature 0 is greedy, whatever else is set."""
    assert draws(Sampling(temperature=0, top_k=3, seed=1), 20) == {3: 20}


def test_frequencies_follow_the_distribution() -> None:
    """Tokens are drawn as often as softmax says, temperature applied."""
    count = 4000
    got = draws(Sampling(temperature=2.0, seed=3), count)
    expected = (LOGITS / 2.0).softmax(-1)
    for token, probability in enumerate(expected.tolist()):
        assert got[token] / count == pytest.approx(probability, abs=0.03)


@pytest.mark.parametrize(
    ("sampling", "allowed"),
    [
        (Sampling(top_k=2, seed=1), {2, 3}),
        (Sampling(top_k=99, seed=1), {0, 1, 2, 3, 4}),
        (Sampling(top_p=0.7, seed=1), {2, 3}),
        (Sampling(top_p=0.0, seed=1), {3}),
        (Sampling(min_p=0.3, seed=1), {2, 3}),
        (Sampling(min_p=1.0, seed=1), {3}),
    ],
)
def test_truncation_keeps_only_the_likely(sampling: Sampling, allowed: set[int]) -> None:
    """top_k, top_p and min_p each leave the tokens that they promise, and at least one."""
    assert set(draws(sampling, 600)) == allowed


def test_seeds_repeat() -> None:
    """The same seed draws the same tokens in the same order; no seed does not."""

    def tokens(seed: int | None) -> list[int]:
        sampler = Sampler(Sampling(seed=seed), ())
        return [step(sampler).token for _ in range(40)]

    assert tokens(7) == tokens(7) != tokens(8)
    assert tokens(2**63) == tokens(2**63)
    assert tokens(None) != tokens(None)


def test_bias_and_bans() -> None:
    """A bias can force a token, and a ban excludes one."""
    assert draws(Sampling(logit_bias={4: 100.0}), 20) == {4: 20}
    assert draws(Sampling(temperature=0), 20, banned=frozenset({3})) == {2: 20}


def test_presence_and_frequency_count_the_answer_only() -> None:
    """Tokens of the answer are penalized, once or by their count; the prompt's are not."""
    greedy = Sampler(Sampling(temperature=0, presence_penalty=1.5), (3,))
    assert [step(greedy).token for _ in range(4)] == [3, 2, 3, 3]
    greedy = Sampler(Sampling(temperature=0, frequency_penalty=0.6), (3,))
    assert [step(greedy).token for _ in range(5)] == [3, 3, 2, 3, 2]


def test_repetition_counts_the_prompt_too() -> None:
    """repetition_penalty divides what is likely and was seen, in the prompt or the answer."""
    greedy = Sampler(Sampling(temperature=0, repetition_penalty=2.0), (3,))
    assert [step(greedy).token for _ in range(2)] == [2, 3]


def test_logprobs_are_the_models_own() -> None:
    """Log probabilities are those before any sampling step, and never infinite."""
    raw = torch.tensor([0.0, -torch.inf, 2.0])
    sampler = Sampler(Sampling(temperature=0, logit_bias={1: 100.0}, num_logprobs=3), ())
    sampled = step(sampler, raw, frozenset({2}))
    expected = raw.log_softmax(-1)
    assert sampled.token == 0
    assert sampled.logprob == pytest.approx(float(expected[0]))
    assert [token for token, _ in sampled.top] == [2, 0, 1]
    assert sampled.top[-1][1] == LOWEST_LOGPROB


MIXED = [
    Sampling(temperature=0),
    Sampling(seed=1),
    Sampling(temperature=0.7, top_p=0.8, seed=2),
    Sampling(temperature=1.3, top_k=7, seed=3),
    Sampling(min_p=0.1, seed=4, num_logprobs=2),
    Sampling(top_k=9, top_p=0.5, min_p=0.02, seed=5, num_logprobs=0),
    Sampling(seed=6, frequency_penalty=0.5, repetition_penalty=1.3),
    Sampling(temperature=0, presence_penalty=-1.5, logit_bias={7: 2.0, 8: -3.0}),
    Sampling(temperature=0, repetition_penalty=0.7, logit_bias={9: 5.0}),
    Sampling(seed=7, presence_penalty=1.0, frequency_penalty=-0.5),
    Sampling(),
]


BANNED = [frozenset(range(n % 4)) for n in range(len(MIXED))]


def test_company_changes_nothing() -> None:
    """Sampled in one batch of all kinds, each answer is what it is when it is sampled alone."""
    rows = torch.randn((20, len(MIXED), 50), generator=torch.Generator().manual_seed(1)) * 3
    alone = [Sampler(sampling, (3,)) for sampling in MIXED]
    together = [Sampler(sampling, (3,)) for sampling in MIXED]
    for raw in rows:
        triples = zip(alone, raw, BANNED, strict=True)
        expected = [step(sampler, row, banned) for sampler, row, banned in triples]
        got = sample(together, adjusted(together, BANNED, raw), raw)
        for one, other, sampling in zip(expected, got, MIXED, strict=True):
            if sampling.seed is None and sampling.temperature:
                continue
            assert one.token == other.token
            assert [token for token, _ in one.top] == [token for token, _ in other.top]
            assert one.logprob == pytest.approx(other.logprob, abs=1e-5)


@pytest.mark.parametrize("sampling", MIXED[6:9])
def test_more_rows_are_no_more_operations(sampling: Sampling) -> None:
    """Biases, bans and penalties are laid on all rows of a batch at once."""

    def num_operations(num_rows: int) -> int:
        samplers = [Sampler(sampling, (3,)) for _ in range(num_rows)]
        banned, raw = [frozenset({1, 2})] * num_rows, torch.randn(num_rows, 50)
        adjusted(samplers, banned, raw)  # each begins to count its tokens
        with Operations() as seen:
            adjusted(samplers, banned, raw)
        return len(seen.names)

    assert num_operations(2) == num_operations(32)


def test_what_nobody_asks_for_costs_nothing() -> None:
    """Where no row wants other logits, they are the model's own, not a copy."""
    assert adjusted([Sampler(Sampling(), (3,))] * 2, [NONE] * 2, LOGITS[None]).data_ptr() == (
        LOGITS.data_ptr()
    )
