"""One builder for every decoder that is built like Llama, dense or with experts: attention, feed-forward and norms by its traits."""

from __future__ import annotations

from advisor.architectures.attention import attention_part
from advisor.architectures.config import Config
from advisor.architectures.feed_forward import dense_part, sparse_part
from advisor.architectures.parts import Shape, runs, trunk
from advisor.architectures.patterns import Layer
from advisor.architectures.traits import Dense, is_on
from advisor.values import Block


def build_decoder(config: Config, traits: Dense) -> Shape:
    base = trunk(config)
    tied = config.flag("tie_word_embeddings", default=traits.tied)
    attention = attention_part(config, traits, base)
    experts = traits.experts
    sparse = experts.sparse(config, base.layers) if experts else (False,) * base.layers
    dense_mlp = None if all(sparse) else dense_part(config, traits, base.hidden)
    sparse_mlp = sparse_part(config, traits, experts, base.hidden) if experts and any(sparse) else None
    parallel = is_on(config, traits.parallel)
    norms = traits.norms - parallel

    def build(kind: tuple[Layer, bool], count: int) -> Block:
        layer, is_sparse = kind
        mlp = sparse_mlp if is_sparse else dense_mlp
        assert mlp is not None
        rotary = attention.shape.rotary_fraction if layer.rotates else 0.0
        shape = attention.shape.model_copy(update={"window_tokens": layer.window, "rotary_fraction": rotary})
        return Block(
            count=count,
            linears=(*attention.linears, *mlp.linears),
            attention=shape,
            mlp=mlp.shape,
            norm=traits.norm,
            layer_norm=traits.layer_norm,
            norms=norms,
            norm_placement="parallel" if parallel else traits.placement,
            scales_residual=traits.scales_residual,
            other_params=norms * traits.norm_tensors * base.hidden + attention.other_params + mlp.other_params,
        )

    head_bias = is_on(config, traits.head_bias)
    bias_params = base.vocab if head_bias else 0
    layers = traits.layers(config, base.layers)
    return Shape(
        architecture=traits.architecture,
        trunk=base,
        blocks=runs(tuple(zip(layers, sparse, strict=True)), build),
        embedding_params=base.vocab * base.hidden,
        head_params=0 if tied else base.vocab * base.hidden + bias_params,
        other_params=traits.norm_tensors * base.hidden + (bias_params if tied else 0),
        tied=tied,
        head_bias=head_bias,
        embedding_scaled=traits.embedding_scaled,
        scales_logits=traits.scales_logits,
        softcaps_logits=bool(traits.final_softcap_key) and config.is_number(traits.final_softcap_key, default=traits.softcap_default),
    )
