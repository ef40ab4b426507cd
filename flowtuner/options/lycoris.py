"""The settings of a LyCORIS network: the built-in ones, and what is wrong with somebody's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from flowtuner.errors import Fault
from flowtuner.options.fields import closest

OPTION = "lycoris_config"
REQUIRED = ("algo", "multiplier", "linear_alpha")
ALGORITHMS = ("lokr", "loha", "lora", "locon", "full", "glora", "diag-oft", "boft")
ADDING_ALGORITHMS = ("lokr", "loha", "lora", "locon", "glora")
"""Those that can add their answer to a layer's own, instead of rebuilding its weight."""
UNBUILT = MappingProxyType(
    {
        "dylora": "it draws another rank at each step from a generator that no checkpoint can keep",
        "ia3": "the library writes files of it that it cannot read",
        "tlora": "its rank follows the timestep, which the layers are not told",
    }
)
WHOLE_NUMBERS = ("linear_dim", "conv_dim", "block_size", "factor")
NUMBERS = ("multiplier", "linear_alpha", "conv_alpha", "constraint")
SHARES = ("dropout", "rank_dropout", "module_dropout")
SWITCHES = (
    "bypass_mode", "decompose_both", "dora_wd", "full_matrix", "rescaled", "train_norm", "unbalanced_factorization",
    "use_scalar", "use_tucker", "wd_on_output",
)  # fmt: skip
OLD_NAMES = MappingProxyType(
    {"use_cp": "use_tucker", "use_conv_cp": "use_tucker", "constrain": "constraint", "weight_decompose": "dora_wd"}
)
PRESET = "apply_preset"
PRESET_NAMES = ("target_module", "target_name", "exclude_name")
PRESET_MAPS = ("module_algo_map", "name_algo_map")
PRESET_KEYS = (*PRESET_NAMES, *PRESET_MAPS, "enable_conv", "use_fnmatch", "lora_prefix")
OF_SOME_LAYERS = ("algo", "dim", "alpha", *WHOLE_NUMBERS, *NUMBERS, *SWITCHES, *OLD_NAMES)
KEYS = ("algo", *WHOLE_NUMBERS, *NUMBERS, *SHARES, *SWITCHES, *OLD_NAMES, PRESET)

BUILT_IN: Mapping[str, Any] = MappingProxyType(
    {
        "algo": "lokr",
        "multiplier": 1.0,
        "full_matrix": True,
        "linear_alpha": 1,
        "factor": 16,
        PRESET: {
            "target_module": ["Attention", "FeedForward"],
            "module_algo_map": {"Attention": {"factor": 16}, "FeedForward": {"factor": 8}},
        },
    }
)


def settings_of(value: Any) -> dict[str, Any]:
    """The settings of a run under their present names: those given, or the built-in ones."""
    given = value if isinstance(value, Mapping) else BUILT_IN
    return {OLD_NAMES.get(name, name): setting for name, setting in given.items()}


def algorithms_of(settings: Mapping[str, Any]) -> set[str]:
    """Every algorithm that some layer gets."""
    preset = settings.get(PRESET) or {}
    own = (layers for name in PRESET_MAPS for layers in (preset.get(name) or {}).values())
    return {str(settings["algo"]).lower(), *(str(one["algo"]).lower() for one in own if "algo" in one)}


def find_lycoris_faults(value: Any, origin: str) -> list[Fault]:
    """Everything that is wrong with LyCORIS settings, without the library."""
    if not isinstance(value, Mapping):
        return [Fault(OPTION, None, origin, "is no object of settings", "{...}")]
    return [Fault(OPTION, given, origin, problem, allowed) for given, problem, allowed in _find_all(value)]


Finding = tuple[Any, str, str]


def _find_all(value: Mapping[str, Any]) -> Iterator[Finding]:
    missing = [name for name in REQUIRED if name not in value]
    if not value.get("full_matrix") and "linear_dim" not in value and value.get("algo") != "full":
        missing.append("linear_dim")
    if missing:
        yield None, f"lacks {', '.join(missing)}", f"{', '.join(REQUIRED)}, and linear_dim unless full_matrix is true"
    yield from _find_wrong("", value, KEYS)
    preset = value.get(PRESET)
    if preset is None:
        return
    if not isinstance(preset, Mapping):
        yield preset, f"{PRESET} is no object", ", ".join(PRESET_KEYS)
        return
    yield from _find_preset_faults(preset)


def _find_preset_faults(preset: Mapping[str, Any]) -> Iterator[Finding]:
    yield from _find_unknown(f"{PRESET}.", preset, PRESET_KEYS)
    for name in PRESET_NAMES:
        names = preset.get(name, [])
        if not isinstance(names, list) or not all(isinstance(one, str) and one for one in names):
            yield names, f"{PRESET}.{name} is no list of names", '["Attention", ...]'
    for name in PRESET_MAPS:
        layers = preset.get(name, {})
        if not isinstance(layers, Mapping) or not all(isinstance(own, Mapping) for own in layers.values()):
            yield layers, f"{PRESET}.{name} is no object of objects", '{"Attention": {"factor": 16}, ...}'
            continue
        for layer, own in layers.items():
            yield from _find_wrong(f"{PRESET}.{name}.{layer}.", own, OF_SOME_LAYERS)


def _find_wrong(place: str, settings: Mapping[str, Any], known: tuple[str, ...]) -> Iterator[Finding]:
    yield from _find_unknown(place, settings, known)
    algorithm = settings.get("algo")
    if algorithm is not None and str(algorithm).lower() not in ALGORITHMS:
        why = UNBUILT.get(str(algorithm).lower())
        problem = f"{place}algo cannot be trained: {why}" if why else f"{place}algo is none that is known"
        yield algorithm, problem, ", ".join(ALGORITHMS)
    for name in (*WHOLE_NUMBERS, "dim"):
        if name in settings and (
            not _is_number(settings[name], int) or settings[name] < (-1 if name == "factor" else 1)
        ):
            yield settings[name], f"{place}{name} is no size", "a whole number from 1"
    for name in (*NUMBERS, "alpha"):
        if name in settings and (not _is_number(settings[name], int, float) or settings[name] < 0):
            yield settings[name], f"{place}{name} is no strength", "a number from 0"
    for name in SHARES:
        if name in settings and (not _is_number(settings[name], int, float) or not 0 <= settings[name] < 1):
            yield settings[name], f"{place}{name} is no share", "a number from 0 below 1"
    for name in SWITCHES:
        if name in settings and settings[name] is not None and not isinstance(settings[name], bool):
            yield settings[name], f"{place}{name} is no switch", "true or false"


def _find_unknown(place: str, settings: Mapping[str, Any], known: tuple[str, ...]) -> Iterator[Finding]:
    for name in settings:
        if name not in known:
            near = closest(str(name), known)
            yield None, f"{place}{name} is no setting" + (f"; {near} is one" if near else ""), ", ".join(known)


def _is_number(value: Any, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)
