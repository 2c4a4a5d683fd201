"""A plan as programs read it; report_text.py has it as operators do."""

from typing import Literal

from deployments.config import Config
from deployments.placement.arrangement import Arrangement
from deployments.placement.bandwidth import Bandwidths, bound
from deployments.placement.budget import Budget, Needs
from deployments.placement.planner import Candidate, Plan, Rejection, max_batch, max_context
from deployments.placement.workload import cache_bytes, cache_bytes_per_token


class Amounts(Config):
    """A budget, or what one would have to be. `disk_bytes` null: no disk."""

    gpu_bytes: int
    cpu_bytes: int
    disk_bytes: int | None


class Sizes(Config):
    """What the model takes. The working memory is that of the asked batch and context."""

    parameters: int
    stored_dtype: str
    dtype: str
    stored_bytes: int
    stored_bytes_per_layer: tuple[int, ...]
    stored_bytes_around_layers: int
    adapter_bytes: int
    kv_bytes_per_token: int
    kv_bytes: int
    activation_bytes: int
    logits_bytes: int


class Speed(Config):
    """The bound on decoding, and the bandwidths that it follows from, in bytes per second."""

    tokens_per_s: float
    tokens_per_s_per_sequence: float
    step_s: float
    limited_by: str
    memory_bandwidth: float
    link_bandwidth: float
    disk_bandwidth: float
    bandwidths: str


class Placed(Config):
    """Where everything goes. `layers` has a tier for each layer, in order."""

    name: str
    quantization: str
    layers: tuple[Literal["resident", "ram", "disk"], ...]
    weight_bytes: int
    device_bytes: int
    host_bytes: int
    disk_bytes: int
    link_bytes_per_step: int
    read_bytes_per_step: int
    max_batch: int
    max_context: int
    speed: Speed


class Rejected(Config):
    """A better way to run the model that does not fit."""

    name: str
    reason: str
    needs: Amounts


class Smallest(Config):
    """A budget with which the model could run."""

    name: str
    needs: Amounts


class Report(Config):
    """A plan: `placement` null if nothing fits, and then `smallest` is what would do."""

    model: str
    architecture: str
    layers: int
    batch: int
    context: int
    budget: Amounts
    sizes: Sizes
    placement: Placed | None
    rejected: tuple[Rejected, ...]
    smallest: Smallest | None


def report(plan: Plan, speeds: Bandwidths) -> Report:
    """Tells a plan, with the speeds that it is bound by."""
    question = plan.question
    model, workload = question.model, question.workload
    smallest = plan.smallest
    return Report(
        model=model.name,
        architecture=model.geometry.architecture,
        layers=model.geometry.num_layers,
        batch=workload.batch,
        context=workload.context,
        budget=_amounts(question.budget),
        sizes=_sizes(plan),
        placement=_placed(plan, speeds),
        rejected=tuple(map(_rejected, plan.rejections)),
        smallest=Smallest(name=smallest.name, needs=_amounts(smallest.needs)) if smallest else None,
    )


def _sizes(plan: Plan) -> Sizes:
    question = plan.question
    model = question.model
    weights, working = model.weights, model.working(question.workload)
    return Sizes(
        parameters=weights.num_parameters,
        stored_dtype=weights.stored_dtype,
        dtype=model.dtype,
        stored_bytes=weights.stored_bytes,
        stored_bytes_per_layer=tuple(layer.stored_bytes for layer in weights.layers),
        stored_bytes_around_layers=weights.outer.stored_bytes,
        adapter_bytes=model.adapter_bytes,
        kv_bytes_per_token=cache_bytes_per_token(model.geometry, model.element_bytes),
        kv_bytes=working.cache_bytes,
        activation_bytes=working.activation_bytes,
        logits_bytes=working.logits_bytes,
    )


def _placed(plan: Plan, speeds: Bandwidths) -> Placed | None:
    chosen, arrangement, question = plan.chosen, plan.arrangement, plan.question
    if chosen is None or arrangement is None:
        return None
    return Placed(
        name=chosen.name,
        quantization=chosen.quantization,
        layers=tuple(tier.value for tier in arrangement.tiers),
        weight_bytes=chosen.demand.weight_bytes,
        device_bytes=arrangement.device_bytes,
        host_bytes=arrangement.host_bytes,
        disk_bytes=arrangement.disk_bytes,
        link_bytes_per_step=arrangement.link_bytes,
        read_bytes_per_step=arrangement.read_bytes,
        max_batch=max_batch(question, chosen),
        max_context=max_context(question, chosen),
        speed=_speed(plan, chosen, arrangement, speeds),
    )


def _speed(plan: Plan, chosen: Candidate, arrangement: Arrangement, speeds: Bandwidths) -> Speed:
    question = plan.question
    cache = cache_bytes(question.model.geometry, question.workload, question.model.element_bytes)
    found = bound(arrangement, chosen.demand.weight_bytes + cache, question.workload.batch, speeds)
    return Speed(
        tokens_per_s=found.tokens_per_s,
        tokens_per_s_per_sequence=found.tokens_per_s_per_sequence,
        step_s=found.step_s,
        limited_by=found.limited_by,
        memory_bandwidth=speeds.memory,
        link_bandwidth=speeds.link,
        disk_bandwidth=speeds.disk,
        bandwidths=speeds.source,
    )


def _amounts(of: Budget | Needs) -> Amounts:
    return Amounts(gpu_bytes=of.gpu_bytes, cpu_bytes=of.cpu_bytes, disk_bytes=of.disk_bytes)


def _rejected(rejection: Rejection) -> Rejected:
    candidate = rejection.candidate
    return Rejected(name=candidate.name, reason=rejection.reason, needs=_amounts(candidate.needs))
