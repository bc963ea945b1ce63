"""Hashes of the words of hypotheses, to tell whether two files speak of the same words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def text_hash(text: str) -> int:
    """Return 64 bits of BLAKE2b of the words, separated by one blank; never 0."""
    return int(text_hashes([text.encode()])[0])


def text_hashes(texts: Iterable[bytes]) -> NDArray[np.uint64]:
    """Return the hash of each text in UTF-8, as :func:`text_hash` does, uint64 [texts]."""
    digests = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts)
    hashes = np.frombuffer(digests, dtype="<u8").astype(np.uint64)
    hashes[hashes == 0] = 1
    return hashes
