"""A model and its shape: what LoRA can wrap, what bitsandbytes can quantise, what a forward pass computes."""

from functools import cached_property
from typing import Literal

from advisor.errors import UnsupportedError
from advisor.values.checkpoint import CheckpointFormat
from advisor.values.vocabulary import Head, ModelKind, Positive, Value


class Linear(Value):
    """One weight matrix of a block: what LoRA can wrap and bitsandbytes can quantise."""

    name: str
    """Leaf name as peft's `target_modules` matches it, e.g. "q_proj"."""
    in_features: Positive
    out_features: Positive
    bias: bool = False
    copies: Positive = 1
    """How many such modules the block holds (experts held as separate modules, for instance)."""
    is_module: bool = True
    """False where the library keeps the weights in a bare parameter (fused experts and routers of transformers 5): not quantised by
    bitsandbytes, not wrapped by LoRA's default targets."""
    is_subclass: bool = False
    """The module is of a subclass of `nn.Linear` (Falcon's matrices, Phi-3.5-MoE's router): peft wraps it, but bitsandbytes leaves it,
    as transformers 5.23 converts `type(module) is nn.Linear` and Conv1D alone (integrations/bitsandbytes.py)."""
    can_be_wrapped: bool = True
    """False for a module that peft takes for a linear layer and fails on, as it returns several tensors (the router of Phi-3.5-MoE)."""
    part: Literal["attention", "mlp", "other"] = "other"
    """Which half of the layer it belongs to: GPT-2 has a c_proj in each, BERT three matrices called dense."""

    @property
    def can_be_quantized(self) -> bool:
        """Whether bitsandbytes takes its place."""
        return self.is_module and not self.is_subclass

    @property
    def weight_params(self) -> int:
        return self.in_features * self.out_features * self.copies

    @property
    def params(self) -> int:
        return (self.in_features * self.out_features + (self.out_features if self.bias else 0)) * self.copies


class AttentionShape(Value):
    """Geometry of a block's attention. Latent attention (DeepSeek) has `v_head_dim` smaller than `head_dim`."""

    kind: Literal["standard", "latent", "linear", "mamba"] = "standard"
    heads: Positive
    kv_heads: Positive
    head_dim: Positive
    v_head_dim: Positive
    window_tokens: Positive | None = None
    qk_norm: Literal["none", "head", "full"] = "none"
    """Normalisation of queries and keys: per head (Qwen3, Gemma 3) or over the whole projection (OLMo 2)."""
    rotary_fraction: float = 1.0
    """Share of head_dim that is rotated; 0 for learned or ALiBi positions."""
    softcap: bool = False
    scores_in_fp32: bool = False
    """Without a fused kernel queries and keys are lifted to fp32 before their product (GPT-J, GPT-Neo)."""
    softmax: Literal["fp32", "own", "raised"] = "fp32"
    """Without a fused kernel the softmax is lifted to fp32, or runs in the scores' own type (BERT, GPT-2, Falcon); XGLM raises masked
    scores to the type's least number before."""
    sinks: bool = False
    """A learned score per head joins each row of the softmax, which runs in the computation's own type (gpt-oss)."""
    dropout: bool = False
    """Attention weights are dropped at random during training (a rate above 0 in config.json)."""
    fused_qkv: bool = False
    """One matrix computes q, k and v (GPT-NeoX, Phi-3, GPT-2)."""
    copies_values: bool = False
    """Values are copied out of that matrix's result, which then is not kept (Falcon, CodeGen)."""
    sdpa: bool = True
    """transformers can compute it with torch's scaled_dot_product_attention; else (Gemma 2, gpt-oss, BLOOM) it falls back to eager."""
    flash: bool = True
    """transformers can compute it with the flash-attention package."""


