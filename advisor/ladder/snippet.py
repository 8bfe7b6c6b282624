"""Python that builds exactly the plan that was priced: the same rank, targets, quantisation, types, batch and loop."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from advisor.architectures import LABEL_MODULES, headed
from advisor.errors import UnsupportedError
from advisor.ladder.learning_rate import show, sweep_of
from advisor.ladder.plain_loop import OPTIMIZERS, loop_lines
from advisor.ladder.snippet_load import NO_REENTRANT, load_lines, needs_os, pads_by_tokenizer, quantization_classes
from advisor.ladder.snippet_packages import packages
from advisor.ladder.snippet_parts import call, text, torch_dtype
from advisor.shown import shown
from advisor.stacks import defaults_of
from advisor.stacks.write import in_all, started_by, yaml_config
from advisor.stacks.write_sharing import sharing_settings, without_sharing
from advisor.values import ALL_LINEAR, DType, Head, Loss, Method, ModelKind, ModelSpec, Plan, Sharding, Stack, Task

_HEADS = {
    Head.LM: ("AutoModelForCausalLM", "CAUSAL_LM"),
    Head.MLM: ("AutoModelForMaskedLM", None),
    Head.CLASSIFICATION: ("AutoModelForSequenceClassification", "SEQ_CLS"),
    Head.TOKENS: ("AutoModelForTokenClassification", "TOKEN_CLS"),
    Head.EMBEDDING: ("AutoModel", "FEATURE_EXTRACTION"),
}
"""transformers' auto class, and peft's task type where it has one."""
_TASKS = {ModelKind.DECODER: "CAUSAL_LM", ModelKind.ENCODER_DECODER: "SEQ_2_SEQ_LM"}
"""peft's task types by what the model takes and gives; the other kinds are wrapped without one, as peft's examples do for Whisper."""


YOURS_TO_TRAIN_ON = "train_dataset = ..."
"""Where the data goes."""
_WRITTEN = (ModelKind.DECODER, ModelKind.ENCODER)
"""Kinds whose data is text alone, which every stack takes."""


def snippet(model: ModelSpec, plan: Plan, task: Task | None = None, script: str = "") -> str:
    """The plan as Python that trains it on its stack, or as the stack's own file.

    `script`: what starts the training; its launcher's files then say what the cards share.
    The data is left to the user, who puts it in one marked place; everything that changes a byte is not.
    """
    if model.kind not in _WRITTEN and plan.stack is not Stack.HF:
        return f"# settings of {plan.stack.value} for {model.kind.value} models are not written: they need a processor and its data\n"
    if plan.stack in (Stack.AXOLOTL, Stack.LLAMAFACTORY):
        try:
            return yaml_config(plan, model, show(sweep_of(model, plan, task).mid))
        except UnsupportedError as error:
            return f"# {shown(str(error))}\n"
    if plan.stack in (Stack.MS_SWIFT, Stack.TORCHTUNE):
        return f"# configurations of {plan.stack.value} are read (advise check), not written\n"
    rate = show(sweep_of(model, plan, task).mid)
    model = headed(model, plan)
    head = (f"# pip install {' '.join(packages(model, plan))}", *_imports(model, plan))
    loading = (load_lines(model, plan, _class_of(model)), _adapter(model, plan))
    settings, training = [*_settings(plan, rate, script)], _training(plan, rate)
    sections = (head, settings, *loading, training) if _loads_by_arguments(plan) else (head, *loading, chain(settings, training))
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _class_of(model: ModelSpec) -> str:
    """The class that loads it: the auto class of its head, or of a model without tables its own, which says what it takes."""
    return _HEADS[model.head][0] if model.tables is not None else model.architecture


def _imports(model: ModelSpec, plan: Plan) -> Iterator[str]:
    peft = ["LoraConfig"] if plan.method.has_adapter else []
    if plan.method.has_adapter and plan.stack is not Stack.TRL:
        peft.append("get_peft_model")
    if plan.kbit_prepare:
        peft.append("prepare_model_for_kbit_training")
    transformers = [_class_of(model), *(["AutoTokenizer"] if pads_by_tokenizer(model) else [])]
    transformers += quantization_classes(model, plan)
    if plan.stack is Stack.HF:
        transformers += ["Trainer", "TrainingArguments"]
    if plan.stack is Stack.PLAIN:
        yield from OPTIMIZERS[plan.optimizer].imports
    if needs_os(model, plan):
        yield "import os"
    yield "import torch"
    if peft:
        yield f"from peft import {', '.join(peft)}"
    yield f"from transformers import {', '.join(transformers)}"
    if plan.stack is Stack.TRL:
        yield "from trl import SFTConfig, SFTTrainer"


def _adapter(model: ModelSpec, plan: Plan) -> Iterator[str]:
    if plan.method is Method.FULL:
        yield "# every weight is trained, in the type that it was loaded in"
        return
    everything = plan.target_modules == (ALL_LINEAR,)
    settings = {
        "r": text(plan.rank),
        "lora_alpha": f"{plan.alpha:g}",
        "lora_dropout": f"{plan.lora_dropout:g}",
        "target_modules": text(ALL_LINEAR if everything else list(plan.target_modules)),
        "use_dora": text(plan.method.is_dora),
        "use_rslora": text(plan.use_rslora),
        "bias": text("none"),
    }
    if everything and model.labels is not None:
        settings["exclude_modules"] = text([*LABEL_MODULES])
    task = _TASKS.get(model.kind) if model.head is Head.LM else _HEADS[model.head][1]
    if task:
        settings["task_type"] = text(task)
    yield f"adapter = {call('LoraConfig', settings)}"
    if plan.stack is Stack.TRL:
        return
    yield "model = get_peft_model(model, adapter)"
    if plan.adapter_dtype is not DType.FP32:
        yield "for parameter in (p for p in model.parameters() if p.requires_grad):"
        yield f"    parameter.data = parameter.data.to({torch_dtype(plan.adapter_dtype)})"


def _loads_by_arguments(plan: Plan) -> bool:
    """Whether the arguments stand before the model: who reads the weights is told by them (transformers 5.23 integrations/deepspeed.py
    `is_deepspeed_zero3_enabled`, distributed/fsdp.py `is_fsdp_enabled`, which asks for the group that they make)."""
    return plan.stack is not Stack.PLAIN and (plan.sharding is Sharding.ZERO3 or plan.loads_on_rank_0)


def _settings(plan: Plan, learning_rate: str, script: str) -> Iterator[str]:
    """How it is started, and the trainer's arguments. `script`: what starts it, and says what the cards share."""
    if script:
        yield f"# start with: {started_by(script, plan.n_gpus)}"
    elif plan.has_engine:
        yield f"# start with: torchrun --nproc-per-node {min(plan.n_gpus, 8)} this_file.py ({in_all(plan.n_gpus)})"
    if plan.stack is Stack.PLAIN:
        return
    settings = _arguments(without_sharing(plan) if script else plan, learning_rate)
    if plan.stack is Stack.TRL:
        settings["max_length"] = text(plan.seq_len_tokens) if _loads_by_arguments(plan) else "seq_len"
    yield f"arguments = {call('SFTConfig' if plan.stack is Stack.TRL else 'TrainingArguments', settings)}"


