"""What the pool keeps of the trials that it decodes; without workers, their results put in."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from w2ltune.trials.pool import DecoderPool
from w2ltune.trials.worker import BlockResult


@pytest.fixture
def pool() -> DecoderPool:
    found = DecoderPool.__new__(DecoderPool)
    found._jobs, found._news = {}, asyncio.Condition()
    found._workers = SimpleNamespace(all={})  # type: ignore[assignment]
    return found


def test_results_leave_the_pool_when_the_trial_says_that_it_has_them(pool: DecoderPool) -> None:
    results = {block: BlockResult(hypotheses=[f"{block}"]) for block in range(3)}

    async def trial() -> None:
        await pool.submit(7, 1, {}, {block: [block] for block in results})
        job = pool._jobs[7]
        for block in (0, 1):
            job.done[block] = results[block]
        first = {0: results[0], 1: results[1]}
        assert await pool.poll(7, 1, [], 0) == first
        assert await pool.poll(7, 1, [], 0) == first  # the answer was lost: it is asked for again
        assert await pool.poll(7, 1, [0, 1], 0) == {}
        assert job.done == {}
        job.done[2] = results[2]
        for _ in range(2):  # all is there: this does not wait
            assert await pool.poll(7, 1, [0, 1], 1e6) == {2: results[2]}
        await pool.cancel(7, 1)  # as the trial does at its end
        assert pool._jobs == {}
        assert await pool.poll(7, 1, [0, 1, 2], 0) is None

    asyncio.run(trial())


def test_a_restarted_pool_and_a_newer_launch_begin_anew(pool: DecoderPool) -> None:
    async def trial() -> None:
        assert await pool.poll(7, 1, [0], 0) is None
        await pool.submit(7, 1, {}, {1: [1]})  # 0 came from the pool that is gone
        pool._jobs[7].done[1] = BlockResult()
        assert await pool.poll(7, 1, [0], 1e6) == {1: BlockResult()}
        await pool.submit(7, 2, {}, {0: [0], 1: [1]})
        assert await pool.poll(7, 1, [0], 1e6) is None
        await pool.cancel(7, 1)  # of the older launch
        assert await pool.poll(7, 2, [], 0) == {}

    asyncio.run(trial())