class MlpShape(Value):
    """Geometry of a block's feed-forward part, dense or Mixture-of-Experts."""

    kind: Literal["gated", "plain", "moe"]
    intermediate_size: Positive
    """Width of the dense part, or of one expert."""
    activation: str
    fused_gate_up: bool = False
    """One matrix computes gate and up (Phi-3, GLM-4)."""
    experts: int = 0
    experts_per_token: int = 0
    shared_intermediate_size: int = 0
    shared_runs_first: bool = False
    """The shared expert runs before the routed ones, so that they find what it keeps, and its backward comes after theirs."""
    routes_in: Literal["own", "fp32", "fp32_always"] = "own"
    """The router multiplies its input as it is, or fp32 copies of input and weight, which autocast rounds again (DeepSeek and its kin)
    or is kept from (ERNIE)."""
    weighs_in: Literal["logits", "stream", "fp32"] = "logits"
    """The experts' results are multiplied by weights of the type of the router's product, of the layer's input, or of fp32."""
    clamped: bool = False
    """Gate and up are clamped, and the gate is weighted by a sigmoid of its own (gpt-oss)."""
    noises: int = 0
    """How often the layer's input is multiplied by noise in training (Phi-3.5-MoE, by its block and by its router)."""
    every_expert_computes: bool = False
    """Each token passes through all experts, whose results are then weighted (Llama 4), instead of only those it is routed to."""


class Block(Value):
    """A run of `count` consecutive, equal decoder (or encoder) layers."""

    count: Positive
    linears: tuple[Linear, ...]
    attention: AttentionShape
    mlp: MlpShape
    norm: Literal["rms", "rms_gemma", "layer"]
    """RMSNorm as in Llama (weighted in the stream's type), as in Gemma (weighted in fp32: OLMo 2 and gpt-oss, too), or LayerNorm."""
    layer_norm: Literal["kernel", "fp32_kernel", "fp32_ops"] = "kernel"
    """How a LayerNorm is computed: by torch's kernel, by that kernel after a cast to fp32 (OLMo), by single fp32 operations (Cohere)."""
    norms: int = 2
    """Norms over the hidden size in the residual path: 2 (before attention and MLP), 4 (Gemma 2: before and after), 1 (Cohere)."""
    norm_placement: Literal["pre", "post", "both", "parallel"] = "pre"
    residual_dropout: Literal["none", "mlp", "both"] = "none"
    """Which halves' outputs are dropped at random before they join the residual (a rate above 0 in config.json)."""
    scales_residual: bool = False
    """What a half adds to the residual stream is multiplied by a number first (Granite, MiniCPM3)."""
    other_params: int = 0
    """Everything that is no linear weight or bias: norms, routers' biases, sinks, convolution kernels."""

    @cached_property
    def params(self) -> int:
        """Parameters of one layer of this run."""
        return sum(linear.params for linear in self.linears) + self.other_params


class HeadShape(Value):
    """An output that transformers can put on a model's body."""

    head: Head
    architecture: str
    """Class name, e.g. "LlamaForSequenceClassification"."""
    other_params: int
    """`ModelSpec.other_params` under this head: final norm, embedding projections and norms, poolers, the head's own layers."""
    params_per_output: int
    """Weights, and bias, of one word or label; 0 where the weights are those of the embedding."""
    bias: bool = False
    tied: bool = False
    dense: Linear | None = None
    """A layer between body and output, followed by an activation: of each token for `mlm` and `tokens`, else of the first."""
    dense_is_saved: bool = False
    """peft trains that layer whole, as a part of the classifier, in place of adapting it."""
    dense_norm: bool = False
    """A LayerNorm follows it."""
    dropout: bool = False
    """Its input is dropped at random in training."""
    upcasts: bool = True
    """The loss is taken of the logits in fp32 (transformers loss/loss_utils.py); BERT and its kin take it in the model's type."""


