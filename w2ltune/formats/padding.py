"""Frames that stand for no sound: what makes the outputs of several utterances one array."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float32]


def without_padding(output: Array, padding: Collection[bytes] = ()) -> Array:
    """Return the frames [frames, columns] of an utterance without those that pad it.

    No model gives all tokens one and the same value, so that frames of which this is true, before
    the first other one and behind the last, are padding: 0, -100 or what was made of them. Inside
    they are left.

    Args:
        output: [frames, columns] of the toolkit.
        padding: Frames that are padding at the end too, as bytes; see `repeated_end`.
    """
    ends = output[[0, -1]] if len(output) else output
    if of_one_value(ends).any():
        own = np.flatnonzero(~of_one_value(output))
        output = output[own[0] : own[-1] + 1] if len(own) else output[:0]
    if padding:
        frame, count = repeated_end(output)
        output = output[: len(output) - count] if frame in padding else output
    return output


def of_one_value(frames: Array) -> NDArray[np.bool_]:
    """Return which frames have one and the same value for all tokens."""
    found: NDArray[np.bool_] = (frames == frames[:, :1]).all(axis=1)
    return found


def repeated_end(output: Array) -> tuple[bytes, int]:
    """Return the last frame, and how many frames at the end are the same to the last bit.

    A model that pads its input inside gives one frame for all padding, the same for each utterance.
    """
    if not len(output):
        return b"", 0
    others = np.flatnonzero((output != output[-1]).any(axis=1))
    return output[-1].tobytes(), len(output) - (int(others[-1]) + 1 if len(others) else 0)
