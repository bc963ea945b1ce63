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
from w2ltune.search.linear import NEAR
from w2ltune.search.part import Parts, Tried, begin
from w2ltune.search.residual import Vector

BEAM_FLAGS = ("beamsize", "beamsizetoken", "beamthreshold")
AUTO_START = {"beamsize": "50", "beamsizetoken": "20", "beamthreshold": "25"}
"""Where ``auto`` begins."""

MOST_BEAM = 4000
"""``auto`` goes no further."""

WITHOUT_LM = {"lmweight": "0", "wordscore": "0"}

LOOK = 64
"""Utterances of the first look; each further one takes four times as many."""

SAME = 0.02
"""What changes the errors of no more utterances than this share changes nothing."""

WORTH_HAVING, SHARE_WORTH = 0.001, 0.02
LEAST_SAVED = 3
"""A gain is worth having from 0.1 absolute on, and from a fiftieth of the errors and three errors
of the list on: less is chance."""

LIKELY = 1.0
"""Standard errors by which a wider beam must be better for ``auto`` to take it."""


def widened(beam: Mapping[str, str], token_count: int) -> dict[str, str]:
    """Return a beam four times as wide, with twice the threshold and four times the tokens.

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

    def rows(self, base: Tried) -> list[ProbeRow]:
        """Return all beams that were decoded of the same utterances, each at its best weights."""
        size, rows = len(base.counts), [self.row("as searched", base)]
        for tried in self.parts.tried:
            best = self.parts.best(tried.beam, size) if len(tried.counts) == size else None
            if best is tried and tried.beam != base.beam:
                changed = [name for name in BEAM_FLAGS if tried.beam[name] != base.beam[name]]
                label = ", ".join(f"{name} {tried.beam[name]}" for name in changed)
                rows.append(self.row(label or "without LM", tried, base))
        return rows

    def widest(self, base: Tried, names: Sequence[str]) -> Tried:
        """Return a beam four times as wide, at weights of its own, of the same utterances.

        More tokens and a larger threshold cost much and change nothing, as a rule: they are kept
        where they do.

        Args:
            base: What is widened.
            names: Flags that may be.
        """
        parts, size = self.parts, len(base.counts)
        wide = {n: v for n, v in widened(base.beam, self.token_count).items() if n in names}
        few = {**base.beam, **{n: v for n, v in wide.items() if n == "beamsize"}}
        found, _ = parts.solve(few, base.values, size, most=2) if few != base.beam else (base, None)
        every = {**base.beam, **wide}
        if every == found.beam or _same(other := parts.at(every, found.values, size), found):
            return found
        for name in ("beamthreshold", "beamsizetoken", "beamsize"):
            less = {**other.beam, name: base.beam[name]}
            if less not in (base.beam, found.beam, other.beam):
                back = parts.at(less, found.values, size)
                other = back if _same(back, other) else other
        return self.again(other)

    def again(self, tried: Tried) -> Tried:
        """Return the best decode at a beam, after one more where its lists promise something."""
        size = len(tried.counts)
        proposal = self.parts.propose(tried.beam, size, radius=NEAR)
        if proposal.new and not proposal.small:
            self.parts.at(tried.beam, proposal.values, size)
        return self.parts.best(tried.beam, size)


def _same(one: Tried, other: Tried) -> bool:
    return float(np.mean(one.errors != other.errors)) <= SAME


def verdict(gained: Comparison, narrow: Tried, worth: float) -> str:
    """Return "helps", "enough", or "" where the interval leaves both open.

    A wider beam's rate minus the narrow one's is held against the least gain worth having.
    """
    words = int(narrow.counts[:, 3].sum())
    if gained.interval[1] < 0 and -gained.difference * words >= LEAST_SAVED - 0.5:
        return "helps"
    # Where none of n utterances changes, up to 3 in n may (the rule of three).
    low = min(gained.interval[0], -LEAST_SAVED / max(1, words))
    return "enough" if low >= -worth else ""


def worth_having(counts: npt.NDArray[np.int32], words: int) -> float:
    """Return the least gain that is worth having.

    Args:
        counts: Of a beam, on a part of the list or all of it.
        words: Reference words of the whole list.

    Example:
        >>> worth_having(np.array([[10, 0, 0, 100]]), 1000)
        0.003
    """
    rate = float(counts[:, :3].sum()) / max(1, int(counts[:, 3].sum()))
    return max(WORTH_HAVING, SHARE_WORTH * rate, LEAST_SAVED / max(1, words))


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
    parts, count = scene.parts, len(counts)
    worth = worth_having(counts, int(counts[:, 3].sum()))

    def narrow_of(size: int) -> Tried:
        """Return the answer's decode as one of the first utterances."""
        own = counts[parts.order[:size]]
        return Tried(beam=dict(beam), values=values, counts=own, seconds=seconds * size / count)

    size = count if count < 2 * LOOK else LOOK
    narrow = narrow_of(size)
    found = scene.widest(narrow, BEAM_FLAGS)
    while True:
        gained = scene.compare(found, narrow)
        says = verdict(gained, narrow, worth)
        if says or size == count:
            break
        size = count if 8 * size > count else 4 * size
        narrow = narrow_of(size)
        found = parts.at(found.beam, found.values, size)
        if verdict(scene.compare(found, narrow), narrow, worth) != "helps":
            found = scene.again(found)
    if has_lm:
        kept = np.array([name not in WITHOUT_LM for name in parts.box.names])
        parts.at({**beam, **WITHOUT_LM}, np.where(kept, values, 0.0), size)
    change = _change(gained)
    flags = " ".join(f"--{n}={found.beam[n]}" for n in BEAM_FLAGS if found.beam[n] != beam[n])
    advice = {
        "helps": f"{change} at {found.seconds / max(1e-9, narrow.seconds):.1f} times the CPU time: "
        f"{flags}, or --beamsize=auto",
        "enough": f"{change}: this one is wide enough",
        "": f"{change}: whether this one is wide enough cannot be told on this list",
    }[says]
    return _probe(scene, narrow, advice, trial=trial)


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
    at, size = begin(parts, beam, start, whole=True)
    best = parts.best(beam, size)
    while not scene.fast(best) and "beamsize" in auto and int(best.beam["beamsize"]) > 1:
        narrower = {**best.beam, "beamsize": str(max(1, int(best.beam["beamsize"]) // 3))}
        best, _ = parts.solve(narrower, best.values, size, most=2)
        at = best.values
    first, says, names = best, "", list(auto)
    while parts.linear and 4 * int(best.beam["beamsize"]) <= MOST_BEAM:
        found = scene.widest(best, names)
        gained = scene.compare(found, best)
        saved = int(best.errors.sum()) - int(found.errors.sum())
        error = (gained.interval[1] - gained.interval[0]) / (2 * 1.96)
        says = f"{_change(gained)} on {size} utterances"
        if saved < LEAST_SAVED or gained.difference >= -LIKELY * error:
            worth = worth_having(best.counts, int(parts.words.sum()))
            known = verdict(gained, best, worth) == "enough"
            says += ": this one is wide enough" if known else ": no clear gain"
            break
        if not scene.fast(found):
            says += f", but not within --max_rtf={scene.max_rtf:g}"
            break
        if "beamsize" in names and found.beam == {**best.beam, "beamsize": found.beam["beamsize"]}:
            names = ["beamsize"]  # nor will more of the others matter to a wider one
        best, at = found, found.values
    flags = " ".join(f"--{name}={best.beam[name]}" for name in auto)
    found_by = _probe(scene, first, f"{flags}: {says}" if says else flags)
    return _begun(scene, found_by, best.beam, at, auto)


def look_first(scene: Scene, *, beam: Mapping[str, str], start: Vector) -> Probe | None:
    """Return weights for the whole list from a part of it; None where none is worth it.

    Args:
        scene: What is decoded.
        beam: Flags of the beam.
        start: Weights to begin with.
    """
    at, size = begin(scene.parts, beam, start)
    if not size or not scene.parts.linear:
        return None
    return _begun(scene, _probe(scene, scene.parts.best(beam, size), ""), beam, at, ())


def _probe(scene: Scene, base: Tried, advice: str, *, trial: int = -1) -> Probe:
    tried = scene.parts.tried
    return Probe(
        trial=trial,
        utterances=len(base.counts),
        audio_seconds=scene.audio_seconds(scene.utterances(base)),
        rows=tuple(scene.rows(base)),
        advice=advice,
        decoded=sum(len(one.counts) for one in tried),
        work_seconds=round(sum(one.seconds for one in tried), 3),
    )


def _begun(
    scene: Scene, found: Probe, beam: Mapping[str, str], at: Vector, auto: Sequence[str]
) -> Probe:
    start = dict(zip(scene.parts.box.names, at.tolist(), strict=True))
    raised = {name: beam[name] for name in auto}
    return replace(found, raised=raised, start=start, level=scene.parts.level(beam))


def _change(gained: Comparison) -> str:
    low, high = map(_points, gained.interval)
    return f"a wider one, at its own weights, changes {_points(gained.difference)} [{low}, {high}]"


def _points(difference: float) -> str:
    return f"{100 * difference:+.2f}"
