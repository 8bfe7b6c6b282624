"""From a stream of events to bytes: peaks by phase, what they are made of, and which modules hold it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from advisor.tape.layout import Layout
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

    Outside the model's body it computes only its head and loss. Inside, what is born in a forward pass (or in its recomputation) and dies
    in an autograd node was saved for backward: an activation. All else is temporary.
    """
    if born.kind:
        return _BY_KIND[born.kind]
    in_backward = born.place.startswith(BACKWARD_MARK)
    module = born.place.removeprefix(BACKWARD_MARK)
    if born.phase is Phase.OPTIMIZER_STEP or born.phase is Phase.LOAD:
        return Term.TEMPORARIES
    if not _in_body(module, layer_path.rpartition(".")[0]):
        return Term.LOGITS
    if born.phase is Phase.EVALUATION:  # nothing is kept for a backward
        return Term.TEMPORARIES
    if not in_backward and (born.died_phase is None or born.died_in.startswith(BACKWARD_MARK) or born.died_phase is not Phase.FORWARD):
        return Term.ACTIVATIONS
    return Term.TEMPORARIES


def _in_body(module: str, layers_in: str) -> bool:
    """Whether a module is in the one that holds the layers, or beside it under the same part of the model: a tower for images beside the
    language model, an encoder beside the decoder."""
    if module == layers_in or module.startswith(layers_in + "."):
        return True
    above = not module or layers_in.startswith(module + ".")
    return not above and _part(module) == _part(layers_in)


def _part(path: str) -> str:
    """The first name below the model that peft wraps."""
    return path.removeprefix("base_model.model.").partition(".")[0]


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


class Replay(NamedTuple):
    """What a stream takes once it is laid out."""

    phases: tuple[PhaseBytes, ...]
    """The highest moment of each phase; its terms add up to what the allocator holds then."""
    peak_reserved_bytes: int
    versions: Mapping[str, str]
    """Releases of the libraries whose step it is."""
    notes: tuple[str, ...] = ()
    """What was run where something else could have been, one line each."""

    @property
    def slack_bytes(self) -> int:
        """What the allocator holds beyond what is alive at the peak."""
        return max(0, self.peak_reserved_bytes - max(phase.allocated_bytes for phase in self.phases))


def phases_of(events: list[int], terms: list[Term], layout: Layout) -> tuple[PhaseBytes, ...]:
    """The terms alive at the highest moment of each phase. `terms` are those of the storages in order of birth."""
    sizes = layout.block_bytes
    totals = dict.fromkeys(Term, 0)
    found: dict[Phase, PhaseBytes] = {}
    position = 0
    for moment in sorted(layout.peaks.values(), key=lambda moment: moment.event):
        for signed in events[position : moment.event + 1]:
            if signed > 0:
                totals[terms[signed - 1]] += sizes[signed - 1]
            else:
                totals[terms[-signed - 1]] -= sizes[-signed - 1]
        position = moment.event + 1
        held = tuple(TermBytes(term=term, bytes=total) for term, total in totals.items() if total)
        found[moment.phase] = PhaseBytes(phase=moment.phase, terms=held)
    return tuple(found[phase] for phase in Phase if phase in found)


def holders(stream: Stream, layout: Layout, event: int, layer_path: str) -> tuple[Holder, ...]:
    """Who holds what at an event, largest first."""
    sizes = layout.block_bytes
    totals: dict[tuple[str, Term], list[int]] = defaultdict(lambda: [0, 0])
    for number in live_at(stream, event):
        born = stream.births[number - 1]
        entry = totals[module_name(born.owner or born.place), term_of(born, layer_path)]
        entry[0] += sizes[number - 1]
        entry[1] += 1
    found = [Holder(module, term, total, count) for (module, term), (total, count) in totals.items() if total]
    return tuple(sorted(found, key=lambda holder: -holder.bytes))


def module_name(path: str) -> str:
    """Name a place as a reader of the model says it: without the wrapper that peft puts around it, layers of a kind together."""
    module = path.removeprefix(BACKWARD_MARK)
    module = module.removeprefix("base_model.model").removeprefix(".") or "model"
    module = re.sub(r"\.\d+(?=\.|$)", ".*", module)
    return f"{module} (backward)" if path.startswith(BACKWARD_MARK) else module
