"""Tape of the heads that score labels, or masked words: what BERT and its kin, and classifiers on decoders, run after the last layer.

What is done once a sequence (pooling the first or last token, its dense layer, its scores) is not counted: it is smaller than what is
done for each token by the length of the sequence. Sources: transformers 5.23 modeling_layers.py (`GenericForSequenceClassification`,
`GenericForTokenClassification`), models/bert/modeling_bert.py, models/modernbert/modeling_modernbert.py.
"""

from __future__ import annotations

from advisor.memory.feed_forward import activation
from advisor.memory.layers import FP32_BYTES, Setting, cast, dropout, linear, output_bytes
from advisor.memory.norms import layer_norm
from advisor.memory.tape import ZERO, Size, Tape, Tensor
from advisor.values import Head, HeadShape, Linear, ModelKind, ModelSpec


def task_head(tape: Tape, x: Tensor, model: ModelSpec, shape: HeadShape, setting: Setting) -> Size:
    """From normed hidden states to the loss; what is returned is the size of `outputs.logits`."""
    if shape.head is Head.CLASSIFICATION and model.kind is ModelKind.ENCODER:
        tape.op((x,), ZERO)  # the first token of each sequence; the gradient of choosing it is of all tokens
        return ZERO
    if shape.dense is not None:
        x = _dense(tape, x, shape, model, setting)
    if shape.dropout:
        x = dropout(tape, x, model.hidden_size, setting.stream_bytes)
    outputs = model.vocab_size if shape.head is Head.MLM else model.labels or 1
    layer = Linear(name="classifier", in_features=model.hidden_size, out_features=outputs, bias=shape.bias)
    logits = linear(tape, x, layer, _trained(setting, shape), setting.stream_bytes)
    e = output_bytes(setting, setting.stream_bytes, quantized=False)
    size = Size(outputs * e)
    if shape.head is Head.CLASSIFICATION:
        tape.op((logits,), ZERO)  # the last token of each sequence
        return ZERO
    _cross_entropy(tape, logits, outputs, e, upcasts=shape.upcasts or setting.autocast)
    tape.hold(logits)
    return size


def _trained(setting: Setting, shape: HeadShape) -> Setting:
    """A head of labels is trained whole, also beside an adapter (peft `modules_to_save`)."""
    return setting if shape.head is Head.MLM else setting._replace(trains_base=True)


def _dense(tape: Tape, x: Tensor, shape: HeadShape, model: ModelSpec, setting: Setting) -> Tensor:
    assert shape.dense is not None
    e = setting.stream_bytes
    c = output_bytes(setting, e, quantized=False)
    x = activation(tape, linear(tape, x, shape.dense, setting, e), Size(model.hidden_size * c), "gelu")
    x = cast(tape, x, model.hidden_size, c, e)
    return layer_norm(tape, x, model.hidden_size, setting, e) if shape.dense_norm else x


def _cross_entropy(tape: Tape, logits: Tensor, outputs: int, e: int, *, upcasts: bool) -> None:
    """Log-softmax and its backward, in fp32 where the loss lifts the logits or autocast does."""
    width = FP32_BYTES if upcasts else e
    wide = cast(tape, logits, outputs, e, width)
    log_probabilities = tape.op((wide,), Size(outputs * width))
    tape.ops[-1].kept = (log_probabilities,)
    tape.op((log_probabilities,), ZERO, keeps=(log_probabilities,))
