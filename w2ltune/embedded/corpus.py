"""What an acoustic model learns from: features, references, and their tokens."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from w2ltune.embedded.acoustic import Architecture, emission_frames
from w2ltune.embedded.ctc import frames_needed
from w2ltune.embedded.decoderfiles import added_tokens, dictionary_of, read_lexicon, read_tokens
from w2ltune.errors import InputError, existing_file
from w2ltune.formats.listfile import read_list
from w2ltune.formats.npz import read_npz
from w2ltune.formats.spelling import why_unspelled

Features = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The utterances of one list; all tuples are in its order.

    Attributes:
        ids: Names of the utterances.
        features: Of each utterance, [frames, bands], as stored.
        references: The words of each utterance.
        targets: Their token indices.
        tokens: Names of the tokens, without the blank.
        separator: The token between words.
    """

    ids: tuple[str, ...]
    features: tuple[Features, ...]
    references: tuple[tuple[str, ...], ...]
    targets: tuple[np.ndarray[Any, np.dtype[np.int64]], ...]
    tokens: tuple[str, ...]
    separator: str = "|"


def load_corpus(
    list_path: Path,
    features_path: Path,
    *,
    tokens: Sequence[str],
    lexicon_path: Path | None = None,
    separator: str = "|",
    maxword: int = -1,
) -> Corpus:
    """Read a list with its features, and spell its words.

    A word has its first spelling; one that the lexicon lacks, its letters and ``separator``.

    Raises:
        InputError: A file is missing or wrong, an utterance has no features, or a word needs a
            token that does not exist.
    """
    utterances = read_list(list_path)
    features = load_features(features_path)
    missing = [utterance.id for utterance in utterances if utterance.id not in features]
    if missing:
        raise InputError(
            f"has no features of {len(missing)} utterances of {list_path}, first {missing[0]!r}",
            path=features_path,
        )
    spellings: dict[str, list[str]] = {}
    for _, word, spelling in read_lexicon(lexicon_path, maxword=maxword) if lexicon_path else ():
        spellings.setdefault(word, spelling)
    indices = {token: index for index, token in enumerate(tokens)}
    references = tuple(tuple(utterance.reference) for utterance in utterances)
    return Corpus(
        ids=tuple(utterance.id for utterance in utterances),
        features=tuple(features[utterance.id] for utterance in utterances),
        references=references,
        targets=tuple(
            _target(words, spellings, indices, separator, list_path) for words in references
        ),
        tokens=tuple(tokens),
        separator=separator,
    )


def load_corpora(
    paths: Sequence[tuple[Path, Path]],
    *,
    tokens_path: Path,
    lexicon_path: Path,
    separator: str,
    maxword: int,
) -> Corpus:
    """Read several lists, each with its features, as one; see :func:`load_corpus`.

    Raises:
        InputError: As there, or an utterance is in two of the lists.
    """
    tokens = read_tokens(tokens_path)
    dictionary_of(tokens_path, added_tokens("ctc", replabel=0, generation="flashlight"))
    corpora = [
        load_corpus(
            path,
            features,
            tokens=tokens,
            lexicon_path=lexicon_path,
            separator=separator,
            maxword=maxword,
        )
        for path, features in paths
    ]
    ids = tuple(name for corpus in corpora for name in corpus.ids)
    if len(set(ids)) < len(ids):
        twice, _ = Counter(ids).most_common(1)[0]
        raise InputError(f"utterance {twice!r} is in two of the lists; leave one out")
    return replace(
        corpora[0],
        ids=ids,
        features=tuple(matrix for corpus in corpora for matrix in corpus.features),
        references=tuple(words for corpus in corpora for words in corpus.references),
        targets=tuple(target for corpus in corpora for target in corpus.targets),
    )


def _target(
    words: Sequence[str],
    spellings: Mapping[str, Sequence[str]],
    indices: Mapping[str, int],
    separator: str,
    path: Path,
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the token indices of a reference."""
    target = []
    for word in words:
        for token in spellings.get(word, [*word, separator]):
            if token not in indices:
                why = why_unspelled([token if word in spellings else word], indices)
                raise InputError(
                    f"the word {word!r} needs the token {token!r}, which the token list lacks"
                    f"{f' ({why})' if why else ''}; "
                    "add the word to the lexicon or the token to the list",
                    path=path,
                )
            target.append(indices[token])
    return np.array(target, np.int64)


def load_features(path: str | os.PathLike[str]) -> dict[str, Features]:
    """Read features [frames, bands] by utterance id.

    Args:
        path: ``.npz`` with the arrays ``ids``, ``frames`` (of each utterance) and ``features``
            [sum of frames, bands], any number type.

    Raises:
        InputError: The file is missing, or the arrays are or do not fit together.
    """
    found = existing_file(path, "features")
    arrays = read_npz(found, ".npz of features")
    if missing := {"ids", "frames", "features"} - arrays.keys():
        raise InputError(f"lacks the arrays {sorted(missing)}", path=found)
    ids, frames, rows = arrays["ids"], arrays["frames"], arrays["features"]
    if rows.ndim != 2 or len(ids) != len(frames) or frames.sum() != len(rows):
        raise InputError(
            f"{len(ids)} ids, {frames.sum()} frames of {len(frames)} utterances and features of "
            f"shape {rows.shape} do not fit together",
            path=found,
        )
    parts = np.split(rows, np.cumsum(frames)[:-1])
    return dict(zip(ids.tolist(), parts, strict=True))


def check_corpus(corpus: Corpus, architecture: Architecture) -> None:
    """Refuse utterances that CTC cannot align, or that the model was not made for."""
    if len(corpus.tokens) + 1 != architecture.outputs:
        raise InputError(
            f"--tokens gives {len(corpus.tokens)} tokens and a blank, the model has "
            f"{architecture.outputs} outputs; give the token list that it was trained with"
        )
    for name, features, target in zip(corpus.ids, corpus.features, corpus.targets, strict=True):
        if features.shape[1] != architecture.bands:
            raise InputError(
                f"utterance {name!r} has {features.shape[1]} features per frame, the model takes "
                f"{architecture.bands}"
            )
        frames = int(emission_frames(architecture, np.array(len(features))))
        if frames < max(frames_needed(target), 1):
            raise InputError(
                f"utterance {name!r} has {frames} frames after a stride of {architecture.stride}, "
                f"its reference needs {frames_needed(target)}; remove it from the list"
            )
