"""The compiled part of :mod:`.certified`: import it only where numba is installed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from w2ltune.scoring.compiledkernels import compiled
from w2ltune.search.boxes import LEFT, NOTHING, RUNNERS_UP, Lists, OpenBox, Progress
from w2ltune.search.boxramps import compiled_ramp_bound

RAMPS_HELP = 0.5
"""Share of the errors at the centre above the bound that ramps may add at best."""

_SLICE = 64  # boxes cut between two looks at the clock
_ROOM = 8  # of the stack, in lists: each part of a box is a good deal smaller than the box


def compiled_search(
    lists: Lists,
) -> Callable[[OpenBox, Progress, float, Callable[[], bool]], list[OpenBox]]:
    """Return what :func:`.boxes.search_box` is, for these lists, compiled."""
    dimensions = len(lists.free)
    dive = compiled_dive(dimensions)
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
        np.empty((len(lists.counts), dimensions + 1)),
        np.empty(len(lists.counts), dtype=np.bool_),
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
                rows, counts, scratch, limit, progress.errors, best, _SLICE,
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


@cache
def compiled_dive(dimensions: int) -> Callable[..., Any]:
    """Return the dive over boxes of so many dimensions; loops over them are unrolled."""
    ramp_bound = compiled_ramp_bound(dimensions)

    @compiled(keep=False)
    def narrow(
        base, slopes, errors, slack, centre, half,
        rows, counts, row_begin, count_begin, count_end, row_out, count_out,
        scores, open_scores, local, own, own_errors, slope, tilt, ramps, used, influence,
    ):  # fmt: skip
        frozen = 0
        lowest = 0
        here = 0
        influence[:] = 0.0
        row = row_begin
        for place in range(count_begin, count_end):
            count = counts[place]
            best = -np.inf
            rival = 0
            for i in range(count):
                r = rows[row + i]
                score = base[r]
                for j in range(dimensions):
                    score += slopes[r, j] * centre[j]
                    local[j, i] = slopes[r, j]
                scores[i] = score
                open_scores[i] = score
                own[i] = r
                own_errors[i] = errors[r]
                if score > best:
                    best = score
                    rival = i
            row += count
            winner = rival
            winner_errors = own_errors[winner]
            here += winner_errors
            top = best
            for _trial in range(RUNNERS_UP + 1):
                for j in range(dimensions):
                    slope[j] = local[j, rival]
                number = 0
                new_winner = 0
                open_scores[rival] = -np.inf  # serves once
                least = own_errors[rival]
                most = least
                for i in range(count):  # without branches that cannot be foretold
                    reach = slack
                    for j in range(dimensions):
                        reach += abs(local[j, i] - slope[j]) * half[j]
                        local[j, number] = local[j, i]
                    keep = top - scores[i] <= reach
                    scores[number] = scores[i]
                    open_scores[number] = open_scores[i]
                    own[number] = own[i]
                    e = own_errors[i]
                    own_errors[number] = e
                    new_winner = number if i == winner else new_winner
                    least = min(least, e) if keep else least
                    most = max(most, e) if keep else most
                    number += keep
                count = number
                winner = new_winner
                if least == most or count < 3:
                    break
                top = -np.inf
                for i in range(count):
                    if open_scores[i] > top:
                        top = open_scores[i]
                        rival = i
                if top == -np.inf:
                    break
            if least == most:
                frozen += least
            else:
                lowest += least
                counts[count_out] = count
                count_out += 1
                for i in range(count):
                    rows[row_out + i] = own[i]
                    differs = 1.0 if own_errors[i] != winner_errors else 0.0
                    for j in range(dimensions):
                        influence[j] += differs * abs(local[j, i] - local[j, winner]) * half[j]
                row_out += count
        return frozen, lowest, here, row_out, count_out

    @compiled(keep=False)
    def dive(
        base, slopes, errors, slack, smallest,
        centres, halves, splits, frozens, bounds, row_ends, count_ends, depth,
        rows, counts, scratch, threshold, incumbent, best, budget,
    ):  # fmt: skip
        """Expand the box on top of the stack, again and again.

        Ends when none is left, the budget is used, there is no room for children, or the bound of
        the box on top is not below the threshold (but below the incumbent).
        """
        scores, open_scores, local, own, own_errors, slope, tilt, ramps, used, influence = scratch
        expanded = 0
        slivers = 0
        sliver_bound = NOTHING
        half = np.empty(dimensions)
        while depth and expanded < budget:
            top = depth - 1
            if bounds[top] >= incumbent:
                depth = top
                continue
            if splits[top] < 0:
                slivers += 1
                sliver_bound = min(sliver_bound, bounds[top])
                depth = top
                continue
            if bounds[top] >= threshold:
                break
            row_begin = row_ends[top - 1] if top else 0
            count_begin = count_ends[top - 1] if top else 0
            row_end, count_end = row_ends[top], count_ends[top]
            if (
                row_end + 2 * (row_end - row_begin) > len(rows)
                or count_end + 2 * (count_end - count_begin) > len(counts)
                or depth + 1 >= len(bounds)
            ):
                break
            expanded += 1
            split = splits[top]
            frozen = frozens[top]
            parent_bound = bounds[top]
            width = halves[top, split]
            low = centres[top, split] - width
            half[:] = halves[top]
            row_out, count_out = row_end, count_end
            born = 0
            for side in range(2):  # both are put behind their parent, then moved down onto it
                slot = top + born
                centres[slot] = centres[top]
                half[split] = width * (LEFT if side == 0 else 1.0 - LEFT)
                centres[slot, split] = low + half[split]
                if side == 1:
                    centres[slot, split] += 2.0 * LEFT * width
                halves[slot] = half
                fixed, lowest, here, new_row, new_count = narrow(
                    base, slopes, errors, slack, centres[slot], half,
                    rows, counts, row_begin, count_begin, count_end, row_out, count_out,
                    scores, open_scores, local, own, own_errors, slope, tilt, ramps, used,
                    influence,
                )  # fmt: skip
                if frozen + here < incumbent:
                    incumbent = frozen + here
                    best[:] = centres[slot]
                sum_of_least = frozen + fixed + lowest
                bound = max(parent_bound, sum_of_least)
                to_go = incumbent - sum_of_least
                if bound < incumbent and to_go < RAMPS_HELP * (frozen + here - sum_of_least):
                    above = ramp_bound(
                        base, slopes, errors, slack, centres[slot], half,
                        rows, counts, row_out, count_out, new_count,
                        scores, open_scores, local, own, own_errors, slope, tilt, ramps, used,
                        influence,
                    )  # fmt: skip
                    bound = max(bound, sum_of_least + above)
                if bound >= incumbent:
                    continue
                frozens[slot] = frozen + fixed
                bounds[slot] = bound
                splits[slot] = -1
                for j in range(dimensions):
                    if half[j] > smallest[j] and (
                        splits[slot] < 0 or influence[j] > influence[splits[slot]]
                    ):
                        splits[slot] = j
                row_ends[slot] = row_begin + new_row - row_end
                count_ends[slot] = count_begin + new_count - count_end
                row_out, count_out = new_row, new_count
                born += 1
            for i in range(row_out - row_end):
                rows[row_begin + i] = rows[row_end + i]
            for i in range(count_out - count_end):
                counts[count_begin + i] = counts[count_end + i]
            depth = top + born
        return depth, incumbent, expanded, slivers, sliver_bound

    return dive
