"""How many decode trials run at a time, and which block is decoded where."""

from __future__ import annotations

import fcntl
import threading
from collections import deque
from pathlib import Path

import pytest
from waiting import PATIENCE_SECONDS, wait_for

from w2ltune.cluster.scratch import beside_others
from w2ltune.errors import KilledError
from w2ltune.trials import decoding, pool


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


def test_a_block_whose_program_was_killed_goes_to_another_node() -> None:
    job = pool._Job(attempt=1, flags={}, nbest=0, dump=False, blocks={}, pending=deque([3, 4]))
    job.deaths[3] = ["a"]
    assert [job.first(node, {"a", "b"}) for node in ("a", "b")] == [4, 3]
    assert job.first("a", {"a"}) == 3  # there is no other
    job.deaths[3].append("b")
    assert [job.first(node, {"a", "b"}) for node in ("a", "b")] == [3, 3]
    job.failure = KilledError("each time")
    assert job.first("a", {"a"}) is None


def test_a_block_that_is_to_run_alone_waits_and_is_not_overtaken(tmp_path: Path) -> None:
    began: list[str] = []
    may_end = threading.Event()

    def run(name: str, alone: bool) -> None:
        with beside_others(tmp_path, alone=alone):
            began.append(name)
            may_end.wait(PATIENCE_SECONDS)

    threads = [
        threading.Thread(target=run, args=args)
        for args in (("one", False), ("two", False), ("alone", True), ("late", False))
    ]
    for thread in threads[:2]:
        thread.start()
    wait_for(lambda: len(began) == 2)
    threads[2].start()
    wait_for(lambda: not _is_free(tmp_path / "turn"))  # it waits, and keeps the turn
    threads[3].start()
    assert sorted(began) == ["one", "two"]
    may_end.set()
    for thread in threads:
        thread.join()
    assert began[2:] == ["alone", "late"]


def _is_free(path: Path) -> bool:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
