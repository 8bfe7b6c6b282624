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

_CONFIGURATION = """
use_cache pretraining_tp num_labels id2label label2id trust_remote_code pad_token_id token cache_dir revision finetuning_task
"""
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

_ARGUMENTS = """
accelerator_config activation_checkpointing activation_checkpointing_kwargs activation_offloading adam_beta1 adam_beta2 adam_epsilon
assistant_only_loss auto_find_batch_size average_tokens_across_devices batch_eval_metrics bf16 bf16_full_eval chat_template_path
completion_only_loss data_seed dataloader_drop_last dataloader_in_order dataloader_multiprocessing_context dataloader_num_workers
dataloader_persistent_workers dataloader_pin_memory dataloader_prefetch_factor dataset_kwargs dataset_num_proc dataset_text_field
ddp_backend ddp_broadcast_buffers ddp_bucket_cap_mb ddp_find_unused_parameters ddp_static_graph ddp_timeout debug deepspeed
disable_tqdm do_eval do_predict do_train enable_jit_checkpoint eos_token eval_accumulation_steps eval_delay eval_do_concat_batches
eval_on_start eval_packing eval_steps eval_strategy eval_use_gather_object fp16 fp16_full_eval fsdp fsdp_config full_determinism
generation_config generation_max_length generation_num_beams gradient_accumulation_steps gradient_checkpointing
gradient_checkpointing_kwargs greater_is_better hub_always_push hub_model_id hub_private_repo hub_revision hub_strategy hub_token
ignore_data_skip include_for_metrics include_num_input_tokens_seen label_names label_smoothing_factor learning_rate length_column_name
liger_kernel_config load_best_model_at_end local_rank log_level log_level_replica log_on_each_node logging_first_step
logging_nan_inf_filter logging_steps logging_strategy loss_type lr_scheduler_kwargs lr_scheduler_type max_grad_norm max_length
max_steps metric_for_best_model model_init_kwargs neftune_noise_alpha num_train_epochs optim optim_args optim_target_modules
output_dir packing packing_strategy pad_to_multiple_of pad_token padding_free parallelism_config per_device_eval_batch_size
per_device_train_batch_size predict_with_generate prediction_loss_only project push_to_hub remove_unused_columns report_to
restore_callback_states_from_checkpoint resume_from_checkpoint router_aux_loss_coef run_name save_on_each_node save_only_model
save_steps save_strategy save_total_limit seed shuffle_dataset skip_memory_metrics sortish_sampler tf32 torch_compile
torch_compile_backend torch_compile_mode torch_empty_cache_steps trackio_bucket_id trackio_space_id trackio_static_space_id
train_sampling_strategy truncation_mode trust_remote_code use_cache use_cpu use_liger_kernel warmup_steps weight_decay
evaluation_strategy fsdp_transformer_layer_cls_to_wrap fsdp_min_num_params group_by_length gradient_checkpointing_use_reentrant
half_precision_backend include_tokens_per_second max_seq_length no_cuda per_gpu_train_batch_size save_safetensors sharded_ddp
torchdynamo use_ipex use_liger use_mps_device warmup_ratio
"""
ARGUMENTS = frozenset(_ARGUMENTS.split())
"""Fields of Seq2SeqTrainingArguments and SFTConfig (transformers 5.23, trl 1.16), and of older releases."""

_ADAPTER = """
alora_invocation_tokens alpha_pattern arrow_config auto_mapping base_model_name_or_path bias corda_config ensure_weight_tying
eva_config exclude_modules fan_in_fan_out inference_mode init_lora_weights kasa_config layer_replication layers_pattern
layers_to_transform loftq_config lora_alpha lora_bias lora_dropout lora_ga_config megatron_config megatron_core modules_to_save
monteclora_config peft_type peft_version qalora_group_size r rank_pattern revision runtime_config target_modules target_parameters
task_type trainable_token_indices use_bdlora use_dora use_qalora use_rslora velora_config
"""
ADAPTER = frozenset(_ADAPTER.split())
"""Fields of LoraConfig (peft 0.21 tuners/lora/config.py)."""

_QUANTIZATION = """
bits bnb_4bit_compute_dtype bnb_4bit_quant_storage bnb_4bit_quant_type bnb_4bit_use_double_quant llm_int8_enable_fp32_cpu_offload
llm_int8_has_fp16_weight llm_int8_skip_modules llm_int8_threshold load_in_4bit load_in_8bit
"""
QUANTIZATION = frozenset(_QUANTIZATION.split())
"""Arguments of BitsAndBytesConfig, and the bits of others (transformers 5.23 utils/quantization_config.py)."""
