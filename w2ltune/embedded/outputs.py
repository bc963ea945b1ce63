"""What a toolkit saved, read utterance by utterance: padding is cut, the values are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from w2ltune.embedded.ctc import best_path
from w2ltune.errors import InputError
from w2ltune.formats.blanks import split_words
from w2ltune.formats.padding import Array, without_padding
from w2ltune.formats.spelling import PIECE_BEGIN, speller
from w2ltune.formats.toolkitfiles import read_lengths, read_outputs
from w2ltune.formats.toolkits import Kind, kind_of, what_is_wrong


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the toolkit saved, utterance by utterance, without padding.

    Attributes:
        path: What was saved.
        ids: The utterances to take.
        layout: Order of the axes.
        lengths: File with the frames of each utterance, if any.
        padding: Frames that are padding at the end, as bytes.
        cut: How many frames of each utterance that was looked at are left out.
    """

    path: Path
    ids: Sequence[str]
    layout: str
    lengths: Path | None = None
    padding: frozenset[bytes] = frozenset()
    cut: dict[str, int] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[str, Array]]:
        lengths = None if self.lengths is None else read_lengths(self.lengths)
        width = 0
        for name, output in read_outputs(self.path, self.ids, lengths, layout=self.layout):
            width = width or output.shape[1]
            if output.shape[1] != width:
                raise InputError(
                    f"{name!r} has {output.shape[1]} columns, {self.ids[0]!r} has {width}",
                    path=self.path,
                )
            own = without_padding(output, self.padding)
            self.cut[name] = len(output) - len(own)
            yield name, own if len(own) else output  # which is refused with its values

    def say_padding(self) -> None:
        """Print how much was cut."""
        cut = [count for count in self.cut.values() if count]
        if cut:
            print(
                f"padding cut: {sum(cut)} frames at the ends of {len(cut)} of {len(self.cut)} "
                f"utterances, {'that are all the same' if self.padding else 'of one value'}"
            )


class Values:
    """What the values of all utterances are: as ``--values`` says, or as all of them look.

    Args:
        path: What was saved.
        given: ``--values``.
    """

    def __init__(self, path: Path, given: str) -> None:
        self.path, self.given = path, given
        self.first_of: dict[Kind, str] = {}  # the first utterance of each kind

    def check(self, name: str, output: Array) -> Kind:
        """Return what the values of an utterance are.

        Raises:
            InputError: They cannot be that, or are others than those of the utterances before.
        """
        kind = kind_of(output) if self.given == "auto" else cast(Kind, self.given)
        wrong = what_is_wrong(output, kind)
        if wrong:
            raise InputError(f"{name!r} has {wrong}", path=self.path)
        self.first_of.setdefault(kind, name)
        others = [first for other, first in self.first_of.items() if other != "probabilities"]
        if others and "probabilities" in self.first_of:
            raise InputError(
                f"{self.first_of['probabilities']!r} holds probabilities that add up to 1, "
                f"{others[0]!r} does not: are its frames padded (--lengths)? Else say "
                "what they are by --values",
                path=self.path,
            )
        return kind

    def said(self) -> str:
        """Return in words what they are."""
        if "probabilities" in self.first_of:
            return "probabilities; their logarithms are taken"
        if "raw" in self.first_of:
            return "raw, and taken as they are"
        return "logarithms of probabilities, and taken as they are"


def can_spell(said: Sequence[str], names: Sequence[str]) -> bool:
    """Whether the tokens are letters or pieces of most words, in whatever case."""
    words = {word.lower() for text in said for word in split_words(text)}
    spell = speller(name.lower() for name in names)
    return 2 * sum(spell(word) is not None for word in words) >= len(words)


def greedy(emission: NDArray[np.float32], names: Sequence[str]) -> str:
    """Return the words of the best token of each frame, repeats and blanks taken out."""
    kept = [names[index] for index in best_path(emission, blank=len(names))]
    text = "".join(" " if name == "|" else name for name in kept)
    return " ".join(split_words(text.replace(PIECE_BEGIN, " ")))
