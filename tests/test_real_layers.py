"""Whole decoder layers as transformers and peft run them, on the processor, against the closed form's tape of the same layer.

What a layer keeps for backward, and what lives at most in either direction, byte by byte. Where the closed form is known to be off, the
row says by how many bytes.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import pytest
from storages import storages

from advisor.architectures import spec_from_config
from advisor.architectures.heads import headed
from advisor.memory import feed_forward, layers, peak, program, scores
from advisor.memory.blocks import block_tape
from advisor.memory.head import Ending, head_tape
from advisor.memory.tape import Size, Tape, Tensor, Walk, backward, forward
from advisor.values import Linear, Loss, Plan

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

SEQUENCES, TOKENS = 3, 40
SIZES = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 8, "vocab_size": 300}
GROUPED = {**SIZES, "num_key_value_heads": 2, "max_position_embeddings": 128}
NO_DROPOUT = dict.fromkeys(("attn_pdrop", "resid_pdrop", "embd_pdrop"), 0.0)
TWO_OF_FOUR = {**GROUPED, "num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
LATENT = {"q_lora_rank": 24, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 12}
GROUPED_EXPERTS = {**SIZES, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "n_group": 2, "topk_group": 1}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", GROUPED),
    "qwen2": ("Qwen2ForCausalLM", GROUPED),
    "qwen3": ("Qwen3ForCausalLM", {**GROUPED, "head_dim": 16}),
    "gemma2": ("Gemma2ForCausalLM", {**GROUPED, "head_dim": 16, "query_pre_attn_scalar": 16}),
    "phi3": ("Phi3ForCausalLM", {**GROUPED, "pad_token_id": 0}),
    "olmo": ("OlmoForCausalLM", GROUPED),
    "olmo2": ("Olmo2ForCausalLM", GROUPED),
    "cohere": ("CohereForCausalLM", GROUPED),
    "granite": ("GraniteForCausalLM", GROUPED),
    "stablelm": ("StableLmForCausalLM", GROUPED),
    "bloom": ("BloomForCausalLM", {"hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 300}),
    "gpt_neox": ("GPTNeoXForCausalLM", SIZES),
    "gpt_bigcode": ("GPTBigCodeForCausalLM", {"n_embd": 64, "n_layer": 2, "n_head": 8, "n_inner": 160, "vocab_size": 300, **NO_DROPOUT}),
    "mixtral": ("MixtralForCausalLM", TWO_OF_FOUR),
    "qwen2_moe": ("Qwen2MoeForCausalLM", {**TWO_OF_FOUR, "shared_expert_intermediate_size": 80}),
    "granitemoeshared": ("GraniteMoeSharedForCausalLM", {**TWO_OF_FOUR, "shared_intermediate_size": 80}),
    "gpt_oss": ("GptOssForCausalLM", {**TWO_OF_FOUR, "intermediate_size": 48, "head_dim": 8, "layer_types": ["full_attention"] * 2}),
    "ernie4_5_moe": (
        "Ernie4_5_MoeForCausalLM",
        {**GROUPED, "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 48, "moe_num_shared_experts": 1, "moe_layer_start_index": 0},
    ),
    "deepseek_v3": (
        "DeepseekV3ForCausalLM",
        {**GROUPED_EXPERTS, **LATENT, "num_key_value_heads": 8, "n_shared_experts": 1, "first_k_dense_replace": 0},
    ),
}


class Bytes(NamedTuple):
    kept: int
    forward: int
    """At most."""
    backward: int
    left: int
    """Gradients after it."""


class LetGo(torch.autograd.Function):  # type: ignore[misc]
    """Lets go of what it is given, and makes the gradient when that is asked for."""

    @staticmethod
    def forward(ctx: Any, given: Any) -> Any:
        ctx.like = given.shape, given.dtype
        return given.new_empty(())

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        shape, dtype = ctx.like
        return torch.ones(shape, dtype=dtype)


def config_of(name: str) -> dict[str, Any]:
    architecture, sizes = CONFIGS[name]
    return {**sizes, "model_type": name, "architectures": [architecture]}


def built(config: dict[str, Any], plan: Plan) -> Any:
    """The model with its adapter, as the library builds it."""
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    model = getattr(transformers, config["architectures"][0])(transformers.CONFIG_MAPPING[config["model_type"]].from_dict(config))
    model = model.to(torch.float32 if plan.autocast else torch.bfloat16).train()
    model.set_attn_implementation("eager")
    with contextlib.suppress(ValueError):  # no experts
        model.set_experts_implementation("grouped_mm")
    if plan.method.has_adapter:
        options = {"r": plan.rank, "lora_alpha": plan.alpha, "target_modules": "all-linear", "use_dora": plan.method.is_dora}
        model = peft.get_peft_model(model, peft.LoraConfig(**options))
    return model


def first_layer(model: Any) -> Any:
    (*lists,) = (
        module for module in model.modules() if isinstance(module, torch.nn.ModuleList) and len(module) == SIZES["num_hidden_layers"]
    )
    return lists[0][0]


def measured(config: dict[str, Any], plan: Plan) -> Bytes:
    """One layer run forwards and backwards on what the model hands to it."""
    model, given = built(config, plan), list[Any]()
    layer = first_layer(model)
    hook = layer.register_forward_pre_hook(lambda module, args, named: given.extend((args, named)), with_kwargs=True)
    ids = torch.zeros(plan.micro_batch_size, plan.seq_len_tokens, dtype=torch.long)
    precision = torch.autocast("cpu", torch.bfloat16, enabled=plan.autocast)
    with torch.no_grad(), precision:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    hook.remove()
    (hidden, *others), named = given
    entry = hidden.detach().clone().requires_grad_(True)
    with storages() as live:
        with precision:
            out = layer(entry, *others, **named)
        loss = LetGo.apply(out[0] if isinstance(out, tuple) else out)
        del out
        kept, forward_bytes = live.now_bytes, live.peak_bytes
        live.peak_bytes = live.now_bytes
        loss.backward()
        return Bytes(kept, forward_bytes, live.peak_bytes, live.now_bytes)


def counted(config: dict[str, Any], plan: Plan) -> Bytes:
    """The same of the closed form's tape, whose loss is no tensor."""
    model = spec_from_config(config, id="tiny", source="by hand")
    tape, entry = block_tape(model.shape.blocks[0], model.hidden_size, peak.setting_of(model, plan), peak.kernel_of(plan))
    there = forward(tape, entry, keep=True, entry_held=True)
    back = backward(tape, there.kept, entry.size)
    tokens = plan.micro_batch_size * plan.seq_len_tokens
    pairs = tokens * plan.seq_len_tokens

    def most(walk: Walk) -> int:
        return max(moment.live.at(tokens, pairs) for moment in walk.peaks)

    return Bytes(there.kept.at(tokens, pairs), most(there), most(back), back.kept.constant + entry.size.at(tokens, pairs))


