"""Names of arguments, attributes and methods that are read, or that leave a training's memory alone: data, with their sources."""

from __future__ import annotations

_LOADING = """
device_map trust_remote_code low_cpu_mem_usage revision token use_auth_token cache_dir local_files_only force_download max_memory
offload_folder offload_state_dict use_safetensors variant use_cache pretraining_tp return_dict id2label label2id problem_type num_labels
ignore_mismatched_sizes from_tf subfolder resume_download state_dict tp_plan code_revision weights_only hub_token
"""
LOADING = frozenset(_LOADING.split())
"""Arguments of `from_pretrained` that leave a training's memory alone on one card (transformers 5.23 modeling_utils.py)."""

_LOADING_READ = "dtype torch_dtype attn_implementation load_in_4bit load_in_8bit quantization_config use_flash_attention_2"
LOADING_READ = frozenset(_LOADING_READ.split())
"""Arguments of `from_pretrained` that are read."""

_CONFIGURATION = "use_cache pretraining_tp num_labels id2label label2id trust_remote_code pad_token_id token cache_dir revision"
CONFIGURATION = frozenset(_CONFIGURATION.split())
"""Entries of a model's configuration that leave a training's memory alone (transformers 5.23 configuration_utils.py)."""

_TRAINER = """
model args peft_config train_dataset eval_dataset tokenizer processing_class data_collator callbacks compute_metrics formatting_func
dataset_text_field dataset_num_proc dataset_kwargs dataset_batch_size infinite num_of_sequences chars_per_token eval_packing
compute_loss_func preprocess_logits_for_metrics optimizers max_seq_length packing model_init_kwargs model_init neftune_noise_alpha
"""
TRAINER = frozenset(_TRAINER.split())
"""Arguments of Trainer and SFTTrainer that are read or leave memory alone (transformers 5.23 trainer.py; trl 0.8 to 1.16)."""

_OVERRIDES = "log save_model _save _save_checkpoint get_train_dataloader get_eval_dataloader create_scheduler _get_train_sampler"
OVERRIDES = frozenset(_OVERRIDES.split())
"""Methods of a Trainer that a subclass may replace without moving the step's memory."""

_MODEL_ATTRIBUTES = """
config generation_config is_parallelizable model_parallel active_adapters tokenizer name_or_path state_dict print_trainable_parameters
main_input_name max_seq_length warnings_issued hf_device_map chat_template
"""
MODEL_ATTRIBUTES = frozenset(_MODEL_ATTRIBUTES.split())
"""Attributes of a model that scripts set and that leave memory alone."""

_MODEL_METHODS = """
train eval cuda cpu enable_input_require_grads disable_input_require_grads print_trainable_parameters save_pretrained push_to_hub
generate state_dict load_state_dict tie_weights resize_token_embeddings get_nb_trainable_parameters num_parameters get_memory_footprint
get_input_embeddings get_output_embeddings named_modules modules children named_children get_submodule set_adapter forward buffers
get_base_model zero_grad register_forward_hook save_pretrained_merged save_pretrained_gguf save_pretrained_torchao push_to_hub_merged
push_to_hub_gguf save_lora load_lora fast_generate active_adapters
"""
MODEL_METHODS = frozenset(_MODEL_METHODS.split())
"""Methods of a model that leave a training's memory alone, or that only run after it."""

_UNSLOTH_LOADING = """
max_seq_length full_finetuning load_in_16bit rope_scaling fix_tokenizer use_gradient_checkpointing use_exact_model_name random_state
auto_model whisper_language whisper_task return_logits fullgraph text_only disable_log_stats max_lora_rank
"""
UNSLOTH_LOADING = frozenset(_UNSLOTH_LOADING.split())
"""Arguments of unsloth's from_pretrained (models/loader.py) that are read or leave memory alone."""

_UNSLOTH_ADAPTER = """
use_gradient_checkpointing random_state max_seq_length finetune_vision_layers finetune_language_layers finetune_attention_modules
finetune_mlp_modules temporary_location ensure_weight_tying
"""
UNSLOTH_ADAPTER = frozenset(_UNSLOTH_ADAPTER.split())
"""Arguments of unsloth's get_peft_model that a LoraConfig does not have (models/llama.py, models/vision.py)."""

_TEXT_METHODS = """
lower upper strip lstrip rstrip split rsplit splitlines startswith endswith removeprefix removesuffix title capitalize partition
rpartition isdigit isnumeric count find
"""
TEXT_METHODS = frozenset(_TEXT_METHODS.split())
"""Methods of `str` whose result is not longer than what they are given."""
