"""Real decodes of the first utterances of experiments/voice_commands, for the tests of the search.

The search is held against what the decoder really gives; nothing stands in for it. A decode takes
0.1 to 0.5 seconds, and none is done twice: at a beam of 2 the second may differ by a few errors.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from conftest import VOICE_COMMANDS, VOICE_FLAGS

from w2ltune.embedded.beamsearch import Decoder
from w2ltune.embedded.decoderflags import decoder_flags, is_linear
from w2ltune.formats.distributions import Distribution
from w2ltune.formats.emissions import open_emissions
from w2ltune.formats.listfile import read_list
from w2ltune.formats.nbest import NBest
from w2ltune.scoring.nbest import collect, take
from w2ltune.scoring.wer import count_matrix
from w2ltune.search import decodespace
from w2ltune.search.linear import Box, Point
from w2ltune.search.part import Found

FLAGS = {**VOICE_FLAGS, "beamsize": "50", "beamthreshold": "25"}


@dataclass(frozen=True, kw_only=True)
class Decode:
    """One decode; ``counts`` is [utterances, 4]: S, D, I, reference words."""

    counts: npt.NDArray[np.int32]
    nbest: NBest
    linear: bool
    seconds: float

    @property
    def errors(self) -> npt.NDArray[np.int32]:
        errors: npt.NDArray[np.int32] = self.counts[:, :3].sum(axis=1)
        return errors


@dataclass(kw_only=True)
class Decodes:
    """Decodes a list with any weights and beam; the decoder is loaded once."""

    name: str = "dev"
    utterances: int = 40
    known: dict[tuple[tuple[str, str], ...], Decode] = field(default_factory=dict)

    def __post_init__(self) -> None:
        entries = list(read_list(VOICE_COMMANDS / f"{self.name}.lst"))[: self.utterances]
        emissions = open_emissions(VOICE_COMMANDS / f"emissions/{self.name}.npz")
        self.audio_seconds = sum(entry.duration_milliseconds or 0 for entry in entries) / 1000
        self.references = [list(entry.reference) for entry in entries]
        self.emissions = [emissions.emission(entry.id) for entry in entries]
        self.decoder = Decoder(decoder_flags(FLAGS))

    def __call__(self, **changes: object) -> Decode:
        """Decode with the usual flags but for these."""
        return self.decode({name: str(value) for name, value in changes.items()})

    def decode(self, changes: Mapping[str, str]) -> Decode:
        """Decode with the usual flags but for these."""
        flags = FLAGS | dict(changes)
        key = tuple(sorted(flags.items()))
        if key not in self.known:
            self.known[key] = self._decode(flags)
        return self.known[key]

    def _decode(self, flags: Mapping[str, str]) -> Decode:
        start = time.process_time()
        typed = decoder_flags(flags)
        lists = [self.decoder.decode(emission, typed, nbest=300) for emission in self.emissions]
        seconds = time.process_time() - start
        return Decode(
            counts=count_matrix(self.references, [list(entries[0].words) for entries in lists]),
            nbest=collect(lists, self.references, str.split),
            linear=all(is_linear(entry, typed) for entries in lists for entry in entries),
            seconds=seconds,
        )

    def part(self, flags: Mapping[str, str], utterances: Sequence[int]) -> Found:
        """Return what a decode of some utterances gives, as a search on a part has it."""
        found = self.decode({n: v for n, v in flags.items() if FLAGS.get(n) != v})
        block = list(utterances)
        seconds = found.seconds * len(block) / self.utterances
        return found.counts[block], take(found.nbest, block), seconds, found.linear

    def point(self, box: Box, decode: Decode, values: npt.ArrayLike) -> Point:
        """Return a decode as a point of a box."""
        return Point(unit=box.unit(np.asarray(values, dtype=np.float64)), errors=decode.errors)


def make_box(distributions: Mapping[str, Distribution], flags: Mapping[str, str] = FLAGS) -> Box:
    """Return the box of the searched weights, with the flags' values for the others."""
    return decodespace.make_box(distributions, flags)
