"""What is generated from the fields: flags, schemas, the page of options."""

import json
import subprocess
import sys

from flowtuner.options import DatasetEntry, TrainingConfig, dataset_schema, flags, training_schema
from flowtuner.options.documentation import main
from flowtuner.options.fields import choices_of, extra_of, match_choice
from flowtuner.options.names import environment_names, spellings

# Options of the contract's table B.2 and the keys its notes mention.
CONTRACT = """
model_family model_flavour model_type pretrained_model_name_or_path lora_type lycoris_config lora_rank lora_alpha
lora_dropout base_model_precision quantize_via base_model_default_dtype mixed_precision optimizer optimizer_config
optimizer_beta1 optimizer_beta2 learning_rate lr_scheduler lr_warmup_steps lr_end lr_power lr_num_cycles
max_train_steps num_train_epochs strict_epoch_limit train_batch_size gradient_accumulation_steps
gradient_checkpointing seed seed_for_each_device resume_from_checkpoint checkpoint_step_interval
checkpoint_epoch_interval checkpoints_total_limit checkpointing_rolling_steps checkpoints_rolling_total_limit
validation_prompt validation_prompt_library user_prompt_library validation_negative_prompt
validation_disable_unconditional validation_guidance validation_guidance_real validation_resolution
validation_num_inference_steps validation_seed validation_seed_source validation_step_interval
validation_epoch_interval validate_after_step validate_after_epoch num_validation_images validation_disable
validation_method validation_external_script validation_external_background validation_preview
validation_preview_steps post_checkpoint_script post_upload_script publishing_config push_to_hub
push_checkpoints_to_hub push_to_hub_background hub_model_id model_card_private model_card_safe_for_work
model_card_note conditioning_multidataset_sampling clip_skip dataloader_prefetch dataloader_prefetch_qlen report_to
tracker_project_name tracker_run_name cache_dir_vae webhook_config webhook_reporting_interval
validation_using_datasets eval_dataset_id evaluation_type use_ema ema_decay ema_device ema_update_interval
max_grad_norm grad_clip_method caption_dropout_probability snr_gamma loss_type flow_schedule_shift output_dir
data_backend_config maximum_image_size target_downsample_size quantization_config ramtorch enable_group_offload
validation_adapter_path validation_adapter_config timestep_bias_portion metadata_update_interval disk_low_action
vae_cache_ondemand delete_invalid_checkpoints checkpointing_use_tempdir override_dataset_config resolution
resolution_type caption_strategy
"""

DATASET_KEYS = """
id type dataset_type disabled instance_data_dir aws_data_prefix caption_strategy disable_multiline_split
ignore_missing_files instance_prompt prepend_instance_prompt only_instance_prompt resolution resolution_type
minimum_image_size maximum_image_size target_downsample_size minimum_aspect_ratio maximum_aspect_ratio
max_num_samples max_upscale_threshold crop crop_style crop_aspect crop_aspect_buckets conditioning_data
conditioning_type source_dataset_id conditioning cache_dir_vae text_embeds default cache_dir write_batch_size
text_encoder_batch_size text_cache_ondemand text_cache_disable metadata_backend repeats probability train_batch_size
vae_cache_ondemand vae_cache_disable vae_cache_clear_each_epoch scan_for_errors skip_file_discovery
is_regularisation_data disable_validation preserve_data_backend_cache start_epoch start_step end_epoch end_step
timestep_sampling_offset caption_shuffle video audio s2v_datasets parquet huggingface
"""


def test_every_option_of_the_contract_is_a_field():
    assert [name for name in CONTRACT.split() if name not in TrainingConfig.model_fields] == []
    assert [name for name in DATASET_KEYS.split() if name not in DatasetEntry.model_fields] == []


def test_every_field_has_a_flag_a_sentence_and_a_section():
    listed = flags()
    assert sorted(flag.name for flag in listed) == sorted(TrainingConfig.model_fields)
    assert all(flag.description.endswith((".", "`.")) and flag.allowed and flag.section for flag in listed)
    assert {flag.name for flag in listed if flag.is_required} == {
        "model_family",
        "model_type",
        "output_dir",
        "data_backend_config",
    }


def test_no_spelling_means_two_things():
    for model in (TrainingConfig, DatasetEntry):
        aliases = [alias for field in model.model_fields.values() for alias in extra_of(field).get("aliases", ())]
        assert len(aliases) == len(set(aliases))
        assert not set(aliases) & set(model.model_fields)
        assert len(spellings(model)) >= len(model.model_fields)
        for field in model.model_fields.values():
            choices, other = choices_of(field), extra_of(field).get("values", {})
            assert [match_choice(str(choice).upper(), choices, other) for choice in choices] == list(choices)
            assert set(other.values()) <= {*map(str, choices), "true"}
            assert set(extra_of(field).get("built", ())) <= set(choices) or not choices


def test_environment_names_lead_to_options():
    assert set(environment_names().values()) == set(TrainingConfig.model_fields)
    assert environment_names()["DATALOADER_CONFIG"] == "data_backend_config"


def test_schemas_are_flat_and_typed():
    schema = training_schema()
    text = json.dumps([schema, dataset_schema()])
    assert "$ref" not in text
    assert "$defs" not in text
    assert set(schema["properties"]) == set(TrainingConfig.model_fields)
    assert schema["required"] == ["data_backend_config", "model_family", "model_type", "output_dir"]
    assert schema["properties"]["model_type"]["enum"] == ["full", "lora"]
    assert schema["properties"]["learning_rate"]["exclusiveMinimum"] == 0
    assert set(dataset_schema()["items"]["properties"]) == set(DatasetEntry.model_fields)


def test_the_page_of_options_is_up_to_date():
    assert main(["--check"]) == 0


def test_importing_the_options_brings_nothing_heavy():
    code = "import sys, flowtuner.options; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "prefect", "fastapi", "numpy", "PIL", "diffusers"} & set(done.stdout.split())
