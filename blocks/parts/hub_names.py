"""What a repository on the Hub may be called."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

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
