"""The pool of decoder workers: one actor per core (or GPU) of each node, shared by all live trials.

A trial hands its blocks to the pool and takes results as they come. Workers pull blocks in one
fixed order, at most two in flight each. A lost worker costs the block that it was decoding; nodes
may come and go.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from w2ltune.errors import KilledError, TrialFailedError, W2LTuneError
from w2ltune.runs.explain import TRIES, killed_again
from w2ltune.trials.dataset import DecodeTask
from w2ltune.trials.poolworkers import PoolWorker, PoolWorkers
from w2ltune.trials.resources import is_there, stays
from w2ltune.trials.sharing import Patience
from w2ltune.trials.worker import BlockResult

HEAD_RESOURCE = "node:__internal_head__"
IN_FLIGHT = 2


@dataclass(kw_only=True)
class _Job:
    """One attempt of one trial in the pool."""

    attempt: int
    flags: Mapping[str, str]
    nbest: int
    dump: bool
    blocks: Mapping[int, Sequence[int]]
    pending: deque[int]
    done: dict[int, BlockResult] = field(default_factory=dict)
    deaths: dict[int, list[str]] = field(default_factory=dict)
    """The nodes where a block's worker or program was killed."""
    failure: W2LTuneError | None = None

    def first(self, node: str, nodes: set[str]) -> int | None:
        """Return the first block for a node: where one was killed, only if there is no other."""
        for block in () if self.failure else self.pending:
            if node not in self.deaths.get(block, ()) or nodes.issubset(self.deaths[block]):
                return block
        return None


