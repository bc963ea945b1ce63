"""Hashes of the words of hypotheses, to tell whether two files speak of the same words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def hash_text(text: str) -> int:
    """Return 64 bits of BLAKE2b of words that are separated by one blank; never 0."""
    return int.from_bytes(_digest(text.encode()), "little") or 1


def hash_texts(texts: Iterable[bytes]) -> NDArray[np.uint64]:
    """Return what :func:`hash_text` gives for each text in UTF-8, uint64 [texts]."""
    hashes = np.frombuffer(b"".join(map(_digest, texts)), dtype="<u8").astype(np.uint64)
    hashes[hashes == 0] = 1
    return hashes


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=8).digest()
