"""What the cards of a plan send one another in a step, and how long that takes beside the compute.

Bytes are what one card sends: of n cards, an all-gather or a reduce-scatter of W bytes sends W (n-1)/n, an all-reduce both (NCCL's
ring; github.com/NVIDIA/nccl-tests doc/PERFORMANCE.md). Engines as their code has them: DDP all-reduces gradients in the last micro-batch
alone (`no_sync`, transformers 5.23 trainer.py); FSDP and ZeRO-3 gather the weights for forward and for backward, a third time where a
reentrant checkpoint stands outside the unit (torch 2.13 fsdp/_runtime_utils.py); FSDP reduces gradients in the last micro-batch, ZeRO-2
and -3 in each (DeepSpeed 0.19.8 stage_1_and_2.py, stage3.py); ZeRO-1 and -2 gather the new weights after the step.

What is offloaded crosses the bus of each card: gradients to the host, new weights back, and shards of parameters whenever they are
gathered; the host steps when there is nothing left to compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from advisor import profiles
from advisor.speed.shape import Shape, shape_of
from advisor.speed.traffic import trained_dtype, trained_params
from advisor.values import GpuSpec, ModelSpec, Plan, Quantization, Sharding

QUANTISED_BYTES = {Quantization.INT8: 1.0}
HOST_STEP_BYTES = 30
"""That AdamW reads and writes of a parameter: gradient (4, read), master (4 + 4), two moments (8 + 8), a 16-bit copy (2, written)
(DeepSpeed 0.19.8 csrc/adam/cpu_adam_impl.cpp `Step_1`)."""
FOUR_BIT_BYTES = 0.5
"""A weight; its scales are never sharded (transformers 5.23, integrations/bitsandbytes.py)."""


class Exchange(NamedTuple):
    """Bytes that one card sends in an optimizer step."""

    beside_bytes: float
    """While it computes."""
    after_bytes: float
    """When there is nothing left to compute."""
    bus_bytes: float = 0
    """Between the card and its host."""
    host_params: float = 0
    """That the host steps on."""


class Link(NamedTuple):
    """A link at work: its rate, and the share of an exchange that compute does not hide."""

    bytes_per_s: float
    exposed_share: float
    bus_bytes_per_s: float = 1.0
    """Between the card and its host."""
    host_bytes_per_s: float = 1.0
    """Of the host's memory, in the optimizer's step of one process."""


def exchange_of(model: ModelSpec, plan: Plan) -> Exchange:
    """Bytes of the plan's engine; none on one card. Activations cross the bus beside compute, in a stream of their own (trl 1.16
    models/activation_offloading.py `use_streams`): inside the range."""
    sent = _sent(model, plan)
    if not (plan.offloads_optimizer or plan.offloads_params):
        return sent
    shape = shape_of(model, plan.target_modules)
    params = trained_params(shape, model, plan) / plan.sharing_gpus
    element = trained_dtype(plan).size_bytes
    reductions = plan.grad_accum_steps if plan.sharding.is_zero or plan.sync_each_batch else 1
    crossing = params * element * (reductions + 1) if plan.offloads_optimizer else 0.0
    shards = 0.0
    if plan.offloads_params:
        shards = plan.grad_accum_steps * _gathers(plan) * _gathered_bytes(shape, model, plan) / plan.sharing_gpus
    return sent._replace(bus_bytes=crossing + shards, host_params=params if plan.offloads_optimizer else 0.0)


def _gathers(plan: Plan) -> int:
    """How often the weights are gathered in a micro-batch."""
    return (2 if plan.reshard_after_forward else 1) + plan.reentrant


def _sent(model: ModelSpec, plan: Plan) -> Exchange:
    shape = shape_of(model, plan.target_modules)
    others = (plan.sharing_gpus - 1) / plan.sharing_gpus
    gradients = trained_params(shape, model, plan) * trained_dtype(plan).size_bytes * others
    if plan.sharding is Sharding.NONE:
        return Exchange(0, 0)
    if plan.sharding is Sharding.DDP:
        return Exchange(2 * gradients * (plan.grad_accum_steps if plan.sync_each_batch else 1), 0)
    if plan.sharding is Sharding.ZERO1:
        return Exchange(gradients, gradients)
    if plan.sharding is Sharding.ZERO2:
        return Exchange(gradients * plan.grad_accum_steps, gradients)
    reductions = plan.grad_accum_steps if plan.sharding is Sharding.ZERO3 or plan.sync_each_batch else 1
    replicas = plan.n_gpus // plan.sharing_gpus  # each shard of a gradient is then reduced over the groups
    among = 2 * (replicas - 1) / replicas * trained_params(shape, model, plan) * trained_dtype(plan).size_bytes / plan.sharing_gpus
    gathered = plan.grad_accum_steps * _gathers(plan) * _gathered_bytes(shape, model, plan) * others
    return Exchange(gathered + reductions * (gradients + among), 0)


def _gathered_bytes(shape: Shape, model: ModelSpec, plan: Plan) -> float:
    """All weights, in the type that they are gathered in."""
    plain = plan.autocast_dtype if plan.autocast else plan.base_dtype
    if plan.quantization is None:
        return float(model.params * plain.size_bytes)
    packed = shape.stored_weights if plan.quantized_experts else shape.stored_modules
    return packed * QUANTISED_BYTES.get(plan.quantization, FOUR_BIT_BYTES) + (model.params - packed) * plain.size_bytes


def step_s(compute_s: float, exchange: Exchange, link: Link | None) -> float:
    """Compute and exchange together: the longer of them, what of the shorter the other does not hide, and what follows both."""
    if link is None:
        return compute_s
    if exchange.bus_bytes:
        compute_s += exchange.bus_bytes / link.bus_bytes_per_s + exchange.host_params * HOST_STEP_BYTES / link.host_bytes_per_s
    beside_s = exchange.beside_bytes / link.bytes_per_s
    together_s = max(compute_s, beside_s) + link.exposed_share * min(compute_s, beside_s)
    return together_s + exchange.after_bytes / link.bytes_per_s


def fast_link(gpu: GpuSpec, plan: Plan) -> Link | None:
    """What joins the plan's cards, at its best; None for one card."""
    ends = _ends(gpu, plan)
    return ends and ends[0]


