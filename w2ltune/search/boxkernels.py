"""The compiled functions of :mod:`.certified`.

They are kept on disk, so that a proof compiles for seconds only once on a machine. numba looks at
this file alone to tell whether what it kept is of today: everything that they need is here or comes
as an argument. ``axes`` is a tuple with one number for each free weight; loops over its length are
unrolled.

The bound by ramps: an utterance has few errors on one side of a plane of weights and more on the
other. This step is nowhere below a ramp that falls from the box's far corner to the plane. The sum
of ramps is convex: unlike the sum of the least errors it knows that not all utterances can be at
their best at once.
"""

from __future__ import annotations

import math

import numpy as np

from w2ltune.scoring.compiledkernels import compiled
from w2ltune.search.boxes import NOTHING

STEPS = 12
"""Down to the least sum of ramps, at most."""

LEVEL = 0.9
"""To which part of what is needed a step would go if the sum were a plane."""

FLAT = 1e-12
"""Square of the errors that a sum of planes rises by over half a box, where it rises no more."""

RAMPS_HELP = 0.35
"""Share of the errors at the centre above the bound that ramps may add at best."""

ROUNDING = 1e-6
"""More than the rounding of a sum of errors, which are whole numbers."""

RELATIVE_ROUNDING = 1e-11
"""More than that of a sum of ten thousand terms, in parts of the sum of their sizes."""

STEEPEST = 1e-4
"""A ramp that falls over less than this part of its scores is left out: it would be rounding."""


@compiled(fastmath={"contract", "nsz", "reassoc"})
def least_sum(ramps, planes, number, needed, half, point, tilt, mean, axes):
    """Return a lower bound, in whole errors, of the sum of ramps in the box, each 0 at least.

    The sum of planes of the ramps, each taken by a share from 0 to 1, is a bound, as a plane is
    below its ramp. Steps go down to the least sum; the mean of the planes that are above 0 at each
    has the shares that are best there. They end where ``needed`` is reached, or a point is below.
    """
    dimensions = len(axes)
    point[:] = 0.0
    mean[:] = 0.0
    mean_value = shares = size = found = 0.0
    for _ in range(STEPS):
        for t in range(number):
            plane = ramps[dimensions, t]
            for j in range(dimensions):
                plane += ramps[j, t] * point[j]
            planes[t] = plane
        value = here = own_size = 0.0
        for t in range(number):
            here += max(planes[t], 0.0)
            value += ramps[dimensions, t] if planes[t] > 0.0 else 0.0
            own_size += abs(ramps[dimensions, t])
        for j in range(dimensions):
            slope = 0.0
            for t in range(number):
                slope += ramps[j, t] if planes[t] > 0.0 else 0.0
                own_size += abs(ramps[j, t]) * half[j]
            tilt[j] = slope
        if here < needed:
            break
        steepness = 0.0
        for j in range(dimensions):
            steepness += (tilt[j] * half[j]) ** 2
        if steepness < FLAT:  # the least sum, or near it: this point's planes alone are the bound
            bound = value - RELATIVE_ROUNDING * own_size
            for j in range(dimensions):
                bound -= abs(tilt[j]) * half[j]
            found = max(found, bound - ROUNDING)
            break
        step = (here - LEVEL * needed) / steepness
        shares += step
        mean_value += step * value
        size += step * own_size
        bound = mean_value
        for j in range(dimensions):
            mean[j] += step * tilt[j]
            bound -= abs(mean[j]) * half[j]
            point[j] -= step * tilt[j] * half[j] ** 2
            point[j] = min(max(point[j], -half[j]), half[j])
        found = max(found, (bound - RELATIVE_ROUNDING * size) / shares - ROUNDING)
        if found > needed - 1.0:
            break
    return max(0, math.ceil(found))


