"""How a trainer's file, its DeepSpeed settings and its launcher share a model over several cards.

Keys of transformers 5.23 training_args.py and accelerate 1.15 utils/dataclasses.py.
"""

from __future__ import annotations

from advisor.stacks.engines import fsdp_of
from advisor.stacks.fields import Fields
from advisor.stacks.launch import ALL_OFFLOADED
from advisor.stacks.reading import Around, Cards, Way
from advisor.stacks.trainer_arguments import Notes, fsdp_settings
from advisor.stacks.zero_settings import DeepSpeed, deepspeed, of_launcher
from advisor.values.card import CARDS_OF_MACHINE
from advisor.values.vocabulary import Sharding, Stack

_QUANTIZED = ("load_in_4bit", "load_in_8bit", "quantization_bit", "quant_bits", "quantization_config")
"""Settings that make a base of 4 or 8 bit. transformers 4 loads such a base on the host where it may, 5.23 on the card
(modeling_utils.py, quantizers/quantizer_bnb_4bit.py `update_device_map`)."""
_ZERO = {1: Sharding.ZERO1, 2: Sharding.ZERO2, 3: Sharding.ZERO3}


def cards_of(fields: Fields, around: Around, notes: Notes) -> Cards:
    """Several cards and what they share, as the file, its DeepSpeed settings and the launcher say."""
    stated = fields.raw("deepspeed") or around.launch.deepspeed_file
    zero = deepspeed(stated, around, notes) if stated else of_launcher(around.launch)
    synced = bool(fields.group("accelerator_config").group("gradient_accumulation_kwargs").flag("sync_each_batch"))
    sharded = _options(fields) not in ("", "false", "no_shard") or around.launch.fsdp
    if sharded:
        _unread_fsdp(fields, around, notes)
    engine = _ZERO.get(zero.stage or 0) or (_fsdp(fields, around) if sharded else None)
    n_gpus = around.launch.n_gpus or 1
    if around.launch.n_gpus is None and engine is not None:
        text = "the file shards over several GPUs, and their number does not stand in it: priced on one"
        notes.remark("gpus-unknown", "gpus", text, "say it with --gpus N, or give the accelerate configuration", Way.DOWN)
    if engine is not None and engine.is_zero and not (zero.offload and around.launch.n_gpus is None):
        return Cards(n_gpus, engine, zero.bf16_masters, zero.offload, deepspeed=zero.settings)
    if n_gpus == 1:
        return _one_card(fields, around, zero, sharded, notes)
    if engine is not None and engine.is_fsdp:
        return _of_fsdp(fields, around, engine, n_gpus, notes)._replace(sync_each_batch=synced)
    return Cards(n_gpus, Sharding.DDP, sync_each_batch=synced)


def _one_card(fields: Fields, around: Around, zero: DeepSpeed, sharded: bool, notes: Notes) -> Cards:
    if zero.offload or (sharded and _offloads(fields, around)):
        notes.unpriced("offload", "moves weights or states to the host, which is not priced on one card", Way.DOWN)
    return Cards()


def _options(fields: Fields) -> str:
    """The setting `fsdp`, a list or a text of options."""
    fsdp = fields.raw("fsdp")
    return " ".join(map(str, fsdp)) if isinstance(fsdp, list) else str(fsdp or "").lower()


def _offloads(fields: Fields, around: Around) -> bool:
    inner = fsdp_settings(fields).flag("offload_params", "fsdp_offload_params", "cpu_offload")
    return bool(around.launch.offload) or "offload" in _options(fields) or bool(inner)


def _strategy(fields: Fields) -> str:
    """Everything that names a sharding strategy or says whether layers are freed after forward."""
    inner = fsdp_settings(fields).raw("reshard_after_forward", "fsdp_reshard_after_forward", "fsdp_sharding_strategy")
    return f"{_options(fields)} {inner}".lower()


def _of_fsdp(fields: Fields, around: Around, engine: Sharding, n_gpus: int, notes: Notes) -> Cards:
    launch, strategy = around.launch, _strategy(fields)
    hybrid = launch.hybrid or "hybrid" in strategy
    efficient = fsdp_settings(fields).flag("cpu_ram_efficient_loading", "fsdp_cpu_ram_efficient_loading")
    whole = "false" in strategy or "shard_grad_op" in strategy or "zero2" in strategy or not launch.reshards
    return Cards(
        n_gpus,
        engine,
        offload=ALL_OFFLOADED if _offloads(fields, around) else (),
        shard_group=launch.shard_group or (_group(around, n_gpus, notes) if hybrid else None),
        reshards=not whole,
        loads_on_rank_0=launch.loads_on_host or bool(efficient),
    )


def _group(around: Around, n_gpus: int, notes: Notes) -> int | None:
    """Hybrid strategies shard over the cards of a node (torch 2.13 distributed/fsdp/_init_utils.py `_init_intra_node_process_group`)."""
    of_node = CARDS_OF_MACHINE if around.gpu is None or around.gpu.gpus_of_machine == 1 else around.gpu.gpus_of_machine
    if n_gpus <= of_node:
        return None
    if n_gpus % of_node:
        notes.unpriced("hybrid sharding", "shards over the cards of one node; priced as over all", Way.UP)
        return None
    notes.taken.append(f"hybrid sharding: over {of_node} GPUs of a node, with {n_gpus // of_node} replicas")
    return of_node


def _unread_fsdp(fields: Fields, around: Around, notes: Notes) -> None:
    inner, launch = fsdp_settings(fields), around.launch
    if not launch.wraps or _unwrapped(_options(fields), around):
        notes.unpriced("auto_wrap_policy", "gathers units larger than a block, or the whole model; priced by blocks", Way.UP)
    efficient = launch.loads_on_host or bool(inner.flag("cpu_ram_efficient_loading", "fsdp_cpu_ram_efficient_loading"))
    if efficient and any(fields.raw(name) for name in _QUANTIZED):
        notes.unpriced(
            "cpu_ram_efficient_loading", "may quantise on the host; priced with the whole model on each card at loading", Way.DOWN
        )


def _unwrapped(options: str, around: Around) -> bool:
    """Options without `auto_wrap`: before 5.10, transformers left the policy to accelerate then, whose default is NO_WRAP
    (transformers 5.6 and 5.10 training_args.py `_process_fsdp_args`; accelerate 1.15 utils/dataclasses.py)."""
    older = around.defaults.stack in (Stack.HF, Stack.LLAMAFACTORY) and fsdp_of(around.defaults) is Sharding.FSDP1
    return older and bool(options) and "shard" in options and "auto_wrap" not in options


def _fsdp(fields: Fields, around: Around) -> Sharding:
    version = fsdp_settings(fields).integer("version", "fsdp_version") or fields.integer("fsdp_version") or around.launch.fsdp_version
    return fsdp_of(around.defaults) if version is None else Sharding.FSDP1 if version == 1 else Sharding.FSDP2
