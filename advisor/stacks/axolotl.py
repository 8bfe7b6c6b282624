"""axolotl: its defaults, its YAML as a plan, a plan as its YAML. Read in axolotl 0.19.

It casts embeddings and norms back to 16 bit after `prepare_model_for_kbit_training`, so that the helper costs nothing at rest.
"""

from __future__ import annotations

from collections.abc import Iterator

from advisor.errors import InvalidInputError, UnsupportedError
from advisor.stacks import trainer_arguments as common
from advisor.stacks.facts import FOUR_BIT, Default, StackDefaults
from advisor.stacks.fields import Fields
from advisor.stacks.hf import HF, PEFT_ADAPTER_FP32
from advisor.stacks.reading import Adapter, Around, Batch, Cards, Loop, Reading, Way, Weights, assemble
from advisor.stacks.sharing import cards_of
from advisor.stacks.stored import as_stored
from advisor.stacks.trainer_arguments import Notes
from advisor.stacks.write import Line, number, rate_setting, setting
from advisor.stacks.write_sharing import axolotl_lines
from advisor.values.plan import ALL_LINEAR, Plan
from advisor.values.vocabulary import Attention, DType, Loss, Method, Optimizer, Quantization, Stack

AUTOCAST = "axolotl 0.19 core/builders/base.py: bf16, unless it is 'full', becomes the Trainer's bf16, which autocasts"

AXOLOTL = StackDefaults(
    stack=Stack.AXOLOTL,
    label="axolotl",
    package="axolotl",
    version="0.19",
    optimizer=Default(Optimizer.ADAMW_FUSED, "axolotl 0.19 utils/schemas/training.py: optimizer='adamw_torch_fused'"),
    loss=Default(Loss.FULL, "axolotl 0.19: the loss of transformers, unless a plugin replaces it"),
    losses=tuple(Loss),
    adapter_dtype=Default(DType.FP32, PEFT_ADAPTER_FP32),
    quantized_adapter_dtype=Default(DType.FP32, PEFT_ADAPTER_FP32),
    kbit_prepare=Default(
        False,
        "axolotl 0.19 loaders/model.py: the helper runs, then `_convert_embedding_modules_dtype` casts embeddings and norms back to 16 bit",
    ),
    checkpointing=Default(False, "axolotl 0.19 utils/schemas/config.py: gradient_checkpointing=False"),
    quantized_checkpointing=Default(False, "axolotl 0.19 loaders/model.py: the helper gets gradient_checkpointing as it is set"),
    autocast=Default(True, AUTOCAST),
    full_autocast=Default(True, AUTOCAST),
    logits_alive_in_backward=HF.logits_alive_in_backward,
    kv_cache_in_outputs=Default(False, "axolotl 0.19 loaders/model.py: use_cache is off in training"),
    weights_dtype=Default(DType.FP32, "axolotl 0.19 utils/config: float32 where neither bf16 nor fp16 is on"),
)

SEQUENCE_LEN = 512
"""utils/schemas/config.py: sequence_len=512."""

_OPENED = ("model_config", "overrides_of_model_config", "overrides_of_model_kwargs", "peft")
"""Groups of which each setting is remarked on by itself."""
_ATTENTION_FLAGS = {
    "flash_attention": Attention.FLASH,
    "sdp_attention": Attention.SDPA,
    "eager_attention": Attention.EAGER,
    "xformers_attention": Attention.MEM_EFFICIENT,
}
_ADAPTERS = ("lora", "qlora")
_ATTENTION_NAMES = {
    Attention.FLASH: "flash_attention_2",
    Attention.SDPA: "sdpa",
    Attention.EAGER: "eager",
    Attention.MEM_EFFICIENT: "xformers",
}
_KEEPS_FP32 = (Attention.SDPA, Attention.EAGER)
"""utils/schemas/enums.py ATTN_IMPLS_WITHOUT_DTYPE_CAST: full fine-tuning leaves embeddings in fp32 (loaders/model.py)."""
PLUGIN_LIGER = "axolotl.integrations.liger.LigerPlugin"
PLUGIN_CUT = "axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin"