AUTOCAST: dict[str, Any] = {"base_dtype": "fp32", "autocast": True}
FEW: dict[str, Any] = {"micro_batch_size": 1, "seq_len_tokens": 4}
# What the closed form counts beyond the library: kept, at most forwards, at most backwards, and left. Known of it: a LayerNorm's mean and
# deviation, in fp32 on a card and in 16 bit here; Gemma's 1 + weight in fp32; the sum over tokens for DoRA's magnitude; a router's
# normalised weights; under autocast the layer's result, which is added to the residual stream without a cast.
ROWS: list[tuple[str, str, dict[str, Any], tuple[int, int, int, int]]] = [
    ("llama", "full", {}, (0, 0, 0, 0)),
    ("llama", "lora", {}, (0, 0, 0, 0)),
    ("llama", "dora", {}, (0, 0, -640, 0)),
    ("llama", "full", AUTOCAST, (0, 15360, 0, 0)),
    ("llama", "lora", AUTOCAST, (0, 0, 0, 0)),
    ("llama", "dora", AUTOCAST, (0, 0, -640, 0)),
    ("qwen3", "lora", AUTOCAST, (0, 0, 0, 0)),
    ("phi3", "lora", AUTOCAST, (0, 0, 0, 0)),
    ("mixtral", "lora", AUTOCAST, (12304, -23232, 12304, 0)),
    ("qwen2", "full", {}, (0, 0, 0, 0)),
    ("qwen3", "full", {}, (0, 0, 0, 0)),
    ("qwen3", "lora", {}, (0, 0, 0, 0)),
    ("gemma2", "full", {}, (-1024, -1024, -288, 0)),
    ("gemma2", "lora", {}, (-1024, -768, -288, 0)),
    ("phi3", "full", {}, (0, 0, 0, 0)),
    ("phi3", "lora", {}, (0, 0, 0, 0)),
    ("phi3", "dora", {}, (0, 0, -1280, 0)),
    ("olmo", "full", {}, (0, 0, 0, 0)),
    ("olmo", "lora", {}, (0, 0, 0, 0)),
    ("olmo", "full", AUTOCAST, (0, 15360, 0, 0)),
    ("olmo2", "full", {}, (0, -480, 0, 0)),
    ("olmo2", "lora", {}, (0, -8640, 480, 0)),
    ("cohere", "full", {}, (0, 0, 0, 0)),
    ("cohere", "lora", {}, (0, 0, 0, 0)),
    ("granite", "full", {}, (0, 0, 0, 0)),
    ("stablelm", "lora", {}, (960, -29760, 956, 0)),
    ("bloom", "full", {}, (960, 960, 956, 0)),
    ("bloom", "lora", {}, (960, 960, 956, 0)),
    ("gpt_neox", "full", {}, (960, 480, 480, 0)),
    ("gpt_neox", "lora", {}, (960, 960, 480, 0)),
    ("gpt_bigcode", "full", {}, (960, 3840, 480, 0)),
    ("mixtral", "full", {}, (-1456, -6272, -496, 0)),
    ("mixtral", "lora", {}, (-1968, -6784, -1008, 0)),
    ("mixtral", "full", AUTOCAST, (-1456, -6272, -1456, 0)),
    ("qwen2_moe", "full", {}, (464, -3872, 0, 0)),
    ("qwen2_moe", "lora", {}, (464, -3872, -496, 0)),
    ("granitemoeshared", "full", {}, (1424, -13936, 1424, 0)),
    ("granitemoeshared", "lora", {}, (1424, 1424, 1424, 0)),
    ("gpt_oss", "full", {}, (-16, -1952, -976, -16)),
    ("gpt_oss", "lora", {}, (-16, -3872, -976, 0)),
    ("ernie4_5_moe", "full", {}, (-4016, -9312, -2560, 0)),
    ("ernie4_5_moe", "lora", {}, (-4016, -9312, -4976, 0)),
    ("deepseek_v3", "full", {}, (-1472, -9184, 0, 0)),
    ("deepseek_v3", "full", AUTOCAST, (1648, -752, 0, 0)),
    ("deepseek_v3", "lora", AUTOCAST, (496, -1904, -464, 0)),
    ("deepseek_v3", "lora", {}, (-1472, -9184, -512, 0)),
    # so few tokens that what does not depend on them is the most
    ("llama", "full", FEW, (0, 0, 16, 0)),
    ("llama", "lora", FEW, (0, 0, 16, 0)),
    ("llama", "dora", FEW, (0, 128, -640, 0)),
    ("llama", "full", AUTOCAST | FEW, (0, 512, 1536, 0)),
    ("llama", "lora", AUTOCAST | FEW, (0, 0, 64, 0)),
    ("llama", "dora", AUTOCAST | FEW, (0, 320, 64, 0)),
    ("mixtral", "full", FEW, (-64, -240, 16, 0)),
    ("mixtral", "lora", FEW, (-576, -752, 6080, 0)),
    ("deepseek_v3", "full", FEW, (-80, -368, 16, 0)),
    ("deepseek_v3", "lora", FEW, (-80, -368, 11952, 0)),
    ("phi3", "lora", FEW, (0, 0, 16, 0)),
    ("gpt_neox", "full", FEW, (32, 32, 16, 0)),
    ("gpt_oss", "full", FEW, (-16, -96, 0, -16)),
]
IDS = ["-".join((name, method, *options)) for name, method, options, _ in ROWS]


