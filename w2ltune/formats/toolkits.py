"""Network outputs of other toolkits, brought into the form of emissions.

What differs between toolkits: the order of axes, where the blank stands (wav2letter's decoders
want it last), tokens that a CTC decoder has no use for (``<s>``, ``</s>``, ``<unk>``), padded
frames, and whether the values are raw, logarithms or probabilities. A constant added to all tokens
of a frame changes no decode, so raw values and logarithms of probabilities are taken as they are.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from w2ltune.errors import UsageError, did_you_mean
from w2ltune.formats.blanks import split_words
from w2ltune.formats.padding import Array, of_one_value
from w2ltune.formats.spelling import WORD_END, piece_mark, with_edges

Kind: TypeAlias = Literal["raw", "log", "probabilities"]

BLANKS = ("<blank>", "<blk>", "<ctc_blank>", "<eps>", "[PAD]", "<pad>", "<ctc>", "blank", "#", "ε")
"""What toolkits call the blank, in the order in which it is looked for."""

USELESS = (
    *("<s>", "</s>", "<bos>", "<eos>", "<sos/eos>", "<sos>", "[CLS]", "[SEP]", "[MASK]", "<mask>"),
    *("<unk>", "[UNK]", "<pad>", "[PAD]", "⁇", "<blank>", "<blk>"),
)
"""Tokens that no spelling has; their columns are left out, unless one is the blank."""

SPECIAL = re.compile(r"<[^<>]+>|\[[A-Z]+[0-9]*\]|#[0-9]+|⁇|madeupword[0-9]+")
"""Tokens that toolkits add to a vocabulary and that a model may have no column for."""

FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")
"""What fairseq puts before the tokens of its dict.txt; the first is the blank of its CTC models."""

SEPARATORS = ("|", "<space>", " ", "[SPACE]", "<sp>", WORD_END)
"""What toolkits call the end of a word, where words are spelled by letters."""

OWN_BLANK = "#"
"""What the decoders call the blank; no other token can be called so."""

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
        names: Tokens in that order, without the blank; the word separator is called ``|``, and
            word pieces have ``▁`` where a word begins or ends.
        blank: The blank as the toolkit calls it; its column is the last of ``order``.
        dropped: Tokens that are left out.
        every: All tokens that have a column, in the order of the toolkit.
        merged: Columns of a token that stands in the vocabulary more than once, behind the place in
            ``order`` of its first one.
        without_column: Tokens that the model has no column for.
        mark: How the toolkit marks word pieces; "" for letters.
    """

    order: tuple[int, ...]
    names: tuple[str, ...]
    blank: str
    dropped: tuple[str, ...]
    every: tuple[str, ...]
    merged: tuple[tuple[int, int], ...] = ()
    without_column: tuple[str, ...] = ()
    mark: str = ""

    @property
    def unused(self) -> list[int]:
        """The columns of the tokens that are left out."""
        taken = {*self.order, *(column for _, column in self.merged)}
        return [column for column in range(len(self.every)) if column not in taken]

    def said(self) -> list[str]:
        """Return in words what was done with the tokens."""
        parts = [f"blank {self.blank!r} moved to the end"]
        if self.dropped:
            parts.append(f"left out: {', '.join(self.dropped)}")
        if self.without_column:
            parts.append(f"without a column in the outputs: {', '.join(self.without_column)}")
        lines = ["; ".join(parts)]
        if self.merged:
            twice = {self.names[place]: None for place, _ in self.merged}
            lines.append(f"more than one column, added up as one: {_some(list(twice))}")
        if self.mark not in ("", "▁"):
            lines.append(f"word pieces marked by {self.mark!r} are written with '▁' at the edges")
        return lines


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
    if tuple(names[:4]) == FAIRSEQ and width in (len(names) - 4, len(names) - 3):
        names = names[4:]  # a count behind each token, but not of fairseq
    lacking = names[width:]
    if width == len(names) + 1:
        names.append("<blank>")
    elif width > len(names) or not all(SPECIAL.fullmatch(name) for name in lacking):
        nothing = [name for name in lacking if not SPECIAL.fullmatch(name)]
        without = f" ({_some(nothing)} would have no column)" if nothing else ""
        raise UsageError(
            f"the outputs have {width} columns, the vocabulary {len(names)} tokens{without}: is it "
            "this model's, and are the axes in the right order (--layout)?"
        )
    names = names[:width]
    index = _blank_column(names, blank, lacking)
    out = _left_out(names, drop, lacking)
    kept = [column for column in range(width) if column != index and column not in out]
    mark = piece_mark(names[column] for column in kept)
    columns_of: dict[str, list[int]] = defaultdict(list)
    for column in kept:
        own = with_edges(names[column], mark) if mark else _letter(names[column])
        if not _is_writable(own):
            raise UsageError(
                f"the token {own!r} of column {column} is empty or has blanks, which a list of "
                f"tokens cannot hold; rename it in --vocabulary, or leave it out: --drop={column}"
            )
        if own != OWN_BLANK:
            columns_of[own].append(column)
    first = [columns[0] for columns in columns_of.values()]
    taken = {index, *(column for columns in columns_of.values() for column in columns)}
    return Columns(
        order=(*first, index),
        names=tuple(columns_of),
        blank=names[index],
        dropped=tuple(name for column, name in enumerate(names) if column not in taken),
        every=tuple(names),
        merged=tuple(
            (place, column)
            for place, columns in enumerate(columns_of.values())
            for column in columns[1:]
        ),
        without_column=tuple(lacking),
        mark=mark,
    )


def _left_out(names: Sequence[str], drop: str, lacking: Sequence[str]) -> set[int]:
    """Return the columns to leave out: of useless tokens, or those that are named."""
    out = set[int]()
    for entry in filter(None, drop.split(",")) if drop else USELESS:
        if entry in names:
            out |= {column for column, name in enumerate(names) if name == entry}
        elif drop and re.fullmatch("-?[0-9]+", entry):
            out.add(_column(int(entry), names, "drop"))
        elif drop and entry not in lacking:
            raise UsageError(f"--drop={entry}: no such token{did_you_mean(entry, names)}")
    return out


def _blank_column(names: Sequence[str], blank: str | int, lacking: Sequence[str]) -> int:
    if isinstance(blank, int) or (re.fullmatch("-?[0-9]+", blank) and blank not in names):
        return _column(int(blank), names, "blank")
    if blank and blank not in names:
        why = "the outputs have no column for it" if blank in lacking else "no such token"
        raise UsageError(f"--blank={blank}: {why}{did_you_mean(blank, names)}")
    found = [blank] if blank else [name for name in BLANKS if name in names]
    if not blank and tuple(names[: len(FAIRSEQ)]) == FAIRSEQ:
        found = [FAIRSEQ[0]]
    if not found:
        raise UsageError("no token looks like the blank: name it by --blank=TOKEN, or 0 or -1")
    return names.index(found[0])


def _column(number: int, names: Sequence[str], option: str) -> int:
    if not -len(names) <= number < len(names):
        raise UsageError(
            f"--{option}={number}: no such column; they are 0 to {len(names) - 1}, or -1 for the "
            "last"
        )
    return number % len(names)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (", …" if len(names) > 5 else "")


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
    for place, column in columns.merged:
        own, more = taken[:, place], output[:, column].astype(np.float32)
        taken[:, place] = own + more if values == "probabilities" else np.logaddexp(own, more)
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
    if of_one_value(output).all():
        return "nothing but frames of one value, as padding has; take it out of the list"
    return ""
