"""Work in pieces that are kept: a folder with a file for each piece that is done.

A piece's file is named by what it was made from, so that nothing is taken for something else:
whatever is asked next, what is there and fits is not made again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from w2ltune.errors import storage_fault
from w2ltune.files import DAMAGE, replacing, require_ours
from w2ltune.formats.npz import read_npy
from w2ltune.runs.rundir import make_shared


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A piece of the work.

    Attributes:
        number: From 0.
        first: The first of its sentences among all.
        sentences: What is scored.
        name: Of its file.
    """

    number: int
    first: int
    sentences: Sequence[str]
    name: str

    def __str__(self) -> str:
        last = self.first + len(self.sentences)
        return f"shard {self.number + 1} (sentences {self.first + 1} to {last})"


class ShardFolder:
    """The pieces that are done; has one writer.

    Args:
        folder: Made when the first one is kept.
        columns: Numbers for each sentence.
    """

    def __init__(self, folder: Path, *, columns: int) -> None:
        self._folder = folder
        self._columns = columns

    def keep(self, shard: Shard, scores: npt.NDArray[np.float64]) -> None:
        """Write down what came of a piece, in one step.

        Args:
            shard: The piece.
            scores: float64 [sentences, columns].
        """
        make_shared(self._folder)
        with replacing(self._path(shard), binary=True) as file:
            np.save(file, scores, allow_pickle=False)

    def read(self, shard: Shard) -> npt.NDArray[np.float64] | None:
        """Return what came of a piece, or None when it is to be done (again)."""
        try:
            scores = read_npy(self._path(shard))
        except (OSError, *DAMAGE) as error:  # none there, or damaged by others
            if storage_fault(error):
                raise
            return None
        fits = scores.dtype == np.float64 and scores.shape == (len(shard.sentences), self._columns)
        return scores if fits else None

    def remove(self) -> None:
        """Remove all pieces."""
        require_ours(self._folder)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, shard: Shard) -> Path:
        return self._folder / f"{shard.name}.npy"


def cut(sentences: Sequence[str], *, most: int, origin: object) -> list[Shard]:
    """Cut the work into pieces of about the same size.

    Args:
        sentences: All of them.
        most: Sentences of a piece, at most.
        origin: What the results depend on besides the sentences, fit for JSON.

    Example:
        >>> [shard.sentences for shard in cut(["a", "b", "c", "d", "e"], most=3, origin="lm")]
        [['a', 'b', 'c'], ['d', 'e']]
    """
    count = -(-len(sentences) // most)
    bounds = [-(-number * len(sentences) // count) for number in range(count + 1)] if count else []
    shards = []
    for number, (first, end) in enumerate(itertools.pairwise(bounds)):
        part = sentences[first:end]
        text = json.dumps([origin, part], sort_keys=True, ensure_ascii=True)
        name = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
        shards.append(Shard(number=number, first=first, sentences=part, name=name))
    return shards