def _training(plan: Plan, learning_rate: str) -> Iterator[str]:
    if plan.stack is Stack.PLAIN:
        yield from loop_lines(plan, learning_rate)
        return
    if plan.stack is Stack.TRL:
        adapter = ", peft_config=adapter" if plan.method.has_adapter else ""
        yield f"{YOURS_TO_TRAIN_ON}  # yours: rows with text, with messages, or with prompt and completion"
        yield f"trainer = SFTTrainer(model=model, args=arguments{adapter}, train_dataset=train_dataset)"
    else:
        yield f"{YOURS_TO_TRAIN_ON}  # yours: rows of what the model takes, with labels"
        yield "trainer = Trainer(model=model, args=arguments, train_dataset=train_dataset)"
    yield "trainer.train()"


def _arguments(plan: Plan, learning_rate: str) -> dict[str, str]:
    settings = {
        "output_dir": text("out"),
        "per_device_train_batch_size": text(plan.micro_batch_size),
        "gradient_accumulation_steps": text(plan.grad_accum_steps),
        "gradient_checkpointing": text(plan.gradient_checkpointing),
    }
    if plan.gradient_checkpointing:
        settings["gradient_checkpointing_kwargs"] = text(NO_REENTRANT)
    settings |= {
        "optim": text(plan.optimizer.value),
        "learning_rate": learning_rate,
        "bf16": text(plan.autocast and plan.autocast_dtype is DType.BF16),
        "fp16": text(plan.autocast and plan.autocast_dtype is DType.FP16),
    }
    if plan.loss in (Loss.FUSED, Loss.IN_PLACE):
        settings["use_liger_kernel"] = "True"
    if plan.loss is Loss.IN_PLACE:
        settings["liger_kernel_config"] = text({"cross_entropy": True, "fused_linear_cross_entropy": False})
    sharing = sharing_settings(plan, defaults_of(plan.stack))
    return settings | {name: "True" if value == "full_shard auto_wrap" else text(value) for name, value in sharing.items()}