def slow_link(gpu: GpuSpec, plan: Plan) -> Link | None:
    ends = _ends(gpu, plan)
    return ends and ends[1]


def usual_link(gpu: GpuSpec, plan: Plan) -> Link | None:
    """Between the two: the middle of what is exposed, of rates the geometric one."""
    ends = _ends(gpu, plan)
    if ends is None:
        return None
    fast, slow = ends
    return Link(
        (fast.bytes_per_s * slow.bytes_per_s) ** 0.5,
        (fast.exposed_share + slow.exposed_share) / 2,
        (fast.bus_bytes_per_s * slow.bus_bytes_per_s) ** 0.5,
        (fast.host_bytes_per_s * slow.host_bytes_per_s) ** 0.5,
    )


def _ends(gpu: GpuSpec, plan: Plan) -> tuple[Link, Link] | None:
    """Fast and slow: of what joins the cards of a machine and, where one machine does not hold them, of the network, the slower."""
    if plan.n_gpus == 1:
        return None
    links = [_at_work(gpu.link or "pcie", gpu.link_bytes_per_s)]
    if plan.n_gpus > gpu.most_of_machine:
        links.append(_at_work("network", None))
    fast, slow = (_slower(ends) for ends in zip(*links, strict=True))
    beside = min(plan.n_gpus, gpu.most_of_machine)  # they share the memory of one host
    (bus, slow_bus), (host, slow_host) = _at_work("host", None), _at_work("host memory", None)
    return (
        fast._replace(bus_bytes_per_s=bus.bytes_per_s, host_bytes_per_s=host.bytes_per_s / beside),
        slow._replace(bus_bytes_per_s=slow_bus.bytes_per_s, host_bytes_per_s=slow_host.bytes_per_s / beside),
    )


def _slower(links: Sequence[Link]) -> Link:
    return Link(min(link.bytes_per_s for link in links), max(link.exposed_share for link in links))


def _at_work(name: str, line_rate: int | None) -> tuple[Link, Link]:
    row = next(row for row in profiles.read("rates/links") if row["link"] == name)
    rate = float(line_rate or row["bytes_per_s"])
    return Link(rate * row["share_high"], row["exposed_low"]), Link(rate * row["share_low"], row["exposed_high"])
