"""The closed form: memory of one plan on one card, as the largest of its phases."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from advisor.errors import UnsupportedError
from advisor.memory.attention import Kernel
from advisor.memory.calibrated import narrowed
from advisor.memory.chance import with_chance
from advisor.memory.gradients import gradient_bytes
from advisor.memory.intervals import ESTIMATE, interval_of
from advisor.memory.layers import Setting
from advisor.memory.optimizer import state_bytes, step_temporary_bytes
from advisor.memory.program import Loop, Program, Station, compile_program
from advisor.memory.runtime import context_of, has_caching_allocator, has_flash, workspace_bytes
from advisor.memory.sharding import bucket_bytes, first_exchange_bytes, gathered_bytes, share
from advisor.memory.slack import slack_bytes
from advisor.memory.weights import adapter_bytes, load_extra_bytes, unquantized_bytes_per_param, weights_bytes
from advisor.stacks.targets import targets
from advisor.tiers import Tier, refuse_unread
from advisor.values import DType, GpuSpec, MemoryBreakdown, Method, ModelSpec, Phase, PhaseBytes, Plan, Stack, Term, TermBytes


def estimate_memory(model: ModelSpec, plan: Plan, gpu: GpuSpec | None = None) -> MemoryBreakdown:
    """Memory of `plan` on each card, in closed form; `gpu` decides workspace, context and interval.

    Raises UnsupportedError for parts of a model that have no closed form, and for settings of a plan that are not priced.
    """
    refuse_unread(Tier.ESTIMATE, plan)
    standing, program = _whatever_the_batch(model, _without_batch(plan), workspace_bytes(gpu), has_flash(gpu))
    batch = Batch(plan.micro_batch_size * plan.seq_len_tokens, plan.micro_batch_size * plan.seq_len_tokens**2)
    held = program.outlives_backward.at(batch.tokens, batch.pairs)
    step = _step(standing, held)
    memory = MemoryBreakdown(
        source="estimate",
        phases=(
            standing.load,
            _dynamic(Phase.FORWARD, program.forward, standing, plan, batch, held),
            _dynamic(Phase.BACKWARD, program.backward, standing, plan, batch, 0),
            step,
        ),
        reserved_slack_bytes=slack_bytes(model, plan, program, *batch, step) if has_caching_allocator(gpu) else 0,
        context_bytes=context_of(gpu.compute_capability if gpu else None).context_bytes,
        interval=interval_of(ESTIMATE, model, plan, gpu),
    )
    return with_chance(narrowed(memory, model, plan, gpu), model, plan, gpu)


class Batch(NamedTuple):
    """What the tapes' polynomials are evaluated at."""

    tokens: int
    pairs: int
    """Pairs of tokens of the same sequence."""


class Standing(NamedTuple):
    """Everything about a plan that does not depend on the batch, on one card."""

    load: PhaseBytes
    gradient_bytes: int
    carried_bytes: int
    """Gradients of earlier micro-batches, which are there through forward and backward."""
    bucket_bytes: int
    step_bytes: int
    resident: tuple[TermBytes, ...]
    """What is there in every phase of a step."""


def _without_batch(plan: Plan) -> Plan:
    """The plan with the smallest batch that is of its kind."""
    accumulates = 2 if plan.grad_accum_steps > 1 else 1
    return plan.model_copy(update={"micro_batch_size": 1, "seq_len_tokens": 1, "grad_accum_steps": accumulates})


@lru_cache(maxsize=512)
def _whatever_the_batch(model: ModelSpec, plan: Plan, workspace: int, has_flash: bool) -> tuple[Standing, Program]:
    """What does not depend on the batch, for a plan without one: kept, because searches try many batches."""
    weights = share(weights_bytes(model, plan), plan)
    gradients = share(gradient_bytes(model, plan), plan)
    adapter = share(adapter_bytes(model, plan), plan)
    loop = loop_of(plan)
    standing = Standing(
        load=_load(weights, load_extra_bytes(model, plan), adapter, first_exchange_bytes(plan, weights + adapter)),
        gradient_bytes=gradients,
        carried_bytes=gradients if loop.accumulates else 0,
        bucket_bytes=bucket_bytes(model, plan),
        step_bytes=share(step_temporary_bytes(model, plan), plan),
        resident=_terms(
            (Term.WEIGHTS, weights + gathered_bytes(model, plan)),
            (Term.ADAPTER, adapter),
            (Term.OPTIMIZER, share(state_bytes(model, plan), plan)),
            (Term.WORKSPACE, workspace),
        ),
    )
    return standing, compile_program(model, setting_of(model, plan), kernel_of(plan, has_flash), loop)


