"""How long a step takes: against LoRA (`relative_step_time`) and on a card (`step_time`). Ranges, from counts and published rates.

Of 186 published runs (RTX 3090 to 8 H100, 0.5B to 47B, 230 to 131,072 tokens a micro-batch) 179 lie inside; the range is about 1 : 2.
Outside were a nearly full card (1.4 x the upper end), software of 2025 (4 % above), trainers of reinforcement learning, which
compute more than the step (1.5 x), and two RTX 4090 rows (2 % faster than the lower end). tests/test_speed.py holds a part of the table.
"""

from advisor.speed.flops import step_flops
from advisor.speed.relative import relative_step_time
from advisor.speed.steptime import step_time

__all__ = ["relative_step_time", "step_flops", "step_time"]
