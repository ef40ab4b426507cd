"""Where options are said: the config file, the environment, flags, Python values; later sources win."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowtuner.errors import ConfigError, Fault
from flowtuner.options.config import TrainingConfig
from flowtuner.options.documents import Document, display, read_document, read_text
from flowtuner.options.fields import accepts, closest
from flowtuner.options.names import environment_names, find_spelling, is_ignored
from flowtuner.options.origin import Given, Origin
from flowtuner.options.places import Places, packaged_folders

BACKENDS = {"json": "config.json", "toml": "config.toml", "env": "config.env", "cmd": ""}
ENVIRONMENT_VARIABLES = ("SIMPLETUNER_ENVIRONMENT", "SIMPLETUNER_ENV", "ENV")
BACKEND_VARIABLES = ("SIMPLETUNER_CONFIG_BACKEND", "CONFIG_BACKEND", "CONFIG_TYPE")
BOOLEANS = ("true", "false", "1", "0", "yes", "no", "on", "off")

QUOTED = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)")\s*(?:#.*)?""")
COMMENT = re.compile(r"(?:^|\s+)#.*$")

Layer = list[Given]


@dataclass(frozen=True)
class Sources:
    """What was asked for: the arguments of `load`."""

    env: str | None
    config_file: Path | None
    flags: Sequence[str]
    values: Mapping[str, Any] | None
    environ: Mapping[str, str]
    places: Places


def gather(sources: Sources, faults: list[Fault]) -> tuple[list[Layer], Places]:
    """Everything that was said, weakest source first; also where the config file turned out to be."""
    backend = _choose_backend(sources, faults)
    layers: list[Layer] = []
    places = sources.places
    path = _choose_file(sources, backend, faults)
    if path:
        places = replace(places, config_file=path)
        layers.append(_guard(lambda: list(_read_file(path)), faults))
    if backend == "env":
        layers.append(list(_read_environment(sources.environ)))
    layers.append(list(parse_flags(sources.flags, faults)))
    layers.append([Given(str(key), value, Origin("values")) for key, value in (sources.values or {}).items()])
    return layers, places


def _guard(read: Any, faults: list[Fault]) -> Layer:
    try:
        return list(read())
    except ConfigError as error:
        faults.extend(error.faults)
        return []


def _choose_backend(sources: Sources, faults: list[Fault]) -> str:
    variable, backend = _first_set(BACKEND_VARIABLES, sources.environ)
    backend = backend.lower()
    if backend and backend not in BACKENDS:
        faults.append(Fault(variable, backend, "environment variable", "is no backend", ", ".join(BACKENDS)))
        return ""
    return backend


def _choose_file(sources: Sources, backend: str, faults: list[Fault]) -> Path | None:
    if sources.config_file:
        path = sources.places.create(sources.config_file)
        if not os.path.isfile(path):
            faults.append(Fault("config", str(sources.config_file), "", "does not exist", "an existing file"))
            return None
        return path
    asked = sources.env or (_first_set(ENVIRONMENT_VARIABLES, sources.environ)[1] if sources.values is None else "")
    if backend == "cmd":
        return None
    if asked in ("", "default"):
        # Values handed over by a program stand alone: they never pick up a file that happens to lie around.
        return None if sources.values is not None else _find_config(sources.places.config_dir, backend)
    return _find_environment(asked, sources, backend, faults)


def _find_environment(name: str, sources: Sources, backend: str, faults: list[Fault]) -> Path | None:
    folders = [folder / name for folder in (sources.places.config_dir, *packaged_folders())]
    found = next((path for folder in folders if (path := _find_config(folder, backend))), None)
    if found is None and backend != "env":
        known = sorted(path.parent.name for path in sources.places.config_dir.glob("*/config.*"))
        near = closest(name, known)
        wanted = display(folders[0] / (BACKENDS.get(backend) or "config.json"))
        faults.append(
            Fault(
                "env",
                name,
                "" if sources.env else "environment variable ENV",
                f"has no configuration: {wanted} does not exist",
                ", ".join(dict.fromkeys(known)),
                f"Did you mean {near}?" if near else "",
            )
        )
    return found