SPELLINGS = {
    "batch-size": "micro_batch_size: {}",
    "grad-accum": "gradient_accumulation_steps: {}",
    "optimizer": "optimizer: {}",
    "seq-len": "sequence_len: {}",
    "rank": "lora_r: {}",
    "alpha": "lora_alpha: {}",
    "target-modules": "lora_target_linear: true, or lora_target_modules: {}",
    "attention": "attn_implementation: {}",
    "precision": "{}: true",
    "checkpointing": "gradient_checkpointing: true",
    "fused-loss": "liger_fused_linear_cross_entropy: true (with the plugin axolotl.integrations.liger.LigerPlugin)",
}
"""How its files say what a hint names as an option of ours; and how they switch on checkpointing and a loss in pieces."""


def model_of(fields: Fields) -> str | None:
    return fields.text("base_model")


def read(fields: Fields, around: Around) -> Reading:
    """An axolotl YAML as a plan."""
    notes = Notes()
    for name in ("base_model", "learning_rate"):
        fields.raw(name)
    for name in _OPENED:
        fields.group(name)
    other = fields.raw("base_model_config")  # axolotl's own validation fills it with the base model
    if other is not None and other != fields.raw("base_model"):
        notes.unpriced(f"base_model_config: {other}", "changes the model's shape where it is another model's", Way.EITHER)
    weights = as_stored(fields, around, _weights(fields, around), notes)
    micro = fields.count("micro_batch_size") or 1
    length = common.sequence(fields.count("sequence_len") or SEQUENCE_LEN, around, notes, "sequence_len")
    batch = Batch(micro, length, _accumulation(fields, micro), _evaluation(fields, micro))
    adapter, saved = _adapter(fields, weights, around)
    cards = _cards(fields, around, notes)
    _plugins(fields, notes)
    checkpointing = _checkpointing(fields, notes)
    attention = _attention(fields, around, notes)
    if adapter is None and not cards.sharding.shards_weights and weights.dtype is not DType.FP32 and attention in _KEEPS_FP32:
        notes.unpriced(f"{attention.value} attention", "axolotl trains embeddings and head in fp32 with it; priced in 16 bit", Way.UP)
    optimizer = common.optimizer(fields, around, notes, "optimizer")
    loop = Loop(optimizer, checkpointing, attention, _loss(fields, notes), _reentrant(fields, around))
    return Reading(
        plan=assemble(around, adapter, weights, batch, loop, cards),
        remarks=tuple(notes.remarks),
        modules_to_save=saved,
        learning_rate=fields.number("learning_rate"),
        taken=tuple(notes.taken),
    )


def _weights(fields: Fields, around: Around) -> Weights:
    """utils/config `resolve_dtype`: the type of weights and autocast follows from bf16 and fp16; float16 is the weights' alone."""
    bf16, fp16, whole, half = fields.raw("bf16"), fields.flag("fp16"), fields.flag("bfloat16"), fields.flag("float16")
    full = isinstance(bf16, str) and bf16.lower() == "full"
    if bf16 is None or (isinstance(bf16, str) and bf16.lower() == "auto"):
        bf16 = not (fp16 or half) and around.bf16
        fp16 = fp16 if fp16 is not None else not (bf16 or whole or half)
    bf16 = whole or (bf16 if full or isinstance(bf16, bool) else fields.flag("bf16"))
    eight, four = bool(fields.flag("load_in_8bit")), bool(fields.flag("load_in_4bit"))
    dtype = DType.BF16 if bf16 else DType.FP16 if fp16 or half or eight else DType.FP32
    autocast = None if full else DType.BF16 if bf16 else DType.FP16 if fp16 else None
    if not (eight or four):
        return Weights(dtype, autocast)
    if eight and four:
        raise InvalidInputError(f"{fields.where}: load_in_8bit and load_in_4bit are both on; one of them can be")
    settings = fields.group("bnb_config_kwargs")
    kind = settings.text("bnb_4bit_quant_type") or "nf4"
    double = settings.flag("bnb_4bit_use_double_quant")
    experts = bool(fields.flag("quantize_moe_experts"))
    if eight:
        return Weights(dtype, autocast, Quantization.INT8, quantized_experts=experts)
    return Weights(dtype, autocast, common.four_bit(fields, kind), double is not False, quantized_experts=experts)