@pytest.mark.filterwarnings("ignore:.*did not match any targeted module:RuntimeWarning")
@pytest.mark.parametrize(("name", "method", "options", "beyond"), ROWS, ids=IDS)
def test_a_layer_is_counted_as_the_library_runs_it(
    name: str, method: str, options: dict[str, Any], beyond: tuple[int, int, int, int]
) -> None:
    shape = {"micro_batch_size": SEQUENCES, "seq_len_tokens": TOKENS}
    kept = {"gradient_checkpointing": False, "attention": "eager"}  # nothing is handed over by a checkpoint's hook
    plan = Plan(**{"method": method, "base_dtype": "bf16", "rank": 8, **kept, **shape, **options})
    real, closed = measured(config_of(name), plan), counted(config_of(name), plan)
    assert tuple(ours - theirs for ours, theirs in zip(closed, real, strict=True)) == pytest.approx(beyond, abs=16)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize(("method", "options"), [("full", AUTOCAST), ("lora", AUTOCAST), ("lora", {"autocast": True}), ("full", {})])
def test_autocast_keeps_its_copies_to_the_end_of_a_checkpointed_forward(method: str, options: dict[str, Any], reentrant: bool) -> None:
    """What goes when the library's model leaves autocast, as its layers are checkpointed."""
    config = config_of("qwen3")
    plan = Plan(
        **{"method": method, "rank": 8, "base_dtype": "bf16", "gradient_checkpointing": True, "use_reentrant": reentrant, **options}
    )
    model = built(config, plan)
    model.to(torch.float32 if plan.base_dtype.value == "fp32" else torch.bfloat16)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.float() if "lora_" in name else parameter.data
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    if method == "lora":
        model.enable_input_require_grads()
    with storages() as live:
        with torch.autocast("cpu", torch.bfloat16, enabled=plan.autocast):
            hidden = model.get_decoder()(input_ids=torch.zeros(SEQUENCES, TOKENS, dtype=torch.long), use_cache=False).last_hidden_state
            inside = live.now_bytes
        assert hidden.requires_grad
        left = inside - live.now_bytes
    spec = spec_from_config(config, id="tiny", source="by hand")
    step = program.step_of(spec, peak.setting_of(spec, plan), peak.kernel_of(plan), peak.loop_of(plan))
    assert sum(layer.cached_bytes * count for layer, count in step.runs) == left
    assert (left > 0) is plan.autocast


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "ernie4_5_moe"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("experts", [8, 96])
def test_a_router_makes_what_the_library_s_own_does(name: str, method: str, experts: int) -> None:
    """The library's router in bf16: what lives at most until its scores are there, with few experts and with more than hidden features."""
    config = {**config_of(name), **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"), experts)}
    plan = Plan(method=method, base_dtype="bf16", attention="eager", target_modules=("q_proj",))
    model = first_layer(built(config, Plan(method="full", base_dtype="bf16")))
    (router,) = (module for module in model.modules() if "Router" in type(module).__name__)
    entry = torch.randn(SEQUENCES * TOKENS, 64, dtype=torch.bfloat16, requires_grad=True)
    router.requires_grad_(method == "full")
    with storages() as live:
        linear, seen = torch.nn.functional.linear, list[int]()

        def watched(*given: Any) -> Any:
            made = linear(*given)
            seen.append(live.peak_bytes)
            return made

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.nn.functional, "linear", watched)
            router(entry)
    spec = spec_from_config(config, id="tiny", source="by hand")
    block, tape, x = spec.shape.blocks[0], Tape(), Tensor(Size(64 * 2), True)
    named = next(layer for layer in block.linears if layer.part == "mlp")
    assert named.out_features == experts
    feed_forward._route(tape, x, block, named, peak.setting_of(spec, plan))
    walk = forward(tape, x, keep=True, entry_held=True)
    assert max(moment.live.at(SEQUENCES * TOKENS, 0) for moment in walk.peaks) == seen[0]


