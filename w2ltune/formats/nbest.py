"""N-best lists of a whole data list as arrays, and the file that keeps them.

A decoder's score is linear in its weights, so that of each hypothesis only its features, its
number of errors and something to tell its words by are needed to say what other weights choose.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from w2ltune.errors import InputError, existing_file
from w2ltune.files import replacing
from w2ltune.formats.npz import read_member

FEATURES = ("am", "lm", "words", "unknown", "silence")
"""Columns in a decode sweep; their weights are 1, lmweight, wordscore, unkscore and silscore.

``am`` and ``lm`` are log scores, ``words`` counts the words without the unknown ones, ``unknown``
these, ``silence`` the frames that took the silence score.
"""

BYTES_PER_HYPOTHESIS = 8 * len(FEATURES) + 4 + 8
"""Size of a hypothesis with these in the file; an utterance has 12 more, and the file 2 kB."""

_FORMAT = 1
_LAYOUT: dict[str, tuple[type[np.generic], int]] = {
    "offsets": (np.int64, 1),
    "features": (np.float64, 2),
    "errors": (np.int32, 1),
    "text_hash": (np.uint64, 1),
    "reference_words": (np.int32, 1),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class NBest:
    """The n-best lists of the utterances of a data list, one after the other.

    Every utterance has at least one entry: where the decoder found nothing, one without words
    and with the hash 0 stands for that.

    Args:
        offsets: int64 [utterances + 1]; the hypotheses of utterance u are the rows
            ``offsets[u]`` to ``offsets[u + 1]`` of the arrays below.
        features: float64 [hypotheses, columns]; at least one column, in a decode sweep those of
            :data:`FEATURES`, in rescoring those that are named beside the lists.
        errors: int32 [hypotheses], substitutions, deletions and insertions together.
        text_hash: uint64 [hypotheses], the same for the same words.
        reference_words: int32 [utterances], lengths of the references, in words (in characters
            for the CER).

    Raises:
        ValueError: The arrays have other types or do not fit each other, an utterance has no
            entry, or a feature is not finite.
    """

    offsets: NDArray[np.int64]
    features: NDArray[np.float64]
    errors: NDArray[np.int32]
    text_hash: NDArray[np.uint64]
    reference_words: NDArray[np.int32]

    def __post_init__(self) -> None:
        for name, (dtype, dimensions) in _LAYOUT.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.ndim != dimensions:
                raise ValueError(
                    f"{name} is {array.dtype} {list(array.shape)}, not {dtype.__name__} with "
                    f"{dimensions} dimensions"
                )
        rows = len(self.errors)
        fits = len(self.features) == len(self.text_hash) == rows
        if not fits or not self.features.shape[1]:
            raise ValueError(
                f"{rows} errors do not fit features {list(self.features.shape)} and "
                f"{len(self.text_hash)} text hashes"
            )
        if len(self.offsets) != len(self.reference_words) + 1:
            raise ValueError(
                f"{len(self.reference_words)} reference lengths do not fit "
                f"{len(self.offsets)} offsets"
            )
        if self.offsets[0] != 0 or self.offsets[-1] != rows or (np.diff(self.offsets) < 1).any():
            raise ValueError(f"offsets do not rise from 0 to {rows}, the number of hypotheses")
        if not np.isfinite(self.features).all():
            raise ValueError("a feature is not finite")

    @property
    def utterances(self) -> int:
        """Number of utterances."""
        return len(self.reference_words)

    @property
    def hypotheses(self) -> int:
        """Number of hypotheses of all utterances."""
        return len(self.errors)


def write_nbest(path: Path, nbest: NBest, *, key: str) -> None:
    """Write n-best lists to an uncompressed ``.npz``.

    Args:
        path: The file to replace.
        nbest: The lists.
        key: Says what they were made from; see :func:`read_nbest`.
    """
    with replacing(path, binary=True) as file:
        np.savez(
            file,
            format=np.array(_FORMAT),
            key=np.array(key),
            **{name: getattr(nbest, name) for name in _LAYOUT},
        )


def read_nbest(
    path: Path, *, key: str | None, advice: str = "remove the file, so that it is made anew"
) -> NBest:
    """Read what :func:`write_nbest` wrote.

    Args:
        path: The file.
        key: What the lists must have been made from; None takes any.
        advice: What to do about a file that cannot be used.

    Raises:
        InputError: The file is missing, cut, damaged, of another format, or was made from
            something else.
    """
    existing_file(path, "n-best lists")
    try:
        with zipfile.ZipFile(path) as archive:
            found_format = read_member(archive, "format").tolist()
            if found_format != _FORMAT:
                raise InputError(
                    f"n-best lists of format {found_format}; this version of w2ltune reads format "
                    f"{_FORMAT}: {advice}",
                    path=path,
                )
            found_key = read_member(archive, "key").tolist()
            if key is not None and found_key != key:
                raise InputError(
                    "these n-best lists were made with another acoustic model, LM, lexicon, token "
                    "list, data list, decoder type, smearing or normalisation "
                    f"(key {found_key}, not {key}); they cannot serve here: "
                    f"give what they were made with, or {advice}",
                    path=path,
                )
            return NBest(**{name: read_member(archive, name) for name in _LAYOUT})
    except InputError:
        raise
    except Exception as error:  # zipfile and numpy raise nearly anything over changed bytes
        raise InputError(
            f"no n-best lists, or cut or damaged: {advice} ({' '.join(str(error).split())})",
            path=path,
        ) from error
