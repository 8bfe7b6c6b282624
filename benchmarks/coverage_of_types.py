"""Dry-run every model type that the installed transformers trains on text or speech, and count those that run.

    python benchmarks/coverage_of_types.py                 runs what tests/data/types_traced.json lacks
    python benchmarks/coverage_of_types.py --again NAME …  runs these types anew
    python benchmarks/coverage_of_types.py --report        prints the shares answered, and every refusal with its reason

A type is run as its config class makes it where nobody says otherwise, but with as few first layers as show every kind that the config
lists, with LoRA on every linear layer, on text alone where it takes text.
A type that stands in several of transformers' tables is run once per table, with the class that the table names.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from advisor.dryrun import trace
from advisor.errors import AdvisorError
from advisor.tape.store import installed
from advisor.values import DType, Head, Method, ModelSpec, Plan

TARGET = Path(__file__).parent.parent / "tests" / "data" / "types_traced.json"
TABLES = {
    "CAUSAL_LM": Head.LM,
    "IMAGE_TEXT_TO_TEXT": Head.LM,
    "MULTIMODAL_LM": Head.LM,
    "SEQ_TO_SEQ_CAUSAL_LM": Head.LM,
    "SPEECH_SEQ_2_SEQ": Head.LM,
    "MASKED_LM": Head.MLM,
    "SEQUENCE_CLASSIFICATION": Head.CLASSIFICATION,
}
"""transformers' tables (models/auto/modeling_auto.py, `MODEL_FOR_…_MAPPING_NAMES`), and the head that their classes have. A type is
run under the first of the last six that has it, and under CAUSAL_LM and IMAGE_TEXT_TO_TEXT both where it stands in both."""
PLAN = Plan(micro_batch_size=2, seq_len_tokens=64, rank=8)
PLANS: dict[str, dict[str, Any]] = {
    **{name: {"target_modules": ("in_proj", "x_proj")} for name in ("mamba", "falcon_mamba")},
    **{name: {"target_modules": ("in_proj", "q_proj", "v_proj")} for name in ("mamba2", "falcon_h1", "nemotron_h")},
    "deepseek_v4": {"target_modules": ("q_a_proj", "q_b_proj", "kv_proj", "o_b_proj")},
    **{name: {"target_modules": ("q_proj", "k_proj", "v_proj", "o_proj")} for name in ("llama4", "llama4_text", "phimoe")},
    "qwen3_omni_moe_thinker": {"target_modules": ("q_proj", "k_proj", "v_proj", "o_proj")},
    **{name: {"base_dtype": DType.FP32} for name in ("deberta", "fnet", "reformer", "xlnet", "xlstm")},
    "perceiver": {"seq_len_tokens": 2048, "gradient_checkpointing": False},
}
"""peft 0.21 wraps no `out_proj` of these types (tuners/tuners_utils.py, `_check_lora_target_modules_mamba`), which "all-linear" names;
nor DeepSeek-V4's grouped o_a_proj; nor the routers of the three after it, whose layers return several tensors; nor a module called
like a number, as the thinker's. The code of the five after that takes fp32. Perceiver scores all of its positions."""
CONFIGS = {"musicgen": "musicgen_decoder", "musicgen_melody": "musicgen_melody_decoder"}
"""Types of which transformers trains a part, with that part's config."""
LIMIT_SECONDS = 300
LAYER_COUNTS = (
    *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth", "encoder_layers", "decoder_layers"),
    *("num_decoder_layers", "num_encoder_layers", "encoder_num_hidden_layers", "decoder_num_hidden_layers"),
)
LEAST_LAYERS = 2
SAID = {"decoder_start_token_id": 0, "pad_token_id": 0}
"""What released configs say and some class defaults leave out."""
_GLM_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12], "partial_rotary_factor": 0.5}
_HUNYUAN_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [16, 16, 16, 16]}
_FULL_ROPE = {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}
_QWEN4_INDEXER = {
    "indexer_n_heads": 16,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 256,
    "indexer_budget": 2048,
    "indexer_compress_ratio": 4,
}
_GEMMA4_DRAFTER = {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}
SAID_OF: dict[str, dict[str, Any]] = {
    **{name: {"head_dim": 128} for name in ("hunyuan_v1_dense", "ministral")},
    "hunyuan_v1_moe": {"head_dim": 128, "num_experts": 16, "moe_topk": 1},
    "hunyuan_vl": {"text_config": {"head_dim": 128, "rope_parameters": _HUNYUAN_ROPE}},
    "dots1": {"n_routed_experts": 128, "num_experts_per_tok": 6, "n_shared_experts": 2},
    "deepseek_v2": {
        "n_routed_experts": 64,
        "num_experts_per_tok": 6,
        "n_shared_experts": 2,
        "topk_method": "greedy",
        "moe_intermediate_size": 1408,
    },
    "deepseek_ocr2": {
        "text_config": {"mlp_layer_types": ["dense", *["sparse"] * 31], "num_experts_per_tok": 6, "moe_intermediate_size": 1408}
    },
    "dbrx": {"attn_config": {"rope_theta": 500000.0, "kv_n_heads": 8, "clip_qkv": 8}},
    "aya_vision": {"vision_config": {"num_attention_heads": 16}},
    "chameleon": {"vocabulary_map": {"<image>": 8711}},
    "emu3": {"vocabulary_map": {"<image>": 151646, "<|extra_200|>": 151847, "<|visual token 000000|>": 151854}},
    "diffusion_gemma": {"text_config": {"num_experts": 128, "top_k_experts": 8, "moe_intermediate_size": 704}},
    "granite4_vision": {"deepstack_layer_map": [[0, 0]], "downsample_rate": "1/2"},
    **{name: {"image_token_index": 50265} for name in ("blip-2", "instructblip")},
    "instructblipvideo": {"video_token_index": 50265},
    **{name: {"text_config": {"rope_parameters": _GLM_ROPE}} for name in ("glm4v", "glm46v", "glmga")},
    "glm4v_moe": {"text_config": {"rope_parameters": _GLM_ROPE, "head_dim": 128}},
    "cohere_compass_text": {"rope_parameters": _FULL_ROPE},
    "cohere_compass": {"text_config": {"rope_parameters": _FULL_ROPE}},
    "qwen4_exp": {"text_config": _QWEN4_INDEXER},
    "qwen4_exp_text": _QWEN4_INDEXER,
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    "nemotron": {"num_key_value_heads": 8},
    "reformer": {"is_decoder": True, "axial_pos_shape": [8, 8]},
    "xmod": {"default_language": "en_XX"},
    "esm": {"vocab_size": 33},
    "moonshine_streaming": {"num_key_value_heads": 8},
    **{name: {"text_config": _GEMMA4_DRAFTER} for name in ("gemma4_assistant", "gemma4_unified_assistant")},
    "step3p7": {"text_config": {"sliding_window": 512}},
    "qwen2_5_omni_thinker": {"vision_start_token_id": 151652},
    "qwen3_omni_moe_thinker": {"vision_start_token_id": 151652, "text_config": {"head_dim": 128}},
}
"""What released configs of a type say, where its class says nothing, or what its model does not take."""


