"""How an engine shares a model over cards beyond its name: what rests on the host, and the settings of DeepSpeed.

Without `from __future__ import annotations`, as all that the main command loads (see `advisor.values`).
"""

from typing import Annotated

from pydantic import Field

from advisor.values.vocabulary import Positive, Value, Word


class Offload(Word):
    """What rests on the host, and crosses the bus in every step."""

    OPTIMIZER = "optimizer"
    """States and masters; the host steps (DeepSpeed `offload_optimizer`)."""
    PARAMS = "params"
    """Weights, brought to the card unit by unit (DeepSpeed `offload_param`, FSDP `offload_params`)."""
    ACTIVATIONS = "activations"
    """What forward keeps for backward, each brought back when it is needed (TRL `activation_offloading`)."""


Limit = Annotated[int, Field(ge=0)]


class DeepSpeedSettings(Value):
    """Bucket sizes and limits of ZeRO, in elements (DeepSpeed 0.19.8 runtime/zero/config.py). None: what transformers' Trainer fills in
    for `auto` (5.23 integrations/deepspeed.py `trainer_config_finalize`), a number that the model's hidden size decides."""

    reduce_bucket_params: Positive | None = None
    """Gradients that are reduced at once."""
    overlap_comm: bool | None = None
    """Reduction beside backward, which takes a second bucket in stages 1 and 2. None: in stage 3 alone (`overlap_comm_valid`)."""
    prefetch_params: Limit | None = None
    """Stage 3: parameters that are gathered ahead of their use."""
    persistence_params: Limit | None = None
    """Stage 3: parameters that are smaller stay whole on each card."""
    max_live_params: Limit = 1_000_000_000
    """Stage 3: parameters that may stay gathered while they are used again soon."""
    max_reuse_params: Limit = 1_000_000_000
    """Stage 3: those used again within so many parameters stay gathered."""
    sub_group_params: Limit = 1_000_000_000
    """Stage 3: the optimizer steps on so many parameters at a time, and on a whole tensor at least."""
    pin_memory: bool = False
    """What is offloaded lies in page-locked buffers (`offload_optimizer.pin_memory`)."""
    nvme: bool = False
    """Stage 3: what is offloaded goes on to a disk, and buffers of it stay on the host (`device: nvme`)."""
    nvme_group_buffers: Positive = 4
    """Of the largest group that the optimizer steps on, in fp32: on the host beside a disk (`offload_optimizer.buffer_count`)."""
    nvme_param_buffers: Positive = 5
    """Of parameters (`offload_param.buffer_count`), each of as many elements as follow."""
    nvme_buffer_params: Positive = 100_000_000
    """`offload_param.buffer_size`."""
    nvme_resident_params: Limit = 1_000_000_000
    """Parameters that stay on the host in any case (`offload_param.max_in_cpu`)."""
    fp32_gradients: bool = False
    """Gradients are accumulated in fp32 (`data_types.grad_accum_dtype`)."""
