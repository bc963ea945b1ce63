"""The answer of rescoring as it is printed."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from w2ltune.report.rescoring import print_answer
from w2ltune.runs.outcome import Comparison
from w2ltune.runs.rescored import ByK, Candidate, Rating, Rescored, looked

NAMES = ("no rescoring", "grid of rescore.py", "middle of the plateau", "fewest errors found")


def rescored(weights: int) -> Rescored:
    against = Comparison(difference=-0.0123, interval=(-0.02, -0.01), unit="utterance (9)")
    rating = Rating(counts=(1234, 234, 345, 54321), interval=(0.031, 0.036), unit="utterance")
    values = {f"model{number}": -1.234e-05 * (number + 1) for number in range(weights)}
    candidates = tuple(
        Candidate(name=name, weights=values, k=100, dev=rating, test=rating, chosen_against=against)
        for name in NAMES
    )
    return Rescored(
        weights=values, k=100, why="it is", candidates=candidates,
        by_k=(ByK(k=100, rate=0.033, oracle=0.01, test_rate=0.033),), metric="wer", method="line",
        evaluations=3, seconds=1.0, box=dict.fromkeys(values, (-1.0, 1.0)), undecided=(),
        oracle=0.01, depth=100,
    )  # fmt: skip


def printed(answer: Rescored, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    print_answer(console, answer)
    return [line.strip() for line in console.file.getvalue().splitlines()]


def test_names_and_numbers_stay_whole_however_many_weights_there_are() -> None:
    for width in (40, 120):
        lines = printed(rescored(7), width)
        rows = [line for line in lines if line.startswith(NAMES)]
        assert [row[: len(name)] for row, name in zip(rows, NAMES, strict=True)] == [*NAMES]
        assert "…" not in "".join(lines)
        assert all("3.10-3.60" in row and "-8.638e-05" in row for row in rows)


def test_looks_are_told_with_the_held_out_list() -> None:
    answer = rescored(1)
    (line,) = [line for line in printed(answer, 120) if "held-out:" in line]
    assert line.endswith("interval by utterance")  # written by a w2ltune that did not count
    first = looked(answer, "test.lst")
    again = looked(replace(answer, looks=first.looks), "test.lst")
    assert again.looks == first.looks
    (line,) = [line for line in printed(again, 120) if "held-out:" in line]
    assert line.endswith("interval by utterance; looked at once")
