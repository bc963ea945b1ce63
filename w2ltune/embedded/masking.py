"""SpecAugment (Park et al., 2019): hide neighbouring bands and frames of an utterance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from w2ltune.embedded.ctc import Floats


@dataclass(frozen=True, kw_only=True)
class Masks:
    """How much is hidden.

    Attributes:
        bands: Most neighbouring bands hidden at once.
        band_masks: How often.
        frames: Most neighbouring frames hidden at once.
        frame_masks: How often.
        frame_share: At most this share of the utterance's frames at once.
        first_update: The update from which on something is hidden; None for never.
    """

    bands: int = 4
    band_masks: int = 1
    frames: int = 12
    frame_masks: int = 2
    frame_share: float = 1.0
    first_update: int | None = 0


def mask(features: Floats, masks: Masks, random: np.random.Generator, *, update: int) -> None:
    """Set some bands and frames of one utterance, [frames, bands], to the mean, 0."""
    if masks.first_update is None or update < masks.first_update:
        return
    frames, bands = features.shape
    for _ in range(masks.band_masks):
        first, end = _span(min(masks.bands, bands), bands, random)
        features[:, first:end] = 0
    widest = min(masks.frames, int(masks.frame_share * frames))
    for _ in range(masks.frame_masks):
        first, end = _span(widest, frames, random)
        features[first:end] = 0


def _span(widest: int, length: int, random: np.random.Generator) -> tuple[int, int]:
    width = int(random.integers(widest + 1))
    first = int(random.integers(length - width + 1))
    return first, first + width
