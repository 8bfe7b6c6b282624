"""What the argument classes of the libraries hold where a script leaves them alone, for scripts that read them.

Only what decides something in published scripts is here; an attribute that is not is unknown.
"""

from __future__ import annotations

from typing import Any

TRAINING: dict[str, Any] = {
    "output_dir": "trainer_output",
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing": False,
    "gradient_checkpointing_kwargs": None,
    "bf16": False,
    "fp16": False,
    "do_train": False,
    "do_eval": False,
    "do_predict": False,
    "deepspeed": None,
    "fsdp": None,
    "eval_strategy": "no",
    "evaluation_strategy": "no",
    "learning_rate": 5e-5,
    "num_train_epochs": 3.0,
    "max_steps": -1,
    "optim": "adamw_torch_fused",
    "seed": 42,
    "local_rank": -1,
    "resume_from_checkpoint": None,
    "push_to_hub": False,
    "use_liger_kernel": False,
    "use_liger": False,
    "torch_compile": False,
    "use_cpu": False,
    "should_log": True,
    "group_by_length": False,
    "load_best_model_at_end": False,
    "report_to": "none",
    "hub_model_id": None,
}
"""transformers 5.23 training_args.py; `use_liger` and `evaluation_strategy` are older names."""

SFT: dict[str, Any] = {
    **TRAINING,
    "learning_rate": 2e-5,
    "bf16": None,
    "gradient_checkpointing": True,
    "model_init_kwargs": None,
    "max_length": 1024,
    "max_seq_length": 1024,
    "packing": False,
    "dataset_text_field": "text",
    "dataset_kwargs": None,
    "chat_template_path": None,
    "assistant_only_loss": False,
    "loss_type": None,
}
"""trl 1.16 trainer/sft_config.py and base_config.py; `max_seq_length` is the older name of `max_length`."""

MODEL: dict[str, Any] = {
    "model_name_or_path": None,
    "model_revision": "main",
    "dtype": "float32",
    "torch_dtype": "float32",
    "trust_remote_code": False,
    "attn_implementation": None,
    "use_peft": False,
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "lora_target_modules": None,
    "lora_target_parameters": None,
    "lora_modules_to_save": None,
    "lora_task_type": "CAUSAL_LM",
    "use_rslora": False,
    "use_dora": False,
    "load_in_8bit": False,
    "load_in_4bit": False,
    "bnb_4bit_quant_type": "nf4",
    "use_bnb_nested_quant": False,
    "bnb_4bit_quant_storage": None,
}
"""trl 1.16 trainer/model_config.py; `trust_remote_code` and `torch_dtype` are of older releases."""

SCRIPT: dict[str, Any] = {
    "dataset_name": None,
    "dataset_config": None,
    "dataset_train_split": "train",
    "dataset_test_split": "test",
    "dataset_streaming": False,
    "ignore_bias_buffers": False,
    "gradient_checkpointing_use_reentrant": False,
}
"""trl 1.16 scripts/utils.py ScriptArguments."""

MIXTURE: dict[str, Any] = {"datasets": (), "streaming": False, "test_split_size": None}
"""trl 1.16 scripts/utils.py DatasetMixtureConfig."""

ALIGNMENT: dict[str, Any] = {
    **MODEL,
    "dtype": None,
    "torch_dtype": None,
    "model_code_revision": None,
    "tokenizer_name_or_path": None,
    "use_flash_attention_2": False,
}
"""alignment-handbook 925acdf src/alignment/configs.py ModelArguments."""

TABLES: dict[str, dict[str, Any]] = {
    "TrainingArguments": TRAINING,
    "Seq2SeqTrainingArguments": TRAINING,
    "SFTConfig": SFT,
    "UnslothTrainingArguments": SFT,
    "ModelConfig": MODEL,
    "ModelArguments": ALIGNMENT,
    "ScriptArguments": SCRIPT,
    "SFTScriptArguments": SCRIPT,
    "DatasetMixtureConfig": MIXTURE,
}
"""By the name of the class."""
