"""Numbers and escapes held against another source than the code that makes them: a library, its documentation, arithmetic by hand.

Each row once could be changed without any test to notice it.
"""

from __future__ import annotations

import inspect
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from storages import storages

from advisor import api, record
from advisor.allocator.caching import Allocator, AllocatorConfig
from advisor.calibration import run as calibrate_run
from advisor.ledger import facts_from_ledger
from advisor.memory import feed_forward, head, loading, norms, optimizer, peak, runtime, weights
from advisor.memory.tape import Size, Tape, Tensor, backward, forward
from advisor.render import check as render_check
from advisor.units import MIB
from advisor.values import Level, Linear, Optimizer, Phase, Plan, Quantization, Term
from advisor.values.advice import Finding
from advisor.values.check import CheckReport

KIB = 1024


class Reserved:
    """A process that asks the allocator for blocks by name."""

    def __init__(self, config: AllocatorConfig) -> None:
        self.allocator, self.blocks = Allocator(config), {}

    def after(self, steps: str) -> int:
        for step in steps.split():
            name, _, size = step[1:].partition(":")
            if step[0] == "+":
                self.blocks[name] = self.allocator.malloc(round(float(size) * KIB))
            else:
                self.allocator.free(self.blocks.pop(name))
        return self.allocator.reserved_bytes


# ------------------------------------------------------------------------------------------------------------- the allocator


def test_a_rest_of_512_bytes_in_the_small_pool_is_a_block_of_its_own() -> None:
    """torch 2.13 c10/cuda/CUDACachingAllocator.cpp, should_split: `remaining >= kMinBlockSize` in the small pool, which is 512 bytes.

    By hand: a segment of 2,048 KiB is filled with 1, 1,023 and 1,024 KiB. The first is freed and half of it is asked for twice. Split, both
    halves lie in it; unsplit, the second opens another segment of 2 MiB.
    """
    assert Reserved(AllocatorConfig()).after("+a:1 +b:1023 +c:1024 -a +d:0.5 +e:0.5") == 2 * MIB


def test_best_fit_among_expandable_blocks_goes_by_what_they_can_grow_to() -> None:
    """Ibid., get_free_block: while the next larger block's `expandable_size` is smaller, it is taken instead.

    By hand, in handles of 20 MiB: a (20) and b (30) map 60 MiB, of which the last 10 are free and can grow. a is freed. 8 MiB then come out
    of a's 20, which cannot grow; 12 MiB fill what is left of them, and 10 MiB the end: 60 MiB in all. By size alone the 8 MiB would break
    the end, 12 come out of a, and for the last 10 another handle is mapped: 80 MiB.
    """
    mebibytes = "+a:20480 +b:30720 -a +c:8192 +d:12288 +e:10240"
    assert Reserved(AllocatorConfig(expandable_segments=True)).after(mebibytes) == 60 * MIB


def test_an_empty_storage_points_nowhere_as_torch_s_own() -> None:
    torch = pytest.importorskip("torch")
    assert Allocator().malloc(0).address == torch.empty(0).data_ptr()


# -------------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_adafactor_holds_what_its_own_step_makes(precision: str) -> None:
    """transformers' Adafactor, run for real on one matrix, against what a plan's optimizer step is priced at for its largest one."""
    torch = pytest.importorskip("torch")
    optimization = pytest.importorskip("transformers.optimization")
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    matrix = torch.nn.Parameter(torch.ones(512, 256, dtype=dtype))
    matrix.grad = torch.ones_like(matrix)
    made = optimization.Adafactor([matrix], lr=1e-4, scale_parameter=False, relative_step=False)
    made.step()
    with storages() as live:
        made.step()
    model, plan = api.as_model("llama-3.2-1b"), Plan(method="full", optimizer="adafactor", base_dtype=precision)
    largest = 128_256 * 2048  # the embeddings: huggingface.co/meta-llama/Llama-3.2-1B, config.json
    assert optimizer.step_temporary_bytes(model, plan) == pytest.approx(live.peak_bytes / matrix.numel() * largest, rel=0.01)


def test_lifting_tied_embeddings_to_fp32_holds_them_twice() -> None:
    """peft 0.21 utils/other.py, prepare_model_for_kbit_training: `param.data = param.data.to(torch.float32)`, one after another.

    By hand: Llama 3.2 1B has one matrix of 128,256 words by 2,048 for both ends, 2 bytes each before it is lifted.
    """
    plan = Plan(method="qlora", quantization="nf4", base_dtype="bf16", kbit_prepare=True)
    assert weights.load_extra_bytes(api.as_model("llama-3.2-1b"), plan) == 128_256 * 2048 * 2


