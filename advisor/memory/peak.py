"""The closed form: memory of one plan on one card, as the largest of its phases."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import NamedTuple

from advisor.architectures.heads import headed
from advisor.checkpoints import check_plan, expert_notes, unshardable
from advisor.errors import UnsupportedError
from advisor.memory import fsdp, zero_backward
from advisor.memory.attention import Kernel
from advisor.memory.calibrated import narrowed
from advisor.memory.chance import with_chance
from advisor.memory.dtypes import computing
from advisor.memory.evaluation import autocast_copies_bytes, compile_evaluation, evaluated
from advisor.memory.head import Ending
from advisor.memory.held import Held
from advisor.memory.host_memory import host_memory, said_of_host
from advisor.memory.intervals import interval_of
from advisor.memory.layers import Setting
from advisor.memory.pools import ESTIMATE
from advisor.memory.program import Loop, Program, Station, compile_program, forward_stations, program_of, step_of
from advisor.memory.recorded import estimate_from_tape
from advisor.memory.runtime import context_of, has_caching_allocator, has_flash, workspace_bytes
from advisor.memory.sharding import check_engine, check_offload, held
from advisor.memory.slack import slack_of
from advisor.memory.units import units_of
from advisor.memory.weights import unquantized_bytes_per_param
from advisor.stacks.targets import refuse_unwrappable, targets
from advisor.tiers import Tier, refuse_unread
from advisor.values import (
    Attention,
    DType,
    GpuSpec,
    MemoryBreakdown,
    Method,
    ModelSpec,
    Phase,
    PhaseBytes,
    Plan,
    Quantization,
    Stack,
    Term,
    TermBytes,
)


def estimate_memory(model: ModelSpec, plan: Plan, gpu: GpuSpec | None = None) -> MemoryBreakdown:
    """Memory of `plan` on each card, in closed form; `gpu` decides workspace, context and interval. A model without tables is priced by a
    recording of its step.

    Raises UnsupportedError for parts of a model that have no closed form, and for settings of a plan that are not priced; NotRecorded
    where a recording is needed and there is none.
    """
    if model.tables is None:
        return estimate_from_tape(model, plan, gpu)
    model = priced_model(model, plan)
    standing, program = whatever_the_batch(model, without_batch(model, plan), has_flash(gpu))
    batch = Batch(plan.micro_batch_size * plan.seq_len_tokens, plan.micro_batch_size * plan.seq_len_tokens**2)
    before = program.outlives_backward.at(batch.tokens, batch.pairs)
    workspace = workspace_bytes(gpu)
    step = step_phase(standing, workspace, before)
    host = host_memory(model, plan, gpu)
    memory = MemoryBreakdown(
        source="estimate",
        phases=(
            PhaseBytes(phase=Phase.LOAD, terms=_terms(*standing.load)),
            _dynamic(Phase.FORWARD, program.forward, standing, workspace, batch, before),
            _dynamic(Phase.BACKWARD, program.backward, standing, workspace, batch, 0),
            step,
            *_evaluation(model, plan, has_flash(gpu), workspace, before),
        ),
        reserved_slack_bytes=slack_of(model, plan, program, step).at(*batch) if has_caching_allocator(gpu) else 0,
        context_bytes=context_of(gpu.compute_capability if gpu else None).context_bytes,
        interval=interval_of(ESTIMATE, model, plan, gpu),
        host=host,
        notes=(*expert_notes(model, plan), *((said_of_host(host),) if host is not None and (host.lacks or host.training) else ())),
    )
    return with_chance(narrowed(memory, model, plan, gpu), model, plan, gpu)


def priced_model(model: ModelSpec, plan: Plan) -> ModelSpec:
    """The model with the head that the plan trains. Raises UnsupportedError where the closed form has no price for the plan: a setting
    that it does not read, or a checkpoint whose storage cannot be trained so."""
    refuse_unread(Tier.ESTIMATE, plan)
    model = headed(model, plan)
    check_plan(model, plan.method, plan.quantization)
    why = unshardable(model, plan.quantization) if plan.sharding.shards_weights else ""
    if why:
        raise UnsupportedError(f"{plan.sharding.value}: {why}; use DDP, or train from the 16-bit weights")
    check_engine(plan)
    check_offload(plan)
    return model


class Batch(NamedTuple):
    """What the tapes' polynomials are evaluated at."""

    tokens: int
    pairs: int
    """Pairs of tokens of the same sequence."""


