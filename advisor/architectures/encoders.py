"""Encoders: BERT, RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT, ModernBERT, with their heads.

Source of every builder: transformers 5.23, models/<type>/. Masked-language-model heads are tied to the word embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from advisor.architectures.config import Config
from advisor.architectures.parts import FULL, SLIDING, Heads, Shape, Trunk, check_rotary, layer_types, linear, runs, trunk
from advisor.values import AttentionShape, Block, Head, HeadShape, Linear, MlpShape, ModelKind


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
    dense_name: str
    """Leaf name of that layer in the classifier."""
    dense_is_saved: bool
    """peft trains it whole (its name ends in "classifier", or it stands in a module of that name)."""
    pooler: bool = False
    """The bare model and its classifier pool the first token through a dense layer."""
    decoder_bias: bool = True
    untied_biases: int = 0
    """Biases of the decoder that are kept beside the head's own when the two are not tied."""


def _finish(config: Config, encoder: _Encoder) -> Shape:
    base = encoder.base
    heads = tuple(_encoder_heads(config, encoder))
    first = heads[0]
    return Shape(
        architecture=first.architecture,
        trunk=base,
        blocks=encoder.blocks,
        embedding_params=encoder.embedding_params,
        head_params=first.params_per_output * base.vocab,
        other_params=first.other_params,
        tied=first.tied,
        kind=ModelKind.ENCODER,
        head_bias=first.bias,
        final_norm=encoder.prefix == "ModernBert",
        heads=heads,
    )


def _encoder_heads(config: Config, encoder: _Encoder) -> Iterator[HeadShape]:
    """Masked language model, sequence and token classifiers, and the bare model."""
    base, prefix = encoder.base, encoder.prefix
    hidden, modern = base.hidden, prefix == "ModernBert"
    body = encoder.outer_norms * encoder.norm_params
    tied = config.flag("tie_word_embeddings", default=True)
    dense = linear("mlp", encoder.dense_name, hidden, hidden, encoder.head_dense_params > hidden * hidden)
    yield HeadShape(
        head=Head.MLM,
        architecture=f"{prefix}ForMaskedLM",
        other_params=body + encoder.head_dense_params + encoder.norm_params + (base.vocab if encoder.decoder_bias else 0),
        params_per_output=0 if tied else hidden + encoder.untied_biases,
        bias=encoder.decoder_bias,
        tied=tied,
        dense=dense,
        dense_norm=True,
        upcasts=modern,
    )
    yield HeadShape(
        head=Head.CLASSIFICATION,
        architecture=f"{prefix}ForSequenceClassification",
        other_params=body + encoder.head_dense_params + (encoder.norm_params if modern else 0),
        params_per_output=hidden + 1,
        bias=True,
        dense=dense,
        dense_norm=modern,
        dense_is_saved=encoder.dense_is_saved,
        dropout=True,
        upcasts=False,
    )
    yield HeadShape(
        head=Head.TOKENS,
        architecture=f"{prefix}ForTokenClassification",
        other_params=body + (encoder.head_dense_params + encoder.norm_params if modern else 0),
        params_per_output=hidden + 1,
        bias=True,
        dense=dense if modern else None,
        dense_norm=modern,
        dropout=not modern,
        upcasts=False,
    )
    pooled = encoder.head_dense_params if encoder.pooler else 0
    yield HeadShape(head=Head.EMBEDDING, architecture=f"{prefix}Model", other_params=body + pooled, params_per_output=0)


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
            dense_name="dense",
            dense_is_saved=prefix != "Bert",
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
            dense_name="pre_classifier",
            dense_is_saved=True,
        ),
    )


def _post_norm(base: Trunk, head: Heads, linears: tuple[Linear, ...], width: int, activation: str) -> tuple[Block, ...]:
    block = Block(
        count=base.layers,
        linears=linears,
        attention=AttentionShape(
            heads=head.query, kv_heads=head.query, head_dim=head.dim, v_head_dim=head.dim, rotary_fraction=0.0, softmax="own"
        ),
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
            dense_name="dense",
            dense_is_saved=False,
            decoder_bias=config.flag("decoder_bias", default=True),
        ),
    )
