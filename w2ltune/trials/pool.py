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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from w2ltune.trials.dataset import DecodeTask
from w2ltune.trials.resources import is_there, stays
from w2ltune.trials.worker import BlockResult, DecoderWorker

POOL_NAME = "decoder-pool"
HEAD_RESOURCE = "node:__internal_head__"
IN_FLIGHT = 2
DEATHS_PER_BLOCK = 2
FOLLOW_NODES_SECONDS = 1.0


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
    deaths: dict[int, int] = field(default_factory=dict)
    failure: str = ""


@dataclass(kw_only=True)
class _Worker:
    handle: Any
    node: str
    blocks: list[tuple[int, int, int]] = field(default_factory=list)
    """What is in flight, (trial, attempt, block); of a lost worker what was when it was lost."""


class DecoderPool:
    """Keeps workers on all nodes of the cluster and hands blocks to them; one actor on the head.

    Args:
        task: What all workers decode.
        ids: The utterance ids of the task, for the trials.
        scratch: Name of the workers' folder in the scratch of each node.
    """

    def __init__(self, task: DecodeTask, ids: tuple[str, ...], scratch: str) -> None:
        self._task = task
        self._ids = ids
        self._scratch = scratch
        self._jobs: dict[int, _Job] = {}
        self._workers: dict[str, _Worker] = {}
        self._news = asyncio.Condition()
        self._running: set[asyncio.Task[None]] = set()
        self._follower = asyncio.get_event_loop().create_task(self._follow_nodes())

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
            finished = len(job.done) == len(job.blocks)
            rest = deadline - time.monotonic()
            if finished or rest <= 0:
                return {block: job.done[block] for block in job.done if block not in having}
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

    def _assign(self) -> None:
        for name, worker in list(self._workers.items()):
            while len(worker.blocks) < IN_FLIGHT:
                trial = next((n for n in sorted(self._jobs) if self._jobs[n].pending), None)
                if trial is None:
                    return
                job = self._jobs[trial]
                block = job.pending.popleft()
                worker.blocks.append((trial, job.attempt, block))
                task = asyncio.get_running_loop().create_task(
                    self._decode(name, worker, trial, job, block)
                )
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    async def _decode(self, name: str, worker: _Worker, trial: int, job: _Job, block: int) -> None:
        place = (trial, job.attempt, block)
        try:
            result: BlockResult = await worker.handle.decode.remote(
                job.flags, job.blocks[block], job.nbest, job.dump
            )
            if not result.failure or await asyncio.to_thread(is_there, worker.node):
                job.done[block] = result
                job.failure = job.failure or result.failure
            else:
                job.pending.appendleft(block)
        except RayTaskError as error:
            if await asyncio.to_thread(is_there, worker.node):
                says = str(error.cause).partition("\n")[0] or type(error.cause).__name__
                job.failure = f"the decoder failed: {says}"
            else:  # it failed because its node is going
                job.pending.appendleft(block)
        except RayError as error:
            # Lost with all its blocks, of which at most the first one was being decoded.
            first = worker.blocks[0] == place
            if self._workers.get(name) is worker:
                del self._workers[name]
            if first and await asyncio.to_thread(stays, worker.node):
                job.deaths[block] = job.deaths.get(block, 0) + 1
            if job.deaths.get(block, 0) >= DEATHS_PER_BLOCK:
                job.failure = (
                    f"{DEATHS_PER_BLOCK} decoder workers died on the same block of "
                    f"{len(job.blocks[block])} utterances (from number {job.blocks[block][0]} of "
                    f"the list), most likely for want of memory ({type(error).__name__})"
                )
            else:
                job.pending.appendleft(block)
        finally:
            if self._workers.get(name) is worker:
                worker.blocks.remove(place)
            async with self._news:
                self._news.notify_all()
            self._assign()

    async def _follow_nodes(self) -> None:
        while True:
            with contextlib.suppress(RayError):
                self._fill()
            await asyncio.sleep(FOLLOW_NODES_SECONDS)

    def _fill(self) -> None:
        alive = {entry["NodeID"]: entry for entry in _nodes() if entry["Alive"]}
        for name, worker in list(self._workers.items()):
            if worker.node not in alive and not worker.blocks:
                del self._workers[name]
        for node, entry in alive.items():
            workers, gpus = self._workers_of(entry["Resources"])
            for number in range(workers):
                name = f"decoder-{entry['NodeManagerHostname']}-{node[:6]}-{number}"
                if name not in self._workers:
                    handle = _WORKER.options(
                        num_gpus=gpus,
                        name=f"{name}-{time.time_ns() % 10**9}",
                        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
                    ).remote(self._task, self._scratch)
                    self._workers[name] = _Worker(handle=handle, node=node)
        self._assign()

    def _workers_of(self, resources: Mapping[str, float]) -> tuple[int, int]:
        """Return how many workers a node has, and the GPUs of each."""
        cores, gpus = (int(resources.get(name, 0)) for name in ("CPU", "GPU"))
        if self._task.program is not None and self._task.gpu and gpus:
            return min(cores, gpus), 1
        return cores, 0


def _nodes() -> list[dict[str, Any]]:
    return ray.nodes()  # type: ignore[no-any-return, no-untyped-call]


_WORKER = ray.remote(num_cpus=1, max_restarts=0)(DecoderWorker)
_POOL = ray.remote(num_cpus=0, max_restarts=-1)(DecoderPool)


def start_pool(task: DecodeTask, ids: tuple[str, ...], scratch: str) -> Any:
    """Start the pool on the head node and return its handle.

    Args:
        task: What to decode.
        ids: The utterance ids of the task.
        scratch: Name of the workers' folder in the scratch of each node.
    """
    return _POOL.options(
        name=POOL_NAME,
        get_if_exists=True,
        resources={HEAD_RESOURCE: 0.001},
        max_concurrency=1000,
    ).remote(task, ids, scratch)


def has_workers() -> bool:
    """Return whether the cluster has a core to decode on at this moment."""
    return any(entry["Alive"] and entry["Resources"].get("CPU", 0) >= 1 for entry in _nodes())
