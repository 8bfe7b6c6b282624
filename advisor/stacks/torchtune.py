"""torchtune: its defaults, and its recipe YAML as a plan. Read only; read in torchtune 0.6.1, whose development has ended."""

from __future__ import annotations

from advisor.errors import InvalidInputError, UnsupportedError
from advisor.profiles import read as read_profiles
from advisor.stacks import trainer_arguments as common
from advisor.stacks.facts import Default, StackDefaults
from advisor.stacks.fields import Fields
from advisor.stacks.reading import LAYERS_STAY, Adapter, Around, Batch, Cards, Loop, Reading, Way, Weights, assemble
from advisor.stacks.trainer_arguments import Notes
from advisor.values.model import ModelSpec
from advisor.values.vocabulary import Attention, DType, Loss, Optimizer, Quantization, Sharding, Stack

ONE_TYPE = "torchtune 0.6.1 recipes: the whole model, adapters included, is built in the recipe's dtype"
UNSAID = "torchtune 0.6.1 recipes read it from the file and have no default"

TORCHTUNE = StackDefaults(
    stack=Stack.TORCHTUNE,
    label="torchtune",
    package="torchtune",
    version="0.6.1",
    optimizer=Default(Optimizer.ADAMW_FUSED, "torchtune 0.6.1 recipes/configs: torch.optim.AdamW with fused: True"),
    loss=Default(Loss.CHUNKED_OUTPUT, "torchtune 0.6.1 recipes/configs: loss torchtune.modules.loss.CEWithChunkedOutputLoss"),
    losses=(Loss.FULL, Loss.CHUNKED_OUTPUT),
    adapter_dtype=Default(DType.BF16, ONE_TYPE),
    quantized_adapter_dtype=Default(DType.BF16, ONE_TYPE),
    kbit_prepare=Default(False, "torchtune 0.6.1: 4-bit weights are torchao's NF4, and nothing is lifted"),
    checkpointing=Default(False, UNSAID),
    quantized_checkpointing=Default(False, UNSAID),
    autocast=Default(False, "torchtune 0.6.1: the recipe's dtype is the model's; no autocast"),
    full_autocast=Default(False, "torchtune 0.6.1: the recipe's dtype is the model's; no autocast"),
    logits_alive_in_backward=Default(False, "torchtune 0.6.1 recipes: `del logits` before backward"),
    kv_cache_in_outputs=Default(False, "torchtune 0.6.1: training has no caches"),
    weights_dtype=Default(DType.FP32, "torchtune 0.6.1 training/precision.py get_dtype: float32 where dtype is left out"),
)

_OPTIMIZERS = {
    "bitsandbytes.optim.PagedAdamW8bit": Optimizer.PAGED_ADAMW_8BIT,
    "bitsandbytes.optim.PagedAdamW": Optimizer.PAGED_ADAMW_32BIT,
    "bitsandbytes.optim.PagedAdamW32bit": Optimizer.PAGED_ADAMW_32BIT,
    "bitsandbytes.optim.AdamW8bit": Optimizer.ADAMW_8BIT,
    "torch.optim.SGD": Optimizer.SGD,
    "torch.optim.Adafactor": Optimizer.ADAFACTOR,
}
_ATTENTION_MODULES = {"output_proj": "o_proj"}
_MLP_MODULES = ("gate_proj", "up_proj", "down_proj")
RANK, ALPHA = 8, 16.0
"""torchtune 0.6.1 models/llama3/_model_builders.py lora_llama3_8b."""

SPELLINGS = {
    "batch-size": "batch_size: {}",
    "grad-accum": "gradient_accumulation_steps: {}",
    "seq-len": "tokenizer.max_seq_len: {}",
    "rank": "model.lora_rank: {}",
    "alpha": "model.lora_alpha: {}",
    "precision": "dtype: {}",
    "checkpointing": "enable_activation_checkpointing: true",
}
"""How its files say what a hint names as an option of ours; and how they switch on checkpointing and a loss in pieces."""


def model_of(fields: Fields) -> str | None:
    """The model that the builder makes; its checkpoint's folder says nothing for sure."""
    component = fields.group("model").text("_component_")
    if component is None:
        return None
    builder = component.rpartition(".")[2].removeprefix("qlora_").removeprefix("lora_")
    rows = [row for row in read_profiles("stacks") if row["kind"] == "models" and row["stack"] == Stack.TORCHTUNE.value]
    found = rows[0]["models"].get(builder)
    if found is None:
        raise UnsupportedError(f"{fields.where}: the builder {component} is not known; say the model with --model")
    return str(found)


def read(fields: Fields, around: Around) -> Reading:
    """A recipe's YAML as a plan."""
    notes = Notes()
    model = fields.group("model")
    component = model.text("_component_") or ""
    builder = component.rpartition(".")[2]
    _refuse_other_jobs(fields)
    dtype = common.weights_dtype(fields.text("dtype") or "fp32", None, notes)
    quantized = builder.startswith("qlora_") or bool(model.flag("quantize_base"))
    adapter = _adapter(model, around.model, dtype, notes) if builder.startswith(("lora_", "qlora_")) else None
    weights = Weights(dtype, None, Quantization.NF4 if quantized else None, True)
    if quantized and component:
        notes.taken.append("torchao's NF4 is priced as bitsandbytes' with double quantisation: 4 bit and 8-bit constants, in blocks of 64")
    length = fields.group("tokenizer").count("max_seq_len") or fields.group("dataset").count("max_seq_len")
    seq = common.sequence(length, around, notes, "tokenizer.max_seq_len")
    micro = fields.count("batch_size") or _missing(fields, "batch_size")
    batch = Batch(micro, seq, fields.count("gradient_accumulation_steps") or 1, _evaluation(fields, micro))
    checkpointing = bool(fields.flag("enable_activation_checkpointing"))
    away = common.away(fields, checkpointing, notes, "enable_activation_offloading")
    loop = Loop(_optimizer(fields, notes), checkpointing, Attention.SDPA, _loss(fields, notes), away=away)
    return Reading(
        plan=assemble(around, adapter, weights, batch, loop, _cards(fields, around, notes)),
        remarks=tuple(notes.remarks),
        learning_rate=fields.group("optimizer").number("lr"),
        taken=tuple(notes.taken),
    )