class ModelShape(Value):
    """A model's dimensions layer by layer, as its type's table in `advisor.architectures` gives them."""

    blocks: tuple[Block, ...]
    """Consecutive runs of equal layers, first layer first."""
    embedding_params: Positive
    """Token, position and type embeddings together (counted once; the head is `head_params`)."""
    head_params: int
    """Output head, weight and bias: 0 when tied to the embedding (a bias of its own is then in `other_params`)."""
    head_bias: bool = False
    """The head adds a bias: `vocab_size` parameters."""
    tied_embeddings: bool = False
    other_params: int = 0
    """Outside blocks, embeddings and head: final norm, embedding projections and norms, poolers."""
    final_norm: bool = True
    """A norm follows the last layer."""
    heads: tuple[HeadShape, ...] = ()
    """Every head that transformers has for it."""
    scales_logits: bool = False
    softcaps_logits: bool = False
    embedding_scaled: bool = False
    """The model multiplies what its embeddings put out (Granite), which stays beside the product; Gemma's embeddings do it themselves."""
    embedding_dropout: bool = False

    @cached_property
    def params(self) -> int:
        """Every parameter once, tied tensors counted once."""
        blocks = sum(block.params * block.count for block in self.blocks)
        return blocks + self.embedding_params + self.head_params + self.other_params


class ModelSpec(Value):
    """A model: its config and where that comes from. Its dimensions layer by layer are there where its type has tables."""

    id: str
    model_type: str
    architecture: str
    """Class name as in config.json, e.g. "LlamaForCausalLM"."""
    kind: ModelKind = ModelKind.DECODER
    hidden_size: Positive
    vocab_size: Positive
    layers: Positive
    tables: ModelShape | None
    """Dimensions layer by layer; None: of this type there are no tables, and the dry run alone knows it."""
    params_built: Positive | None = None
    """Parameters that transformers builds, tied tensors once, as its profile has them or a meta model was counted."""
    head: Head = Head.LM
    """The head that the parameter counts are of: the one that config.json names."""
    labels: Positive | None = None
    """Classes of a classifier."""
    max_position_tokens: int | None = None
    checkpoint_format: CheckpointFormat | None = None
    """How the checkpoint stores its matrices; None: in a floating-point type, as they were trained."""
    sdpa: bool = True
    """transformers can compute the attention of every layer with torch's scaled_dot_product_attention."""
    flash: bool = True
    """transformers can compute it with the flash-attention package."""
    config_json: str
    """The config.json that this was read from, verbatim, so that the dry run can build the real model."""
    source: str
    source_date: str | None = None
    params_published: int | None = None
    notes: tuple[str, ...] = ()
    resolved_from: str = ""
    """One line for the reader: what was asked for and what it was taken to mean."""

    def __hash__(self) -> int:
        return hash((self.id, self.config_json))

    @property
    def shape(self) -> ModelShape:
        """Its dimensions layer by layer. Raises UnsupportedError for a type without tables."""
        if self.tables is None:
            raise UnsupportedError(
                f"{self.id}: {self.model_type} models have no table of dimensions; ask advise trace, which runs the training step"
            )
        return self.tables

    @property
    def first_head(self) -> Head:
        """What is trained where nobody says otherwise: the classifier that config.json names, else the vocabulary's scores, and a
        classifier on an encoder."""
        return self.head if self.kind is not ModelKind.ENCODER or self.head is Head.TOKENS else Head.CLASSIFICATION

    @property
    def taken_as(self) -> tuple[str, ...]:
        """What the name and its config.json were taken to mean, one line each."""
        return tuple(filter(None, (self.resolved_from, *self.notes)))

    @property
    def params(self) -> int:
        """Every parameter once, tied tensors counted once. Raises UnsupportedError where neither a table nor a profile counts them."""
        if self.tables is not None:
            return self.tables.params
        if self.params_built is None:
            raise UnsupportedError(f"{self.id}: its parameters are not counted; pip install 'finetune-advisor[torch]' counts them")
        return self.params_built
