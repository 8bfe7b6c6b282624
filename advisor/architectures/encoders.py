"""Encoders: BERT, RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT, ModernBERT, with the head that config.json names.

Source of every builder: transformers 5.23, models/<type>/. Masked-language-model heads are tied to the word embedding.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from advisor.architectures.config import MAX_WIDTH, Config
from advisor.architectures.parts import FULL, SLIDING, Heads, Shape, Trunk, check_rotary, layer_types, linear, runs, trunk
from advisor.values import AttentionShape, Block, Linear, MlpShape

_DEFAULT_LABELS = 2
"""PreTrainedConfig.num_labels where the config has no id2label (configuration_utils.py)."""


class _Encoder(NamedTuple):
    """What the builders below fill in."""

    prefix: str
    """Of the class names: "Bert" for BertForMaskedLM."""
    base: Trunk
    embedding_params: int
    blocks: tuple[Block, ...]
    norm_params: int
    """Of one norm."""
    outer_norms: int
    """Norms outside the blocks and the head: over the embedding, at the end."""
    head_dense_params: int
    """The dense layer that the masked-language-model head and the classifier share in form: hidden_size to hidden_size."""
    pooler: bool = False
    """The bare model and its classifier pool the first token through a dense layer."""
    decoder_bias: bool = True
    untied_biases: int = 0
    """Biases of the decoder that are kept beside the head's own when the two are not tied."""


def _finish(config: Config, encoder: _Encoder) -> Shape:
    base = encoder.base
    task = _task(config, encoder.prefix)
    outer = encoder.outer_norms * encoder.norm_params
    labels = None
    if task == "MaskedLM":
        outer += encoder.head_dense_params + encoder.norm_params + (base.vocab if encoder.decoder_bias else 0)
    elif task == "Model":
        outer += encoder.head_dense_params if encoder.pooler else 0
    else:
        labels = _labels(config)
        outer += encoder.head_dense_params + (encoder.norm_params if encoder.prefix == "ModernBert" else 0)
    tied = task == "MaskedLM" and config.flag("tie_word_embeddings", default=True)
    untied_head = base.vocab * (base.hidden + encoder.untied_biases) if task == "MaskedLM" and not tied else 0
    output: dict[str, Literal["tokens", "labels", "hidden"]] = {"MaskedLM": "tokens", "Model": "hidden"}
    return Shape(
        architecture=encoder.prefix + ("" if task == "Model" else "For") + task,
        trunk=base,
        blocks=encoder.blocks,
        embedding_params=encoder.embedding_params,
        head_params=(base.hidden + 1) * labels if labels else untied_head,
        other_params=outer,
        tied=tied,
        kind="encoder",
        head_bias=labels is not None or (task == "MaskedLM" and encoder.decoder_bias),
        output=output.get(task, "labels"),
        labels=labels,
    )


def _task(config: Config, prefix: str) -> str:
    """The head that config.json names, among those that are priced; a masked language model where it names none or another."""
    named = config.raw("architectures")
    first = named[0] if isinstance(named, list) and named else None
    return {f"{prefix}Model": "Model", f"{prefix}ForSequenceClassification": "SequenceClassification"}.get(str(first), "MaskedLM")


def _labels(config: Config) -> int:
    named = config.nested("id2label")
    return len(named) if named else config.count("num_labels", default=_DEFAULT_LABELS, limit=MAX_WIDTH)


