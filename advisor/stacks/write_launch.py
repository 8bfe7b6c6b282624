"""A plan of several cards as the files of its launcher: accelerate's configuration, DeepSpeed's, and the script that starts the training.

Keys of accelerate 1.15 commands/config/config_args.py, commands/launch.py and utils/dataclasses.py. `stacks.launch` reads them back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from shlex import quote
from typing import Any

from advisor.errors import UnsupportedError
from advisor.stacks.launch import BY_BLOCK, DP_REPLICATE, DP_SHARD
from advisor.stacks.write_sharing import deepspeed_settings, nested_lines
from advisor.values.card import CARDS_OF_MACHINE
from advisor.values.plan import Plan
from advisor.values.vocabulary import Sharding, Stack

ACCELERATE_FILE = "accelerate.yaml"
DEEPSPEED_FILE = "deepspeed.json"
_PORT = 29500
"""accelerate's own `main_process_port` (commands/launch.py)."""
_RUNS = {Stack.HF: "{file}", Stack.TRL: "-m trl.scripts.sft --config {file}", Stack.LLAMAFACTORY: "-m llamafactory.launcher {file}"}
"""What accelerate starts (trl 1.16 scripts/sft.py, llamafactory 0.9.5 launcher.py). axolotl sets the launcher's variables from its own
file (axolotl 0.19 utils/trainer.py `setup_fsdp_envs`, `setup_deepspeed_env`)."""


def launcher_files(plan: Plan) -> dict[str, str]:
    """Text by file name, without the script.

    Raises UnsupportedError for a stack whose own file says what cards share.
    """
    if plan.stack not in _RUNS:
        raise UnsupportedError(
            f"--launch: {plan.stack.value} takes what cards share from its own file and starts its launcher itself; leave --launch out"
        )
    files = {ACCELERATE_FILE: "\n".join(nested_lines(_accelerate(plan))) + "\n"}
    if plan.sharding.is_zero:
        files[DEEPSPEED_FILE] = json.dumps(deepspeed_settings(plan), indent=2) + "\n"
    return files


def start_script(plan: Plan, training: str) -> str:
    """The shell script that starts the training from the files beside it."""
    machines = _machines(plan)
    options = f"--config_file {ACCELERATE_FILE}"
    lines = ["#!/usr/bin/env bash", f"# starts the training on {plan.n_gpus} GPU{'s' if plan.n_gpus > 1 else ''}"]
    if machines > 1:
        lines.append(f"# on each of {machines} machines, with MACHINE_RANK=0, 1, … and MAIN_IP the address of the first")
        options += f' --machine_rank "$MACHINE_RANK" --main_process_ip "$MAIN_IP" --main_process_port {_PORT}'
    lines += ["set -euo pipefail", 'cd "$(dirname "$0")"', f"accelerate launch {options} {_RUNS[plan.stack].format(file=quote(training))}"]
    return "\n".join(lines) + "\n"


def _machines(plan: Plan) -> int:
    """Machines of eight cards each, or one that holds all."""
    return plan.n_gpus // CARDS_OF_MACHINE if plan.n_gpus > CARDS_OF_MACHINE and plan.n_gpus % CARDS_OF_MACHINE == 0 else 1


def _accelerate(plan: Plan) -> dict[str, Any]:
    """Without `mixed_precision`, which the trainer's own file says (and DeepSpeed's refuses beside its own: `_deepspeed_config_checks`)."""
    settings: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": _kind(plan.sharding),
        "num_machines": _machines(plan),
        "num_processes": plan.n_gpus,
    }
    if plan.sharding.is_zero:
        settings["deepspeed_config"] = {
            "deepspeed_config_file": DEEPSPEED_FILE,
            "deepspeed_multinode_launcher": "standard",
            "zero3_init_flag": plan.sharding is Sharding.ZERO3,
        }
    elif plan.sharding.is_fsdp:
        settings["fsdp_config"] = dict(_fsdp(plan))
        if plan.shard_group is not None and plan.sharding is Sharding.FSDP2:
            settings["parallelism_config"] = {DP_REPLICATE: plan.n_gpus // plan.shard_group, DP_SHARD: plan.shard_group}
    return settings


def _kind(sharding: Sharding) -> str:
    if sharding is Sharding.NONE:
        return "NO"
    return "DEEPSPEED" if sharding.is_zero else "FSDP" if sharding.is_fsdp else "MULTI_GPU"


def _fsdp(plan: Plan) -> Iterator[tuple[str, Any]]:
    """Every setting that the launcher has another default for than the Trainer is written out (commands/launch.py)."""
    yield "fsdp_version", 1 if plan.sharding is Sharding.FSDP1 else 2
    yield "fsdp_auto_wrap_policy", BY_BLOCK
    if plan.sharding is Sharding.FSDP2:
        yield "fsdp_reshard_after_forward", plan.reshard_after_forward
    else:
        strategy = "FULL_SHARD" if plan.reshard_after_forward else "SHARD_GRAD_OP"
        yield "fsdp_sharding_strategy", strategy if plan.shard_group is None else _HYBRID[strategy]
        yield "fsdp_use_orig_params", not plan.method.has_adapter
    yield "fsdp_offload_params", plan.offloads_params
    yield "fsdp_cpu_ram_efficient_loading", plan.loads_on_rank_0
    yield "fsdp_state_dict_type", "SHARDED_STATE_DICT"


_HYBRID: Mapping[str, str] = {"FULL_SHARD": "HYBRID_SHARD", "SHARD_GRAD_OP": "HYBRID_SHARD_ZERO2"}