def _accumulation(fields: Fields, micro: int) -> int:
    stated, whole = fields.count("gradient_accumulation_steps"), fields.count("batch_size")
    return stated or (max(1, whole // micro) if whole else 1)


def _adapter(fields: Fields, weights: Weights, around: Around) -> tuple[Adapter | None, tuple[str, ...]]:
    kind = fields.text("adapter")
    rank, alpha = fields.count("lora_r"), fields.integer("lora_alpha")
    named, linear = fields.names("lora_target_modules"), fields.flag("lora_target_linear")
    dora, rslora = bool(fields.flag("peft_use_dora")), bool(fields.flag("peft_use_rslora"))
    lifted = fields.flag("peft_autocast_adapter_dtype")
    dropout, saved = common.dropout(fields, around), fields.names("lora_modules_to_save") or ()
    if kind is None:
        return None, ()
    if kind not in _ADAPTERS:
        raise UnsupportedError(f"{fields.where}: adapter: {kind} is no LoRA; lora, qlora and full fine-tuning can be priced")
    if rank is None or alpha is None:
        raise InvalidInputError(f"{fields.where}: {'lora_r' if rank is None else 'lora_alpha'} is missing; axolotl has no default for it")
    if kind == "qlora" and not fields.flag("load_in_4bit"):  # utils/schemas/peft.py validate_qlora
        raise InvalidInputError(f"{fields.where}: adapter: qlora needs load_in_4bit: true")
    dtype = weights.dtype if lifted is False else DType.FP32
    return Adapter(rank, alpha, (ALL_LINEAR,) if linear or not named else named, dora, rslora, dtype, dropout), saved


def _checkpointing(fields: Fields, notes: Notes) -> bool:
    stated, offloading = fields.raw("gradient_checkpointing"), fields.raw("activation_offloading")
    if offloading not in (None, False):
        way = Way.EITHER if fields.has("adapter") and offloading != "hidden_states" else Way.DOWN  # `loaders/model.py`: no recomputation
        notes.unpriced(f"activation_offloading: {offloading}", "moves kept activations to the host; priced as checkpointing", way)
        return True
    if isinstance(stated, str) and stated.lower() not in ("true", "false"):
        notes.unpriced(f"gradient_checkpointing: {stated}", "moves checkpoints to the host; priced as checkpointing", Way.DOWN)
        return True
    return bool(fields.flag("gradient_checkpointing"))


def _reentrant(fields: Fields, around: Around) -> bool | None:
    """utils/config `normalize_config`: never for Gemma 4, and not by default where some parameters are trained only; utils/schemas
    validation.py: nor where checkpoints' inputs go to the host."""
    stated = common.reentrant(fields, around)
    if around.model.model_type.startswith("gemma4"):
        return False
    partly = fields.has("unfrozen_parameters") or fields.has("rl") or fields.raw("activation_offloading") == "hidden_states"
    return False if stated is None and partly else stated


def _attention(fields: Fields, around: Around, notes: Notes) -> Attention:
    flags = [kernel for name, kernel in _ATTENTION_FLAGS.items() if fields.flag(name)]
    return flags[0] if flags and not fields.has("attn_implementation") else common.attention(fields, around, notes)


PLUGINS = ("LigerPlugin", "CutCrossEntropyPlugin", "SpectrumPlugin", "SwanLabPlugin", "LMEvalPlugin", "AdvisorPlugin")
"""Plugins of which every setting that moves memory is a key of its own (axolotl 0.19 integrations/*/args.py)."""


def _plugins(fields: Fields, notes: Notes) -> None:
    """Plugins may replace the model, the loss and the training loop: one that is not known may do anything."""
    for plugin in fields.names("plugins") or ():
        if plugin.rpartition(".")[2] not in PLUGINS:
            notes.unpriced(f"plugins: {plugin}", "code of its own in training", Way.EITHER)


def _loss(fields: Fields, notes: Notes) -> Loss:
    """integrations/liger and integrations/cut_cross_entropy; loaders/patch_manager.py for the others. Cut cross-entropy makes no logits
    in evaluation either (cut_cross_entropy transformers/utils.py `PatchOptions.use_lce`, train_only=False)."""
    plugins = " ".join(fields.names("plugins") or ())
    cut = fields.flag("cut_cross_entropy")
    in_place = [bool(fields.flag(name)) for name in ("liger_cross_entropy", "flash_attn_cross_entropy")]
    fused = fields.flag("liger_fused_linear_cross_entropy")
    if cut or ("CutCrossEntropyPlugin" in plugins and cut is not False):
        return Loss.CHUNKED
    if fused:
        return Loss.FUSED
    if fields.flag("chunked_cross_entropy"):
        notes.unpriced("chunked_cross_entropy", "is compiled, and keeps no more than is priced", Way.DOWN)
        return Loss.CHUNKED_OUTPUT
    return Loss.IN_PLACE if any(in_place) else Loss.FULL


def _cards(fields: Fields, around: Around, notes: Notes) -> Cards:
    if fields.raw("fsdp_config") is not None and fields.raw("fsdp") is None:
        around = around._replace(launch=around.launch._replace(fsdp=True))
    n_gpus = fields.count("dp_shard_size")
    if n_gpus is not None and around.launch.n_gpus is None:
        around = around._replace(launch=around.launch._replace(n_gpus=n_gpus, fsdp=n_gpus > 1 or around.launch.fsdp))
    return cards_of(fields, around, notes)


def _evaluation(fields: Fields, micro: int) -> int | None:
    size = fields.count("eval_batch_size")
    held_out = (fields.number("val_set_size") or 0) > 0 or fields.raw("test_datasets") is not None
    return (size or micro) if held_out and fields.text("eval_strategy") != "no" else None


def write(plan: Plan, model: str, learning_rate: str, defaults: StackDefaults) -> Iterator[Line]:
    """The settings of the plan. What axolotl has no setting for is found by reading them again (`emit`)."""
    yield from (setting("base_model", model), "")
    if plan.method.has_adapter:
        yield from _write_adapter(plan)
    yield from _write_precision(plan)
    if plan.loss is Loss.FUSED:
        yield from ("plugins:", f"  - {PLUGIN_LIGER}", setting("liger_fused_linear_cross_entropy", True))
    elif plan.loss is Loss.CHUNKED:
        yield from ("plugins:", f"  - {PLUGIN_CUT}", setting("cut_cross_entropy", True))
    elif plan.loss is Loss.IN_PLACE:
        yield from ("plugins:", f"  - {PLUGIN_LIGER}", setting("liger_cross_entropy", True))
    elif plan.loss is Loss.CHUNKED_OUTPUT:
        yield setting("chunked_cross_entropy", True)
    yield ""
    yield setting("sequence_len", plan.seq_len_tokens)
    yield setting("micro_batch_size", plan.micro_batch_size)
    yield setting("gradient_accumulation_steps", plan.grad_accum_steps)
    yield setting("gradient_checkpointing", plan.gradient_checkpointing)
    yield setting("attn_implementation", _ATTENTION_NAMES[plan.attention])
    yield setting("optimizer", plan.optimizer.value)
    yield rate_setting(learning_rate)
    yield from axolotl_lines(plan, defaults)
    yield from ("", "datasets:  # yours", "  - path: data.jsonl", "    type: chat_template", "output_dir: out")


def _write_adapter(plan: Plan) -> Iterator[Line]:
    four = plan.quantization in FOUR_BIT
    yield setting("adapter", "qlora" if four else "lora")
    if plan.quantization is not None:
        yield setting("load_in_4bit" if four else "load_in_8bit", True)
    if plan.quantized_experts:
        yield setting("quantize_moe_experts", True)
    if four and plan.quantization is not None and (plan.quantization is not Quantization.NF4 or not plan.double_quant):
        yield "bnb_config_kwargs:"
        yield f"  bnb_4bit_quant_type: {plan.quantization.value}"
        yield f"  bnb_4bit_use_double_quant: {str(plan.double_quant).lower()}"
    yield setting("lora_r", plan.rank)
    yield setting("lora_alpha", number(plan.alpha))
    yield setting("lora_dropout", number(plan.lora_dropout))
    if plan.target_modules == (ALL_LINEAR,):
        yield setting("lora_target_linear", True)
    else:
        yield setting("lora_target_modules", plan.target_modules)
    if plan.method in (Method.DORA, Method.QDORA):
        yield setting("peft_use_dora", True)
    if plan.use_rslora:
        yield setting("peft_use_rslora", True)
    if plan.adapter_dtype is not DType.FP32:
        yield setting("peft_autocast_adapter_dtype", False)


def _write_precision(plan: Plan) -> Iterator[Line]:
    if plan.base_dtype is DType.BF16:
        yield setting("bf16", True)  # 'full', which does not autocast, is refused by the schema of 0.19
    else:
        yield setting("bf16", False)
        yield setting("fp16", plan.base_dtype is DType.FP16)