@compiled()
def ramp_bound(
    base, slopes, errors, slack, centre, half,
    rows, counts, row_begin, count_begin, count_end,
    needed, scratch, axes,
):  # fmt: skip
    """Return how far the errors of open utterances are above their sum of least errors."""
    scores, _, local, _, own_errors, slope, tilt, ramps, planes, mean, _ = scratch
    dimensions = len(axes)
    number_of_ramps = 0
    row = row_begin
    for place in range(count_begin, count_end):
        count = counts[place]
        if count == 2:  # as most are; the second has fewer errors
            r0, r1 = rows[row], rows[row + 1]
            row += 2
            s0, s1, drop = base[r0], base[r1], 0.0
            for j in range(dimensions):
                s0 += slopes[r0, j] * centre[j]
                s1 += slopes[r1, j] * centre[j]
                slope[j] = slopes[r1, j] - slopes[r0, j]
                drop += abs(slope[j]) * half[j]
            above = s1 - s0 + slack
            if drop - above > STEEPEST * (drop + abs(above)):
                steepness = (errors[r0] - errors[r1]) / (drop - above)
                ramps[dimensions, number_of_ramps] = -steepness * above
                for j in range(dimensions):
                    ramps[j, number_of_ramps] = -steepness * slope[j]
                number_of_ramps += 1
            continue
        winner = 0
        least = errors[rows[row]]
        for i in range(count):
            r = rows[row + i]
            score = base[r]
            for j in range(dimensions):
                score += slopes[r, j] * centre[j]
                local[j, i] = slopes[r, j]
            scores[i] = score
            own_errors[i] = errors[r]
            least = min(least, own_errors[i])
            if score > scores[winner]:
                winner = i
        row += count
        winner_errors = own_errors[winner]
        # Where the best of the good ones, a plane at most, is below one of the others, there
        # are more errors than the least. That step is at least a ramp over the box.
        bad = winner_errors > least
        limit = winner_errors if bad else least + 1
        other = -1
        step = NOTHING
        for i in range(count):
            if own_errors[i] >= limit:
                step = min(step, own_errors[i] - least)
            if (own_errors[i] < limit) == bad and (other < 0 or scores[i] > scores[other]):
                other = i
        good, rival = (other, winner) if bad else (winner, other)
        drop = 0.0
        for j in range(dimensions):
            slope[j] = local[j, good] - local[j, rival]
            drop += abs(slope[j]) * half[j]
        above = -np.inf
        for i in range(count):
            if own_errors[i] < limit:
                at_most = scores[i] - scores[rival] + slack
                for j in range(dimensions):
                    at_most += abs(local[j, i] - local[j, rival] - slope[j]) * half[j]
                above = max(above, at_most)
        reach = drop
        drop -= above
        if drop > STEEPEST * (reach + abs(above)):
            steepness = step / drop
            ramps[dimensions, number_of_ramps] = -steepness * above
            for j in range(dimensions):
                ramps[j, number_of_ramps] = -steepness * slope[j]
            number_of_ramps += 1
    return least_sum(ramps, planes, number_of_ramps, needed, half, slope, tilt, mean, axes)


@compiled()
def narrow(
    base, slopes, errors, slack, centre, half,
    rows, counts, row_begin, count_begin, count_end, row_out, count_out,
    scratch, runners_up, axes,
):  # fmt: skip
    """Leave out hypotheses that are nowhere in the box the best, and utterances that are settled.

    Returns:
        Errors of settled utterances, least errors of the others, errors at the centre, and the ends
        of the rows and counts that were put down.
    """
    scores, open_scores, local, own, own_errors, slope, _, _, _, _, influence = scratch
    dimensions = len(axes)
    frozen = 0
    lowest = 0
    here = 0
    influence[:] = 0.0
    row = row_begin
    for place in range(count_begin, count_end):
        count = counts[place]
        if count == 2:  # as most are
            r0, r1 = rows[row], rows[row + 1]
            row += 2
            s0, s1, reach = base[r0], base[r1], slack
            for j in range(dimensions):
                s0 += slopes[r0, j] * centre[j]
                s1 += slopes[r1, j] * centre[j]
                slope[j] = abs(slopes[r0, j] - slopes[r1, j]) * half[j]
                reach += slope[j]
            e0, e1 = errors[r0], errors[r1]
            winner_errors = e0 if s0 >= s1 else e1
            here += winner_errors
            if abs(s0 - s1) <= reach and e0 != e1:
                lowest += min(e0, e1)
                counts[count_out] = 2
                count_out += 1
                rows[row_out] = r0
                rows[row_out + 1] = r1
                row_out += 2
                for j in range(dimensions):
                    influence[j] += slope[j]
            else:
                frozen += winner_errors
            continue
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
        for _trial in range(runners_up + 1):
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


@compiled()
def dive(
    base, slopes, errors, slack, smallest,
    centres, halves, splits, frozens, bounds, row_ends, count_ends, depth,
    rows, counts, scratch, threshold, incumbent, best, budget, left, runners_up, axes,
):  # fmt: skip
    """Expand the box on top of the stack, again and again.

    Ends when none is left, the budget is used, there is no room for children, or the bound of
    the box on top is not below the threshold (but below the incumbent).
    """
    influence = scratch[-1]
    expanded = 0
    slivers = 0
    sliver_bound = NOTHING
    half = np.empty(len(axes))
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
            half[split] = width * (left if side == 0 else 1.0 - left)
            centres[slot, split] = low + half[split]
            if side == 1:
                centres[slot, split] += 2.0 * left * width
            halves[slot] = half
            fixed, lowest, here, new_row, new_count = narrow(
                base, slopes, errors, slack, centres[slot], half,
                rows, counts, row_begin, count_begin, count_end, row_out, count_out,
                scratch, runners_up, axes,
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
                    to_go, scratch, axes,
                )  # fmt: skip
                bound = max(bound, sum_of_least + above)
            if bound >= incumbent:
                continue
            frozens[slot] = frozen + fixed
            bounds[slot] = bound
            splits[slot] = -1
            for j in range(len(axes)):
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
