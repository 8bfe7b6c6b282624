"""The closed form: memory of a plan from a model's shape, without torch. One term a file; the peak is the largest phase."""

from advisor.memory.params import adapter_params, trainable_params
from advisor.memory.peak import estimate_memory
from advisor.memory.weights import adapter_bytes, weights_bytes

__all__ = ["adapter_bytes", "adapter_params", "estimate_memory", "trainable_params", "weights_bytes"]
