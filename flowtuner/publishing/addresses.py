"""What URIs name: published units below the URI of a destination."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import SplitResult, unquote, urlsplit

from flowtuner.publishing.destination import Place
from flowtuner.publishing.manifest import CHECKPOINT_NAME


def place_below(root: str, uri: str) -> tuple[str, Place] | None:
    """The base path and the unit that a URI names below a root; None if it lies elsewhere."""
    above, there = urlsplit(root), urlsplit(uri)
    if _server(above) != _server(there):
        return None
    start, parts = path_parts(above.path), path_parts(there.path)
    if parts[: len(start)] != start:
        return None
    return split_place(parts[len(start) :])


def split_place(parts: list[str]) -> tuple[str, Place] | None:
    """The base path and the unit behind the parts of a path; None if they name no run."""
    name = parts[-1] if parts and CHECKPOINT_NAME.fullmatch(parts[-1]) else None
    above = parts[:-1] if name else parts
    return ("/".join(above[:-1]), Place(above[-1], name)) if above else None


def path_parts(path: str) -> list[str]:
    """The decoded parts of a URI's path."""
    return [unquote(part) for part in PurePosixPath(path).parts if part != "/"]


def _server(uri: SplitResult) -> tuple[str, str]:
    return uri.scheme.lower(), uri.netloc.lower()