class DecoderPool:
    """Keeps workers on all nodes of the cluster and hands blocks to them; one actor on the head.

    Args:
        task: What all workers decode.
        ids: The utterance ids of the task, for the trials.
        scratch: Name of the workers' folder in the scratch of each node.
    """

    def __init__(self, task: DecodeTask, ids: tuple[str, ...], scratch: str) -> None:
        self._ids = ids
        self._jobs: dict[int, _Job] = {}
        self._workers = PoolWorkers(task, scratch, news=self._assign, failed=self._fail)
        self._news = asyncio.Condition()
        self._running: set[asyncio.Task[None]] = set()

    async def submit(
        self,
        trial: int,
        attempt: int,
        flags: Mapping[str, str],
        blocks: Mapping[int, Sequence[int]],
        nbest: int = 0,
        dump: bool = False,
    ) -> None:
        """Take blocks to decode, in the order of their numbers; a newer attempt replaces one."""
        known = self._jobs.get(trial)
        if known is None or known.attempt < attempt:
            self._jobs[trial] = _Job(
                attempt=attempt, flags=flags, nbest=nbest, dump=dump, blocks=blocks,
                pending=deque(sorted(blocks)),
            )  # fmt: skip
            self._assign()

    async def poll(
        self, trial: int, attempt: int, have: Sequence[int], wait_seconds: float
    ) -> dict[int, BlockResult] | None:
        """Return the results beyond those that the caller has, after waiting for some.

        What the caller has leaves the pool. What is on the way to it does not, until it is said to
        have come: the answer may be lost and asked for again.

        Returns:
            Results by block number; None when the pool does not know this attempt (it was
            restarted): submit again.
        """
        deadline = time.monotonic() + wait_seconds
        having = set(have)
        while True:
            job = self._jobs.get(trial)
            if job is None or job.attempt != attempt:
                return None
            if job.failure:
                return {-1: BlockResult(failure=job.failure)}
            job.done = {block: job.done[block] for block in job.done if block not in having}
            finished = len(job.done.keys() | having & job.blocks.keys()) == len(job.blocks)
            rest = deadline - time.monotonic()
            if finished or rest <= 0:
                return dict(job.done)
            async with self._news:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._news.wait(), rest)

    async def cancel(self, trial: int, attempt: int) -> None:
        """Forget a trial's blocks; those in flight are finished and thrown away."""
        job = self._jobs.get(trial)
        if job is not None and job.attempt <= attempt:
            del self._jobs[trial]

    async def ids(self) -> tuple[str, ...]:
        """Return the utterance ids in the order of the lists."""
        return self._ids

    async def ready(self) -> bool:
        """Return whether there is a worker."""
        return any(worker.ready for worker in self._workers.all.values())

    def _fail(self, reason: str) -> None:
        for job in self._jobs.values():
            job.failure = TrialFailedError(reason)

    def _assign(self) -> None:
        nodes = {worker.node for worker in self._workers.all.values() if worker.ready}
        for name, worker in list(self._workers.all.items()):
            while worker.ready and not worker.leaves and len(worker.blocks) < IN_FLIGHT:
                firsts = ((n, self._jobs[n].first(worker.node, nodes)) for n in sorted(self._jobs))
                trial, block = next((place for place in firsts if place[1] is not None), (0, None))
                if block is None:
                    break
                job = self._jobs[trial]
                job.pending.remove(block)
                worker.blocks.append((trial, job.attempt, block))
                task = asyncio.get_running_loop().create_task(
                    self._decode(name, worker, trial, job, block)
                )
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    async def _decode(
        self, name: str, worker: PoolWorker, trial: int, job: _Job, block: int
    ) -> None:
        place = (trial, job.attempt, block)
        try:
            result: BlockResult = await worker.handle.decode.remote(
                job.flags, job.blocks[block], job.nbest, job.dump, block in job.deaths
            )
            if result.failure and not await asyncio.to_thread(is_there, worker.node):
                job.pending.appendleft(block)
            elif isinstance(result.failure, KilledError):
                self._again(job, block, worker.node, str(result.failure))
            else:
                job.done[block] = result
                job.failure = job.failure or result.failure
        except RayTaskError as error:
            if await asyncio.to_thread(is_there, worker.node):
                says = str(error.cause).partition("\n")[0] or type(error.cause).__name__
                job.failure = TrialFailedError(f"the decoder failed: {says}")
            else:  # it failed because its node is going
                job.pending.appendleft(block)
        except RayError as error:
            # Lost with all its blocks, of which at most the first one was being decoded.
            first = worker.blocks[0] == place
            if self._workers.all.get(name) is worker:
                del self._workers.all[name]
            if first and await asyncio.to_thread(stays, worker.node):
                self._again(
                    job, block, worker.node,
                    f"decoder workers died on the same block of {len(job.blocks[block])} "
                    f"utterances (from number {job.blocks[block][0]} of the list), most likely for "
                    f"want of memory ({type(error).__name__})",
                )  # fmt: skip
            else:
                job.pending.appendleft(block)
        finally:
            if self._workers.all.get(name) is worker:
                worker.blocks.remove(place)
                self._workers.let_go(name)
            async with self._news:
                self._news.notify_all()
            self._assign()

    def _again(self, job: _Job, block: int, node: str, why: str) -> None:
        """Let a block be decoded again whose worker or program was killed, a few times."""
        job.deaths.setdefault(block, []).append(node)
        if len(job.deaths[block]) >= TRIES:
            job.failure = killed_again(why)
        else:
            job.pending.appendleft(block)


_POOL = ray.remote(num_cpus=0, max_restarts=-1)(DecoderPool)


def start_pool(task: DecodeTask, ids: tuple[str, ...], scratch: str, *, name: str) -> Any:
    """Start the pool on the head node and return its handle.

    Args:
        task: What to decode.
        ids: The utterance ids of the task.
        scratch: Name of the workers' folder in the scratch of each node.
        name: Under which trials find it; of no other pool.
    """
    return _POOL.options(name=name, resources={HEAD_RESOURCE: 0.001}, max_concurrency=1000).remote(
        task, ids, scratch
    )


def waits_told(pool: Any, say: Callable[[str], None]) -> Callable[[], None]:
    """Return what is to be called again and again, and says it when a pool waits for a GPU.

    Args:
        pool: Its handle.
        say: Takes the line.
    """
    patience = Patience([{"CPU": 1, "GPU": 1}], say)

    def look() -> None:
        with contextlib.suppress(RayError):  # it is being started again
            patience.look(begun=ray.get(pool.ready.remote(), timeout=1))

    return look
