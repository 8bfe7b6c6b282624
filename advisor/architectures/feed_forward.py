"""The feed-forward half of a decoder layer, dense or with experts."""

from __future__ import annotations

from typing import Literal, NamedTuple

from advisor.architectures.config import MAX_EXPERTS, MAX_WIDTH, Config
from advisor.architectures.parts import gated_mlp, linear
from advisor.architectures.traits import Dense, Experts, is_on
from advisor.values import Linear, MlpShape


class FeedForwardPart(NamedTuple):
    linears: tuple[Linear, ...]
    shape: MlpShape
    other_params: int = 0


def dense_part(config: Config, traits: Dense, hidden: int) -> FeedForwardPart:
    width = traits.experts.dense_width.read(config, MAX_WIDTH) if traits.experts else config.count("intermediate_size")
    bias = is_on(config, traits.mlp_bias)
    kind: Literal["gated", "plain"] = "plain" if traits.mlp == "plain" else "gated"
    shape = MlpShape(kind=kind, intermediate_size=width, activation=_activation(config, traits), fused_gate_up=traits.mlp == "fused")
    if traits.mlp == "fused":
        linears: tuple[Linear, ...] = (
            linear("mlp", "gate_up_proj", hidden, 2 * width, bias),
            linear("mlp", "down_proj", width, hidden, bias),
        )
    elif traits.mlp == "plain":
        up, down = traits.mlp_names
        linears = (linear("mlp", up, hidden, width, bias), linear("mlp", down, width, hidden, bias))
    else:
        linears = gated_mlp(hidden, width, bias)
    return FeedForwardPart(linears, shape, traits.mlp_extra_params)


def _activation(config: Config, traits: Dense) -> str:
    return config.text(traits.activation_key, default=traits.activation)


def sparse_part(config: Config, traits: Dense, experts: Experts, hidden: int) -> FeedForwardPart:
    """Router, routed experts and shared experts of one layer."""
    count = experts.total.read(config, MAX_EXPERTS)
    per_token = experts.per_token.read(config, MAX_EXPERTS)
    if per_token > count:
        raise config.bad(experts.per_token.names[0], f"({per_token:,}) exceeds {experts.total.names[0]} ({count:,})")
    width = experts.width.read(config, MAX_WIDTH)
    shared_width = experts.shared_width(config, width) if experts.shared_width else 0
    linears = [
        Linear(
            name=experts.router,
            in_features=hidden,
            out_features=count,
            bias=experts.router_bias,
            is_module=experts.router_is_module,
            is_subclass=experts.router_is_module,
            can_be_wrapped=not experts.router_is_module,
            part="mlp",
        ),
        _expert("gate_up_proj", hidden, 2 * width, count, experts.expert_bias),
        _expert("down_proj", width, hidden, count, experts.expert_bias),
    ]
    if shared_width:
        linears += _shared(config, traits, experts, hidden, shared_width)
    shape = MlpShape(
        kind="moe",
        intermediate_size=width,
        activation=_activation(config, traits),
        fused_gate_up=True,
        experts=count,
        experts_per_token=per_token,
        shared_intermediate_size=shared_width,
        shared_runs_first=experts.shared_runs_first,
        routes_in=experts.routes_in,
        weighs_in=experts.weighs_in,
        clamped=experts.clamped,
        noises=experts.noises if experts.noise_key and config.fraction(experts.noise_key, default=0.0) > 0 else 0,
        every_expert_computes=experts.every_expert_computes,
    )
    return FeedForwardPart(tuple(linears), shape, count if experts.score_bias_params else 0)


def _expert(name: str, in_features: int, out_features: int, count: int, bias: bool) -> Linear:
    return Linear(name=name, in_features=in_features, out_features=out_features, bias=bias, copies=count, is_module=False, part="mlp")


def _shared(config: Config, traits: Dense, experts: Experts, hidden: int, width: int) -> tuple[Linear, ...]:
    bias = is_on(config, traits.mlp_bias)
    if experts.shared_names:
        up, down = experts.shared_names
        return linear("mlp", up, hidden, 2 * width, bias), linear("mlp", down, width, hidden, bias)
    gate = (linear("mlp", "shared_expert_gate", hidden, 1),) if experts.shared_gate else ()
    return *gated_mlp(hidden, width, bias), *gate
