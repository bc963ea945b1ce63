"""Boxes cut in parts until what is left of them cannot hold better weights, compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from w2ltune.search.boxes import LEFT, NOTHING, RUNNERS_UP, Lists, OpenBox, Progress
from w2ltune.search.boxkernels import dive

_SLICE = 64  # boxes cut between two looks at the clock
_ROOM = 8  # of the stack, in lists: each part of a box is a good deal smaller than the box


Search: TypeAlias = Callable[[OpenBox, Progress, float, Callable[[], bool]], list[OpenBox]]
"""Cuts a box and its parts, depth first, as long as their bound is below a threshold.

It keeps what was found so far up to date, asks now and then whether to hand back all that is open,
and returns the parts that may hold points with fewer errors than the best.
"""


def search_of(lists: Lists) -> Search:
    """Return what searches the boxes of these lists."""
    dimensions = len(lists.free)
    axes = (0.0,) * dimensions
    depth_limit = 128 * dimensions
    centres, halves = np.empty((2, depth_limit, dimensions))
    splits, frozens, bounds, row_ends, count_ends = np.empty((5, depth_limit), dtype=np.int64)
    rows = np.empty(_ROOM * len(lists.errors), dtype=np.int32)
    counts = np.empty(_ROOM * len(lists.counts), dtype=np.int32)
    longest = int(lists.counts.max(initial=1))
    scratch = (
        np.empty(longest),
        np.empty(longest),
        np.empty((dimensions, longest)),
        np.empty(longest, dtype=np.int32),
        np.empty(longest, dtype=np.int64),
        np.empty(dimensions),
        np.empty(dimensions),
        np.empty((dimensions + 1, len(lists.counts))),
        np.empty(len(lists.counts)),
        np.empty(dimensions),
        np.empty(dimensions),
    )

    def put(box: OpenBox) -> None:
        centres[0], halves[0] = box.centre, box.half
        splits[0], frozens[0], bounds[0] = box.split, box.frozen, box.bound
        row_ends[0], count_ends[0] = len(box.rows), len(box.counts)
        rows[: len(box.rows)], counts[: len(box.counts)] = box.rows, box.counts

    def taken(slot: int) -> OpenBox:
        row, count = (int(ends[slot - 1]) if slot else 0 for ends in (row_ends, count_ends))
        return OpenBox(
            centre=centres[slot].copy(),
            half=halves[slot].copy(),
            split=int(splits[slot]),
            frozen=int(frozens[slot]),
            bound=int(bounds[slot]),
            rows=rows[row : row_ends[slot]].copy(),
            counts=counts[count : count_ends[slot]].copy(),
        )

    def search(
        box: OpenBox, progress: Progress, threshold: float, over: Callable[[], bool]
    ) -> list[OpenBox]:
        put(box)
        aside, depth = [], 1
        limit = int(min(threshold, NOTHING))
        best = progress.point.copy()
        while depth and not over():
            depth, errors, cut, slivers, sliver_bound = dive(
                lists.base, lists.slopes, lists.errors, lists.slack, lists.smallest,
                centres, halves, splits, frozens, bounds, row_ends, count_ends, depth,
                rows, counts, scratch, limit, progress.errors, best, _SLICE, LEFT, RUNNERS_UP, axes,
            )  # fmt: skip
            if errors < progress.errors:
                progress.errors, progress.point = errors, best.copy()
            progress.boxes += 2 * cut
            progress.slivers += slivers
            progress.sliver_bound = min(progress.sliver_bound, sliver_bound)
            if depth and cut < _SLICE:  # above the threshold, or no room
                depth -= 1
                aside.append(taken(depth))
        left = (*aside, *map(taken, range(depth)))
        return [box for box in left if box.bound < progress.errors]

    return search