def without_batch(model: ModelSpec, plan: Plan) -> Plan:
    """The plan with the smallest batch that is of its kind: two micro-batches of an accumulation are the first and the last, a third
    one lies between; sequences as long as the widest window that its own reach."""
    accumulates = min(plan.grad_accum_steps, 3)
    reached = (block.attention.window_tokens or 1 for block in model.shape.blocks)
    seq_len = max(window for window in (1, *reached) if window <= plan.seq_len_tokens)
    several = plan.attention is Attention.EAGER and plan.micro_batch_size > 1
    smallest = {
        "micro_batch_size": 2 if several else 1,
        "seq_len_tokens": seq_len,
        "grad_accum_steps": accumulates,
        "eval_micro_batch_size": None,
    }
    return plan.model_copy(update=smallest)


@lru_cache(maxsize=2048)
def _held(model: ModelSpec, plan: Plan) -> Held:
    return held(model, plan)


def resting_bytes(model: ModelSpec, plan: Plan) -> int:
    """What rests on the card in the optimizer's step, without slack and context: the plan takes no less. Raises as `priced_model`."""
    model = priced_model(model, plan)
    standing = _held(model, without_batch(model, plan))
    return sum(size for _, size in resting(standing, 0, 0)) + standing.step_gradient_bytes


@lru_cache(maxsize=2048)
def whatever_the_batch(model: ModelSpec, plan: Plan, has_flash: bool) -> tuple[Held, Program]:
    """What does not depend on the batch, for a plan without one: kept, because searches try many batches."""
    computed = computing(plan)
    parts = (model, setting_of(model, computed), kernel_of(computed, has_flash), loop_of(plan))
    if plan.sharding.is_zero:
        backward = partial(zero_backward.backward_stations, reduction=zero_backward.reduction_of(model, plan))
        return _held(model, plan), program_of(step_of(*parts), forward_stations, backward)
    if not plan.sharding.is_fsdp:
        return _held(model, plan), compile_program(*parts)
    units = units_of(model, plan)
    forward, backward = partial(fsdp.forward_stations, units=units), partial(fsdp.backward_stations, units=units)
    return _held(model, plan), program_of(step_of(*parts), forward, backward)


def _dynamic(phase: Phase, stations: tuple[Station, ...], standing: Held, workspace: int, batch: Batch, before: int) -> PhaseBytes:
    """`before` is what the step before left alive."""
    top = max(stations, key=lambda station: station.live.at(batch.tokens, batch.pairs))
    # the first layer of a frozen base keeps less than the others: when its backward ends, less than nothing would be left
    kept, logits = max(top.kept.at(batch.tokens, batch.pairs), 0), top.logits.at(batch.tokens, batch.pairs)
    temporaries = top.live.at(batch.tokens, batch.pairs) - kept - logits - top.gradient_bytes - top.gathered_bytes
    held_bytes = standing.forward_bytes if phase is Phase.FORWARD else standing.backward_bytes
    return PhaseBytes(
        phase=phase,
        terms=_terms(
            *resting(standing, workspace, top.gathered_bytes + standing.gathered_bytes),
            (Term.GRADIENTS, held_bytes + top.gradient_bytes),
            (Term.ACTIVATIONS, kept),
            (Term.LOGITS, logits + before),
            (Term.TEMPORARIES, temporaries),
        ),
    )


def step_phase(standing: Held, workspace: int, before: int) -> PhaseBytes:
    return PhaseBytes(
        phase=Phase.OPTIMIZER_STEP,
        terms=_terms(
            *resting(standing, workspace, 0),
            (Term.GRADIENTS, standing.step_gradient_bytes),
            (Term.LOGITS, before),
            (Term.TEMPORARIES, standing.step_temporary_bytes),
        ),
    )


def resting(standing: Held, workspace: int, gathered: int) -> tuple[tuple[Term, int], ...]:
    """What is there in every phase of a step, with the weights that are `gathered` in this one."""
    return (
        (Term.WEIGHTS, standing.weights_bytes + gathered),
        (Term.ADAPTER, standing.adapter_bytes),
        (Term.OPTIMIZER, standing.states_bytes),
        (Term.WORKSPACE, workspace),
    )


