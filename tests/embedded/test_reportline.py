from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from w2ltune.embedded.evaluation import Evaluation
from w2ltune.embedded.reportline import format_report
from w2ltune.embedded.training import Batch, Report
from w2ltune.scoring.wer import ErrorCounts

REAL_LOG = Path(__file__).parents[1] / "data" / "logs" / "rundir" / "001_log"
NOW = datetime(2026, 11, 22, 16, 50, 33)


def result(loss: float, ter: float, wer: float) -> Evaluation:
    def counts(per_cent: float) -> ErrorCounts:
        errors = round(100 * per_cent)
        return ErrorCounts(substitutions=errors, deletions=0, insertions=0, reference_words=10_000)

    return Evaluation(loss=loss, token_errors=counts(ter), word_errors=counts(wer))


def report(**changes: object) -> Report:
    seconds = (0.0009, 0.02469, 0.00206, 0.02476, 0.00974)  # of each batch
    batch = Batch(
        training=result(9.01992, 93.37, 100),
        utterances=8,
        frames=8 * 154,
        target_lengths=(17, 10, 26, 15, 17, 17, 17, 17),
        seconds=seconds,
    )
    whole = Report(epoch=3, updates=60, learning_rate=0.002, batches=(batch,) * 20)
    return replace(whole, **changes)


def test_the_line_of_a_real_log_is_written_to_the_letter():
    validation = {"dev": result(10.07776, 81.40, 97.62), "tsta": result(16.11849, 85.05, 100)}
    line = format_report(report(), validation, frame_milliseconds=10, now=NOW)
    real = REAL_LOG.read_text().splitlines()[2].split(" | ")
    # The batch time holds the waits between the phases too, in the binary.
    ours = line.split(" | ")
    for one, other in zip(ours, real, strict=True):
        key = one.partition(":")[0]
        assert key == other.partition(":")[0]
        assert one == other or key in ("bch(ms)", "thrpt(sec/sec)")


@pytest.mark.parametrize(
    ("scale", "runtime"), [(1, "00:00:01"), (3600, "01:14:34"), (0, "00:00:00")]
)
def test_times(scale, runtime):
    first = report().batches[0]
    batch = replace(first, seconds=tuple(scale * seconds for seconds in first.seconds))
    line = format_report(report(batches=(batch,) * 20), {}, frame_milliseconds=10, now=NOW)
    assert f"| runtime: {runtime} |" in line
    assert ("thrpt(sec/sec): n/a |" in line) == (scale == 0)