@pytest.mark.parametrize(("dtype", "element_bytes"), [(torch.bfloat16, 2), (torch.float32, 4)], ids=str)
@pytest.mark.parametrize("kv_heads", [2, 4])
def test_torch_s_math_kernel_keeps_what_is_counted(dtype: Any, element_bytes: int, kv_heads: int) -> None:
    """scaled_dot_product_attention itself, told to take its math kernel: what it keeps, and what lives at most in its backward."""
    attention = pytest.importorskip("torch.nn.attention")
    heads, width = 8, 8
    given = [torch.randn(SEQUENCES, count, TOKENS, width, dtype=dtype, requires_grad=True) for count in (heads, kv_heads, kv_heads)]
    with storages() as live:
        with attention.sdpa_kernel(attention.SDPBackend.MATH):
            run = torch.nn.functional.scaled_dot_product_attention
            loss = LetGo.apply(run(*given, is_causal=True, enable_gqa=True))
        kept = live.now_bytes
        live.peak_bytes = live.now_bytes
        loss.backward()
    config = {**config_of("llama"), "num_key_value_heads": kv_heads}
    shape = spec_from_config(config, id="tiny", source="by hand").shape.blocks[0].attention
    tape = Tape()
    queries, keys, values = (Tensor(Size(count * width * element_bytes), True) for count in (heads, kv_heads, kv_heads))
    scores.math(tape, (queries, keys, values), shape, element_bytes)
    there = forward(tape, queries, keep=True, entry_held=True)
    back = backward(tape, there.kept, queries.size)
    at = SEQUENCES * TOKENS, SEQUENCES * TOKENS**2
    assert there.kept.at(*at) == pytest.approx(kept, abs=16)
    assert max(moment.live.at(*at) for moment in back.peaks) == pytest.approx(live.peak_bytes, abs=16)


