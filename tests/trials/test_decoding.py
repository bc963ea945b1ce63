"""How many decode trials run at a time."""

from __future__ import annotations

import pytest

from w2ltune.trials import decoding


def test_one_more_trial_at_a_time_only_where_they_take_longer_than_a_process_to_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr(decoding.time, "monotonic", lambda: clock[0])
    may = decoding.LiveTrials(3)

    def at(now: float, live: int) -> int:
        clock[0] = now
        return may(live)

    # Short ones: each time it is another one that is live.
    assert [at(now, now % 2) for now in range(20)] == [1] * 20
    assert [at(now, 1) for now in range(20, 25)] == [1, 1, 1, 2, 2]
    assert [at(25, 2), at(30, 2), at(31, 3)] == [2, 3, 3]
    assert at(60, 3) == 3  # as asked
    assert at(61, 0) == 3  # the processes are there
