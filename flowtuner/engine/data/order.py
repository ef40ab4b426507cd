"""Shuffles and draws that depend on counters alone, the same on every machine and every NumPy."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

GOLDEN = 0x9E3779B97F4A7C15

Indices = npt.NDArray[np.int64]


def hash_words(*words: int | str) -> int:
    """One well-spread 64-bit number from any counters and names."""
    text = "\x1f".join(str(word) for word in words)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def fraction(*words: int | str) -> float:
    """A number in [0, 1) that depends on the words alone."""
    return (hash_words(*words) >> 11) / (1 << 53)


def permute(count: int, *words: int | str) -> Indices:
    """A permutation of range(count) that depends on the words alone."""
    # NumPy may change its own shuffles between versions (NEP 19); a resumed run must not notice an update.
    keys = _spread(np.arange(count, dtype=np.uint64) * np.uint64(GOLDEN) + np.uint64(hash_words(*words)))
    order: Indices = np.argsort(keys, kind="stable").astype(np.int64, copy=False)
    return order


def _spread(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    # SplitMix64's finaliser: a bijection, so no two keys are equal.
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    spread: npt.NDArray[np.uint64] = values ^ (values >> np.uint64(31))
    return spread