class Row(NamedTuple):
    table: str
    model_type: str
    architecture: str


def rows() -> Iterator[Row]:
    """Every type of the tables, and the class to build."""
    from transformers.models.auto import modeling_auto

    seen: set[str] = set()
    for table in TABLES:
        names = getattr(modeling_auto, f"MODEL_FOR_{table}_MAPPING_NAMES")
        for model_type, architecture in names.items():
            if table in ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT") or model_type not in seen:
                yield Row(table, model_type, architecture if isinstance(architecture, str) else architecture[0])
        seen |= set(names)


def spec_of(row: Row, shortened: bool = False) -> ModelSpec:
    """The type with its config class's own values, and what that class leaves out.

    Raises whatever a config class raises that cannot be made without more.
    """
    import transformers

    model_type = CONFIGS.get(row.model_type, row.model_type)
    said = SAID_OF.get(row.model_type, {})
    try:
        config = transformers.CONFIG_MAPPING[model_type]()
    except Exception:  # a class whose own values it does not take
        config = transformers.CONFIG_MAPPING[model_type](**said)
    content = json.loads(config.to_json_string(use_diff=False))
    content |= {name: value for name, value in SAID.items() if content.get(name) is None}
    content = merged(content, said)
    content = short(content) if shortened else content
    return ModelSpec(
        id=row.model_type,
        model_type=model_type,
        architecture=row.architecture,
        kind="decoder",
        hidden_size=1,
        vocab_size=1,
        layers=1,
        tables=None,
        head=TABLES[row.table],
        config_json=json.dumps({**content, "model_type": model_type}),
        source="the config class's defaults",
    )


