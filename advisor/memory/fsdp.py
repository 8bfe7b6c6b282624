"""Forward and backward under FSDP, unit by unit: what one card gathers, reduces and frees around the tapes of the layers.

Bytes of a unit u: U its parameters whole, A the all-gather's output (FSDP2 alone, as large as U), G its whole gradients, R the input of
the reduce-scatter (as large as G), r its output, which is then cast to the type of the shard. Sources are files of torch 2.13 under
torch/distributed/fsdp; where both engines do the same, that of FSDP2 is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from advisor.memory.program import Station, Step, layer_stations
from advisor.memory.tape import ZERO, Size
from advisor.memory.units import Unit, Units


def forward_stations(step: Step, units: Units) -> Iterator[Station]:
    """Moments of forward that may be its peak.

    A unit's A stays until the next unit's copy-out has returned (_fully_shard/_fsdp_param_group.py `wait_for_unshard`, FORWARD).
    """
    root = units.tail.gathered_bytes if units.root else 0
    carried = _carried(step, units).gradient_bytes
    behind, copied = ZERO.plus(*step.still_there), _copied(units, units.tail if units.root else units.embedding)
    if not units.reshards:
        root += units.embedding.gathered_bytes
    for (layer, count), unit in zip(step.runs, units.layers, strict=True):
        size = unit.gathered_bytes
        entering = behind.plus(layer.entry)
        yield _around(entering, behind, ZERO, root + copied + units.prefetched_copies * size, carried)
        copied = _copied(units, unit)
        last = behind.plus(step.resting(layer), count - 1)
        root += 0 if units.reshards else size * (count - 1)
        if count > 1:
            yield _around(last.plus(layer.entry), last, ZERO, root + copied + units.prefetched_copies * size, carried)
        held = layer.entry if step.loop.checkpointing else ZERO
        for moment in layer.quiet.peaks:
            kept = last.plus(held) if step.loop.checkpointing else last.plus(moment.kept)
            yield _around(last.plus(held).plus(moment.live), kept, ZERO, root + units.prefetched_copies * size, carried)
        behind = behind.plus(step.resting(layer), count)
        root += 0 if units.reshards else size
    tail = units.tail.gathered_bytes
    root -= tail if units.root else 0
    if not units.root:
        yield _around(behind.plus(step.head.entry), behind, ZERO, root + copied + 2 * tail, carried)
    for moment in step.head.forward.peaks:
        yield _around(behind.plus(moment.live), behind, moment.live, root + tail + (copied if units.root else tail), carried)


def _copied(units: Units, unit: Unit) -> int:
    return unit.gathered_bytes if units.copies else 0


def _around(live: Size, kept: Size, logits: Size, gathered_bytes: int, gradient_bytes: int) -> Station:
    """A moment of the tapes with what FSDP holds around it."""
    return Station(live.with_constant(gathered_bytes + gradient_bytes), kept, logits, gradient_bytes, gathered_bytes)


class _Done(NamedTuple):
    """Gradients at some moment of backward."""

    whole_bytes: int = 0
    """Of this micro-batch, and of earlier ones where reduction is deferred."""
    shard_bytes: int = 0
    reducing_bytes: int = 0
    """Input of the last reduce-scatter: the next post-backward waits for it (_fsdp_param_group.py `reduce_scatter_state`)."""

    @property
    def gradient_bytes(self) -> int:
        return self.whole_bytes + self.shard_bytes + self.reducing_bytes


def backward_stations(step: Step, units: Units) -> Iterator[Station]:
    """Moments of backward that may be its peak, in each kind of micro-batch: the last one reduces what earlier ones left whole."""
    yield from _backward(step, units)
    if units.defers:
        yield from _backward(step, units._replace(carries=units.middles, reduces=False))


def _backward(step: Step, units: Units) -> Iterator[Station]:
    """One micro-batch: head, layers from the last to the first, embeddings."""
    behind = ZERO.plus(*step.brought_back)
    for layer, count in step.runs:
        behind = behind.plus(step.resting(layer), count)
    tail, done = units.tail, _carried(step, units)
    last = units.layers[-1].gathered_bytes if units.reshards else _whole_before(step, units, len(units.layers))
    ahead = last if units.prefetches_at_loss or not units.reshards else 0
    for moment in step.head.backward.peaks:
        live, logits = behind.plus(step.held).plus(moment.live), moment.live.plus(step.held)
        yield _around(live, behind, logits, tail.gathered_bytes + ahead, done.gradient_bytes)
    if units.root:
        done = done._replace(whole_bytes=done.whole_bytes + _of_head(step, units))
    else:
        live = behind.plus(step.held).plus(step.head.entry)
        yield from _post_backward(live, behind, units, tail, last, done)
        done = _after(done, units, tail)
    passed = ZERO
    for position in range(len(step.runs) - 1, -1, -1):
        layer, count = step.runs[position]
        yield from _run_stations(step, units, position, behind.plus(passed), done)
        behind = behind.plus(step.resting(layer), -count)
        passed = passed.plus(layer.entry, 2 * count) if units.keeps_inputs else ZERO
        done = _after(done, units, units.layers[position], count)
    yield from _end(step, units, passed, done)


def _run_stations(step: Step, units: Units, position: int, behind: Size, done: _Done) -> Iterator[Station]:
    """A run of equal layers: its first two and its last two, between which everything is linear."""
    layer, count = step.runs[position]
    unit = units.layers[position]
    root = units.tail.gathered_bytes if units.root else 0
    for index in sorted({0, 1, count - 2, count - 1} & set(range(count))):
        before = behind.plus(step.resting(layer), -1 - index)
        if units.keeps_inputs:
            before = before.plus(layer.entry, 2 * index)
        now = _after(done, units, unit, index) if index else done
        gathered = root + _ahead(step, units, position, count - 1 - index)
        working = (root if units.wraps_adapters else gathered) + unit.gathered_bytes
        for station in layer_stations(step, layer, before, 0, adds=units.carries and units.copies):
            yield _around(station.live, station.kept, station.logits, working, now.gradient_bytes)
        live = before.plus(step.held).plus(layer.entry, 2 if units.keeps_inputs else 1)
        yield from _post_backward(live, before, units, unit, gathered, now)


def _ahead(step: Step, units: Units, position: int, left: int) -> int:
    """What is whole already for later in backward than the layer at hand, of whose run `left` are to come: the unit that is prefetched,
    or all that forward left whole."""
    if not units.reshards:
        return _whole_before(step, units, position) + units.layers[position].gathered_bytes * left
    following = units.layers[position] if left else units.layers[position - 1] if position else units.embedding
    return following.gathered_bytes


def _whole_before(step: Step, units: Units, position: int) -> int:
    """The embeddings' unit and all layers of the first `position` runs."""
    layers = zip(step.runs[:position], units.layers[:position], strict=True)
    return units.embedding.gathered_bytes + sum(unit.gathered_bytes * count for (_, count), unit in layers)


