"""Says why a picture or a prompt is in the cache, or why not (read without torch)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flowtuner.engine.cache.keys import latent_key, latent_origin, text_key, text_origin
from flowtuner.engine.cache.shards import Origin, Shard, list_shards
from flowtuner.engine.data.files import PICTURE_SUFFIXES
from flowtuner.engine.data.sample import Sample, Scan

PIXELS = "pixels"
CHANGES = {
    "content": "its bytes changed",
    "plan": "its plan changed: {old} -> {new}",
    "vae": "the VAE's weights changed",
    "encoder": "the text encoder or its tokenizer changed",
    "max_tokens": "the longest prompt changed: {old} -> {new} tokens",
    "dtype": "the number format changed: {old} -> {new}",
}


Related = Callable[[Origin], bool]


@dataclass(frozen=True)
class CacheIdentity:
    """What decides the keys besides pictures and prompts: fingerprints, number formats, where the stores are."""

    latent_roots: Mapping[str, Path]
    text_root: Path
    vae: str
    vae_dtype: str
    encoder: str
    text_dtype: str
    max_tokens: int
    as_pixels: frozenset[str] = frozenset()
    """Datasets whose pictures are kept as they are: a ControlNet sees pixels."""

    def vae_of(self, dataset_id: str) -> str:
        """What encodes the pictures of a dataset."""
        return PIXELS if dataset_id in self.as_pixels else self.vae


@dataclass(frozen=True)
class Explanation:
    """One answer: found in this shard and row, or not found for this reason."""

    kind: str
    subject: str
    is_hit: bool
    reason: str
    shard: Path | None = None
    row: int | None = None

    def __str__(self) -> str:
        where = f" ({self.shard.name}, row {self.row})" if self.shard else ""
        return f"{self.kind} {'hit' if self.is_hit else 'miss'}: {self.subject}: {self.reason}{where}"


def explain(subject: str, scan: Scan, identity: CacheIdentity) -> list[Explanation]:
    """Explains a picture (its latent and its captions) or, if it is no picture's path, a prompt."""
    known = (each for sample in scan.samples for each in (sample, *sample.references))
    samples = [sample for sample in dict.fromkeys(known) if _is_same_file(sample.path, subject)]
    answers = [explain_picture(sample, identity) for sample in samples]
    captions = dict.fromkeys(caption for sample in samples for caption in sample.captions)
    answers += [explain_prompt(caption, identity) for caption in captions]
    answers += [
        Explanation("latent", fault.path, False, f"quarantined because {fault.reason}")
        for fault in scan.quarantined
        if _is_same_file(fault.path, subject)
    ]
    if answers:
        return answers
    if os.path.splitext(subject)[1].lower() in PICTURE_SUFFIXES:
        why = "it is in no enabled dataset" if os.path.exists(subject) else "there is no such file"
        return [Explanation("latent", subject, False, why)]
    return [explain_prompt(subject, identity)]


def explain_picture(sample: Sample, identity: CacheIdentity) -> Explanation:
    """Says where a sample's latent is, or what changed since it was cached."""
    key = latent_key(sample.content, sample.plan, identity.vae_of(sample.dataset_id), identity.vae_dtype)
    origin = latent_origin(sample, identity.vae_of(sample.dataset_id), identity.vae_dtype)
    root = identity.latent_roots[sample.dataset_id]
    missed = Explanation("latent", sample.path, False, "never cached")
    return _look_up(missed, root, key, origin, lambda old: _is_of_picture(old, origin))


def explain_prompt(prompt: str, identity: CacheIdentity) -> Explanation:
    """Says where a prompt's embedding is, or what changed since it was cached."""
    key = text_key(prompt, identity.encoder, identity.max_tokens, identity.text_dtype)
    origin = text_origin(prompt, identity.encoder, identity.max_tokens, identity.text_dtype)
    missed = Explanation("text", prompt, False, "never cached")
    return _look_up(missed, identity.text_root, key, origin, lambda old: old.get("prompt") == prompt)


def _look_up(missed: Explanation, root: Path, key: str, wanted: Origin, is_related: Related) -> Explanation:
    shards, damaged = list_shards(root)
    nearest: list[str] | None = None
    # Newest first: of rows that are equally near, the latest tells what changed last.
    for shard in reversed(shards):
        for group, keys in enumerate(shard.keys):
            if key in keys:
                return _hit(missed, shard, group, keys.index(key))
        for old in (origin for group in shard.origins() for origin in group):
            if not is_related(old):
                continue
            changes = _list_changes(old, wanted)
            if nearest is None or len(changes) < len(nearest):
                nearest = changes
    reason = "; ".join(nearest) if nearest else missed.reason
    if damaged:
        reason += f"; {len(damaged)} damaged files in {root} were passed over"
    return replace(missed, reason=reason)


def _hit(missed: Explanation, shard: Shard, group: int, row: int) -> Explanation:
    source = shard.origins()[group][row].get("path", missed.subject)
    reason = "cached" if source == missed.subject else f"cached, with the same bytes as {source}"
    # Rows are counted through all groups of the shard, as a person would count them.
    place = sum(len(keys) for keys in shard.keys[:group]) + row
    return replace(missed, is_hit=True, reason=reason, shard=shard.path, row=place)


def _list_changes(old: Origin, wanted: Origin) -> list[str]:
    return [
        sentence.format(old=old.get(name, "unknown"), new=wanted[name])
        for name, sentence in CHANGES.items()
        if name in wanted and old.get(name) != wanted[name]
    ]


def _is_of_picture(old: Origin, wanted: Origin) -> bool:
    return old.get("path") == wanted["path"] or old.get("content") == wanted["content"]


def _is_same_file(path: str, subject: str) -> bool:
    return path == os.path.abspath(subject) or os.path.realpath(path) == os.path.realpath(subject)
