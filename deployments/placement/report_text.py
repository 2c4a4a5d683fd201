"""A plan as operators read it: a table, and what was decided."""

from itertools import groupby

from deployments.placement.amount import spell
from deployments.placement.arrangement import Tier
from deployments.placement.report import Amounts, Placed, Report


def as_text(told: Report) -> str:
    """A table, then the placement or the refusal."""
    lines = [f"{told.model}: {told.architecture}, {told.layers} layers", *_size_lines(told)]
    lines += [f"  no: {better.name}: {better.reason}" for better in told.rejected]
    if told.placement is not None:
        lines += _placed_lines(told.placement, told.budget)
    else:
        lines.append(f"  It cannot run so. {refusal(told)}")
    return "\n".join(lines)


def refusal(told: Report) -> str:
    """What would do, for a plan in which nothing fits."""
    if told.smallest is None:
        return "No way to run it is allowed."
    needs = told.smallest.needs
    parts = [f"{needs.gpu_bytes} bytes of GPU"] if needs.gpu_bytes else []
    parts.append(f"{needs.cpu_bytes} bytes of RAM")
    if needs.disk_bytes is not None:
        parts.append(f"a disk with {needs.disk_bytes} bytes free")
    approximately = spell(needs.gpu_bytes + needs.cpu_bytes)
    return (
        f"The smallest budget for batch {told.batch} and context {told.context} is "
        f"{', '.join(parts)} ({approximately} of memory; {told.smallest.name})."
    )


def _size_lines(told: Report) -> list[str]:
    sizes, budget = told.sizes, told.budget
    layers = sorted(sizes.stored_bytes_per_layer)
    disk = "none" if budget.disk_bytes is None else spell(budget.disk_bytes)
    each = spell(layers[-1])
    if layers[0] != layers[-1]:
        each = f"{spell(layers[0])} to {each}"
    adapters = [f"  adapters         {spell(sizes.adapter_bytes)}"] if sizes.adapter_bytes else []
    return [
        f"  parameters       {sizes.parameters:,}",
        f"  stored           {spell(sizes.stored_bytes)} as {sizes.stored_dtype}: {each} a layer, "
        f"{spell(sizes.stored_bytes_around_layers)} around them; loaded as {sizes.dtype}",
        *adapters,
        f"  keys and values  {sizes.kv_bytes_per_token:,} bytes a token",
        f"  working memory   {spell(sizes.kv_bytes)} of keys and values, "
        f"{spell(sizes.activation_bytes)} of activations, {spell(sizes.logits_bytes)} of logits, "
        f"at batch {told.batch} and context {told.context}",
        f"  budget           GPU {spell(budget.gpu_bytes)}, RAM {spell(budget.cpu_bytes)}, "
        f"disk {disk}",
    ]


def _placed_lines(placed: Placed, budget: Amounts) -> list[str]:
    speed = placed.speed
    where = "GPU" if budget.gpu_bytes else "RAM"
    takes = f"{spell(placed.device_bytes)} of {where}"
    if budget.gpu_bytes:
        takes += f", {spell(placed.host_bytes)} of RAM"
    if placed.disk_bytes:
        takes += f", {spell(placed.disk_bytes)} of disk"
    return [
        f"  yes: {placed.name}, {spell(placed.weight_bytes)} of weights; takes {takes}",
        f"  layers           {_spell_layers(placed.layers, where)}",
        f"  largest          batch {placed.max_batch} at this context, "
        f"context {placed.max_context} at this batch",
        f"  decode bound     {speed.tokens_per_s_per_sequence:.3g} tokens/s per sequence, "
        f"{speed.tokens_per_s:.3g} in total, by the {speed.limited_by} "
        f"({speed.bandwidths}: memory {_rate(speed.memory_bandwidth)}, "
        f"link {_rate(speed.link_bandwidth)}, disk {_rate(speed.disk_bandwidth)})",
    ]


def _spell_layers(layers: tuple[str, ...], where: str) -> str:
    """Runs of layers: `0-3 GPU, 4 disk, ...`."""
    names = {Tier.RESIDENT.value: where, Tier.RAM.value: "RAM", Tier.DISK.value: "disk"}
    runs = [list(run) for _, run in groupby(enumerate(layers), key=lambda layer: layer[1])]
    spans = ((run[0][0], run[-1][0], names[run[0][1]]) for run in runs)
    return ", ".join(f"{a} {tier}" if a == b else f"{a}-{b} {tier}" for a, b, tier in spans)


def _rate(bandwidth: float) -> str:
    return f"{bandwidth / 1e9:.3g} GB/s"
