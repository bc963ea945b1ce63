"""LM scores of a beam dump: one line for each hypothesis, in the order of the dump.

A line is ``id log-probability`` (natural logarithm, higher is better, although such files end in
``.ppl``). Beside it lies ``<file>.hash``: the hash of each hypothesis' words as raw little-endian
uint64, by which scores are joined to the hypotheses that they belong to.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from w2ltune.errors import InputError, existing_file
from w2ltune.files import replacing


def hash_path(path: Path) -> Path:
    """Return the file of hashes beside a file of scores."""
    return path.with_name(f"{path.name}.hash")


def text_hash(words: str) -> int:
    """Return the hash of a hypothesis' words, joined by single blanks; never 0.

    Example:
        >>> hex(text_hash("yes sir"))
        '0xcc459724377e6db7'
    """
    digest = hashlib.blake2b(words.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


def write_lm_scores(path: Path, ids: Sequence[str], scores: NDArray[np.float64]) -> None:
    """Write a file of scores in one step.

    Args:
        path: The file to replace.
        ids: The utterance of each hypothesis.
        scores: float64 [hypotheses].
    """
    with replacing(path) as file:
        for name, score in zip(ids, scores.tolist(), strict=True):
            file.write(f"{name} {score:.6f}\n")


def read_lm_scores(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    """Return the ids and the scores, float64 [hypotheses].

    Raises:
        InputError: The file is missing, or a line is no id and score.
    """
    existing_file(path, "LM scores")
    ids: list[str] = []
    scores: list[float] = []
    with path.open(encoding="utf-8", newline="\n") as file:
        for line, text in enumerate(file, start=1):
            name, _, score = text.strip(" \r\n").rpartition(" ")
            try:
                scores.append(float(score))
                if not name or not math.isfinite(scores[-1]):
                    raise ValueError
            except ValueError:
                raise InputError(
                    f"{text[:60]!r} is no 'id log-probability'", path=path, line=line
                ) from None
            ids.append(name.strip(" "))
    return ids, np.array(scores, dtype=np.float64)


def write_hashes(path: Path, hashes: NDArray[np.uint64]) -> None:
    """Write the hashes that belong to a file of scores, in one step.

    Args:
        path: The file to replace.
        hashes: uint64 [hypotheses].
    """
    with replacing(path, binary=True) as file:
        file.write(hashes.astype("<u8").tobytes())


def read_hashes(path: Path) -> NDArray[np.uint64]:
    """Return the hashes, uint64 [hypotheses].

    Raises:
        InputError: The file is missing or cut.
    """
    content = existing_file(path, "hashes of the hypotheses").read_bytes()
    if len(content) % 8:
        raise InputError(f"{len(content)} bytes are no whole number of hashes", path=path)
    return np.frombuffer(content, dtype="<u8").astype(np.uint64)