def _end(step: Step, units: Units, kept: Size, done: _Done) -> Iterator[Station]:
    """The embeddings' gradient, and the reduction of the unit that holds them."""
    made = step.embedding_gradient_bytes
    if not made:
        return
    unit = units.tail if units.root else units.embedding
    live = kept.plus(step.held).plus(step.head.entry)
    yield _around(live, kept, step.held, unit.gathered_bytes, done.gradient_bytes + made)
    if units.root:
        done = done._replace(whole_bytes=done.whole_bytes - _of_head(step, units))
    yield from _post_backward(live, kept, units, unit, 0, done)


def _of_head(step: Step, units: Units) -> int:
    """The head's gradient from the loss to the end of its unit's backward. FSDP2 adds it to an earlier one at once, unless it
    is a part of the embeddings' too; in FSDP1 it is a part of the flat gradient that is to be made."""
    return 0 if units.copies and units.carries and not units.tied else step.head.backward.kept.constant


def _post_backward(live: Size, kept: Size, units: Units, unit: Unit, gathered: int, done: _Done) -> Iterator[Station]:
    """The reduction of a unit's gradients, with the other units that are `gathered` then.

    FSDP2 reshards first and copies the gradients into R (_fsdp_param_group.py `post_backward`, _fsdp_collectives.py `foreach_reduce`);
    in FSDP1 R is the flat parameter's gradient, made of the others while the unit is still whole (_flat_param.py `_get_unflat_views`).
    """
    own, reduced = unit.gradient_bytes, unit.gradient_bytes
    if not own:
        return
    if not units.reduces:
        if not units.copies:
            yield _around(live, kept, ZERO, gathered + unit.gathered_bytes, done.whole_bytes + done.shard_bytes + own + reduced)
        return
    scattered = units.share(reduced) + (units.share(unit.trained_bytes) if unit.trained_bytes != reduced else 0)
    others = done.whole_bytes + done.shard_bytes - (own if units.carries else 0)
    if units.copies:
        # the dry run shows a gradient beside its shard where the shard is reduced over groups, too
        made = own + scattered if units.replicates else max(own, scattered)
        yield _around(live, kept, ZERO, gathered, others + reduced + made)
        return
    accumulated = own if units.carries else 0
    yield _around(live, kept, ZERO, gathered + unit.gathered_bytes, others + accumulated + own + reduced)
    yield _around(live, kept, ZERO, gathered, others + reduced + scattered)


def _carried(step: Step, units: Units) -> _Done:
    """Gradients of earlier micro-batches: whole where reduction is deferred, else shards."""
    if not step.loop.accumulates:
        return _Done()
    counts = (*(count for _, count in step.runs), 1, 1)
    held = list(zip((*units.layers, units.embedding, units.tail), counts, strict=True))
    if units.defers and not units.carries:
        return _Done()
    if units.carries:
        return _Done(whole_bytes=sum(unit.gradient_bytes * count for unit, count in held))
    if units.offloads:
        return _Done()
    return _Done(shard_bytes=sum(units.share(unit.trained_bytes) * count for unit, count in held))


def _after(done: _Done, units: Units, unit: Unit, count: int = 1) -> _Done:
    """Gradients once `count` more units like `unit` are through."""
    if not units.reduces:
        return done if units.carries else done._replace(whole_bytes=done.whole_bytes + unit.gradient_bytes * count)
    shard = 0 if units.offloads or units.accumulates_shards else units.share(unit.trained_bytes)
    if units.replicates and (units.accumulates_shards or unit.trained_bytes != unit.gradient_bytes):  # else the buffer is the shard
        shard += units.share(unit.gradient_bytes)
    return _Done(
        whole_bytes=done.whole_bytes - (unit.gradient_bytes * count if units.carries else 0),
        shard_bytes=done.shard_bytes + shard * count,
        reducing_bytes=unit.gradient_bytes if units.copies else 0,
    )
