"""What a wider beam would give, with weights of its own, and which beam `auto` takes.

Weights and beam belong together: a wider beam is judged at the weights that its own lists tell, on
as many utterances as it takes to tell what it gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from w2ltune.runs.outcome import Comparison, Probe, ProbeRow
from w2ltune.scoring.significance import Clusters
from w2ltune.search.choice import compare
from w2ltune.search.part import Parts, Tried, begin
from w2ltune.search.residual import Vector

BEAM_FLAGS = ("beamsize", "beamsizetoken", "beamthreshold")
AUTO_START = {"beamsize": "50", "beamsizetoken": "20", "beamthreshold": "25"}
"""Where ``auto`` begins."""

MOST_BEAM = 5000
"""``auto`` goes no further."""

WITHOUT_LM = {"lmweight": "0", "wordscore": "0"}

LOOK = 100
"""Utterances of the first look; each further one takes four times as many."""

WORTH_HAVING, SHARE_WORTH = 0.001, 0.02
LEAST_SAVED = 3
"""A gain is worth having from 0.1 absolute on, and from a fiftieth of the errors and three errors
of the list on: less is chance."""

LIKELY = 1.0
"""Standard errors by which a wider beam must be better for ``auto`` to take it."""

KEPT = 0.75
"""A flag is left as it is where the others keep so much of the gain."""


def widened(beam: Mapping[str, str], token_count: int) -> dict[str, str]:
    """Return a beam four times as wide, with twice the threshold and all tokens.

    Example:
        >>> widened({"beamsize": "50", "beamsizetoken": "20", "beamthreshold": "25"}, 28)
        {'beamsize': '200', 'beamsizetoken': '28', 'beamthreshold': '50'}
    """
    tokens = int(beam["beamsizetoken"])
    return {
        "beamsize": str(4 * int(beam["beamsize"])),
        "beamsizetoken": str(max(min(token_count, 4 * tokens), tokens)),
        "beamthreshold": f"{2 * float(beam['beamthreshold']):g}",
    }


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What beams are compared on.

    Attributes:
        parts: Decodes the first utterances, at any beam.
        clusters: Returns what is resampled of utterances.
        audio_seconds: Returns the length of utterances; None where the list does not tell.
        token_count: Tokens of the model.
        max_rtf: The largest real-time factor that ``auto`` may come to; None for any.
    """

    parts: Parts
    clusters: Callable[[Sequence[int]], Clusters]
    audio_seconds: Callable[[Sequence[int]], float | None]
    token_count: int
    max_rtf: float | None = None

    def compare(self, one: Tried, other: Tried) -> Comparison:
        """Return the paired difference of two decodes of the same utterances."""
        return compare(one.counts, other.counts, self.clusters(self.utterances(one)))

    def utterances(self, tried: Tried) -> list[int]:
        """Return which a decode is of."""
        found: list[int] = self.parts.order[: len(tried.counts)].tolist()
        return found

    def fast(self, tried: Tried) -> bool:
        """Whether a decode was as fast as ``--max_rtf`` asks."""
        seconds = self.audio_seconds(self.utterances(tried))
        return self.max_rtf is None or not seconds or tried.seconds / seconds <= self.max_rtf

    def row(self, label: str, tried: Tried, base: Tried | None = None) -> ProbeRow:
        """Return a decode as a row of the table."""
        total = tried.counts.sum(axis=0, dtype=np.int64).tolist()
        values = zip(self.parts.box.names, tried.values.tolist(), strict=True)
        return ProbeRow(
            label=label,
            beam={name: tried.beam[name] for name in BEAM_FLAGS},
            counts=(total[0], total[1], total[2], total[3]),
            work_seconds=round(tried.seconds, 3),
            against_searched=None if base is None else self.compare(tried, base),
            weights={name: round(value, 3) for name, value in values},
        )

    def fewest_flags(
        self, narrow: Tried, wide: Tried, names: Sequence[str]
    ) -> tuple[Tried, list[ProbeRow]]:
        """Put back what is not needed for the gain; return what is left and what was tried."""
        rows, size = [], len(wide.counts)
        gain = int(narrow.errors.sum()) - int(wide.errors.sum())
        for name in names:
            if wide.beam[name] != narrow.beam[name]:
                beam = {**wide.beam, name: narrow.beam[name]}
                if beam == narrow.beam:
                    continue
                back = self.parts.at(beam, wide.values, size)
                rows.append(self.row(f"{name} as it was", back, narrow))
                if int(narrow.errors.sum()) - int(back.errors.sum()) >= KEPT * gain:
                    wide = back
        return wide, rows


