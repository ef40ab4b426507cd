"""Names for encoded rows: everything that decides their numbers, hashed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from flowtuner import durable
from flowtuner.engine.cache.shards import Origin
from flowtuner.engine.data.files import stamp_of
from flowtuner.engine.data.memo import Memo
from flowtuner.engine.data.sample import Plan, Sample
from flowtuner.errors import ModelError

MEMO_FILE = "fingerprints.sqlite"
MEMO_VERSION = 1
COMPONENT_SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".json", ".model", ".txt", ".gguf"})


def text_key(prompt: str, encoder: str, max_tokens: int, dtype: str) -> str:
    """The key of an encoded prompt; `encoder` is the fingerprint of text encoder and tokenizer."""
    return _hash("text", prompt, encoder, max_tokens, dtype)


def latent_key(content: str, plan: Plan, vae: str, dtype: str) -> str:
    """The key of an encoded picture; `content` is the hash of its bytes, `vae` the autoencoder's fingerprint."""
    return _hash("latent", content, *plan.identity, vae, dtype)


def text_origin(prompt: str, encoder: str, max_tokens: int, dtype: str) -> Origin:
    """What is kept beside an encoded prompt, to explain hits and misses later."""
    return {"kind": "text", "prompt": prompt, "encoder": encoder, "max_tokens": str(max_tokens), "dtype": dtype}


def latent_origin(sample: Sample, vae: str, dtype: str) -> Origin:
    """What is kept beside an encoded picture, to explain hits and misses later."""
    return {
        "kind": "latent",
        "path": sample.path,
        "content": sample.content,
        "plan": str(sample.plan),
        "vae": vae,
        "dtype": dtype,
    }


def fingerprint(*folders: Path, index_dir: Path) -> str:
    """SHA-256 over weights and configuration of a component; files are hashed again only when they changed."""
    digest = hashlib.sha256()
    with Memo(index_dir / MEMO_FILE, MEMO_VERSION) as memo:
        for folder in folders:
            files = sorted(path for path in folder.rglob("*") if _belongs(path, folder))
            if not files:
                raise ModelError(f"{folder} holds no weights: it is missing or incomplete.")
            for path in files:
                line = f"{folder.name}/{path.relative_to(folder).as_posix()} {_hash_file(path, memo)}\n"
                digest.update(line.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _belongs(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.suffix in COMPONENT_SUFFIXES and path.is_file()


def _hash_file(path: Path, memo: Memo) -> str:
    try:
        stamp = stamp_of(path.stat())
        known = memo.recall(str(path.absolute()), stamp)
        if known is None:
            known = durable.sha256_of(path)
            memo.remember(str(path.absolute()), stamp, known)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    return str(known)


def _hash(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
