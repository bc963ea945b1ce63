"""The least errors that any weights in a box give, with a certificate: branch and bound.

In a box of weights a hypothesis cannot be chosen when another one of its utterance scores higher in
the whole box. The least errors among those left are a bound for the utterance, their sum is one for
the box. Boxes whose bound is not below the best errors found are done; the others are cut in two.
Utterances where all that are left have the same errors need not be looked at again inside.

What is certified: no weights in the box give fewer errors than ``bound``, in exact arithmetic and
in float64 alike, whatever becomes of ties between different scores that happen to be equal there.
(Hypotheses with the same features are equal everywhere; the one with more errors stands for them.)
Where the scores of several utterances' hypotheses are equal on one plane or line, the bound may be
reached by no weights: boxes around it stay open however small. Below the smallest size they are
given up and counted as slivers: a complete search with slivers says that weights with fewer errors,
if there are any, lie in regions that hold no box larger than that.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from w2ltune.formats.nbest import NBest
from w2ltune.search.boxcore import search_of
from w2ltune.search.boxes import Progress, lists_in, root

_NEAR = 0.015  # boxes this near to the best errors are searched to their end, in no order


@dataclass(frozen=True, kw_only=True, eq=False)
class Certificate:
    """The best weights found in a box, and how good any could be.

    Attributes:
        weights: float64 [columns].
        errors: What they give; ties go to more errors.
        bound: No weights in the box give fewer; see the module for the fine print.
        boxes: Boxes whose bound was computed.
        seconds: Processor time taken.
        complete: Whether all boxes were done, apart from slivers.
        smallest: Sides of a sliver, in ranges of the box.
        slivers: Boxes below that size that stayed open.
    """

    weights: NDArray[np.float64]
    errors: int
    bound: int
    boxes: int
    seconds: float
    complete: bool
    smallest: float
    slivers: int

    @property
    def gap(self) -> int:
        """How many errors there may at most be to gain."""
        return self.errors - self.bound


def certify(
    nbest: NBest,
    low: ArrayLike,
    high: ArrayLike,
    *,
    incumbent: ArrayLike | None = None,
    time_limit_seconds: float = math.inf,
    stopped: Callable[[], bool] = lambda: False,
    smallest: float = 1e-6,
    memory_bytes: int = 2**29,
) -> Certificate:
    """Search a box of weights for the least errors, best bound first.

    Args:
        nbest: The lists.
        low: float [columns], lower ends; where equal to the upper ones, the weight is fixed.
        high: float [columns], upper ends.
        incumbent: float [columns], weights to begin with, as a line search finds them (moved into
            the box); the better, the fewer boxes.
        time_limit_seconds: Processor time of this process after which the search is broken off;
            the bound holds nevertheless. Compiling (seconds, the first time) is not interrupted.
        stopped: Asked now and then; when it returns True the search is broken off, too.
        smallest: Boxes with no side longer than this times the range are cut no more.
        memory_bytes: Open boxes beyond this are searched to their end before others are begun.

    Raises:
        ValueError: The shapes are others, or an end is not finite or below the lower one.
    """
    ends = _checked(nbest, low, high)
    began = time.process_time()

    def over() -> bool:
        return time.process_time() >= began + time_limit_seconds or stopped()

    lists = lists_in(nbest, *ends, smallest)
    weights = ends[0] + (ends[1] - ends[0]) / 2
    if incumbent is not None:
        weights = np.clip(_checked(nbest, incumbent, incumbent)[0], *ends)
    progress = Progress(errors=lists.errors_at(weights[lists.free]), point=weights[lists.free])
    search = search_of(lists)
    first, tickets = root(lists), itertools.count()
    heap = [(first.bound, next(tickets), first)] if first.split >= 0 else []
    stored = first.bytes
    while heap and heap[0][0] < progress.errors and not over():
        bound, _, box = heapq.heappop(heap)
        stored -= box.bytes
        step = max(1, (progress.errors - bound) // 4)
        # Near to the best errors there are too many boxes to keep: depth first needs no memory.
        near = bound + step > (1 - _NEAR) * progress.errors or stored > memory_bytes
        for left in search(box, progress, math.inf if near else bound + step, over):
            heapq.heappush(heap, (left.bound, next(tickets), left))
            stored += left.bytes
    bound = min(progress.errors, progress.sliver_bound, *(entry[0] for entry in heap[:1]))
    weights = weights.copy()
    weights[lists.free] = progress.point
    return Certificate(
        weights=weights,
        errors=progress.errors,
        bound=bound,
        boxes=progress.boxes,
        seconds=time.process_time() - began,
        complete=not heap or heap[0][0] >= progress.errors,
        smallest=smallest,
        slivers=progress.slivers if progress.sliver_bound < progress.errors else 0,
    )


def _checked(
    nbest: NBest, low: ArrayLike, high: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ends = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    columns = nbest.features.shape[1]
    for end in ends:
        if end.shape != (columns,) or not np.isfinite(end).all():
            raise ValueError(f"{end.tolist()} are not {columns} finite weights")
    if (ends[0] > ends[1]).any():
        raise ValueError(f"no box from {ends[0].tolist()} to {ends[1].tolist()}")
    return ends
