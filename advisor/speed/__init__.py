"""How long a step takes: against LoRA (`relative_step_time`) and on a card (`step_time`). Ranges, from counts and published rates.

What a step asks for is counted (flops.py, traffic.py, exchange.py), what a card gives is read off published runs by
`benchmarks/fit_rates.py` (rows of `profiles/rates/`); `advise accuracy` prints how the rates do on runs that were left out.
"""

from advisor.speed.flops import step_flops
from advisor.speed.relative import relative_step_time
from advisor.speed.steptime import paid_for, step_time

__all__ = ["paid_for", "relative_step_time", "step_flops", "step_time"]