LLAMA_1B_LAYER = 2 * 2048 * 2048 + 2 * 512 * 2048 + 3 * 8192 * 2048
"""Of Llama 3.2 1B's config.json: q and o, k and v of 8 heads of 64, and the three of the feed-forward layer; it has 16 of them."""
LLAMA_1B_NORMS = 16 * 2 + 1
"""Of 2,048 each."""


def test_what_is_not_quantised_rests_in_16_bit_unless_it_is_lifted() -> None:
    """peft 0.21 utils/other.py, prepare_model_for_kbit_training lifts what is no Params4bit to fp32; without the call it stays."""
    model, plan = api.as_model("llama-3.2-1b"), Plan(method="qlora", quantization="nf4", base_dtype="bf16", double_quant=False)
    embeddings_and_norms = 128_256 * 2048 + LLAMA_1B_NORMS * 2048
    four_bit = 16 * (LLAMA_1B_LAYER // 2 + LLAMA_1B_LAYER // 64 * 4)  # two to a byte, and a scale in fp32 for each 64
    tables = 16 * 7 * 16 * 4  # the 16 values of nf4, for each matrix
    assert weights.weights_bytes(model, plan) == four_bit + tables + 2 * embeddings_and_norms
    lifted = plan.model_copy(update={"kbit_prepare": True})
    assert weights.weights_bytes(model, lifted) == four_bit + tables + 4 * embeddings_and_norms


SHAPES = [(64, 256), (3, 5), (7, 64 * 9), (128, 64 * 257)]
"""Outputs and inputs: whole blocks of 64, one that is not full, and scales that fill no, part of one, and more than two blocks of 256."""


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("quantization", ["nf4", "fp4"])
@pytest.mark.parametrize("double_quant", [False, True])
def test_a_quantised_matrix_takes_what_bitsandbytes_own_takes(shape: tuple[int, int], quantization: str, double_quant: bool) -> None:
    """quantize_4bit, run for real: the packed weights, which engines share out, and what stays whole beside them on each card."""
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("bitsandbytes.functional")
    packed, state = functional.quantize_4bit(torch.ones(shape), quant_type=quantization, compress_statistics=double_quant)
    beside = [state.absmax, state.code, *([state.offset, state.state2.absmax, state.state2.code] if double_quant else [])]
    beside_bytes = sum(tensor.nbytes for tensor in beside)
    layer = Linear(name="up_proj", in_features=shape[1], out_features=shape[0])
    assert weights.quantized_linear_bytes(layer, Quantization(quantization), double_quant) == packed.nbytes + beside_bytes
    model, plan = api.as_model("llama-3.2-1b"), Plan(method="qlora", quantization=quantization, double_quant=double_quant)
    block = model.shape.blocks[0].model_copy(update={"linears": (layer, layer.model_copy(update={"copies": 3}))})
    assert weights.block_scales_bytes(model, block, plan) == 4 * beside_bytes
    stack = layer.model_copy(update={"copies": 3, "is_module": False})
    _, whole = functional.quantize_4bit(torch.ones(3, *shape), quant_type=quantization, compress_statistics=double_quant)
    whole_bytes = sum(tensor.nbytes for tensor in (whole.absmax, whole.code))
    whole_bytes += sum(tensor.nbytes for tensor in (whole.offset, whole.state2.absmax, whole.state2.code)) if double_quant else 0
    stacked = block.model_copy(update={"linears": (stack,)})
    assert weights.block_scales_bytes(model, stacked, plan.model_copy(update={"quantized_experts": True})) == whole_bytes
    assert weights.block_scales_bytes(model, stacked, plan) == 0
    runs = tuple(block.model_copy(update={"count": count}) for count in (1, 5))
    many = model.model_copy(update={"tables": model.shape.model_copy(update={"blocks": runs})})
    assert weights.scales_bytes(many, plan) == (1 + 5) * 4 * beside_bytes


def test_an_int8_matrix_takes_what_bitsandbytes_own_takes() -> None:
    """int8_vectorwise_quant, run for real: a byte each, and a scale for each output. No engine shares any of it out."""
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("bitsandbytes.functional")
    stored, scales, _ = functional.int8_vectorwise_quant(torch.ones(48, 20, dtype=torch.float16))
    layer = Linear(name="up_proj", in_features=20, out_features=48)
    taken_bytes = stored.nbytes + scales.nbytes
    assert weights.quantized_linear_bytes(layer, Quantization.INT8, False) == taken_bytes
    model, plan = api.as_model("llama-3.2-1b"), Plan(method="qlora", quantization="int8")
    block = model.shape.blocks[0].model_copy(update={"linears": (layer,)})
    assert weights.block_scales_bytes(model, block, plan) == taken_bytes


def test_bitsandbytes_keeps_small_states_in_fp32_and_on_the_card() -> None:
    """By hand for Llama 3.2 1B: the norms lie below both of bitsandbytes' bounds, every matrix above them.

    bitsandbytes 0.50 optim/optimizer.py, Optimizer2State.init_state: `p.numel() < min_8bit_size` has states in fp32; get_state_buffer:
    `not self.is_paged or p.numel() < 1e5` lies on the card. A scale in fp32 stands for 256 values of a state.
    """
    optim = pytest.importorskip("bitsandbytes.optim")
    assert inspect.signature(optim.AdamW8bit).parameters["min_8bit_size"].default == optimizer.EIGHT_BIT_MIN_NUMEL
    model, matrices = api.as_model("llama-3.2-1b"), 128_256 * 2048 + 16 * LLAMA_1B_LAYER
    of_norms = LLAMA_1B_NORMS * 2048 * 2 * 4
    eight_bit = Plan(method="full", optimizer="adamw_8bit", base_dtype="bf16")
    # a layer's two norms are counted as one tensor, which is none of bitsandbytes' small ones: 6 bytes too few of each of their numbers
    assert optimizer.state_bytes(model, eight_bit) == pytest.approx(2 * (matrices + matrices // 256 * 4) + of_norms, rel=2e-4)
    paged = eight_bit.model_copy(update={"optimizer": Optimizer.PAGED_ADAMW_32BIT})
    assert optimizer.state_bytes(model, paged) == of_norms
    assert optimizer.paged_bytes(model, paged) == 2 * 4 * matrices


def test_a_norm_makes_what_the_library_s_own_does() -> None:
    """transformers' RMSNorm in bf16 under a frozen base, run for real: what lives at most.

    The closed form is below it by the result: while that is made, the fp32 copy before it still has its name in the library's function.
    """
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.llama.modeling_llama")
    tokens, features = 64, 256
    norm = modeling.LlamaRMSNorm(features).to(torch.bfloat16).requires_grad_(False)
    x = torch.ones(1, tokens, features, dtype=torch.bfloat16, requires_grad=True)
    norm(x)
    with storages() as live:
        made = norm(x)
    setting = peak.setting_of(api.as_model("llama-3.2-1b"), Plan(method="lora", base_dtype="bf16"))
    tape, entry = Tape(), Tensor(Size(features * 2), True)
    norms.rms_norm(tape, entry, features, setting, 2)
    highest_bytes = max(moment.live.at(tokens, 0) for moment in forward(tape, entry, keep=True, entry_held=True).peaks)
    assert highest_bytes == live.peak_bytes - made.nbytes


@pytest.mark.parametrize("name", ["relu", "relu2", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "silu", "bloom_gelu"])
def test_an_activation_keeps_and_makes_what_the_library_s_own_does(name: str) -> None:
    """transformers' function in bf16, run for real: what it keeps, and what lives at most in either direction. Its input is another's."""
    torch = pytest.importorskip("torch")
    functions = pytest.importorskip("transformers.activations").ACT2FN
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    act = bloom.BloomGelu() if name == "bloom_gelu" else functions[name]
    tokens, features = 64, 32

    class Loss(torch.autograd.Function):  # type: ignore[misc]
        """Lets go of what it is given, and makes the gradient when that is asked for, so that neither has a name here."""

        @staticmethod
        def forward(ctx: Any, given: Any) -> Any:
            return given.new_empty(())

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            return gradient.new_ones(tokens, features)

    x = torch.randn(tokens, features, dtype=torch.bfloat16, requires_grad=True)
    with storages() as live:
        loss = Loss.apply(act(x))
        kept_bytes, highest_bytes = live.now_bytes, live.peak_bytes
        live.peak_bytes = live.now_bytes
        loss.backward()
    size, tape = Size(features * 2), Tape()
    entry = Tensor(size, True)
    feed_forward.activation(tape, entry, size, name)
    there = forward(tape, entry, keep=True, entry_held=True)
    back = backward(tape, there.kept, size)
    counted = [there.kept.at(tokens, 0), *(max(moment.live.at(tokens, 0) for moment in walk.peaks) for walk in (there, back))]
    assert counted == pytest.approx([kept_bytes, highest_bytes, live.peak_bytes], abs=16)  # single numbers


def test_each_of_two_threads_has_a_workspace_of_cublas() -> None:
    """By hand from torch's documentation (CUDA semantics, "cuBLAS workspaces"): one for each handle, `:4096:2:16:8`, in KiB times number;
    `:4096:8` from compute capability 9.0 on. Forward and backward run in a thread each, and a handle belongs to a thread."""
    assert runtime.workspace_bytes(api.as_gpu("rtx 4090")) == 2 * (4096 * 2 + 16 * 8) * KIB
    assert runtime.workspace_bytes(api.as_gpu("h100")) == 2 * 4096 * 8 * KIB


@pytest.mark.parametrize(("grad_accum", "held_bytes"), [(1, 0), (4, 1_235_814_400 * 2)])
def test_gradients_are_there_in_the_forward_pass_of_the_next_micro_batch(grad_accum: int, held_bytes: int) -> None:
    """torch adds into `.grad` until zero_grad (torch.autograd, "Default gradient layouts"); Llama 3.2 1B's published parameters in bf16."""
    plan = Plan(method="full", base_dtype="bf16", grad_accum_steps=grad_accum)
    phases = {phase.phase: phase for phase in api.estimate("llama-3.2-1b", plan).phases}
    assert sum(term.bytes for term in phases[Phase.FORWARD].terms if term.term is Term.GRADIENTS) == held_bytes


def test_ddp_sends_the_weights_in_buckets_of_its_own_size(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
        assert wrapped.broadcast_bucket_size == loading.BROADCAST_BUCKET_BYTES
    finally:
        torch.distributed.destroy_process_group()
    loads = {}
    for cards in (1, 2):
        plan = Plan(method="lora", base_dtype="bf16", n_gpus=cards, sharding="ddp" if cards > 1 else "none")
        (load,) = (phase for phase in api.estimate("llama-3.2-1b", plan).phases if phase.phase is Phase.LOAD)
        loads[cards] = load.allocated_bytes
    # The embeddings fill a bucket alone, and are sent as they lie. Each layer has 116 MiB (8, 2, 2, 8, 32, 32 and 32) and 8 KiB of norms:
    # the buckets after it hold 252, 264, 264, 264 MiB … with the norms of two layers each;
    # the adapters, in fp32, are sent for themselves.
    assert loads[2] - loads[1] == 2 * 264 * MIB + (2 + 2) * 8 * 1024


@pytest.mark.parametrize(("rank", "precision"), [(8, "bf16"), (128, "bf16"), (8, "fp32"), (64, "fp32"), (128, "fp32")])
def test_ddp_sends_the_buckets_that_torch_itself_makes(rank: int, precision: str) -> None:
    """torch deals the same tensors out itself; a bucket of one tensor is sent as it lies, and two neighbours are there at once.

    Llama 3.2 1B's tensors in the order of its modules, a layer's norms as one and its adapters, in fp32, as one behind the first matrix.
    """
    torch = pytest.importorskip("torch")
    resting = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    adapter = rank * (2 * (2048 + 2048) + 2 * (2048 + 512) + 3 * (2048 + 8192))
    matrices = [2048 * 2048, 2048 * 512, 2048 * 512, 2048 * 2048, *[2048 * 8192] * 3]
    layer = [(matrices[0], resting), (adapter, torch.float32), *((size, resting) for size in (*matrices[1:], 2 * 2048))]
    sizes = [(128_256 * 2048, resting), *layer * 16, (2048, resting)]
    tensors = [torch.empty(size, dtype=dtype, device="meta") for size, dtype in sizes]
    buckets, _ = torch.distributed._compute_bucket_assignment_by_size(tensors, [250 * MIB])
    copied = [sum(tensors[index].nbytes for index in bucket) if len(bucket) > 1 else 0 for bucket in sorted(buckets, key=min)]
    loads = []
    for cards in (1, 2):
        plan = Plan(method="lora", rank=rank, base_dtype=precision, n_gpus=cards, sharding="ddp" if cards > 1 else "none")
        (load,) = (phase for phase in api.estimate("llama-3.2-1b", plan).phases if phase.phase is Phase.LOAD)
        loads.append(load.allocated_bytes)
    assert loads[1] - loads[0] == max(before + after for before, after in pairwise([0, *copied]))


def test_tiles_of_the_fused_loss_are_trl_s_own() -> None:
    chunked = pytest.importorskip("trl.kernels.chunked_logprob")
    utils = pytest.importorskip("trl.trainer.utils")
    assert (head.TILE_TOKENS, head.TILE_VOCABULARY) == (chunked.TOKEN_CHUNK_SIZE, utils._CHUNKED_LOGPROB_CHUNK_SIZE)


# (autocast, words, hidden, bytes a logit by hand): bf16 logits, their fp32 copy, the log-softmax
EVALUATIONS = [(False, 32_000, 64, 10), (True, 32_000, 64, 10), (True, 1000, 256, 10)]


@pytest.mark.parametrize(("autocast", "words", "hidden", "logit_bytes"), EVALUATIONS)
def test_an_evaluation_holds_what_the_library_s_own_forward_holds(
    autocast: bool, words: int, hidden: int, logit_bytes: int, tmp_path: Path
) -> None:
    """transformers' forward with labels under no_grad, under accelerate's autocast where it is asked for, measured on the processor."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    operations = pytest.importorskip("accelerate.utils.operations")
    rows, tokens, layers = 4, 64, 4
    shape = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_hidden_layers": layers, "num_attention_heads": 4}
    config = transformers.LlamaConfig(**shape, vocab_size=words, use_cache=False, architectures=["LlamaForCausalLM"])
    config.save_pretrained(tmp_path)
    made = transformers.LlamaForCausalLM(config).to(torch.float32 if autocast else torch.bfloat16)
    forward = operations.convert_outputs_to_fp32(torch.autocast("cpu", torch.bfloat16)(made.forward)) if autocast else made
    ids = torch.zeros(rows, tokens, dtype=torch.long)
    with torch.no_grad(), storages() as live:
        forward(input_ids=ids, labels=ids)
    options = {"base_dtype": "fp32", "autocast": True} if autocast else {"base_dtype": "bf16"}
    plan = Plan(method="full", eval_micro_batch_size=rows, seq_len_tokens=tokens, **options)
    (evaluation,) = (phase for phase in api.estimate(str(tmp_path), plan).phases if phase.phase is Phase.EVALUATION)
    priced = sum(term.bytes for term in evaluation.terms if term.term in (Term.LOGITS, Term.TEMPORARIES))
    assert priced == pytest.approx(live.peak_bytes, rel=0.02)
    weights_bytes = 2 * (words * hidden + layers * 16 * hidden**2) if autocast else 0  # four of attention, three of 4 x hidden
    assert priced == pytest.approx(logit_bytes * rows * tokens * words + weights_bytes, rel=0.03)


def test_a_calibration_takes_no_more_than_the_machine_has() -> None:
    """The kernel's own word on what can be had (proc(5), MemAvailable)."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        pytest.skip("Linux says so")
    said = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text(encoding="ascii"))
    assert said is not None
    for processes in (1, 2):
        limit = calibrate_run._default_limit(processes)
        assert limit is not None
        assert 0 < limit * processes <= int(said[1]) * 1024 * 0.95


# --------------------------------------------------------------------------------------------------------- what is told, and said


def test_a_run_that_is_said_to_have_diverged_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the option says it: its loss broke, whatever the losses that were written down."""
    monkeypatch.chdir(tmp_path)
    told = record(method="lora", rank=16, learning_rate=2e-3, train_losses=[(1, 2.0), (2, 1.9)], diverged=True)
    quiet = record(method="lora", rank=16, learning_rate=2e-4, train_losses=[(1, 2.0), (2, 1.8)])
    assert (told.has_diverged, quiet.has_diverged) == (True, False)
    assert [run.diverged for run in facts_from_ledger().runs] == [True, False]
    assert "spiked and did not come back" in api.next_step({"runs": [{"method": "lora", "rank": 16, "diverged": True}]}).reason


# GitHub's own escapes of a workflow command: actions/toolkit, packages/core/src/command.ts, escapeData and escapeProperty.
ESCAPES = [
    ("one\ntwo", "one%0Atwo", "one%0Atwo"),
    ("one\r\ntwo", "one%0D%0Atwo", "one%0D%0Atwo"),
    ("50 %", "50 %25", "50 %25"),
    ("a: b, c", "a: b, c", "a%3A b%2C c"),
    ("x\n::error::forged", "x%0A::error::forged", "x%0A%3A%3Aerror%3A%3Aforged"),
]


@pytest.mark.parametrize(("text", "data", "title"), ESCAPES)
def test_an_annotation_is_one_line_by_github_s_own_rules(text: str, data: str, title: str) -> None:
    report = CheckReport.model_construct(config=text, findings=(Finding(id="x", level=Level.ERROR, message=text),))
    assert render_check.github(report) == f"::error file={title},title=x::{data}\n"
