"""Shared links: the one that a folder has already, else a new one, and what a link leads to."""

from __future__ import annotations

from dropbox import exceptions

from blocks.parts.dropbox_calls import Calls
from blocks.parts.dropbox_errors import tags_of


def share(calls: Calls, path: str) -> str:
    """The shared link of a folder."""
    if found := _find(calls, path):
        return found
    try:
        made: str = calls("sharing_create_shared_link_with_settings", path).url
    except exceptions.ApiError as error:
        known = _find(calls, path) if tags_of(error)[:1] == ["shared_link_already_exists"] else None
        if known is None:
            raise
        return known
    return made


def path_of_link(calls: Calls, link: str) -> str | None:
    """The path in this account that a shared link leads to."""
    lower = calls("sharing_get_shared_link_metadata", link).path_lower
    return str(calls("files_get_metadata", lower).path_display) if lower else None


def _find(calls: Calls, path: str) -> str | None:
    try:
        found = calls("sharing_list_shared_links", path, direct_only=True).links
    except exceptions.AuthError as error:
        if tags_of(error)[:1] == ["missing_scope"]:  # it may still make one
            return None
        raise
    return str(found[0].url) if found else None