@pytest.mark.parametrize(("kv_heads", "products"), [(8, 0), (2, 2)])
def test_flash_s_backward_by_hand(kv_heads: int, products: int) -> None:
    """torch 2.13 flash_attn/flash_api.cpp mha_bwd: a query's gradient in fp32 and a sum of each row for each head of 8; for grouped heads
    the gradients of keys and values in 16 bit for every head, before they are summed."""
    model = spec_from_config({**config_of("llama"), "num_key_value_heads": kv_heads}, id="tiny", source="by hand")
    plan = Plan(method="full", base_dtype="bf16", attention="flash")
    tape, _ = block_tape(model.shape.blocks[0], model.hidden_size, peak.setting_of(model, plan), peak.kernel_of(plan))
    (kernel,) = (op for op in tape.ops if len(op.inputs) == 3)
    assert kernel.backward_scratch == Size(8 * 8 * 4 + 8 * 4 + products * 8 * 8 * 2)
    assert kernel.forward_scratch == Size()
    kept = [tensor.size for tensor in kernel.kept]
    assert sorted(kept) == sorted([Size(8 * 8 * 2), Size(kv_heads * 8 * 2), Size(kv_heads * 8 * 2), Size(8 * 4), Size(8 * 8 * 2)])


def in_chunks(head: Any, normed: Any, labels: Any) -> Any:
    """The head's product in eight chunks of tokens, then an fp32 copy and the loss of one after the other: torchtune 0.6.1
    modules/transformer.py `chunked_output` and modules/loss/ce_chunked_output_loss.py, written down again."""
    parts = [head(part) for part in normed.chunk(8, dim=1)]
    targets = [part.reshape(-1) for part in labels.chunk(8, dim=1)]
    losses = (
        torch.nn.functional.cross_entropy(part.reshape(-1, part.size(-1)).float(), right)
        for part, right in zip(parts, targets, strict=True)
    )
    return sum(losses, torch.zeros(()))


@pytest.mark.parametrize(
    ("loss", "method", "beyond"),
    [  # the labels, 8 bytes each, and their shifted copy are no part of it
        (Loss.FULL, "full", (-968, -1952, -8, -4)),
        (Loss.FULL, "lora", (-968, -1952, -8, -4)),
        (Loss.CHUNKED_OUTPUT, "full", (-996, -16124, -636, -4)),
        (Loss.CHUNKED_OUTPUT, "lora", (-996, -764, -636, -4)),
    ],
)
def test_norm_head_and_loss_are_counted_as_the_libraries_run_them(loss: Loss, method: str, beyond: tuple[int, ...]) -> None:
    config, plan = config_of("llama"), Plan(method=method, base_dtype="bf16")
    model = built(config, Plan(method="full", base_dtype="bf16")).requires_grad_(method == "full")
    entry = torch.randn(SEQUENCES, TOKENS, 64, dtype=torch.bfloat16, requires_grad=True)
    labels = torch.zeros(SEQUENCES, TOKENS, dtype=torch.long)

    def run() -> Any:
        normed = model.model.norm(entry)
        if loss is Loss.FULL:
            logits = model.lm_head(normed)  # has a name until the loss is there, as in the library
            return model.loss_function(logits=logits, labels=labels, vocab_size=config["vocab_size"])
        return in_chunks(model.lm_head, normed, labels)

    with storages() as live:
        made = run()
        kept, forward_bytes = live.now_bytes, live.peak_bytes
        live.peak_bytes = live.now_bytes
        made.backward()
        real = Bytes(kept, forward_bytes, live.peak_bytes, live.now_bytes)
    spec = spec_from_config(config, id="tiny", source="by hand")
    tape, x, _ = head_tape(spec, peak.setting_of(spec, plan).outside_blocks(), Ending(loss))
    there = forward(tape, x, keep=True, entry_held=True)
    back = backward(tape, there.kept, Size())
    highest = [max(moment.live.at(SEQUENCES * TOKENS, 0) for moment in walk.peaks) for walk in (there, back)]
    closed = (there.kept.at(SEQUENCES * TOKENS, 0), *highest, back.kept.constant + x.size.at(SEQUENCES * TOKENS, 0))
    assert tuple(ours - theirs for ours, theirs in zip(closed, real, strict=True)) == pytest.approx(beyond, abs=8)


