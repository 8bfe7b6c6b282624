"""What the children's server process loads before it forks: the libraries that leave the card alone.

bitsandbytes asks the driver when it is imported, and peft imports bitsandbytes: both are left to the child.
"""

from importlib.util import find_spec

import accelerate  # noqa: F401
import torch  # noqa: F401
import transformers.modeling_utils
import transformers.models.llama.modeling_llama
import transformers.models.qwen2.modeling_qwen2
import transformers.models.qwen3_moe.modeling_qwen3_moe  # noqa: F401

if find_spec("bitsandbytes") is None:
    import peft  # noqa: F401
