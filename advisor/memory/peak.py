"""The closed form: memory of one plan, as the largest of its phases."""

from __future__ import annotations

from functools import lru_cache

from advisor.memory.attention import Kernel
from advisor.memory.gradients import gradient_bytes
from advisor.memory.layers import Setting
from advisor.memory.optimizer import state_bytes, step_temporary_bytes
from advisor.memory.params import target_names
from advisor.memory.program import Loop, Station, compile_program
from advisor.memory.runtime import CONTEXT_BYTES, INTERVAL, workspace_bytes
from advisor.memory.weights import adapter_bytes, load_extra_bytes, unquantized_bytes_per_param, weights_bytes
from advisor.values import (
    GpuSpec,
    MemoryBreakdown,
    Method,
    ModelSpec,
    Phase,
    PhaseBytes,
    Plan,
    Stack,
    Term,
    TermBytes,
)


def estimate_memory(model: ModelSpec, plan: Plan, gpu: GpuSpec | None = None) -> MemoryBreakdown:
    """Memory of `plan` on one card, in closed form.

    Raises UnsupportedError for parts of a model that have no closed form.
    """
    program = compile_program(model, setting_of(model, plan), kernel_of(plan), loop_of(plan))
    tokens = plan.micro_batch_size * plan.seq_len_tokens
    pairs = tokens * plan.seq_len_tokens
    weights, adapter = weights_bytes(model, plan), adapter_bytes(model, plan)
    states, gradients = state_bytes(model, plan), gradient_bytes(model, plan)
    workspace = workspace_bytes(gpu)
    resident = ((Term.WEIGHTS, weights), (Term.ADAPTER, adapter), (Term.OPTIMIZER, states), (Term.WORKSPACE, workspace))
    carried = gradients if loop_of(plan).accumulates else 0

    def dynamic(phase: Phase, stations: tuple[Station, ...]) -> PhaseBytes:
        top = max(stations, key=lambda station: station.live.at(tokens, pairs))
        live, logits = top.live.at(tokens, pairs), top.logits.at(tokens, pairs)
        kept = top.kept.at(tokens, pairs)
        rest = live - logits - kept - top.gradient_bytes
        return _phase(
            phase,
            resident,
            (Term.GRADIENTS, carried + top.gradient_bytes),
            (Term.ACTIVATIONS, kept),
            (Term.LOGITS, logits),
            (Term.TEMPORARIES, rest),
        )

    step_held = program.outlives_backward.at(tokens, pairs)
    phases = (
        _phase(Phase.LOAD, ((Term.WEIGHTS, weights), (Term.TEMPORARIES, load_extra_bytes(model, plan)))),
        dynamic(Phase.FORWARD, program.forward),
        dynamic(Phase.BACKWARD, program.backward),
        _phase(
            Phase.OPTIMIZER_STEP,
            resident,
            (Term.GRADIENTS, gradients),
            (Term.LOGITS, step_held),
            (Term.TEMPORARIES, step_temporary_bytes(model, plan)),
        ),
    )
    slack = min(
        max(size.at(tokens, pairs) for size in program.head_transients),
        max(size.at(tokens, pairs) for size in program.block_transients),
    )
    return MemoryBreakdown(source="estimate", phases=phases, reserved_slack_bytes=slack, context_bytes=CONTEXT_BYTES, interval=INTERVAL)


def _phase(phase: Phase, resident: tuple[tuple[Term, int], ...], *more: tuple[Term, int]) -> PhaseBytes:
    return PhaseBytes(phase=phase, terms=tuple(TermBytes(term=term, bytes=size) for term, size in (*resident, *more) if size))


@lru_cache(maxsize=512)
def setting_of(model: ModelSpec, plan: Plan) -> Setting:
    weight_bytes = unquantized_bytes_per_param(plan)
    compute = plan.autocast_dtype.size_bytes if plan.autocast else plan.base_dtype.size_bytes
    return Setting(
        stream_bytes=weight_bytes,
        compute_bytes=compute,
        weight_bytes=weight_bytes,
        adapter_bytes=plan.adapter_dtype.size_bytes,
        trains_base=plan.method is Method.FULL,
        quantization=plan.quantization,
        double_quant=plan.double_quant,
        rank=plan.rank,
        dora=plan.method.is_dora,
        autocast=plan.autocast,
        adapted=target_names(model, plan),
    )


def kernel_of(plan: Plan) -> Kernel:
    return Kernel(plan.attention, plan.padding, plan.kv_cache_in_outputs)


def loop_of(plan: Plan) -> Loop:
    return Loop(plan.gradient_checkpointing, plan.grad_accum_steps > 1, plan.stack is Stack.PLAIN, plan.loss)
