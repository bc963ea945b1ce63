"""The workers of a decoder pool: one on each core (or GPU) that the pool may have now.

Nodes come and go, and so do other commands of the cluster, which have their part of it (`sharing`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from w2ltune.trials.clusterstate import Amounts, Cluster, look_around
from w2ltune.trials.dataset import DecodeTask
from w2ltune.trials.resources import slots, stays
from w2ltune.trials.sharing import SETTLE_SECONDS, share_of
from w2ltune.trials.worker import DecoderWorker

FAILED_STARTS = 5
FOLLOW_SECONDS = 1.0


@dataclass(kw_only=True)
class PoolWorker:
    """A worker.

    Attributes:
        handle: The actor.
        node: Where it is, or is to be.
        holds: Whether it takes a core (or GPU) by Ray's count.
        asked: Whether there was no room for it: it comes when another command gives some back.
        ready: Whether it is there.
        leaves: Whether it gets nothing more to do.
        blocks: What is in flight, (trial, attempt, block); of a lost worker what was when it was
            lost.
    """

    handle: Any
    node: str
    holds: bool
    asked: bool
    ready: bool = False
    leaves: bool = False
    blocks: list[tuple[int, int, int]] = field(default_factory=list)


class PoolWorkers:
    """Starts and ends the workers of a pool; made and used in its event loop.

    Args:
        task: What they decode.
        scratch: Name of their folder in the scratch of each node.
        news: Called when there may be a worker with nothing to do.
        failed: Takes why no worker can be started.

    Attributes:
        all: The workers, by name.
    """

    def __init__(
        self,
        task: DecodeTask,
        scratch: str,
        *,
        news: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:
        self.all: dict[str, PoolWorker] = {}
        self._task = task
        self._scratch = scratch
        self._news = news
        self._failed = failed
        self._started = self._failed_starts = 0
        self._gave = -SETTLE_SECONDS
        self._running = {asyncio.get_event_loop().create_task(self._follow())}

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(RayError):
                self._fill()
            await asyncio.sleep(FOLLOW_SECONDS)

    def _fill(self) -> None:
        cluster = look_around()
        for name, worker in list(self.all.items()):
            if worker.node not in cluster.nodes and not worker.blocks:
                del self.all[name]
        units = {node: unit for node in cluster.nodes if (unit := self._unit(cluster.nodes[node]))}
        held = Counter(w.node for w in self.all.values() if w.holds and not w.asked)
        extra = sum(not worker.holds for worker in self.all.values())
        asked = [name for name, worker in self.all.items() if worker.asked]
        share = share_of(cluster, units, held, extra=extra, asked=len(asked))
        leaving = any(worker.leaves for worker in self.all.values())
        if not leaving and time.monotonic() - self._gave > SETTLE_SECONDS:
            self._give_back(share.give)
        free = sum(slots(unit, cluster.free[node]) for node, unit in units.items())
        for name in asked[: max(0, len(self.all) + free - share.workers)]:
            self.all[name].leaves = True  # there is room elsewhere, or none for so many
            self.let_go(name)
        self._start(cluster, units, share.workers)
        self._news()

    def _give_back(self, numbers: Mapping[str, int]) -> None:
        """Let so many workers of each node end; those that have nothing to do first."""
        for node, number in numbers.items():
            own = [
                name
                for name, worker in self.all.items()
                if worker.holds and not worker.asked and worker.node == node
            ]
            for name in sorted(own, key=lambda name: len(self.all[name].blocks))[:number]:
                self.all[name].leaves = True
                self.let_go(name)
            self._gave = time.monotonic()

    def let_go(self, name: str) -> None:
        """End a worker that is to leave and has nothing in flight."""
        worker = self.all[name]
        if worker.leaves and not worker.blocks:
            del self.all[name]
            ray.kill(worker.handle)

    def _start(self, cluster: Cluster, units: Mapping[str, Amounts], most: int) -> None:
        """Start workers: where there is room, and else where some may come."""
        freest = sorted(units, key=lambda node: -slots(units[node], cluster.free[node]))
        for asked in (False, True):
            for node in freest:
                unit = units[node]
                there = sum(worker.node == node for worker in self.all.values())
                room = slots(unit, cluster.nodes[node]) - there
                free = slots(unit, cluster.free[node])
                while room > 0 and len(self.all) < most:
                    holds = "GPU" in unit or any(not w.holds for w in self.all.values())
                    if holds and cluster.others and not asked and not free:
                        break
                    self._start_worker(node, unit, holds=holds, asked=asked)
                    room -= 1
                    free -= holds

    def _start_worker(self, node: str, unit: Amounts, *, holds: bool, asked: bool) -> None:
        name = f"decoder-{node[:6]}-{self._started}"
        self._started += 1
        handle = _WORKER.options(
            num_cpus=unit["CPU"] if holds else 0,
            num_gpus=unit.get("GPU", 0),
            name=f"{name}-{time.time_ns() % 10**9}",
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        ).remote(self._task, self._scratch)
        self.all[name] = PoolWorker(handle=handle, node=node, holds=holds, asked=asked)
        task = asyncio.get_running_loop().create_task(self._wait_for(name))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _wait_for(self, name: str) -> None:
        """Give a worker blocks as soon as it is there."""
        worker = self.all[name]
        try:
            await worker.handle.__ray_ready__.remote()
            worker.ready, worker.asked = True, False
            self._failed_starts = 0
        except RayError as error:
            if self.all.get(name) is worker:
                del self.all[name]
            if not worker.leaves and await asyncio.to_thread(stays, worker.node):
                self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS:
                reason = str(error).strip().rpartition("\n")[2]
                self._failed(f"no decoder worker can be started ({reason})")
        self._news()

    def _unit(self, resources: Amounts) -> Amounts:
        """Return what a worker takes on a node; nothing where there can be none."""
        if self._task.program is not None and self._task.gpu and resources.get("GPU", 0) >= 1:
            return {"CPU": 1, "GPU": 1}
        return {"CPU": 1} if resources.get("CPU", 0) >= 1 else {}


_WORKER = ray.remote(num_cpus=1, max_restarts=0)(DecoderWorker)