@pytest.mark.parametrize(
    ("checkpointing", "reentrant", "handed_over"), [(True, False, True), (True, True, False), (False, False, False), (False, True, False)]
)
def test_a_hook_hands_over_what_a_checkpoint_without_reentry_kept(checkpointing: bool, reentrant: bool, handed_over: bool) -> None:
    """torch 2.13 utils/checkpoint.py: `_checkpoint_hook` is of the checkpoint that is not reentrant."""
    plan = Plan(method="full", base_dtype="bf16", gradient_checkpointing=checkpointing, use_reentrant=reentrant)
    spec = spec_from_config(config_of("llama"), id="tiny", source="by hand")
    assert peak.setting_of(spec, plan).hands_over is handed_over


@pytest.mark.parametrize(
    ("quantization", "by_bitsandbytes"), [("nf4", True), ("fp4", True), ("int8", True), ("awq", False), ("gptq", False), (None, False)]
)
def test_whose_layers_stand_in_place_of_the_base_s(quantization: str | None, by_bitsandbytes: bool) -> None:
    plan = Plan(method="qlora" if quantization else "lora", quantization=quantization, base_dtype="bf16")
    spec = spec_from_config(config_of("llama"), id="tiny", source="by hand")
    assert peak.setting_of(spec, plan).by_bitsandbytes is by_bitsandbytes