def _heads(config: Config, hidden: int) -> Heads:
    query = config.count("num_attention_heads", "n_heads")
    config.check_divides("num_attention_heads", query, "hidden_size", hidden)
    return Heads(query, query, hidden // query)


def _refuse_decoder(config: Config) -> None:
    for key in ("is_decoder", "add_cross_attention"):
        if config.flag(key, default=False):
            raise config.bad(key, "is true: this encoder is covered only as an encoder")


def bert(config: Config) -> Shape:
    return _bert_like(config, "Bert")


def roberta(config: Config) -> Shape:
    return _bert_like(config, "Roberta")


def xlm_roberta(config: Config) -> Shape:
    return _bert_like(config, "XLMRoberta")


def camembert(config: Config) -> Shape:
    return _bert_like(config, "Camembert")


def _bert_like(config: Config, prefix: str) -> Shape:
    base = trunk(config)
    _refuse_decoder(config)
    hidden = base.hidden
    width = config.count("intermediate_size")
    attention = tuple(linear("attention", name, hidden, hidden, True) for name in ("query", "key", "value", "dense"))
    mlp = (linear("mlp", "dense", hidden, width, True), linear("mlp", "dense", width, hidden, True))
    activation = config.text("hidden_act", default="gelu")
    rows = base.vocab + (base.positions or 512) + config.count("type_vocab_size", default=2)
    return _finish(
        config,
        _Encoder(
            prefix=prefix,
            base=base,
            embedding_params=rows * hidden,
            blocks=_post_norm(base, _heads(config, hidden), (*attention, *mlp), width, activation),
            norm_params=2 * hidden,
            outer_norms=1,
            head_dense_params=(hidden + 1) * hidden,
            pooler=True,
            untied_biases=1,
        ),
    )


def distilbert(config: Config) -> Shape:
    base = trunk(config)
    hidden = base.hidden
    width = config.count("hidden_dim")
    attention = tuple(linear("attention", name, hidden, hidden, True) for name in ("q_lin", "k_lin", "v_lin", "out_lin"))
    mlp = (linear("mlp", "lin1", hidden, width, True), linear("mlp", "lin2", width, hidden, True))
    activation = config.text("activation", default="gelu")
    return _finish(
        config,
        _Encoder(
            prefix="DistilBert",
            base=base,
            embedding_params=(base.vocab + (base.positions or 512)) * hidden,
            blocks=_post_norm(base, _heads(config, hidden), (*attention, *mlp), width, activation),
            norm_params=2 * hidden,
            outer_norms=1,
            head_dense_params=(hidden + 1) * hidden,
        ),
    )


def _post_norm(base: Trunk, head: Heads, linears: tuple[Linear, ...], width: int, activation: str) -> tuple[Block, ...]:
    block = Block(
        count=base.layers,
        linears=linears,
        attention=AttentionShape(heads=head.query, kv_heads=head.query, head_dim=head.dim, v_head_dim=head.dim, rotary_fraction=0.0),
        mlp=MlpShape(kind="plain", intermediate_size=width, activation=activation),
        norm="layer",
        norm_placement="post",
        other_params=4 * base.hidden,
    )
    return (block,)


def modernbert(config: Config) -> Shape:
    """Rotary positions, a fused gated MLP, full attention in every third layer, and no first norm in the first layer."""
    base = trunk(config)
    hidden = base.hidden
    head = _heads(config, hidden)
    check_rotary(config, head.dim, 1.0)
    width = config.count("intermediate_size")
    attention_bias, mlp_bias = config.flag("attention_bias", default=False), config.flag("mlp_bias", default=False)
    linears = (
        linear("attention", "Wqkv", hidden, 3 * hidden, attention_bias),
        linear("attention", "Wo", hidden, hidden, attention_bias),
        linear("mlp", "Wi", hidden, 2 * width, mlp_bias),
        linear("mlp", "Wo", width, hidden, mlp_bias),
    )
    period = config.count("global_attn_every_n_layers", default=3)
    window = config.count("local_attention", default=128)
    default = tuple(SLIDING if layer % period else FULL for layer in range(base.layers))
    types = layer_types(config, base.layers, default)
    norm_params = hidden * (2 if config.flag("norm_bias", default=False) else 1)
    activation = config.text("hidden_activation", default="gelu")

    def build(kind: tuple[bool, bool], count: int) -> Block:
        first, slides = kind
        norms = 1 if first else 2
        return Block(
            count=count,
            linears=linears,
            attention=AttentionShape(
                heads=head.query,
                kv_heads=head.query,
                head_dim=head.dim,
                v_head_dim=head.dim,
                window_tokens=window if slides else None,
                fused_qkv=True,
            ),
            mlp=MlpShape(kind="gated", intermediate_size=width, activation=activation, fused_gate_up=True),
            norm="layer",
            norms=norms,
            other_params=norms * norm_params,
        )

    kinds = tuple((layer == 0, name == SLIDING) for layer, name in enumerate(types))
    return _finish(
        config,
        _Encoder(
            prefix="ModernBert",
            base=base,
            embedding_params=base.vocab * hidden,
            blocks=runs(kinds, build),
            norm_params=norm_params,
            outer_norms=2,
            head_dense_params=hidden * (hidden + (1 if config.flag("classifier_bias", default=False) else 0)),
            decoder_bias=config.flag("decoder_bias", default=True),
        ),
    )