def verdict(gained: Comparison, narrow: Tried, worth: float) -> str:
    """Return "helps", "enough", or "" where the interval leaves both open.

    Args:
        gained: The wider beam's rate minus the narrow one's.
        narrow: On the same utterances.
        worth: The least gain that is worth having.
    """
    words = int(narrow.counts[:, 3].sum())
    if gained.interval[1] < 0 and -gained.difference * words >= LEAST_SAVED - 0.5:
        return "helps"
    # Where none of n utterances changes, up to 3 in n may (the rule of three).
    low = min(gained.interval[0], -LEAST_SAVED / max(1, words))
    return "enough" if low >= -worth else ""


def worth_having(counts: npt.NDArray[np.int32]) -> float:
    """Return the least gain that is worth having, from the counts of a whole list.

    Example:
        >>> worth_having(np.array([[10, 0, 0, 100], [0, 0, 0, 900]]))
        0.003
    """
    words, errors = max(1, int(counts[:, 3].sum())), int(counts[:, :3].sum())
    return max(WORTH_HAVING, SHARE_WORTH * errors / words, LEAST_SAVED / words)


def probe(
    scene: Scene,
    *,
    trial: int,
    beam: Mapping[str, str],
    values: Vector,
    counts: npt.NDArray[np.int32],
    seconds: float,
    has_lm: bool,
) -> Probe:
    """Return what a wider beam than an answer's gives, at weights of its own.

    Args:
        scene: What is decoded.
        trial: The answer.
        beam: Its beam flags.
        values: Its searched weights.
        counts: Its counts, of the whole list in its order.
        seconds: Its processor time.
        has_lm: Whether there is an LM to leave out for comparison.
    """
    parts, wide = scene.parts, widened(beam, scene.token_count)
    count, size, at = len(counts), LOOK, values
    while True:
        size = count if 2 * size > count else size
        block = parts.order[:size]
        narrow = Tried(
            beam=dict(beam), values=values, counts=counts[block], seconds=seconds * size / count
        )
        found, _ = parts.solve(wide, at, size, most=2)
        gained = scene.compare(found, narrow)
        says = verdict(gained, narrow, worth_having(counts))
        if says or size == count:
            break
        size, at = 4 * size, found.values
    rows = [scene.row("as searched", narrow), scene.row("wider, at its own weights", found, narrow)]
    if has_lm:
        kept = np.array([name not in WITHOUT_LM for name in parts.box.names])
        without = parts.at({**beam, **WITHOUT_LM}, np.where(kept, values, 0.0), size)
        rows.append(scene.row("without LM", without, narrow))
    if says == "helps":
        order = ("beamthreshold", "beamsizetoken", "beamsize")
        found, tried = scene.fewest_flags(narrow, found, order)
        rows += tried
        gained = scene.compare(found, narrow)
    flags = " ".join(f"--{n}={found.beam[n]}" for n in BEAM_FLAGS if found.beam[n] != beam[n])
    change = f"{_points(gained.difference)} [{', '.join(map(_points, gained.interval))}]"
    advice = {
        "helps": f"a wider beam, at its own weights, gives {change} at "
        f"{found.seconds / max(1e-9, narrow.seconds):.1f} times the CPU time: {flags}, or "
        "--beamsize=auto",
        "enough": f"a wider one, at its own weights, changes {change}: this one is wide enough",
        "": f"a wider one, at its own weights, changes {change}: whether this one is wide enough "
        "cannot be told on this list",
    }[says]
    return _probe(scene, size, rows, advice, trial=trial)


