"""Chooses where a model's weights go: the first arrangement that fits, and why no better one did.

The order: resident; resident and quantised, if that is allowed; streamed from RAM; streamed from
disk. Within each, exact weights before int8, int8 before nf4.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from deployments.placement.amount import spell
from deployments.placement.arrangement import Arrangement, Tier, arrange, least
from deployments.placement.budget import Budget, Needs
from deployments.placement.demand import Demand, Model, demand
from deployments.placement.workload import Workload

QUANTIZATIONS = ("none", "int8", "nf4")
MAX_BATCH = 4096


def quantizations(model: Model, asked: str) -> Sequence[str]:
    """Those that may be used: `asked`, or any if it is auto. What is quantised as it is stored is
    not quantised once more."""
    if asked != "auto":
        return (asked,)
    return ("none",) if model.geometry.is_quantized else QUANTIZATIONS


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be planned. `quantizations` and `tiers` are those that may be used."""

    model: Model
    workload: Workload
    budget: Budget
    quantizations: Sequence[str] = ("none",)
    tiers: Sequence[Tier] = tuple(Tier)

    def candidates(self) -> Iterator["Candidate"]:
        """Every way to run the model, the best first."""
        for tier in self.tiers:
            for quantization in self.quantizations:
                asked = demand(self.model, quantization, self.workload)
                yield Candidate(tier, quantization, asked, least(asked, tier, self.budget))


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run a model, and the least that it needs."""

    tier: Tier
    quantization: str
    demand: Demand
    needs: Needs

    @property
    def name(self) -> str:
        """As it is told."""
        where = {Tier.RESIDENT: "resident", Tier.RAM: "streamed from RAM"}
        quantized = "" if self.quantization == "none" else f", {self.quantization}"
        return where.get(self.tier, "streamed from disk") + quantized

    @property
    def is_possible(self) -> bool:
        """Whether there is any budget for it: formats of quantised checkpoints are not streamed."""
        return self.tier is Tier.RESIDENT or self.demand.can_stream

    def objection(self, budget: Budget) -> str | None:
        """Why it does not fit `budget`; None if it does."""
        if not self.is_possible:
            return "weights that are stored quantised cannot be streamed"
        if self.tier is Tier.RAM and not budget.has_gpu:
            return "without a GPU, RAM is where the model runs"
        if self.tier is Tier.DISK and budget.disk_bytes is None:
            return "no disk may be used"
        kinds = ("GPU", "RAM", "disk")
        for kind, need, has in zip(kinds, _amounts(self.needs), _amounts(budget), strict=True):
            if need > has:
                return f"needs {spell(need)} of {kind}, there is {spell(has)}"
        return None


@dataclass(frozen=True, slots=True)
class Rejection:
    """A candidate that did not fit."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What was chosen. Without `chosen` nothing fits, and `smallest` is a budget that would do."""

    question: Question
    chosen: Candidate | None
    arrangement: Arrangement | None
    rejections: tuple[Rejection, ...]
    smallest: Candidate | None = None

    @property
    def streams(self) -> bool:
        """Whether weights move in every step."""
        return self.chosen is not None and self.chosen.tier is not Tier.RESIDENT


def make_plan(question: Question) -> Plan:
    """The best way to run a model within a budget."""
    rejections: list[Rejection] = []
    for candidate in question.candidates():
        reason = candidate.objection(question.budget)
        if reason is None:
            arrangement = arrange(candidate.demand, candidate.tier, question.budget)
            return Plan(question, candidate, arrangement, tuple(rejections))
        rejections.append(Rejection(candidate, reason))
    return Plan(question, None, None, tuple(rejections), _smallest(question))


def max_batch(question: Question, chosen: Candidate) -> int:
    """The most sequences of the asked length that could run in the same way."""
    return _most(
        MAX_BATCH,
        lambda batch: _would_fit(question, chosen, replace(question.workload, batch=batch)),
    )


def max_context(question: Question, chosen: Candidate) -> int:
    """The longest context, at most the model's own, that as many sequences could have."""
    return _most(
        question.model.geometry.max_model_len or 2**20,
        lambda context: _would_fit(question, chosen, replace(question.workload, context=context)),
    )


def _most(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `limit` that fits; 0 is not asked."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _would_fit(question: Question, chosen: Candidate, workload: Workload) -> bool:
    asked = demand(question.model, chosen.quantization, workload)
    needs = least(asked, chosen.tier, question.budget)
    return replace(chosen, demand=asked, needs=needs).objection(question.budget) is None


def _smallest(question: Question) -> Candidate | None:
    """Of all ways the one with the smallest needs of memory."""
    has_gpu = question.budget.has_gpu
    possible = [c for c in question.candidates() if c.is_possible]
    possible = [c for c in possible if has_gpu or c.tier is not Tier.RAM]
    return min(possible, key=lambda c: c.needs.gpu_bytes + c.needs.cpu_bytes, default=None)


def _amounts(of: Budget | Needs) -> tuple[int, int, int]:
    return of.gpu_bytes, of.cpu_bytes, of.disk_bytes or 0
