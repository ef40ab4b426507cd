"""Everything that can be known before the first step, found in seconds and without torch."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from flowtuner.engine import families
from flowtuner.engine.checkpoints import (
    check_identity,
    find_resume_point,
    identity_of,
    is_address,
    list_checkpoints,
    read_state,
)
from flowtuner.engine.data.inspection import inspect_data
from flowtuner.engine.data.settings import (
    CONTROLNET_TYPE,
    picture_entries,
    reference_entries,
)
from flowtuner.engine.estimate import estimate_checkpoint, find_shortage
from flowtuner.engine.findings import Finding
from flowtuner.engine.formats import has_cuda
from flowtuner.engine.limits import find_limits
from flowtuner.engine.sizing.report import format_size
from flowtuner.engine.trackers import SERVICES, find_obstacle
from flowtuner.errors import CheckpointError, ConfigError
from flowtuner.options import LoadedConfig, TrainingConfig

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
MARGIN_BYTES = 256 << 20
LEAST_PRODIGY_RATE = 0.1
# Options that are not carried out yet and whose silent absence would train another model, or lose the one trained.
NOT_WITHOUT = {
    "control": "a control model is to be trained",
    "train_text_encoder": "the text encoder is to be trained",
    "distillation_method": "a model is to be distilled",
    "deepspeed_config": "DeepSpeed is to train",
    "num_machines": "several machines are to train",
    "conditioning_type": "the set is to condition another one in this way",
    "conditioning": "references are to be made from the pictures",
    "dataset_type": "sets of this type are to be trained on",
    "type": "the data lies elsewhere",
}


def inspect_run(loaded: LoadedConfig) -> list[Finding]:
    """Looks at everything a run needs; errors mean that it must not start."""
    config = loaded.config
    findings = [
        *_inspect_model(config),
        *_inspect_control(loaded),
        *_inspect_pairs(loaded),
        *_inspect_regularisation(loaded),
        *(Finding("error", "options", str(fault)) for fault in find_limits(config)),
        *_inspect_optimizer(config),
        *_inspect_offload(config),
        *(Finding("error", "memory", *shortage) for shortage in (find_shortage(config),) if shortage),
        *_inspect_output(config),
        *_inspect_resume(config),
    ]
    if not any(finding.check == "output_dir" for finding in findings):
        findings += inspect_data(loaded)
    findings += _inspect_accepted(loaded)
    findings += _inspect_trackers(loaded.config)
    findings += [Finding("warning", "options", warning) for warning in loaded.warnings]
    return findings


def _inspect_model(config: TrainingConfig) -> Iterator[Finding]:
    try:
        family = families.open_family(config.model_family)
        source = families.choose_source(config)
    except ConfigError as error:
        yield from (Finding("error", fault.option, str(fault)) for fault in error.faults)
        return
    yield from (Finding("error", fault.option, str(fault)) for fault in family.find_limits(config))
    if config.snr_gamma and family.prediction == "flow_matching":
        yield Finding("warning", "snr_gamma", "snr_gamma has no effect on a family that is trained by flow matching.")
    if config.clip_skip and not family.takes_clip_skip:
        yield Finding("warning", "clip_skip", f"clip_skip has no effect on {family.name}, whose text is not CLIP's.")
    folder = Path(source).expanduser()
    if folder.is_dir():
        for fault in family.check_source(folder):
            yield Finding("error", "pretrained_model_name_or_path", f"{fault}.")
    elif folder.exists():
        yield Finding(
            "error",
            "pretrained_model_name_or_path",
            f"{source} is a file.",
            "Give a folder in diffusers layout (with model_index.json) or a Hub id such as owner/name.",
        )
    elif source.startswith(("/", ".", "~")) or not HUB_ID.fullmatch(source):
        yield Finding(
            "error",
            "pretrained_model_name_or_path",
            f"{source} does not exist and is not a Hub id.",
            "Give an existing folder in diffusers layout or a Hub id such as owner/name.",
        )


def _inspect_control(loaded: LoadedConfig) -> Iterator[Finding]:
    config = loaded.config
    kinds = {entry.conditioning_type for entry in reference_entries(loaded.datasets)}
    if not config.controlnet:
        if CONTROLNET_TYPE in kinds:
            yield Finding("error", "conditioning_type", "controlnet pictures train a ControlNet.", "Set controlnet.")
        return
    able = [name for name in families.supported() if families.open_family(name).control_pipeline]
    if config.model_family not in able:
        problem = f"no ControlNet can be trained for {config.model_family}."
        yield Finding("error", "controlnet", problem, f"Families that can: {', '.join(able)}.")
    if config.model_type != "full":
        problem = "a ControlNet is trained whole, beside a frozen model."
        yield Finding("error", "controlnet", problem, "Set model_type to full.")
    if kinds != {CONTROLNET_TYPE}:
        problem = "a ControlNet is trained on pictures of conditioning_type controlnet alone."
        yield Finding("error", "controlnet", problem, "Add such a set and name it in conditioning_data.")


def _inspect_pairs(loaded: LoadedConfig) -> Iterator[Finding]:
    pairs = [entry.id for entry in reference_entries(loaded.datasets)]
    if not pairs:
        return
    try:
        source = families.choose_source(loaded.config)
        family = families.open_family(loaded.config.model_family)(source, loaded.config)
    except ConfigError:
        return  # said where the model is looked at
    if not family.takes_references:
        yield Finding(
            "error",
            "conditioning_data",
            f"dataset {', '.join(pairs)} holds pictures to draw others after, and {source} draws from text alone.",
            "Choose a model that edits pictures (model_family flux, model_flavour kontext) or leave it out.",
        )


def _inspect_regularisation(loaded: LoadedConfig) -> Iterator[Finding]:
    held = [entry.id for entry in loaded.datasets if entry.is_regularisation_data]
    if not held:
        return
    if loaded.config.model_type == "full":
        yield Finding(
            "error",
            "is_regularisation_data",
            f"dataset {', '.join(held)} is to be answered as the untrained model does, which a full fine-tune forgets.",
            "Train an adapter (model_type lora), or leave is_regularisation_data out: then its pictures are targets.",
        )
    elif all(entry.is_regularisation_data for entry in picture_entries(loaded.datasets)):
        yield Finding(
            "error",
            "is_regularisation_data",
            "it is true for every dataset, so nothing new would be learnt.",
            "Leave it out of the dataset that is to be learnt.",
        )


def _inspect_output(config: TrainingConfig) -> Iterator[Finding]:
    output = Path(config.output_dir)
    ground = next(path for path in (output, *output.parents) if path.exists())
    if not ground.is_dir():
        yield Finding("error", "output_dir", f"{ground} is a file.", "Choose a folder.")
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=output, prefix=".probe"):
            pass
    except OSError as error:
        yield Finding("error", "output_dir", f"{output} cannot be written: {error.strerror}.", "Choose another folder.")
        return
    yield from _inspect_disk(config, output)


def _inspect_disk(config: TrainingConfig, output: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(output).free
    one = estimate_checkpoint(config)
    # One checkpoint more than are kept, since the new one is written first.
    needed = one * ((config.checkpoints_total_limit or 10) + 1) + MARGIN_BYTES
    if free < one + MARGIN_BYTES:
        yield Finding(
            "error",
            "disk",
            f"{output} has {format_size(free)} free; one checkpoint needs about {format_size(one)}.",
            "Free space or choose another output_dir.",
        )
    elif free < needed:
        yield Finding(
            "warning",
            "disk",
            f"{output} has {format_size(free)} free; {config.checkpoints_total_limit or 'all'} checkpoints may need "
            f"{format_size(needed)}.",
            "Lower checkpoints_total_limit or free space.",
        )


def _inspect_optimizer(config: TrainingConfig) -> Iterator[Finding]:
    if config.optimizer == "prodigy" and config.learning_rate < LEAST_PRODIGY_RATE:
        yield Finding(
            "warning",
            "learning_rate",
            f"prodigy finds the rate itself and multiplies it by learning_rate, which is {config.learning_rate:g}.",
            "1.0 is usual.",
        )
    if config.optimizer.startswith("adamw_schedulefree") and not config.lr_scheduler.startswith("constant"):
        yield Finding(
            "warning",
            "lr_scheduler",
            f"{config.optimizer} needs no schedule: the rate stays at learning_rate after the warmup, "
            f"{config.lr_scheduler} is left out.",
            "Say constant_with_warmup.",
        )


def _inspect_offload(config: TrainingConfig) -> Iterator[Finding]:
    if not config.enable_group_offload:
        return
    if not has_cuda():
        problem = "enable_group_offload has no effect without a GPU: all weights are in main memory anyway."
        yield Finding("warning", "enable_group_offload", problem)
    elif not config.gradient_checkpointing:
        problem = "without gradient_checkpointing the weights stay on the GPU until the backward pass is through."
        yield Finding("warning", "enable_group_offload", problem, "Turn gradient_checkpointing on.")


def _inspect_resume(config: TrainingConfig) -> Iterator[Finding]:
    output, wanted = Path(config.output_dir), config.resume_from_checkpoint
    present = list_checkpoints(output)
    if not wanted and present:
        yield Finding(
            "error",
            "resume_from_checkpoint",
            f"a fresh start was asked for, but {output} already holds {present[-1].name}.",
            "Choose another output_dir, or --resume_from_checkpoint=latest to go on from it.",
        )
        return
    if is_address(wanted):
        return  # whoever knows the destinations looks there
    passed_over: list[str] = []
    try:
        # Bytes are proven when the engine loads them; here a look at names and sizes has to do.
        point = find_resume_point(output, wanted, passed_over.append, hashes=False)
        if point:
            check_identity(read_state(point), identity_of(config), point)
    except CheckpointError as error:
        yield Finding("error", "resume_from_checkpoint", str(error))
    for warning in passed_over:
        yield Finding("warning", "resume_from_checkpoint", warning)


def _inspect_accepted(loaded: LoadedConfig) -> Iterator[Finding]:
    for name in loaded.accepted_only():
        option = name.split(": ")[-1].split("=")[0]
        if option == "report_to":
            yield Finding("warning", option, f"{name}: of the trackers, it knows tensorboard, wandb and comet_ml.")
            continue
        if option in NOT_WITHOUT:
            yield Finding(
                "error", option, f"{name}: {NOT_WITHOUT[option]}, and this version cannot do it.", "Leave it out."
            )
        else:
            yield Finding("warning", option, f"{name} is understood but has no effect in this version.")


def _inspect_trackers(config: TrainingConfig) -> Iterator[Finding]:
    for name, service in SERVICES.items():
        obstacle = find_obstacle(name) if name in config.report_to.split(",") else None
        if obstacle:
            problem, remedy = obstacle
            warning = f"{service} will not be told of this run: {problem}."
            yield Finding("warning", "report_to", warning, f"To have it: {remedy}.")