BERT = {**SIZES, "model_type": "bert", "architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.0}


@pytest.mark.parametrize(
    ("name", "dropout", "method", "under"),
    [  # bytes a token of 64 features in 16 bit
        ("bert", 0.0, "full", 128 + 2 * 4),  # the norm's input, and its mean and deviation in fp32 (derivatives.yaml, native_layer_norm)
        ("bert", 0.1, "full", 128 + 2 * 4 + 64),  # a mask of a byte each
        ("bert", 0.1, "lora", 128 + 2 * 4 + 64 + 128),  # the embeddings, a leaf of their own (peft, enable_input_require_grads)
        ("llama", 0.0, "full", 0),
        ("llama", 0.0, "lora", 0),  # the leaf is the first checkpoint itself
        ("granite", 0.0, "full", 0),
        ("granite", 0.0, "lora", 128),  # scaled: the first layer's input is a tensor of its own
    ],
)
def test_what_embeddings_keep_by_hand(name: str, dropout: float, method: str, under: int) -> None:
    config = {**BERT, "hidden_dropout_prob": dropout} if name == "bert" else config_of(name)
    spec = spec_from_config(config, id="tiny", source="by hand")
    plan = Plan(method=method, base_dtype="bf16", attention="eager", gradient_checkpointing=True)
    step = program.step_of(spec, peak.setting_of(spec, plan), peak.kernel_of(plan), peak.loop_of(plan))
    assert step.under == Size(under)


# A matrix of 256 by 128, expanded to 16 bit: 64 KiB. Sources: bitsandbytes 0.50 autograd/_functions.py MatMul4Bit and MatMul8bitLt;
# functional.py dequantize_4bit (a scale in fp32 for each 64 weights, first); GPT-QModel 7.7 gemm_awq.py AwqGemmFn, qlinear/torch.py.
EXPANDED = 256 * 128 * 2


@pytest.mark.parametrize(
    ("quantization", "double_quant", "there", "back"),
    [
        ("nf4", False, Size(constant=EXPANDED), Size(constant=EXPANDED)),
        ("nf4", True, Size(constant=EXPANDED + 512 * 4), Size(constant=EXPANDED + 512 * 4)),
        ("int8", False, Size(256 * 2 + 256 + 128 * 4), Size(constant=EXPANDED)),  # fp16 and int8 inputs, int32 results
        ("awq", False, Size(constant=EXPANDED), Size(constant=EXPANDED)),
        ("gptq", False, Size(constant=256 * 128 * (4 + 1)), Size()),  # words shifted in int32, and cast to int8
    ],
)
def test_what_a_quantised_product_makes_for_a_moment(quantization: str, double_quant: bool, there: Size, back: Size) -> None:
    plan = Plan(method="qlora", quantization=quantization, double_quant=double_quant, base_dtype="bf16", kbit_prepare=False)
    spec = spec_from_config(config_of("llama"), id="tiny", source="by hand")
    tape, layer = Tape(), Linear(name="q_proj", in_features=256, out_features=128)
    layers._base(tape, Tensor(Size(512), True), layer, peak.setting_of(spec, plan), 2)
    assert {op.forward_scratch for op in tape.ops} - {Size()} == {there} - {Size()}
    assert {op.backward_scratch for op in tape.ops} - {Size()} == {back} - {Size()}


@pytest.mark.parametrize(
    ("name", "head", "logits", "widest"),
    [  # bytes a token in 16 bit: the scores of 3 labels, of 300 words
        ("bert", "classification", 0, 0),  # of the first token of a sequence alone
        ("bert", "tokens", 3 * 2, 3 * 2),
        ("bert", "mlm", 300 * 2, 300 * 2),  # whose loss is taken in the model's type
        ("llama", "classification", 0, 3 * 2),  # the scores of every token, of which the last is chosen
    ],
)
def test_scores_of_a_task_by_hand(name: str, head: str, logits: int, widest: int) -> None:
    config = {**BERT, "hidden_dropout_prob": 0.0} if name == "bert" else config_of(name)
    plan = Plan(method="full", base_dtype="bf16", head=head, **({} if head == "mlm" else {"labels": 3}))
    spec = headed(spec_from_config(config, id="tiny", source="by hand"), plan)
    tape, _, held = head_tape(spec, peak.setting_of(spec, plan).outside_blocks(), Ending())
    assert held == Size(logits)
    made = {op.output.size.per_token for op in tape.ops}
    as_wide_as_the_model, of_a_row = {64 * 2, 64 * 4}, {4}
    assert max(made - as_wide_as_the_model - of_a_row, default=0) == widest


@pytest.mark.parametrize(
    ("options", "moments", "held"),
    [  # a matrix of 256 by 128 beside an identity of 256 by 256 and rank 8, adapters in fp32 (peft 0.21 tuners/lora/dora.py)
        # the identity in fp32 and in 16 bit, and the first product of the two; then two copies of the update
        (AUTOCAST, {256 * 256 * (4 + 2) + 256 * 128 * 2, 2 * 256 * 128 * 4}, 256 * (256 + 8) * 2 + 256 * 128 * 4),
        ({}, {2 * 256 * 128 * 4}, 256 * (256 + 8) * 4 + 2 * 256 * 128 * 4),  # 16-bit weights are copied to fp32, too
        ({"base_dtype": "fp32"}, {2 * 256 * 128 * 4}, 256 * (256 + 8) * 4 + 256 * 128 * 4),
    ],
    ids=str,
)
def test_dora_multiplies_an_identity_by_hand(options: dict[str, Any], moments: set[int], held: int) -> None:
    plan = Plan(**{"method": "dora", "rank": 8, "base_dtype": "bf16", "target_modules": ("q_proj",), **options})
    spec = spec_from_config(config_of("llama"), id="tiny", source="by hand")
    tape, layer = Tape(), Linear(name="q_proj", in_features=256, out_features=128)
    layers.linear(tape, Tensor(Size(512), True), layer, peak.setting_of(spec, plan), 2 if plan.base_dtype.value == "bf16" else 4)
    assert {op.forward_scratch.constant for op in tape.ops} - {0} == moments
    assert {op.output.size.constant for op in tape.ops} - {0} == {held}