def _load(weights: int, extra: int, adapter: int, exchange: int) -> PhaseBytes:
    """What loading needs besides the weights is gone when the adapter is made, and the cards exchange what they hold after that."""
    more = ((Term.TEMPORARIES, extra),) if extra > adapter + exchange else ((Term.ADAPTER, adapter), (Term.TEMPORARIES, exchange))
    return PhaseBytes(phase=Phase.LOAD, terms=_terms((Term.WEIGHTS, weights), *more))


def _dynamic(phase: Phase, stations: tuple[Station, ...], standing: Standing, plan: Plan, batch: Batch, held: int) -> PhaseBytes:
    """`held` is what the step before left alive."""
    top = max(stations, key=lambda station: station.live.at(batch.tokens, batch.pairs))
    kept, logits = top.kept.at(batch.tokens, batch.pairs), top.logits.at(batch.tokens, batch.pairs)
    temporaries = top.live.at(batch.tokens, batch.pairs) - kept - logits - top.gradient_bytes
    gradients = standing.bucket_bytes + standing.carried_bytes + share(top.gradient_bytes, plan)
    moving = _terms((Term.GRADIENTS, gradients), (Term.ACTIVATIONS, kept), (Term.LOGITS, logits + held), (Term.TEMPORARIES, temporaries))
    return PhaseBytes(phase=phase, terms=standing.resident + moving)


def _step(standing: Standing, held: int) -> PhaseBytes:
    moving = _terms(
        (Term.GRADIENTS, standing.bucket_bytes + standing.gradient_bytes),
        (Term.LOGITS, held),
        (Term.TEMPORARIES, standing.step_bytes),
    )
    return PhaseBytes(phase=Phase.OPTIMIZER_STEP, terms=standing.resident + moving)


def _terms(*terms: tuple[Term, int]) -> tuple[TermBytes, ...]:
    return tuple(TermBytes(term=term, bytes=size) for term, size in terms if size)


def setting_of(model: ModelSpec, plan: Plan) -> Setting:
    """The part of a plan that the tapes depend on."""
    weight_bytes = unquantized_bytes_per_param(plan)
    return Setting(
        stream_bytes=weight_bytes,
        compute_bytes=plan.autocast_dtype.size_bytes if plan.autocast else plan.base_dtype.size_bytes,
        weight_bytes=weight_bytes,
        adapter_bytes=plan.adapter_dtype.size_bytes,
        trains_base=plan.method is Method.FULL,
        quantization=plan.quantization,
        double_quant=plan.double_quant,
        rank=plan.rank,
        dora=plan.method.is_dora,
        autocast=plan.autocast,
        adapted=_adapted(model, plan),
    )


def _adapted(model: ModelSpec, plan: Plan) -> frozenset[tuple[str, bool]]:
    """Which matrices carry an adapter: leaf name, and whether it is a module (a stack of experts is not).

    Raises UnsupportedError for DoRA on stacked experts, which peft refuses too (peft 0.21 lora/layer.py `ParamWrapper`).
    """
    if not plan.method.has_adapter:
        return frozenset()
    found = frozenset((layer.name, layer.is_module) for _, layer, _ in targets(model, plan.target_modules))
    stacked = sorted(name for name, is_module in found if not is_module)
    if stacked and plan.method.is_dora:
        raise UnsupportedError(
            f"peft has no DoRA for the stacked experts of {model.id} ({', '.join(stacked)}); "
            "name attention alone: --target-modules q_proj,k_proj,v_proj,o_proj"
        )
    return found


def kernel_of(plan: Plan, has_flash: bool = True) -> Kernel:
    computes_in = plan.autocast_dtype if plan.autocast else plan.base_dtype
    return Kernel(plan.attention, plan.padding, plan.kv_cache_in_outputs, has_flash, computes_in is DType.FP16)


def loop_of(plan: Plan) -> Loop:
    return Loop(plan.gradient_checkpointing, plan.grad_accum_steps > 1, plan.stack is Stack.PLAIN, plan.loss)
