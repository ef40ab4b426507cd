"""Loads parts of a model through their own libraries and turns what they raise into one kind of error."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from flowtuner.durable import write_json
from flowtuner.engine.families.parts.source import INDEX, is_listed, read_object
from flowtuner.engine.formats import find_text_precision
from flowtuner.errors import ModelError

if TYPE_CHECKING:
    import torch

    from flowtuner.engine.families.parts.pipeline import Part, PipelineFamily
    from flowtuner.engine.family import Family

PART_FILES = ("*.json", "*.safetensors", "*.bin")


@contextlib.contextmanager
def loading(family: Family, part: str, elsewhere: str | None = None) -> Iterator[None]:
    """Checks a local source, keeps libraries quiet and turns their errors into ModelError naming source and part."""
    source = elsewhere or _source_of(family, part)
    folder = Path(source).expanduser()
    # Some loaders make up what is missing (an empty tokenizer, say), so the folder is looked at first.
    is_whole = folder.is_dir() and not elsewhere and _find_given(family, part) is None
    faults = family.check_source(folder) if is_whole else []
    if faults:
        raise ModelError(f"{part} of {source} cannot be loaded: {'; '.join(faults)}. {_advise(folder)}")
    try:
        with muted_deprecations():
            yield
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{part} of {source} cannot be loaded: {reason} {_advise(folder)}") from error


@contextlib.contextmanager
def muted_deprecations() -> Iterator[None]:
    """Keeps quiet what libraries say about each other's old habits; nobody here can act on it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", message=".*deprecated")
        yield


def origin_of(family: Family, part: str) -> dict[str, Any]:
    """The arguments of `from_pretrained` that say which part of which version of which source is meant."""
    if given := _find_given(family, part):
        subfolder = given.subfolder or _find_subfolder(given.source, part)
        return {"pretrained_model_name_or_path": given.source} | ({"subfolder": subfolder} if subfolder else {})
    source = _source_of(family, part)
    origin: dict[str, Any] = {"pretrained_model_name_or_path": source, "subfolder": part}
    if source != family.source:
        return origin
    wanted = {"revision": family.config.revision, "variant": family.config.variant}
    if part == "scheduler" or part.startswith("tokenizer"):
        del wanted["variant"]  # a variant is one of weights
    return origin | {name: value for name, value in wanted.items() if value}


def load_part(family: PipelineFamily, name: str, dtype: torch.dtype, device: torch.device) -> Any:
    """One part of the source: a tokenizer, or a model in evaluation mode; None if an optional one is not there."""
    part = family.parts[name]
    if part.is_optional and not _is_there(family, name):
        return None
    library = importlib.import_module(part.library)
    with loading(family, name):
        origin = origin_of(family, name)
        if name.startswith("tokenizer"):
            return getattr(library, part.loads).from_pretrained(**origin)
        kind = "dtype" if part.library == "transformers" else "torch_dtype"
        module = getattr(library, part.loads).from_pretrained(**origin, **{kind: dtype})
    if name.startswith("text_encoder"):
        return _stand_text_encoder(family, name, module.to(device).eval())
    return module.to(device).eval()


def build_part(family: PipelineFamily, name: str, dtype: torch.dtype, device: torch.device) -> Any:
    """A part as its configuration has it, with random weights; on the meta device with none."""
    import diffusers
    import torch

    settings, usual = read_settings(family, name), torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # at once in its own format: in float32 a large model might not fit
    try:
        with device, loading(family, name):
            return getattr(diffusers, family.parts[name].loads).from_config(settings).eval()
    finally:
        torch.set_default_dtype(usual)


def _stand_text_encoder(family: PipelineFamily, name: str, module: Any) -> Any:
    precision = find_text_precision(family.config, name)
    if precision == "no_change":
        return module
    from flowtuner.engine.quantize import PLAIN_DTYPES, quantise

    if precision in PLAIN_DTYPES:
        return module.to(PLAIN_DTYPES[precision])
    return quantise(module, precision, option="text_encoder precision")


def read_settings(family: PipelineFamily, part: str) -> dict[str, Any]:
    """A diffusers model's configuration, without the model."""
    import diffusers

    with loading(family, part):
        settings: dict[str, Any] = getattr(diffusers, family.parts[part].loads).load_config(**origin_of(family, part))
    return settings


