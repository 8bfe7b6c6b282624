"""What the children's server process loads before it forks: the libraries that leave the card alone.

Where bitsandbytes is installed peft is left to the child: it imports bitsandbytes, which asks the driver (0.50 cextension.py).
"""

import accelerate  # noqa: F401
import torch  # noqa: F401
import transformers.modeling_utils
import transformers.models.llama.modeling_llama
import transformers.models.qwen2.modeling_qwen2
import transformers.models.qwen3_moe.modeling_qwen3_moe  # noqa: F401
