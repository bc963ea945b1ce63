"""Frames of emissions that may be padding: the same to the last bit at the end of several."""

from __future__ import annotations

from collections import defaultdict

from w2ltune.formats.padding import repeated_end
from w2ltune.trials.dataset import Dataset

MOST_LOOKED_AT = 500


def padding_note(dataset: Dataset) -> str:
    """Return that emissions end in a frame that is perhaps padding, and no blank, or ""."""
    counts: dict[bytes, list[int]] = defaultdict(list)
    for index in range(min(MOST_LOOKED_AT, len(dataset.ids)) if dataset.emission_sets else 0):
        emission = dataset.as_given(index)
        if len(emission) and emission[-1].argmax() != emission.shape[1] - 1:
            frame, count = repeated_end(emission)
            counts[frame].append(count)
    several = [own for own in counts.values() if len(set(own)) > 1 and max(own) > 2]
    if not several:
        return ""
    return (
        f"{sum(map(len, several))} emissions end in one and the same frame, up to "
        f"{max(map(max, several))} times; if that is padding, cut each emission to its own frames"
    )
