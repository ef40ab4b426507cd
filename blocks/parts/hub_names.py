"""What a repository on the Hub may be called, and how URIs name it and what is in it."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import unquote, urlsplit

from blocks.parts.hub_layout import LAST, is_checkpoint

HUB = "https://huggingface.co"
PART = re.compile(r"[A-Za-z0-9_]([\w.-]*[A-Za-z0-9_])?", re.ASCII)
LONGEST = 96
VAGUE = re.compile(r"(my[-_]?)?(model|test|lora|output|checkpoint|final|run|untitled|simpletuner)[-_]?\d*", re.I)


def tidy_id(said: str) -> str:
    """owner/name out of what people write: with spaces around it, or as the address of its page."""
    text = said.strip()
    if "://" in text:
        url = urlsplit(text)
        parts = [part for part in url.path.split("/") if part]
        # hf://owner/name has its owner where an address has the server.
        text = "/".join(([url.netloc] if url.scheme == "hf" else []) + parts)
        text = "/".join(text.split("/")[:2])
    return text.strip("/")


def find_name_faults(repo_id: str) -> list[str]:
    """Everything that is wrong with owner/name."""
    faults = []
    if repo_id.count("/") != 1:
        faults.append("it must be owner/name, with the owner's name in front")
    if re.search(r"\s", repo_id):
        faults.append("it must have no spaces")
    elif not all(PART.fullmatch(part) for part in repo_id.split("/")):
        faults.append("it may have letters, digits, '-', '_' and '.', and neither begin nor end with '-' or '.'")
    if len(repo_id) > LONGEST:
        faults.append(f"it must have at most {LONGEST} characters")
    if "--" in repo_id or ".." in repo_id or repo_id.endswith(".git"):
        faults.append("it must not have '--' or '..' in it, nor end with '.git'")
    return faults


def find_name_doubts(repo_id: str) -> list[str]:
    """What works and will be regretted."""
    doubts = []
    if repo_id != repo_id.lower():
        doubts.append("upper case is discouraged")
    name = repo_id.rpartition("/")[2]
    if VAGUE.fullmatch(name):
        doubts.append(f"{name!r} says nothing about the model; qwen-capybara-sft would")
    return doubts


def read_uri(uri: str) -> tuple[dict[str, Any], str | None] | None:
    """The settings that a URI names, and the checkpoint in it: hf://owner/name[/checkpoint-N], or a page's address."""
    url = urlsplit(uri)
    parts = [unquote(part) for part in url.path.split("/") if part]
    settings: dict[str, Any] = {}
    if url.scheme == "hf":
        parts = [unquote(url.netloc), *parts]
        parts = parts[1:] if parts[0] == "models" else parts
    elif url.scheme in ("http", "https") and f"{url.scheme}://{url.netloc}" in (HUB, os.environ.get("HF_ENDPOINT", "")):
        settings["endpoint"] = f"{url.scheme}://{url.netloc}"
    else:
        return None
    if len(parts) < 2 or find_name_faults("/".join(parts[:2])):
        return None
    owner, name, *inside = parts
    if inside and inside[0] in ("tree", "blob"):
        settings["revision"] = inside[1] if len(inside) > 1 else "main"
        inside = inside[2:]
    checkpoint = inside.pop() if inside and is_checkpoint(inside[-1]) else None
    settings |= {"base_path": "/".join(inside)} if inside else {}
    return {"repo_id": f"{owner}/{name}", **settings}, None if checkpoint == LAST else checkpoint
