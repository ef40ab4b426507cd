"""The names and sizes in an Azure container, read without the SDK, which needs half a millisecond for each of them."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote
from xml.etree import ElementTree

from blocks.parts.express import Express

PAGE = "5000"


def list_sizes(express: Express, prefix: str, include: str = "") -> dict[str, int] | None:
    """The sizes of all blobs whose names begin so; None where the SDK has to be asked instead."""
    query = {"restype": "container", "comp": "list", "prefix": prefix, "maxresults": PAGE}
    query |= {"include": include} if include else {}
    found: dict[str, int] = {}
    marker = ""
    while True:
        page = express.fetch(query | ({"marker": marker} if marker else {}))
        if page is None:
            return None
        try:
            root = ElementTree.fromstring(page)
            found |= dict(_read(root))
        except (ElementTree.ParseError, ValueError):
            return None
        marker = root.findtext("NextMarker") or ""
        if not marker:
            return found


def _read(root: ElementTree.Element) -> Iterator[tuple[str, int]]:
    for blob in root.iter("Blob"):
        name = blob.find("Name")
        if name is None or name.text is None:
            raise ValueError("a blob without a name")
        text = unquote(name.text) if name.get("Encoded") == "true" else name.text
        yield text, int(blob.findtext("Properties/Content-Length") or 0)