def _find_config(folder: Path, backend: str) -> Path | None:
    names = [BACKENDS[backend]] if backend else [name for name in BACKENDS.values() if name]
    return next((folder / name for name in names if os.path.isfile(folder / name)), None)


def _first_set(names: Iterable[str], environ: Mapping[str, str]) -> tuple[str, str]:
    return next(((name, environ[name]) for name in names if environ.get(name)), ("", ""))


def _read_file(path: Path) -> Iterator[Given]:
    if path.suffix == ".env":
        yield from _read_env_file(path)
        return
    document = read_document(path, "config")
    yield from _read_mapping(document)


def _read_mapping(document: Document) -> Iterator[Given]:
    if not isinstance(document.value, dict):
        raise ConfigError([Fault("config", None, document.name, "is no object of options", "an object: {...}")])
    for key, value in document.value.items():
        yield Given(key, value, document.origin(key))


def _read_env_file(path: Path) -> Iterator[Given]:
    known = environment_names()
    for number, line in enumerate(read_text(path, "config").splitlines(), 1):
        text = line.strip().removeprefix("export ").strip()
        name, sign, value = text.partition("=")
        origin = Origin("file", f"{display(path)}, line {number}")
        if not sign or text.startswith("#"):
            continue
        if name.strip() == "TRAINER_EXTRA_ARGS":
            yield from _read_extra_flags(_unquote(value), origin)
        elif name.strip() in known:
            yield Given(known[name.strip()], _unquote(value), origin)


def _read_extra_flags(text: str, origin: Origin) -> Iterator[Given]:
    faults: list[Fault] = []
    try:
        flags = list(parse_flags(shlex.split(text), faults))
    except ValueError as error:
        faults.append(Fault("TRAINER_EXTRA_ARGS", text, str(origin), f"cannot be split into flags: {error}"))
    if faults:
        raise ConfigError([replace(fault, origin=str(origin)) for fault in faults])
    yield from (replace(given, origin=origin) for given in flags)


def _unquote(text: str) -> str:
    # As a shell reads the line: quotes go, and so does a comment after the value.
    if found := QUOTED.fullmatch(text):
        return found[1] or found[2] or ""
    return COMMENT.sub("", text).strip()


def _read_environment(environ: Mapping[str, str]) -> Iterator[Given]:
    for variable, name in environment_names().items():
        if variable in environ:
            yield Given(name, environ[variable], Origin("environment", f"environment variable {variable}"))


def parse_flags(flags: Sequence[str], faults: list[Fault]) -> Iterator[Given]:
    """The options that command line flags set, as written."""
    rest = list(flags)
    while rest:
        flag = rest.pop(0)
        name, sign, value = flag.partition("=")
        if not flag.startswith("--") or name == "--":
            hint = f"Write --{flag}." if sign and find_spelling(name) else "Flags look like --name=value."
            faults.append(Fault(flag, None, "command line", "is no flag", suggestion=hint))
            continue
        origin = Origin("flag", f"flag {name}")
        if sign:
            yield Given(name, value, origin)
        elif rest and _takes_next(name, rest[0]):
            yield Given(name, rest.pop(0), origin)
        elif _may_stand_alone(name):
            yield Given(name, True, origin)
        else:
            faults.append(Fault(name.lstrip("-"), None, str(origin), "needs a value", suggestion=f"Write {name}=..."))


def _takes_next(name: str, following: str) -> bool:
    if following.startswith("--"):
        return False
    return not _may_stand_alone(name) or is_ignored(name) or following.lower() in BOOLEANS


def _may_stand_alone(name: str) -> bool:
    spelling = find_spelling(name)
    return spelling is None or accepts(TrainingConfig.model_fields[spelling.option], bool)