def choose_beam(
    scene: Scene, *, beam: Mapping[str, str], auto: Sequence[str], start: Vector
) -> Probe:
    """Return the beam for ``auto``, and weights for it, from a part of the list.

    From beam to beam, each four times as wide and at weights of its own, until none is likely to be
    better or all are too slow.

    Args:
        scene: What is decoded.
        beam: The first.
        auto: The flags that may change.
        start: Weights to begin with.
    """
    parts = scene.parts
    at, size = begin(parts, beam, _wider(beam, auto, scene.token_count), start, whole=True)
    best = parts.best(beam, size)
    while not scene.fast(best) and "beamsize" in auto and int(best.beam["beamsize"]) > 1:
        narrower = {**best.beam, "beamsize": str(max(1, int(best.beam["beamsize"]) // 3))}
        best, _ = parts.solve(narrower, best.values, size, most=2)
        at = best.values
    rows, says = [scene.row("begun with", best)], ""
    while parts.linear and int(best.beam["beamsize"]) < MOST_BEAM:
        wide = _wider(best.beam, auto, scene.token_count)
        found, _ = parts.solve(wide, best.values, size, most=2)
        gained = scene.compare(found, best)
        rows.append(scene.row("wider, at its own weights", found, best))
        saved = int(best.errors.sum()) - int(found.errors.sum())
        error = (gained.interval[1] - gained.interval[0]) / (2 * 1.96)
        says = (
            f"{_points(gained.difference)} [{', '.join(map(_points, gained.interval))}] by a wider "
            f"one, at its own weights, on {size} utterances"
        )
        if saved < LEAST_SAVED or gained.difference >= -LIKELY * error:
            known = verdict(gained, best, worth_having(best.counts)) == "enough"
            says += ": this one is wide enough" if known else ": no clear gain"
            break
        order = [n for n in ("beamthreshold", "beamsizetoken", "beamsize") if n in auto]
        found, tried = scene.fewest_flags(best, found, order)
        rows += tried
        if not scene.fast(found):
            says += f", but not within --max_rtf={scene.max_rtf:g}"
            break
        best, at = found, found.values
    flags = " ".join(f"--{name}={best.beam[name]}" for name in auto)
    advice = f"{flags}: {says}" if says else flags
    found_probe = _probe(scene, size, rows, advice)
    return replace(
        found_probe,
        raised={name: best.beam[name] for name in auto},
        start=dict(zip(parts.box.names, at.tolist(), strict=True)),
        level=parts.level(best.beam),
    )


def _wider(beam: Mapping[str, str], auto: Sequence[str], token_count: int) -> dict[str, str]:
    wide = widened(beam, token_count)
    return {name: wide[name] if name in auto else beam[name] for name in BEAM_FLAGS}


def _probe(
    scene: Scene, size: int, rows: Sequence[ProbeRow], advice: str, *, trial: int = -1
) -> Probe:
    return Probe(
        trial=trial,
        utterances=size,
        audio_seconds=scene.audio_seconds(scene.parts.order[:size].tolist()),
        rows=tuple(rows),
        advice=advice,
        decoded=sum(len(tried.counts) for tried in scene.parts.tried),
        work_seconds=round(sum(tried.seconds for tried in scene.parts.tried), 3),
    )


def look_first(scene: Scene, *, beam: Mapping[str, str], start: Vector) -> Probe | None:
    """Return weights for the whole list from a part of it; None where none is worth it.

    Args:
        scene: What is decoded.
        beam: Flags of the beam.
        start: Weights to begin with.
    """
    parts = scene.parts
    at, size = begin(parts, beam, widened(beam, scene.token_count), start)
    if not size or not parts.linear:
        return None
    rows = [scene.row("as searched", parts.best(beam, size))]
    return replace(
        _probe(scene, size, rows, ""),
        start=dict(zip(parts.box.names, at.tolist(), strict=True)),
        level=parts.level(beam),
    )


def _points(difference: float) -> str:
    return f"{100 * difference:+.2f}"