def load_scheduler(family: Family) -> Any:
    """The source's own sampler, of whatever class its configuration names."""
    import diffusers

    with loading(family, "scheduler"):
        # Any scheduler class reads the file alike; the file says which one is meant.
        config = diffusers.DDPMScheduler.load_config(**origin_of(family, "scheduler"))
        return getattr(diffusers, config["_class_name"]).from_config(config)


def locate_folder(family: Family) -> Path:
    """The parts beside the trained one as a local folder; a Hub id is completed in the Hub cache first."""
    folder = Path(family.companions).expanduser()
    if folder.is_dir():
        return folder
    from diffusers import DiffusionPipeline

    options = origin_of(family, family.component) if family.companions == family.source else {}
    wanted = {name: value for name, value in options.items() if name in ("revision", "variant")}
    with loading(family, "the pipeline"):
        return Path(DiffusionPipeline.download(str(family.companions), **wanted))


def find_replaced(family: Family) -> dict[str, Path]:
    """The folders of the parts that options take from elsewhere; a Hub id is completed in the Hub cache first."""
    names: Mapping[str, Part] = getattr(family, "parts", {})
    return {name: _locate(family, name) for name in names if name != family.component and _find_given(family, name)}


def copy_other_parts(source: Path, target: Path, trained: str, model: Any, replaced: Mapping[str, Path]) -> None:
    """Copies a pipeline folder except for the part that was trained, whose class the index then names."""
    target.mkdir(parents=True, exist_ok=True)
    parts = {path.name: path for path in sorted(source.iterdir()) if path.is_dir() and not path.name.startswith(".")}
    for name, path in (parts | dict(replaced)).items():
        if name != trained:
            # Follows the Hub cache's links; a part from elsewhere may lie among other things.
            ignore = _ignore_strangers if name in replaced else None
            shutil.copytree(path, target / name, dirs_exist_ok=True, ignore=ignore)
    index = read_object(source / INDEX)
    index[trained] = ["diffusers", type(model).__name__]  # older sources carry the name of an older class
    write_json(target / INDEX, index)


def _is_there(family: Family, part: str) -> bool:
    return is_listed(read_object(locate_folder(family) / INDEX), part)


@dataclass(frozen=True)
class _Given:
    source: str
    subfolder: str | None = None


def _find_given(family: Family, part: str) -> _Given | None:
    """Where an option says that a part is to come from."""
    config = family.config
    places = {
        "vae": (config.pretrained_vae_model_name_or_path, None),
        "transformer": (config.pretrained_transformer_model_name_or_path, config.pretrained_transformer_subfolder),
        "unet": (config.pretrained_unet_model_name_or_path, config.pretrained_unet_subfolder),
    }
    kinds: Mapping[str, Part] = getattr(family, "parts", {})
    if part in kinds and kinds[part].loads == "T5EncoderModel":
        places[part] = (config.pretrained_t5_model_name_or_path, None)
    source, subfolder = places.get(part, (None, None))
    return _Given(source, subfolder) if source else None


def _find_subfolder(source: str, part: str) -> str | None:
    """A part lies in a folder of its name, or is all that there is."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return part if (folder / part).is_dir() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        hf_hub_download(source, "config.json", subfolder=part)
    except EntryNotFoundError:
        return None
    return part


def _locate(family: Family, name: str) -> Path:
    with loading(family, name):
        origin = origin_of(family, name)
        source, inside = str(origin["pretrained_model_name_or_path"]), str(origin.get("subfolder", ""))
        folder = Path(source).expanduser()
        if not folder.is_dir():
            from huggingface_hub import snapshot_download

            wanted = [f"{inside}/{end}" if inside else end for end in PART_FILES]
            folder = Path(snapshot_download(source, allow_patterns=wanted))
    return folder / inside


def _ignore_strangers(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(".") or Path(folder, name).is_dir()]


def _source_of(family: Family, part: str) -> str | Path:
    if given := _find_given(family, part):
        return given.source
    return family.source if part == family.component else family.companions


def _advise(folder: Path) -> str:
    if folder.is_dir():
        return "Check the folder with `flowtuner check`, or download it again."
    return (
        "Check the name, the network, and for a gated model that HF_TOKEN is set and access was granted; "
        "or give a local folder in diffusers layout."
    )