def _evaluation(model: ModelSpec, plan: Plan, has_flash: bool, workspace: int, before: int) -> Iterator[PhaseBytes]:
    """Weights, adapter, states, and a forward pass that keeps nothing for backward; gradients are set to None before it."""
    if plan.eval_micro_batch_size is None:
        return
    standing, program = whatever_the_batch(model, without_batch(model, plan.model_copy(update={"grad_accum_steps": 1})), has_flash)
    computed = computing(plan)
    ending = evaluated(ending_of(plan), plan.stack)
    stations = compile_evaluation(model, setting_of(model, computed), kernel_of(computed, has_flash), ending)
    tokens = plan.eval_micro_batch_size * plan.seq_len_tokens
    batch = Batch(tokens, tokens * plan.seq_len_tokens)
    top = max(stations, key=lambda station: station.live.at(batch.tokens, batch.pairs))
    logits = top.logits.at(batch.tokens, batch.pairs)
    gathered = standing.gathered_bytes + max(station.gathered_bytes for station in program.forward)
    yield PhaseBytes(
        phase=Phase.EVALUATION,
        terms=_terms(
            *resting(standing, workspace, gathered),
            (Term.GRADIENTS, standing.forward_bytes),
            (Term.LOGITS, logits + before),
            (Term.TEMPORARIES, top.live.at(batch.tokens, batch.pairs) - logits + autocast_copies_bytes(model, plan)),
        ),
    )


def _terms(*terms: tuple[Term, int]) -> tuple[TermBytes, ...]:
    return tuple(TermBytes(term=term, bytes=size) for term, size in terms if size)


def setting_of(model: ModelSpec, plan: Plan) -> Setting:
    """The part of a plan that the tapes depend on."""
    weight_bytes = unquantized_bytes_per_param(plan)
    # under autocast peft does not cast what DoRA adds to a quantised layer back: fp32 flows on (peft 0.21 lora/bnb.py requires_conversion)
    is_widened = plan.autocast and plan.method.is_dora and plan.quantization not in (None, Quantization.GPTQ)
    return Setting(
        stream_bytes=DType.FP32.size_bytes if is_widened else weight_bytes,
        compute_bytes=plan.autocast_dtype.size_bytes if plan.autocast else plan.base_dtype.size_bytes,
        weight_bytes=weight_bytes,
        adapter_bytes=plan.adapter_dtype.size_bytes,
        trains_base=plan.method is Method.FULL,
        quantization=plan.quantization,
        double_quant=plan.double_quant,
        quantized_experts=plan.quantized_experts,
        rank=plan.rank,
        dora=plan.method.is_dora,
        autocast=plan.autocast,
        adapted=_adapted(model, plan),
        adapter_dropout=plan.lora_dropout > 0 and plan.method.has_adapter,
        hands_over=plan.gradient_checkpointing and not plan.reentrant,
    )


def _adapted(model: ModelSpec, plan: Plan) -> frozenset[tuple[str, bool]]:
    """Which matrices carry an adapter: leaf name, and whether it is a module (a stack of experts is not).

    Raises UnsupportedError for DoRA on stacked experts, which peft refuses too (peft 0.21 lora/layer.py `ParamWrapper`).
    """
    return _wrapped(model, plan.target_modules, plan.method.is_dora) if plan.method.has_adapter else frozenset()


@lru_cache(maxsize=256)
def _wrapped(model: ModelSpec, target_modules: tuple[str, ...], dora: bool) -> frozenset[tuple[str, bool]]:
    refuse_unwrappable(model, target_modules)
    found = frozenset((layer.name, layer.is_module) for _, layer, *_ in targets(model, target_modules))
    stacked = sorted(name for name, is_module in found if not is_module)
    if stacked and dora:
        raise UnsupportedError(
            f"peft has no DoRA for the stacked experts of {model.id} ({', '.join(stacked)}); "
            "name attention alone: --target-modules q_proj,k_proj,v_proj,o_proj"
        )
    return found


def kernel_of(plan: Plan, has_flash: bool = True) -> Kernel:
    computes_in = plan.autocast_dtype if plan.autocast else plan.base_dtype
    half = computes_in is DType.FP16
    several = plan.attention is Attention.EAGER and plan.micro_batch_size > 1
    return Kernel(plan.attention, plan.padding, plan.kv_cache_in_outputs, has_flash, plan.seq_len_tokens, half, plan.autocast, several)


def loop_of(plan: Plan) -> Loop:
    return Loop(
        plan.gradient_checkpointing,
        plan.grad_accum_steps > 1,
        plan.stack is Stack.PLAIN,
        ending_of(plan),
        plan.offloads_activations,
        plan.reentrant,
    )


def ending_of(plan: Plan) -> Ending:
    """How the forward of a training step ends. A plain loop has no accelerate around its model."""
    return Ending(plan.loss, plan.shift, plan.autocast and plan.stack is not Stack.PLAIN)
