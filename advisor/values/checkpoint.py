"""How a checkpoint stores its weights."""

from advisor.values.vocabulary import Positive, Quantization, Value


class CheckpointFormat(Value):
    """How a checkpoint stores its matrices where it is not in 16 or 32 bit: the `quantization_config` of its config.json."""

    method: str
    """`quant_method` as transformers 5.23 names it: "bitsandbytes", "awq", "gptq", "fp8", "mxfp4", "compressed-tensors" …"""
    bits: Positive | None = None
    """Bits of a stored weight; None where the method has one width only, or the file does not say."""
    group_size_weights: Positive | None = None
    """Weights along the inputs that share a scale; None: a whole column."""
    trained_as: Quantization | None = None
    """The storage that training runs on; None where the weights are expanded to 16 bit on loading, or not trained at all."""
    double_quant: bool = False
    stored_as_bytes: bool = False
    """4-bit weights rest in uint8, not in a floating type (bitsandbytes' `bnb_4bit_quant_storage`)."""
    skipped: tuple[str, ...] = ()
    """Modules that stay in 16 bit: names or patterns as transformers matches them (quantizers_utils.py `should_convert_module`)."""
    assumed: str = ""
    """Why it was taken to be so where no config.json said it."""

    @property
    def label(self) -> str:
        """As a reader names it: "AWQ 4 bit", "bitsandbytes nf4", "FP8"."""
        if self.method == "bitsandbytes" and self.trained_as is not None:
            return f"bitsandbytes {self.trained_as.value}"
        name = self.method.upper() if self.method.isalnum() else self.method
        return f"{name} {self.bits} bit" if self.bits and not self.method.endswith(str(self.bits)) else name