def _missing(fields: Fields, key: str) -> int:
    raise InvalidInputError(f"{fields.where}: {key} is missing; torchtune has no default for it")


def _refuse_other_jobs(fields: Fields) -> None:
    for key, job in (
        ("teacher_model", "distillation"),
        ("reward_and_value_model", "PPO"),
        ("policy_model", "PPO"),
        ("inference", "inference"),
        ("tasks", "evaluation"),
    ):
        if fields.has(key):
            raise UnsupportedError(f"{fields.where}: {key} belongs to {job}, which is not priced; supervised fine-tuning is")


def _adapter(model: Fields, spec: ModelSpec, dtype: DType, notes: Notes) -> Adapter:
    attention = model.names("lora_attn_modules") or ()
    names = [_ATTENTION_MODULES.get(name, name) for name in attention]
    mlp = bool(model.flag("apply_lora_to_mlp"))
    if model.flag("apply_lora_to_output"):
        notes.unpriced("apply_lora_to_output", "an adapter on the output head is not priced", Way.UP)
    targets = tuple(dict.fromkeys(_in_transformers(spec, name) for name in (*names, *(_MLP_MODULES if mlp else ()))))
    if not targets:  # torchtune 0.6.1 models/llama3/_component_builders.py: "Must pass one or more of … as lora_modules"
        raise InvalidInputError("lora_attn_modules is empty: name the layers that get an adapter")
    rank, alpha = model.count("lora_rank") or RANK, model.number("lora_alpha") or ALPHA
    dropout = model.number("lora_dropout") or 0.0  # models/llama3/_model_builders.py: lora_dropout=0.0
    return Adapter(rank, alpha, targets, bool(model.flag("use_dora")), False, dtype, dropout)


def _in_transformers(spec: ModelSpec, name: str) -> str:
    """Name of the module in transformers, which fuses some of them (Phi-3's qkv_proj and gate_up_proj)."""
    names = {linear.name for block in spec.shape.blocks for linear in block.linears}
    if name in names:
        return name
    fused = "qkv_proj" if name in ("q_proj", "k_proj", "v_proj") else "gate_up_proj" if name in ("gate_proj", "up_proj") else name
    return fused if fused in names else name


def _optimizer(fields: Fields, notes: Notes) -> Optimizer:
    settings = fields.group("optimizer")
    component = settings.text("_component_") or "torch.optim.AdamW"
    if component in ("torch.optim.AdamW", "torch.optim.Adam"):
        return Optimizer.ADAMW_FUSED if settings.flag("fused") else Optimizer.ADAMW
    found = _OPTIMIZERS.get(component)
    if found is None:
        notes.unpriced(f"optimizer: {component}", "is priced as torch.optim.AdamW, whose states it does not have", Way.EITHER)
    return found or Optimizer.ADAMW


def _evaluation(fields: Fields, micro: int) -> int | None:
    """Recipes that validate every so many steps, where there is data for it."""
    size, every = fields.count("batch_size_val"), fields.integer("run_val_every_n_steps")
    return (size or micro) if every and fields.raw("dataset_val") is not None else None


def _loss(fields: Fields, notes: Notes) -> Loss:
    component = fields.group("loss").text("_component_") or ""
    if component.endswith("LinearCrossEntropyLoss"):
        notes.unpriced("LinearCrossEntropyLoss", "makes logits by chunks too; priced with those of all tokens", Way.DOWN, LAYERS_STAY)
        return Loss.CHUNKED_OUTPUT
    if component.endswith("CEWithChunkedOutputLoss") or not component:
        return Loss.CHUNKED_OUTPUT
    if any(word in component for word in ("dpo", "DPO", "rlhf", "KD", "SimPO")):
        notes.unpriced(f"loss: {component}", "is priced as supervised fine-tuning of one sequence", Way.UP)
    return Loss.FULL


def _cards(fields: Fields, around: Around, notes: Notes) -> Cards:
    """The recipes for several devices shard fully (FSDP2); which recipe runs stands on the command line, not in the file."""
    degree = fields.count("tensor_parallel_dim")
    if degree is not None and degree > 1:
        notes.unpriced(f"tensor_parallel_dim: {degree}", "splits matrices over GPUs; priced as full sharding", Way.EITHER)
    if fields.flag("fsdp_reshard_after_forward") is False:
        notes.unpriced("fsdp_reshard_after_forward: false", "keeps whole weights on every card from forward to backward", Way.UP)
    n_gpus = around.launch.n_gpus or 1
    return Cards(n_gpus, Sharding.FSDP2 if n_gpus > 1 else Sharding.NONE)
