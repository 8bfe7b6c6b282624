"""From a stream of events to bytes: peaks by phase, what they are made of, and which modules hold it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from advisor.tape.layout import Layout, Moment
from advisor.tape.stream import BACKWARD_MARK, Birth, Stream
from advisor.values import Phase, PhaseBytes, Term, TermBytes

_BY_KIND = {
    "weights": Term.WEIGHTS,
    "adapter": Term.ADAPTER,
    "gradients": Term.GRADIENTS,
    "optimizer_state": Term.OPTIMIZER,
    "workspace": Term.WORKSPACE,
    "temporaries": Term.TEMPORARIES,
    "input": Term.ACTIVATIONS,
}


def term_of(born: Birth, layer_path: str) -> Term:
    """What a storage is for: as labelled, else told from where it was born and how it ended.

    Outside the layers' parent module a causal model computes only its head and loss. Inside, what is born in a forward pass (or in its
    recomputation) and dies in an autograd node was saved for backward: an activation. All else is temporary.
    """
    if born.kind:
        return _BY_KIND[born.kind]
    in_backward = born.place.startswith(BACKWARD_MARK)
    module = born.place.removeprefix(BACKWARD_MARK)
    body = layer_path.rpartition(".")[0]
    if born.phase is Phase.OPTIMIZER_STEP or born.phase is Phase.LOAD:
        return Term.TEMPORARIES
    if not (module == body or module.startswith(body + ".")):
        return Term.LOGITS
    if born.phase is Phase.EVALUATION:  # nothing is kept for a backward
        return Term.TEMPORARIES
    if not in_backward and (born.died_phase is None or born.died_in.startswith(BACKWARD_MARK) or born.died_phase is not Phase.FORWARD):
        return Term.ACTIVATIONS
    return Term.TEMPORARIES


@dataclass(frozen=True, slots=True)
class Holder:
    """Bytes that one module, of all layers together, holds at the peak for one term."""

    module: str
    """Dotted path with `*` for the number of a layer or an expert; "(backward)" where its backward pass made the tensors."""
    term: Term
    bytes: int
    count: int


def live_at(stream: Stream, event: int) -> Iterator[int]:
    """Numbers of the storages alive just after `event`."""
    live: dict[int, None] = {}
    for signed in stream.events[: event + 1]:
        if signed > 0:
            live[signed] = None
        else:
            live.pop(-signed, None)
    return iter(live)


def phase_bytes(stream: Stream, layout: Layout, moment: Moment, layer_path: str) -> PhaseBytes:
    """The terms alive at a moment; they add up to what the allocator holds."""
    sizes = layout.block_bytes
    totals: dict[Term, int] = defaultdict(int)
    for number in live_at(stream, moment.event):
        totals[term_of(stream.births[number - 1], layer_path)] += sizes[number - 1]
    return PhaseBytes(phase=moment.phase, terms=tuple(TermBytes(term=term, bytes=totals[term]) for term in Term if totals[term]))


def holders(stream: Stream, layout: Layout, event: int, layer_path: str) -> tuple[Holder, ...]:
    """Who holds what at an event, largest first."""
    sizes = layout.block_bytes
    totals: dict[tuple[str, Term], list[int]] = defaultdict(lambda: [0, 0])
    for number in live_at(stream, event):
        born = stream.births[number - 1]
        entry = totals[_name(born.owner or born.place), term_of(born, layer_path)]
        entry[0] += sizes[number - 1]
        entry[1] += 1
    found = [Holder(module, term, total, count) for (module, term), (total, count) in totals.items() if total]
    return tuple(sorted(found, key=lambda holder: -holder.bytes))


def _name(path: str) -> str:
    """As a reader of the model says it: without the wrapper that peft puts around it, layers of a kind together."""
    module = path.removeprefix(BACKWARD_MARK)
    module = module.removeprefix("base_model.model").removeprefix(".") or "model"
    module = re.sub(r"\.\d+(?=\.|$)", ".*", module)
    return f"{module} (backward)" if path.startswith(BACKWARD_MARK) else module
