"""The symbolic tape against steps small enough to count by hand."""

from advisor.memory.tape import ZERO, Size, Tape, Tensor, backward, forward, highest

H = Size(100)
"""A tensor of 100 bytes per token."""


def live(walk):
    return max(moment.live.at(1, 1) for moment in walk.peaks)


def chain(*keeps):
    """entry → op → op …, each of 100 bytes; an operation keeps its input where `keeps` says so."""
    tape, entry = Tape(), Tensor(H, needs_grad=True)
    x = entry
    for keep in keeps:
        x = tape.op((x,), H, keeps=(x,) if keep else ())
    return tape, entry


def test_forward_keeps_what_backward_needs():
    tape, entry = chain(True, False, True)
    walk = forward(tape, entry, keep=True, entry_held=False)
    # kept: the entry (by the first) and the second's result (by the third); the first's result dies after the second
    assert walk.kept == Size(200)
    assert live(walk) == 300  # entry, second result, third result


def test_forward_that_keeps_nothing_holds_two_tensors():
    tape, entry = chain(True, True, True)
    walk = forward(tape, entry, keep=False, entry_held=False)
    assert walk.kept == ZERO
    assert live(walk) == 200


def test_what_nothing_reads_stays_to_the_end():
    tape, entry = Tape(), Tensor(H, needs_grad=True)
    tape.op((entry,), H)  # read by nothing
    x = tape.op((entry,), H)
    tape.op((x,), H)
    walk = forward(tape, entry, keep=False, entry_held=False)
    assert [moment.live.at(1, 1) for moment in walk.peaks] == [300]  # it, and twice what goes in and what comes out


def test_a_held_entry_is_counted_by_its_holder():
    tape, entry = chain(True)
    walk = forward(tape, entry, keep=True, entry_held=True)
    assert (walk.kept, live(walk)) == (ZERO, 100)


def test_backward_frees_kept_tensors_as_it_goes():
    tape, entry = chain(True, True)
    kept = forward(tape, entry, keep=True, entry_held=False).kept
    walk = backward(tape, kept, H)
    assert kept == Size(200)
    assert live(walk) == 400  # both kept, incoming gradient, the second's input gradient


def test_an_addition_hands_its_gradient_on():
    tape, entry = Tape(), Tensor(H, needs_grad=True)
    branch = tape.op((entry,), H)
    tape.op((entry, branch), H, aliases=(True, True))
    walk = backward(tape, ZERO, H)
    # one gradient serves both branches; only the branch's own input gradient is new, and it is summed in place
    assert live(walk) == 200


def test_parameter_gradients_stay():
    tape, entry = Tape(), Tensor(H, needs_grad=True)
    tape.op((entry,), H, keeps=(entry,), parameter_gradient_bytes=7)
    walk = backward(tape, H, H)
    assert walk.kept == Size(constant=7)
    assert live(walk) == 307


def test_recomputation_waits_for_the_first_kept_tensor():
    tape, entry = chain(True, False)
    walk = backward(tape, forward(tape, entry, keep=True, entry_held=True).kept, H)
    assert walk.waiting == H  # the last operation keeps nothing: its gradient is made before anything is unpacked


def test_scratch_is_gone_after_its_operation():
    tape, entry = Tape(), Tensor(H, needs_grad=True)
    x = tape.op((entry,), H, scratch=(Size(constant=1000), Size(constant=5000)))
    tape.op((x,), H)
    walk = forward(tape, entry, keep=False, entry_held=False)
    assert live(walk) == 1200
    assert live(backward(tape, ZERO, H)) == 5200


def test_an_argument_lives_until_its_call_returns():
    tape, entry = Tape(), Tensor(H, needs_grad=True)
    x = tape.op((entry,), H)
    y = tape.op((x,), H)
    tape.op((y,), H)
    assert live(forward(tape, entry, keep=False, entry_held=False)) == 200
    tape.hold(x)
    assert live(forward(tape, entry, keep=False, entry_held=False)) == 300


def test_only_possible_peaks_survive():
    small, wide, tall = Size(1, 0, 1), Size(9, 0, 1), Size(1, 0, 9)
    assert highest([small, wide, tall]) == (wide, tall)


def test_peaks_come_in_their_order_and_once():
    low, high, pairs = Size(1), Size(2), Size(0, 1)
    assert highest([low, pairs, high, high]) == (pairs, high)


def gated() -> tuple[Tape, Tensor, Tensor]:
    """entry → both halves in one tensor of 200 bytes → act(first half) * second half."""
    tape, entry = Tape(), Tensor(H, needs_grad=True)
    both = tape.op((entry,), H.scaled(2))
    gate, up = tape.halves(both, H)
    active = tape.op((gate,), H, keeps=(gate,))
    tape.op((active, up), H, keeps=(active, up))
    return tape, entry, both


def test_halves_are_kept_as_the_tensor_that_they_are_views_of():
    tape, entry, both = gated()
    walk = forward(tape, entry, keep=True, entry_held=True)
    assert walk.kept == Size(300)  # both halves once, and the activation's result
    assert live(walk) == 400
    assert both.last_use == len(tape.ops) - 1  # the second half is read last
    assert live(forward(tape, entry, keep=False, entry_held=True)) == 400


def test_gradients_of_halves_are_of_a_half_each_until_they_are_joined():
    tape, entry, _ = gated()
    walk = backward(tape, forward(tape, entry, keep=True, entry_held=True).kept, H)
    # at the product: 300 kept, its gradient, and those of the activation and of the second half; the join has two halves and their sum
    assert live(walk) == 600


def test_what_overwrites_its_input_makes_a_gradient_but_no_tensor():
    tape, entry = Tape(), Tensor(H, needs_grad=True)
    x = tape.op((entry,), H)
    noise = tape.op((), H)
    y = tape.in_place(x, keeps=(noise,))
    tape.hold(noise)
    tape.op((y,), H)
    walk = forward(tape, entry, keep=True, entry_held=True)
    assert walk.kept == H  # the noise alone
    assert live(walk) == 300  # what is overwritten, the noise, and the last result
    assert live(backward(tape, walk.kept, H)) == 300  # the noise, and a gradient on either side of it
