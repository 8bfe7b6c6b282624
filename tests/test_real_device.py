"""What is otherwise where tensors are real and the device is no processor: loading, autograd's own thread, losses, errors of memory.

A processor stands for the card where it can; the rest is marked `gpu`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("bitsandbytes")
pytest.importorskip("accelerate")

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from advisor import api
from advisor.architectures import spec_from_config
from advisor.calibration import losses
from advisor.calibration.training import is_out_of_memory
from advisor.dryrun import compat, load, meta_model
from advisor.dryrun.recorder import Recorder
from advisor.hub import load_model
from advisor.tape.breakdown import live_at
from advisor.tape.stream import Stream
from advisor.user_files import DATA
from advisor.values import Loss, Phase, Plan
from advisor.values.calibration import CalibrationRun, Ending

pytestmark = pytest.mark.filterwarnings("ignore")

TESTS = Path(__file__).parent
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
TINY = spec_from_config(CONFIG, id="tiny", source="a test")


# Loading.


def loaded(plan: Plan, *, arrives: bool) -> tuple[Any, Stream]:
    """The quantised model on the processor: built there, or as on a card with each weight arriving by itself."""
    recorder = Recorder("cpu")
    config = meta_model.config_of(TINY)
    if not arrives:
        model = meta_model.base_model(TINY, config, plan, "cpu")
        load.load(model, plan, recorder)
        return model, recorder.close()
    with compat.uninitialised():
        model = meta_model.base_model(TINY, config, plan, "cpu")
    load.load(model, plan, recorder, device="cpu")
    return model, recorder.close()


def peak_bytes(stream: Stream) -> int:
    live, highest = 0, 0
    for signed in stream.events:
        size = stream.births[abs(signed) - 1].size_bytes
        live += size if signed > 0 else -size
        highest = max(highest, live)
    return highest


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_weights_that_arrive_one_by_one_are_what_the_dry_run_loads(quantization: str) -> None:
    plan = Plan(method="qlora", quantization=quantization)
    loaded(plan, arrives=False)  # bitsandbytes makes its tables once
    model, stream = loaded(plan, arrives=True)
    _, built = loaded(plan, arrives=False)
    assert peak_bytes(stream) == peak_bytes(built)
    resting = [sum(one.births[n - 1].size_bytes for n in live_at(one, len(one.events) - 1)) for one in (stream, built)]
    assert resting[0] == resting[1]
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert 0 < model.model.embed_tokens.weight.float().std() < 1
    assert torch.isfinite(model.model.rotary_emb.inv_freq).all()
    with torch.no_grad():
        assert torch.isfinite(model(input_ids=torch.ones(1, 4, dtype=torch.int64)).logits.float()).all()


# On a card backward runs in a thread of autograd's own, and nodes are numbered by thread.


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, inputs: Any) -> Any:
        return self.down(torch.sin(self.up(inputs)))


class Stack(nn.Module):
    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)
        self.layers = nn.ModuleList(Layer() for _ in range(3))

    def forward(self, inputs: Any) -> Any:
        states = self.first(inputs)
        for layer in self.layers:
            states = layer(states) if self.reentrant is None else checkpoint(layer, states, use_reentrant=self.reentrant)
        return self.last(torch.cos(states)).sum()


def places_of(reentrant: bool | None, forward: ThreadPoolExecutor, backward: ThreadPoolExecutor) -> list[tuple[str, str]]:
    """Operator and place of every storage of three steps, whose halves run in these threads."""
    model, recorder = Stack(reentrant), Recorder("cpu")
    recorder.places.watch(model)

    def under(work: Callable[[], Any]) -> Any:
        with recorder:
            return work()

    for _ in range(3):
        recorder.begin(Phase.FORWARD)
        loss = forward.submit(under, lambda: model(torch.ones(2, 8))).result()
        recorder.begin(Phase.BACKWARD)
        backward.submit(under, loss.backward).result()
        model.zero_grad()
    return [(born.op, born.place) for born in recorder.close().births]


@pytest.mark.parametrize("reentrant", [None, False, True])
def test_backward_in_a_thread_of_its_own_bears_the_same_names(reentrant: bool | None) -> None:
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other, ThreadPoolExecutor(1) as alone:
        assert places_of(reentrant, one, other) == places_of(reentrant, alone, alone)


# Losses.


def test_trls_own_loss_takes_the_place_of_the_written_one() -> None:
    pytest.importorskip("trl")
    model = meta_model.base_model(TINY, meta_model.config_of(TINY), Plan(base_dtype="fp32"), "cpu")
    ids = torch.randint(0, CONFIG["vocab_size"], (2, 16), generator=torch.Generator().manual_seed(0))
    expected = model(input_ids=ids, labels=ids).loss
    losses.install(model, Loss.CHUNKED)
    outputs = model(input_ids=ids, labels=ids, num_items_in_batch=torch.tensor(30))
    assert outputs.loss.item() == pytest.approx(expected.item(), rel=1e-4)  # 2 × 15 next tokens
    outputs.loss.backward()
    assert model.model.layers[0].mlp.up_proj.weight.grad.abs().sum() > 0


# Errors.


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_a_full_card_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


# On a card.

PHASE_BAR, TIME_BAR = 0.005, 0.15
"""What is asked of allocated memory by phase, and of the time of another shape."""


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA.variable, str(tmp_path / "data"))


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["lora", "full", "dora", "qlora", "qdora"])
@pytest.mark.usefixtures("records")
def test_the_dry_run_is_what_a_card_allocates(method: str) -> None:
    found = api.calibrate(load_model("smollm2-135m"), method=method)
    assert found.ending is Ending.DONE, found.message
    assert found.calibration is not None
    assert found.calibration.hardware.backend in ("cuda", "rocm")
    for point in found.points:
        off = {entry.phase.value: (entry.traced_bytes or 0) / entry.measured_bytes - 1 for entry in point.phases}
        assert all(abs(share) <= PHASE_BAR for share in off.values()), off
    assert found.calibration.rates is not None
    assert found.calibration.rates.error_share <= TIME_BAR


@pytest.mark.gpu
@pytest.mark.parametrize("phase", ["load", "forward", "backward", "optimizer_step"])
@pytest.mark.usefixtures("records")
def test_a_card_that_is_full_is_a_result_in_every_phase(phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIES_IN", f"{phase}:full_card")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    found: CalibrationRun = api.calibrate(
        load_model("smollm2-135m"), method="full", layers=2, batch_size=2, seq_len=512, worker="dying_worker"
    )
    assert (found.ending, found.exit_code) == (Ending.OUT_OF_MEMORY, 1), found.message
    assert found.ended_in.startswith(phase.replace("_", " "))
