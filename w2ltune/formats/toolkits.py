"""Network outputs of other toolkits, brought into the form of emissions.

What differs between toolkits: the order of axes, where the blank stands (wav2letter's decoders
want it last), tokens that a CTC decoder has no use for (``<s>``, ``</s>``, ``<unk>``), padded
frames, and whether the values are raw, logarithms or probabilities. A constant added to all tokens
of a frame changes no decode, so raw values and logarithms of probabilities are taken as they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from w2ltune.errors import UsageError, did_you_mean
from w2ltune.formats.blanks import split_words

Array: TypeAlias = NDArray[np.float32]
Kind: TypeAlias = Literal["raw", "log", "probabilities"]

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

ROUNDING = 1e-2
"""How far from 1 the probabilities of a frame may add up, as float16 does."""

ROUNDING_OF_LOGARITHMS = 5e-2
"""The same of values from 0 to 1, which may be those of logarithms that were float16."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """How the columns of a toolkit become those of an emission.

    Attributes:
        order: Columns to take, the blank's last.
        names: Tokens in that order, without the blank; the word separator is called ``|``.
        blank: The blank as the toolkit calls it; its column is the last of ``order``.
        dropped: Tokens that are left out.
        every: All tokens, in the order of the toolkit.
    """

    order: tuple[int, ...]
    names: tuple[str, ...]
    blank: str
    dropped: tuple[str, ...]
    every: tuple[str, ...]


def arrange(tokens: Sequence[str], width: int, *, blank: str | int = "", drop: str = "") -> Columns:
    """Settle the columns.

    Args:
        tokens: The toolkit's, in the order of its columns.
        width: Columns of its outputs.
        blank: The blank's token or its column, counted from 0 or with ``-1`` from the end (as a
            text only where no token is called so); "" looks for a usual name, of which
            ``<blank>``, as a column without a token is called, is the first.
        drop: Tokens to leave out, with commas between; "" for the usual ones.

    Raises:
        UsageError: The numbers do not fit, there is no blank, or a token cannot be written to a
            list of tokens.
    """
    names = list(tokens)
    if width == len(names) + 1:
        names.append("<blank>")
    elif width != len(names):
        raise UsageError(
            f"the outputs have {width} columns, the vocabulary {len(names)} tokens: is it this "
            "model's, and are the axes in the right order (--layout)?"
        )
    index = _blank_column(names, blank)
    out = [name for name in drop.split(",") if name] if drop else [*USELESS]
    for name in out:
        if drop and name not in names:
            raise UsageError(f"--drop={name}: no such token{did_you_mean(name, names)}")
    kept = [i for i, name in enumerate(names) if i != index and name not in out]
    own = [_letter(names[i]) for i in kept]
    for i, name in zip(kept, own, strict=True):
        if not _is_writable(name):
            raise UsageError(
                f"the token {name!r} of column {i} is empty or has blanks, which a list of tokens "
                "cannot hold; rename it in --vocabulary, or leave it out with --drop"
            )
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


def _blank_column(names: Sequence[str], blank: str | int) -> int:
    if isinstance(blank, int) or (re.fullmatch("-?[0-9]+", blank) and blank not in names):
        index = int(blank)
        if not -len(names) <= index < len(names):
            raise UsageError(
                f"--blank={blank}: no such column; they are 0 to {len(names) - 1}, or -1 for the "
                "last"
            )
        return index % len(names)
    if blank and blank not in names:
        raise UsageError(f"--blank={blank}: no such token{did_you_mean(blank, names)}")
    found = [blank] if blank else [name for name in BLANKS if name in names]
    if not found:
        raise UsageError("no token looks like the blank: name it by --blank=TOKEN, or 0 or -1")
    return names.index(found[0])


def _is_writable(token: str) -> bool:
    try:
        token.encode()
    except UnicodeEncodeError:  # a half of a surrogate pair, as JSON may hold
        return False
    return split_words(token) == [token]


def _letter(token: str) -> str:
    return "|" if token in SEPARATORS else token


def convert(output: Array, columns: Columns, values: Kind) -> Array:
    """Return the emission of an utterance: float32 [frames, tokens], the blank last.

    Args:
        output: [frames, columns] of the toolkit, without padding.
        columns: Which of them to take.
        values: What they are; of probabilities the logarithms are taken.
    """
    taken = output[:, list(columns.order)].astype(np.float32)  # float16 ends at 6e-8
    if values == "probabilities":
        taken = np.log(np.maximum(taken, np.float32(LEAST_PROBABILITY)))
    return np.ascontiguousarray(taken)


def kind_of(output: Array) -> Kind:
    """Return what the values [frames, columns] of an utterance are, by what each frame adds up to.

    Of raw values and logarithms that are not normalised it says raw; the two are used alike.
    """
    if output.size and output.min() >= 0:
        within = ROUNDING_OF_LOGARITHMS if output.max() <= 1 else ROUNDING
        if _add_up(output, within):
            return "probabilities"
    if output.size and output.max() <= ROUNDING and _add_up(np.exp(output), ROUNDING):
        return "log"
    return "raw"


def _add_up(probabilities: Array, within: float) -> bool:
    sums = probabilities.sum(axis=1, dtype=np.float64)
    return bool(np.allclose(sums, 1.0, rtol=0, atol=within))


def what_is_wrong(output: Array, values: Kind) -> str:
    """Return which of the values [frames, columns] cannot be what they should be, or ""."""
    if np.isnan(output).any():
        return "nan, which is no number"
    low, high = float(output.min()), float(output.max())
    if values == "probabilities" and not (low >= 0 and high <= 1 + ROUNDING):
        return f"{low if low < 0 else high:g}, which is no probability"
    if values == "log" and high > ROUNDING:
        return f"{high:g}, which is no logarithm of a probability"
    if values == "log" and not np.isfinite(output.max(axis=1)).all():
        return "a frame whose values are all -inf"
    if values == "raw" and not np.isfinite([low, high]).all():
        which = low if np.isinf(low) else high
        return f"{which:g}; expected are finite values (with --values=log also -inf, for 0)"
    return ""