def merged(content: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """The config with what is `said`, also in the configs in it."""
    deep = {
        key: merged(content[key], value) for key, value in said.items() if isinstance(value, dict) and isinstance(content.get(key), dict)
    }
    return content | said | deep


def short(content: dict[str, Any]) -> dict[str, Any]:
    """The config, and every config in it, with its first layers alone: as many as show every value of its lists of layers."""
    counts = {name: content[name] for name in LAYER_COUNTS if isinstance(content.get(name), int)}
    kept = {total: _kept(content, total) for total in counts.values()}
    result = {key: short(value) if isinstance(value, dict) else value for key, value in content.items()}
    for key, value in content.items():
        per_layer = isinstance(value, list) or (isinstance(value, str) and "pattern" in key)
        if per_layer and len(value) in kept and len(value) > LEAST_LAYERS:
            result[key] = value[: kept[len(value)]]
    return result | {name: kept[total] for name, total in counts.items()}


def _kept(content: dict[str, Any], total: int) -> int:
    lists = [value for value in content.values() if isinstance(value, list) and len(value) == total]
    firsts = [value.index(each) + 1 for value in lists for each in value]
    return min(max([LEAST_LAYERS, *firsts]), total)


def outcome(row: Row) -> dict[str, Any]:
    """Peak allocated bytes, or the refusal's words."""
    start = time.monotonic()
    try:
        said = _of_either(row, PLAN.model_copy(update={"head": TABLES[row.table], "labels": 3, **PLANS.get(row.model_type, {})}))
    except AdvisorError as error:
        said = {"refused": str(error)}
    except Exception as error:  # a config class that makes none by itself, or a fault of ours
        said = {"refused": f"{row.model_type}: {type(error).__name__}: {' '.join(str(error).split())}"[:300]}
    return {**row._asdict(), **said, "seconds": round(time.monotonic() - start, 1)}


def _of_either(row: Row, plan: Plan) -> dict[str, Any]:
    """Of the short config; of the whole one where a config class does not take the short one, or its model does not run."""
    try:
        return _traced(spec_of(row, shortened=True), plan)
    except Exception:
        return _traced(spec_of(row), plan)


OTHERWISE: dict[str, dict[str, Any]] = {
    "--no-checkpointing": {"gradient_checkpointing": False},
    "full fine-tuning alone": {"method": Method.FULL},
}
"""Words of a refusal → the plan that they name."""


def _traced(spec: ModelSpec, plan: Plan) -> dict[str, Any]:
    """By that plan, or by the one that its refusals name."""
    update: dict[str, Any] = {}
    while True:
        try:
            found = {"allocated_bytes": _peak_bytes(spec, plan.model_copy(update=update))}
        except AdvisorError as error:
            other = next((settings for words, settings in OTHERWISE.items() if words in str(error)), {})
            if not other.items() - update.items():
                raise
            update |= other
        else:
            said = plan.model_copy(update=update).model_dump(mode="json", include=set(update))
            return {**found, "plan": said} if update else found


def _peak_bytes(spec: ModelSpec, plan: Plan) -> int:
    gc.freeze()  # what libraries hold need not be searched again for each type
    return trace(spec, plan, steps=1, repeat_layers=False).breakdown.peak_allocated_bytes


def _stop(_signal: int, _frame: object) -> None:
    raise TimeoutError(f"longer than {LIMIT_SECONDS} s")


def walk(again: tuple[str, ...], tables: tuple[str, ...]) -> None:
    """Run what the file lacks of these tables, saving after each."""
    done = {
        (each["table"], each["model_type"]): each for each in read() if not any(re.fullmatch(name, each["model_type"]) for name in again)
    }
    signal.signal(signal.SIGALRM, _stop)
    for row in rows():
        if (row.table, row.model_type) in done or row.table not in tables:
            continue
        signal.alarm(LIMIT_SECONDS)
        found = outcome(row)
        signal.alarm(0)
        done[row.table, row.model_type] = found
        sys.stdout.write(f"{found}\n")
        sys.stdout.flush()
        lines = ",\n".join(json.dumps(done[row.table, row.model_type]) for row in rows() if (row.table, row.model_type) in done)
        TARGET.write_text(f'{{"versions": {json.dumps(dict(installed()))},\n"rows": [\n{lines}\n]}}\n', encoding="utf-8")


def read() -> list[dict[str, Any]]:
    return list(json.loads(TARGET.read_text(encoding="utf-8"))["rows"]) if TARGET.exists() else []


def versions() -> dict[str, str]:
    """Releases of the libraries that the file was made with."""
    return dict(json.loads(TARGET.read_text(encoding="utf-8"))["versions"])


def shares() -> dict[str, tuple[int, int]]:
    """Table (or "all types") → types answered, and types in all. A type counts where every class of it runs."""
    found = read()
    by_table = {table: [each for each in found if each["table"] == table] for table in ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT")}
    counted = {table: (sum("refused" not in each for each in held), len(held)) for table, held in by_table.items()}
    types = {each["model_type"] for each in found}
    refused = {each["model_type"] for each in found if "refused" in each}
    return {**counted, "all types": (len(types - refused), len(types))}


def report() -> None:
    for name, (answered, count) in shares().items():
        sys.stdout.write(f"{name}: {answered} of {count} ({answered / max(count, 1):.1%})\n")
    for each in read():
        if "refused" in each:
            sys.stdout.write(f"{each['table']:24} {each['model_type']:28} {each['refused']}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="print the file as it is")
    parser.add_argument("--again", nargs="*", default=(), metavar="TYPE", help="run these types anew")
    parser.add_argument("--tables", nargs="*", default=[*TABLES], metavar="TABLE", help="these of transformers' tables only")
    arguments = parser.parse_args()
    report() if arguments.report else walk(tuple(arguments.again), tuple(arguments.tables))


if __name__ == "__main__":
    main()
