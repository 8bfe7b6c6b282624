"""The snippet is run with the real libraries on the CPU, and what it builds is compared with the plan that was priced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from advisor.architectures import spec_from_config  # noqa: E402
from advisor.ladder import plan_from_request, request_from, snippet  # noqa: E402
from advisor.ladder.snippet import YOURS_TO_TRAIN_ON  # noqa: E402
from advisor.memory import trainable_params  # noqa: E402
from advisor.values import ALL_LINEAR, DType, GpuSpec, Method, ModelSpec, Optimizer, Plan, Sharding, Stack  # noqa: E402

TORCH = {DType.FP32: torch.float32, DType.BF16: torch.bfloat16, DType.FP16: torch.float16}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 128,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}

PLANS: list[dict[str, Any]] = [
    {"method": "lora"},
    {"method": "lora", "rank": 4, "alpha": 12.5, "target_modules": "q_proj,down_proj", "checkpointing": True, "grad_accum": 2},
    {"method": "lora", "precision": "fp16", "optimizer": "adafactor", "attention": "eager"},
    {"method": "dora", "rank": 8, "batch_size": 2},
    {"method": "qlora", "rank": 8},
    {"method": "qlora", "kbit_prepare": False, "double_quant": False, "quantization": "fp4", "optimizer": "paged_adamw_8bit"},
    {"method": "qdora", "checkpointing": False},
    {"method": "full", "optimizer": "adamw_8bit"},
    {"method": "full", "precision": "bf16-amp", "optimizer": "sgd"},
    {"method": "lora", "loss": "fused"},
    {"method": "qlora", "gpus": 2},
]
CARD = GpuSpec(name="card", vendor="nvidia", usable_bytes=8 << 30, usable_source="test")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """A real, tiny checkpoint on disk with a tokenizer, and the spec that its config.json makes; the folder is the model's id."""
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("llama")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[PAD]": 0, "[UNK]": 1, "[EOS]": 2}, unk_token="[UNK]"))
    special = {"pad_token": "[PAD]", "eos_token": "[EOS]", "unk_token": "[UNK]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**CONFIG)).to(torch.bfloat16).save_pretrained(folder)
    return spec_from_config(CONFIG, id=str(folder), source="made for the test")


TOKENS = 32
NOT_ON_A_CPU = ("adamw_8bit", "paged_adamw_8bit")
"""bitsandbytes has no kernels for them there: their snippets are run up to the training."""
OF_A_CPU = {
    '{"": 0}': '"cpu"',
    '{"": int(os.environ["LOCAL_RANK"])}': '"cpu"',
    'output_dir="out"': 'output_dir="out", use_cpu=True, max_steps=1, save_strategy="no", disable_tqdm=True',
    "    use_liger_kernel=True,\n": "",
}
"""There is no GPU here, and fused Liger kernels need one."""
OF_THE_USER = {YOURS_TO_TRAIN_ON: "train_dataset = DATA", "loader = ...": "loader = LOADER"}


def run(model: ModelSpec, options: dict[str, Any], stack: str, rows: Any = None) -> tuple[Plan, dict[str, Any]]:
    """The snippet's names after it ran whole: with data in the place that is left for it, on a CPU."""
    plan = plan_from_request(model, CARD, request_from({"stack": stack, "seq_len": TOKENS, "grad_accum": 1} | options))
    text = snippet(model, plan)
    assert ("use_liger_kernel=True" in text) is (plan.loss.value == "fused" and plan.stack is not Stack.PLAIN)
    assert text.startswith("# pip install torch transformers")
    for written, instead in {**OF_A_CPU, **OF_THE_USER}.items():
        text = text.replace(written, instead)
    if plan.optimizer.value in NOT_ON_A_CPU:
        text = text.replace("\ntrainer.train()\n", "\n")
    names: dict[str, Any] = {"DATA": rows or data(stack), "LOADER": [batch(plan)] * plan.grad_accum_steps}
    exec(compile(text, "snippet", "exec"), names)
    return plan, names


def data(stack: str) -> Any:
    rows = [{"input_ids": [1 + number] * TOKENS, "labels": [1 + number] * TOKENS} for number in range(8)]
    return pytest.importorskip("datasets").Dataset.from_list(rows) if stack == "trl" else rows


def batch(plan: Plan) -> dict[str, Any]:
    tokens = torch.randint(0, 128, (plan.micro_batch_size, plan.seq_len_tokens))
    return {"input_ids": tokens, "labels": tokens}


def assert_trained(plan: Plan, trainer: Any) -> None:
    steps = 0 if plan.optimizer.value in NOT_ON_A_CPU else 1
    assert trainer.state.global_step == steps


def assert_adapter(plan: Plan, config: Any) -> None:
    assert (config.r, config.lora_alpha, config.use_dora, config.use_rslora) == (
        plan.rank,
        plan.alpha,
        plan.method.is_dora,
        plan.use_rslora,
    )
    assert config.lora_dropout == plan.lora_dropout
    assert config.task_type == "CAUSAL_LM"


def assert_quantization(plan: Plan, names: dict[str, Any]) -> None:
    if plan.quantization is None:
        assert "quantization" not in names
        return
    made = names["quantization"]
    assert made.load_in_4bit
    assert (made.bnb_4bit_quant_type, made.bnb_4bit_use_double_quant) == (plan.quantization.value, plan.double_quant)
    assert made.bnb_4bit_compute_dtype is TORCH[plan.base_dtype]


def assert_arguments(plan: Plan, arguments: Any) -> None:
    assert arguments.per_device_train_batch_size == plan.micro_batch_size
    assert arguments.gradient_accumulation_steps == plan.grad_accum_steps
    assert arguments.gradient_checkpointing is plan.gradient_checkpointing
    assert arguments.optim == plan.optimizer.value
    assert (arguments.bf16, arguments.fp16) == tuple(plan.autocast and plan.autocast_dtype is dtype for dtype in (DType.BF16, DType.FP16))


def assert_model(plan: Plan, model: ModelSpec, built: Any) -> None:
    """The model that will be trained: what is trained, in which type, and what became of the rest."""
    trained = {name: parameter for name, parameter in built.named_parameters() if parameter.requires_grad}
    assert sum(parameter.numel() for parameter in trained.values()) == trainable_params(model, plan)
    trained_type = plan.base_dtype if plan.method is Method.FULL else plan.adapter_dtype
    assert {parameter.dtype for parameter in trained.values()} == {TORCH[trained_type]}
    rest = DType.FP32 if plan.kbit_prepare else plan.base_dtype
    assert built.get_input_embeddings().weight.dtype is TORCH[rest]
    assert built.config._attn_implementation == plan.attention.value
    assert built.config.use_cache is False
    wrapped = {name.rsplit(".", 1)[-1] for name, module in built.named_modules() if hasattr(module, "lora_A")}
    everything = {linear.name for block in model.shape.blocks for linear in block.linears}
    wanted = everything if plan.target_modules == (ALL_LINEAR,) else set(plan.target_modules)
    assert wrapped == (wanted if plan.method.has_adapter else set())
    four_bit = any(type(module).__name__ == "Linear4bit" for module in built.modules())
    assert four_bit is plan.method.is_quantized


@pytest.mark.filterwarnings("ignore")  # the libraries' own: deprecated names, no GPU
@pytest.mark.parametrize("options", PLANS, ids=json.dumps)
@pytest.mark.sampled(5)
def test_trainer_snippet(checkpoint: ModelSpec, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan, names = run(checkpoint, options, "hf")
    assert_model(plan, checkpoint, names["model"])
    assert_quantization(plan, names)
    assert_arguments(plan, names["arguments"])
    assert_trained(plan, names["trainer"])
    assert names["seq_len"] == plan.seq_len_tokens
    if plan.method.has_adapter:
        assert_adapter(plan, names["adapter"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [row for row in PLANS if "8bit" not in row.get("optimizer", "")], ids=json.dumps)
def test_plain_snippet_trains(checkpoint: ModelSpec, options: dict[str, Any]) -> None:
    """The hand-written loop runs a step, and the step moves what is trained and nothing else."""
    plan, names = run(checkpoint, options, "plain")
    model = names["model"]
    assert_model(plan, checkpoint, model)
    assert_quantization(plan, names)
    assert model.is_gradient_checkpointing is plan.gradient_checkpointing
    # 4-bit weights are integers, which the CPU kernel repacks at its first use
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.is_floating_point()}
    names["train"]([batch(plan)] * plan.grad_accum_steps)
    moved = {name for name, parameter in model.named_parameters() if name in before and not torch.equal(parameter, before[name])}
    assert moved
    assert moved <= {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", PLANS, ids=json.dumps)
@pytest.mark.sampled(5)
def test_trl_snippet(checkpoint: ModelSpec, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl")
    monkeypatch.chdir(tmp_path)
    plan, names = run(checkpoint, options, "trl")
    assert_quantization(plan, names)
    assert_arguments(plan, names["arguments"])
    assert names["arguments"].max_length == plan.seq_len_tokens
    assert_trained(plan, names["trainer"])
    if plan.method.has_adapter:
        assert_adapter(plan, names["adapter"])


@pytest.mark.filterwarnings("ignore")
def test_a_classifier_on_a_decoder_trains(checkpoint: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must be told its padding, by a tokenizer that the snippet loads."""
    monkeypatch.chdir(tmp_path)
    rows = [{"input_ids": [1 + number] * TOKENS, "labels": number % 2} for number in range(8)]
    plan, names = run(checkpoint, {"method": "lora", "head": "classification", "labels": 2, "batch_size": 2}, "hf", rows)
    assert_trained(plan, names["trainer"])
    assert names["model"].config.pad_token_id == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"method": "lora"}, "torch transformers accelerate peft"),
        ({"method": "full", "optimizer": "adamw_8bit"}, "torch transformers accelerate bitsandbytes"),
        ({"method": "qlora", "stack": "trl", "loss": "fused"}, "torch transformers accelerate peft trl bitsandbytes liger-kernel"),
        ({"method": "lora", "stack": "plain", "attention": "flash"}, "torch transformers peft flash-attn"),
        ({"method": "qlora", "stack": "plain"}, "torch transformers accelerate peft bitsandbytes"),
    ],
    ids=json.dumps,
)
def test_a_snippet_names_what_to_install(checkpoint: ModelSpec, options: dict[str, Any], expected: str) -> None:
    text = snippet(checkpoint, plan_from_request(checkpoint, CARD, request_from(options)))
    assert text.splitlines()[0] == f"# pip install {expected}"


def test_shards_of_a_quantised_base_are_of_one_type(checkpoint: ModelSpec) -> None:
    plan = plan_from_request(checkpoint, CARD, request_from({"method": "qlora", "gpus": 4}))
    text = snippet(checkpoint, plan.model_copy(update={"sharding": Sharding.FSDP2}))
    assert "bnb_4bit_quant_storage=torch.bfloat16" in text
    assert "fsdp=True" in text
    assert "device_map" not in text


@pytest.mark.parametrize("optimizer", list(Optimizer))
def test_every_optimizer_has_a_name_without_a_trainer(checkpoint: ModelSpec, optimizer: Optimizer) -> None:
    bnb = pytest.importorskip("bitsandbytes")
    plan = plan_from_request(checkpoint, CARD, request_from({"stack": "plain", "optimizer": optimizer.value}))
    line = next(line for line in snippet(checkpoint, plan).splitlines() if line.startswith("optimizer = "))
    name = line.removeprefix("optimizer = ").split("(")[0]
    scope = {"torch": torch, "bnb": bnb, "Adafactor": transformers.optimization.Adafactor}
    assert callable(eval(name, scope))
