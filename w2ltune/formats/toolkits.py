"""Network outputs of other toolkits, brought into the form of emissions.

What differs between toolkits: the order of axes, where the blank stands (wav2letter's decoders
want it last), tokens that a CTC decoder has no use for (``<s>``, ``</s>``, ``<unk>``), padded
frames, and whether the values are raw, logarithms or probabilities. A constant added to all tokens
of a frame changes no decode, so raw values and logarithms of probabilities are taken as they are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from w2ltune.errors import InputError, UsageError, did_you_mean, existing_file

Array = NDArray[np.floating[Any]]

BLANKS = ("<blank>", "<blk>", "<ctc_blank>", "<eps>", "[PAD]", "<pad>", "<ctc>", "blank", "#", "ε")
"""What toolkits call the blank, in the order in which it is looked for."""

USELESS = (
    *("<s>", "</s>", "<bos>", "<eos>", "<sos/eos>", "<sos>", "[CLS]", "[SEP]", "[MASK]", "<mask>"),
    *("<unk>", "[UNK]", "<pad>", "[PAD]", "⁇"),
)
"""Tokens that no spelling has; their columns are left out, unless one is the blank."""

SEPARATORS = ("|", "<space>", " ", "[SPACE]", "<sp>")
"""What toolkits call the end of a word, where words are spelled by letters."""

LEAST_PROBABILITY = 1e-10


@dataclass(frozen=True, kw_only=True)
class Columns:
    """How the columns of a toolkit become those of an emission.

    Attributes:
        order: Columns to take, the blank's last.
        names: Tokens in that order, without the blank; the word separator is called ``|``.
        blank: The blank as the toolkit calls it.
        dropped: Tokens that are left out.
        every: All tokens, in the order of the toolkit.
    """

    order: tuple[int, ...]
    names: tuple[str, ...]
    blank: str
    dropped: tuple[str, ...]
    every: tuple[str, ...]


def read_vocabulary(path: Path) -> list[str]:
    """Return the tokens of a toolkit in the order of its columns.

    Args:
        path: A JSON object of token to column or a JSON list; else a token a line, of which the
            part before a tab counts (as in SentencePiece's ``.vocab``).

    Raises:
        InputError: It is missing, empty, or its columns have holes.
    """
    existing_file(path, "tokens of the toolkit (--vocabulary)")
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        try:
            content = json.loads(text)
        except ValueError as error:
            raise InputError(f"not JSON: {error}", path=path) from None
        if isinstance(content, dict):
            columns = sorted(content.values())
            if columns != list(range(len(columns))):
                raise InputError(f"its columns are not 0 to {len(columns) - 1}", path=path)
            return sorted(content, key=content.__getitem__)
        return [str(token) for token in content]
    lines = text.split("\n")
    tokens = [line.rstrip("\r").split("\t")[0] for line in lines]
    while tokens and not tokens[-1]:
        tokens.pop()
    if not tokens:
        raise InputError("there is no token in it", path=path)
    return tokens


def arrange(tokens: Sequence[str], width: int, *, blank: str = "", drop: str = "") -> Columns:
    """Settle the columns.

    Args:
        tokens: The toolkit's, in the order of its columns.
        width: Columns of its outputs.
        blank: The blank's token or its column; "" looks for a usual name, else takes the column
            that has no token.
        drop: Tokens to leave out, with commas between; "" for the usual ones.

    Raises:
        UsageError: The numbers do not fit, or there is no blank.
    """
    names = list(tokens)
    if width == len(names) + 1:
        names.append("<blank>")
    elif width != len(names):
        raise UsageError(
            f"the outputs have {width} columns, the vocabulary {len(names)} tokens: is it this "
            "model's, and are the axes in the right order (--layout)?"
        )
    if blank.lstrip("-").isdecimal() and blank not in names:
        index = int(blank) % width
    elif blank:
        if blank not in names:
            raise UsageError(f"--blank={blank}: no such token{did_you_mean(blank, names)}")
        index = names.index(blank)
    else:
        index = next((names.index(name) for name in BLANKS if name in names), -1)
        if index < 0:
            raise UsageError("no token looks like the blank: name it by --blank=TOKEN, or 0 or -1")
    out = [name for name in drop.split(",") if name] if drop else [*USELESS]
    for name in out:
        if drop and name not in names:
            raise UsageError(f"--drop={name}: no such token{did_you_mean(name, names)}")
    kept = [i for i, name in enumerate(names) if i != index and name not in out]
    own = [_letter(names[i]) for i in kept]
    if len(set(own)) < len(own):
        twice = next(name for name in own if own.count(name) > 1)
        raise UsageError(f"two tokens would be called {twice!r}; leave one out with --drop")
    dropped = [name for i, name in enumerate(names) if i != index and i not in kept]
    return Columns(
        order=(*kept, index),
        names=tuple(own),
        blank=names[index],
        dropped=tuple(dropped),
        every=tuple(names),
    )


def _letter(token: str) -> str:
    return "|" if token in SEPARATORS else token


def convert(output: Array, columns: Columns, *, values: str = "auto") -> NDArray[np.float32]:
    """Return the emission of an utterance: float32 [frames, tokens], the blank last.

    Args:
        output: [frames, columns] of the toolkit, without padding.
        columns: Which of them to take.
        values: ``raw``, ``log``, ``probabilities``, or ``auto``.
    """
    if values == "probabilities" or (values == "auto" and are_probabilities(output)):
        output = np.log(np.maximum(output, LEAST_PROBABILITY))
    taken = np.asarray(output, dtype=np.float32)[:, list(columns.order)]
    return np.ascontiguousarray(taken)


def are_probabilities(output: Array) -> bool:
    """Return whether each frame's values are probabilities of all tokens."""
    if not output.size or output.min() < 0:
        return False
    return bool(np.allclose(output.sum(axis=1), 1.0, atol=1e-2))


def best_tokens(output: Array, columns: Columns) -> Counter[str]:
    """Return in how many frames each of the toolkit's tokens is the best one."""
    return Counter(columns.every[index] for index in output.argmax(axis=1))


def read_outputs(
    path: Path, ids: Sequence[str] | None, lengths: Sequence[int] | None, *, layout: str
) -> Iterator[tuple[str, Array]]:
    """Yield utterance id and [frames, columns] of saved outputs.

    Args:
        path: A folder of ``<id>.npy``; an ``.npz`` with an array for each utterance by its id; or
            one ``.npy`` [utterances, frames, columns], padded.
        ids: The utterances of a ``.npy``, in order; of the other two, those to take.
        lengths: Frames of each utterance of a ``.npy``; None where none is padded.
        layout: ``tv`` for [frames, columns], ``vt`` for [columns, frames].

    Raises:
        InputError: An utterance is missing, or an array has another form.
    """
    if path.is_dir():
        names = ids or sorted(file.stem for file in path.glob("*.npy"))
        if not names:
            raise InputError("no .npy file in it", path=path)
        for name in names:
            yield name, _turned(_load(path / f"{name}.npy"), layout, path / f"{name}.npy")
        return
    loaded = _load(path)
    if isinstance(loaded, np.lib.npyio.NpzFile):
        with loaded:
            for name in ids or loaded.files:
                if name not in loaded.files:
                    raise InputError(f"no array of the utterance {name!r}", path=path)
                yield name, _turned(loaded[name], layout, path)
        return
    if loaded.ndim != 3:
        raise InputError(f"shape {loaded.shape}; expected [utterances, frames, tokens]", path=path)
    if ids is None or len(ids) != len(loaded):
        given = "none" if ids is None else str(len(ids))
        raise InputError(f"{len(loaded)} utterances, but {given} in --list", path=path)
    if lengths is not None and len(lengths) != len(ids):
        raise InputError(f"{len(ids)} utterances, but {len(lengths)} lengths", path=path)
    for number, name in enumerate(ids):
        array = _turned(loaded[number], layout, path)
        frames = len(array) if lengths is None else int(lengths[number])
        if not 0 <= frames <= len(array):
            raise InputError(f"{name!r} has {frames} of {len(array)} frames", path=path)
        yield name, array[:frames]


def _load(path: Path) -> Any:
    existing_file(path, "outputs of the toolkit (--outputs)")
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError) as error:
        raise InputError(f"neither .npy nor .npz ({error})", path=path) from None


def _turned(array: Array, layout: str, path: Path) -> Array:
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2:
        raise InputError(f"shape {array.shape}; expected [frames, tokens]", path=path)
    return array.T if layout == "vt" else array
