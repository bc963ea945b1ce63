"""What a wider beam would give: measured on some utterances at the chosen weights.

Weights and beam belong together, and a decoder that loses good hypotheses to its beam does not show
it in its n-best lists; only a decode with a wider beam does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from w2ltune.runs.outcome import Comparison, Probe, ProbeRow
from w2ltune.scoring.significance import Clusters
from w2ltune.search.choice import compare

UTTERANCES = 100
SHARE = 0.4
LEAST = 20
"""A probe decodes about 100 utterances, but of a short list no more than a part."""

BEAM_FLAGS = ("beamsize", "beamsizetoken", "beamthreshold")
AUTO_START = {"beamsize": "50", "beamsizetoken": "20", "beamthreshold": "25"}
"""Where ``auto`` begins."""

WITHOUT_LM = {"lmweight": "0", "wordscore": "0"}

LIKELY = 1.0
"""Standard errors by which a wider beam must be better on the probe to be called so: few utterances
show little, and weights tuned at a wider beam gain more than the probe's."""

LEAST_SAVED = 3
"""Errors that it must save at least: one or two are chance, whatever their standard error."""

Decode = Callable[[Mapping[str, str]], tuple[npt.NDArray[np.int32], float]]
"""Decodes the probe's utterances with these flags changed: counts [utterances, 4], CPU seconds."""


def probe_size(utterances: int) -> int:
    """Return how many utterances a probe decodes.

    Example:
        >>> probe_size(2703), probe_size(50), probe_size(12)
        (100, 20, 12)
    """
    return min(utterances, UTTERANCES, max(LEAST, round(SHARE * utterances)))


def widened(beam: Mapping[str, str], token_count: int) -> dict[str, str]:
    """Return a beam four times as wide, with twice the threshold and all tokens.

    Example:
        >>> widened({"beamsize": "50", "beamsizetoken": "20", "beamthreshold": "25"}, 28)
        {'beamsize': '200', 'beamsizetoken': '28', 'beamthreshold': '50'}
    """
    return {
        "beamsize": str(4 * int(beam["beamsize"])),
        "beamsizetoken": str(max(token_count, int(beam["beamsizetoken"]))),
        "beamthreshold": f"{2 * float(beam['beamthreshold']):g}",
    }


def probe(
    decode: Decode,
    *,
    trial: int,
    beam: Mapping[str, str],
    auto: Sequence[str],
    token_count: int,
    has_lm: bool,
    clusters: Clusters,
    audio_seconds: float | None,
    max_rtf: float | None,
) -> Probe:
    """Decode with a wider beam; under ``auto`` find the knob that is worth raising.

    Args:
        decode: Decodes the probe's utterances.
        trial: The trial whose weights are used.
        beam: Its beam flags.
        auto: Those of them that w2ltune may raise.
        token_count: Tokens of the model.
        has_lm: Whether there is an LM to leave out for comparison.
        clusters: Of the probe's utterances.
        audio_seconds: Length of the probe's utterances.
        max_rtf: Raise nothing beyond this real-time factor; None for any.
    """
    wide = widened(beam, token_count)
    base_counts, base_seconds = decode(beam)
    rows = [_row("as searched", beam, base_counts, base_seconds, None, clusters)]
    rows.append(_row("wider", wide, *decode(wide), base_counts, clusters))
    if has_lm:
        rows.append(
            _row("without LM", beam, *decode({**beam, **WITHOUT_LM}), base_counts, clusters)
        )
    gained = rows[1].against_searched
    assert gained is not None
    raised: dict[str, str] = {}
    saved = sum(rows[0].counts[:3]) - sum(rows[1].counts[:3])
    if saved < LEAST_SAVED or gained.difference >= -LIKELY * _standard_error(gained):
        advice = (
            f"a wider beam changes {_points(gained.difference)} "
            f"[{_points(gained.interval[0])}, {_points(gained.interval[1])}]: this one is wide "
            "enough"
        )
    elif not auto:
        flags = " ".join(f"--{n}={wide[n]}" for n in BEAM_FLAGS if wide[n] != beam[n])
        advice = (
            f"a wider beam gives {_points(gained.difference)} [{_points(gained.interval[0])}, "
            f"{_points(gained.interval[1])}] at {rows[1].work_seconds / base_seconds:.1f} times "
            f"the CPU time, and other weights will be best there: {flags}, or --beamsize=auto"
        )
    else:
        for name in auto:
            if wide[name] != beam[name]:
                one = {**beam, name: wide[name]}
                rows.append(_row(f"{name} alone", one, *decode(one), base_counts, clusters))
        raised, advice = _raise(rows, beam, auto, audio_seconds, max_rtf)
    return Probe(
        trial=trial,
        utterances=len(base_counts),
        audio_seconds=audio_seconds,
        rows=tuple(rows),
        advice=advice,
        raised=raised,
    )


def _raise(
    rows: Sequence[ProbeRow],
    beam: Mapping[str, str],
    auto: Sequence[str],
    audio_seconds: float | None,
    max_rtf: float | None,
) -> tuple[dict[str, str], str]:
    """Return the knob that gives most for its CPU time, and what to say of it."""
    base = rows[0].work_seconds
    worth: dict[str, float] = {}
    for row in rows:
        name = row.label.removesuffix(" alone")
        if name not in auto or row.against_searched is None:
            continue
        if max_rtf is not None and audio_seconds and row.work_seconds / audio_seconds > max_rtf:
            continue
        if row.against_searched.difference < 0:
            more = max(row.work_seconds - base, 0.01 * base)
            worth[name] = -row.against_searched.difference / more
    if not worth:
        limit = "" if max_rtf is None else f" within --max_rtf={max_rtf:g}"
        return {}, f"a wider beam would help, but no single flag does{limit}"
    name = max(worth, key=worth.__getitem__)
    value = next(row.beam[name] for row in rows if row.label == f"{name} alone")
    return {name: value}, f"{name} is raised from {beam[name]} to {value}"


def _row(
    label: str,
    beam: Mapping[str, str],
    counts: npt.NDArray[np.int32],
    seconds: float,
    searched: npt.NDArray[np.int32] | None,
    clusters: Clusters,
) -> ProbeRow:
    total = counts.sum(axis=0, dtype=np.int64).tolist()
    return ProbeRow(
        label=label,
        beam={name: beam[name] for name in BEAM_FLAGS},
        counts=(total[0], total[1], total[2], total[3]),
        work_seconds=round(seconds, 3),
        against_searched=None if searched is None else compare(counts, searched, clusters),
    )


def _standard_error(difference: Comparison) -> float:
    return (difference.interval[1] - difference.interval[0]) / (2 * 1.96)


def _points(difference: float) -> str:
    return f"{100 * difference:+.2f}"
