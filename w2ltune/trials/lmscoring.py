"""LM scores on Ray: workers that hold the LM, each scores one shard after the other."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from w2ltune.cluster.scratch import beside_others, in_use
from w2ltune.cluster.session import require_ray
from w2ltune.errors import (
    KilledError,
    StoppedError,
    TrialFailedError,
    UsageError,
    W2LTuneError,
    storage_fault,
    storage_faults,
)
from w2ltune.runs.explain import TRIES, killed_again
from w2ltune.runs.shards import Shard
from w2ltune.runs.signals import stopped_error
from w2ltune.trials.clusterstate import look_around
from w2ltune.trials.lmsource import LMSource, Scorer
from w2ltune.trials.resources import cluster_gpus, slots, stays, trials_that_fit
from w2ltune.trials.sharing import SETTLE_SECONDS, Patience, share_of

LOOK_SECONDS = 0.5
ATTEMPTS = 2
"""Of a shard, each with another worker."""

LOST_NODES = 5
"""How often a shard may lose its node on top of that."""


class ScoringWorker:
    """Scores shards with an LM that is loaded once.

    Args:
        source: The LM.
        scratch: Name of a folder in the scratch of each node.
    """

    def __init__(self, source: LMSource, scratch: str) -> None:
        self._source = source
        self._scratch = Path(tempfile.gettempdir(), scratch)
        self._scorer: Scorer | None = None

    def node(self) -> str:
        """Return the node that this is."""
        return str(ray.get_runtime_context().get_node_id())

    def load(self, vocabulary: Sequence[str]) -> None:
        """Load the LM."""
        self._kept = in_use(self._scratch)
        self._scratch = Path(self._kept.name).parent
        with storage_faults():
            self._scorer = self._source.load(vocabulary, self._scratch)

    def score(self, sentences: Sequence[str], alone: bool) -> npt.NDArray[np.float64]:
        """Return the scores of a shard, float64 [sentences, COLUMNS].

        Args:
            sentences: Of the shard.
            alone: Not beside other workers of this node.
        """
        assert self._scorer is not None
        with storage_faults(), beside_others(self._scratch, alone=alone):
            return self._scorer(sentences)


@dataclass(eq=False)
class _Worker:
    handle: Any
    holds: bool
    """Whether it takes its bundle by Ray's count."""
    node: str = ""
    """Where it is; "" while it waits for a place."""
    shard: Shard | None = None


class Scoring:
    """The shards that are to be scored, and the workers that do it.

    Args:
        source: The LM.
        shards: What is to be done.
        vocabulary: As `LMSource.vocabulary` returned it.
        bundle: What a worker takes.
        scratch: Name of the workers' folder in the scratch of each node.
        keep: Called with each shard that is done and its scores.
        say: Takes a line for people.
    """

    def __init__(
        self,
        source: LMSource,
        shards: Sequence[Shard],
        vocabulary: Sequence[str],
        *,
        bundle: dict[str, float],
        scratch: str,
        keep: Callable[[Shard, npt.NDArray[np.float64]], None],
        say: Callable[[str], None],
    ) -> None:
        self._source = source
        self._bundle = bundle
        self._keep = keep
        self._scratch = scratch
        self._pending = deque(shards)
        self._vocabulary = ray.put(vocabulary)
        self._live: dict[Any, _Worker] = {}  # by the answer that is waited for
        self._idle: list[_Worker] = []
        self._patience = Patience([bundle], say)
        self._leave = 0  # so many workers end with their shard
        self._freest = ""
        self._gave = -SETTLE_SECONDS
        self._failed: dict[int, int] = {}
        self._killed: dict[int, int] = {}
        self._lost: dict[int, int] = {}

    def run(
        self,
        *,
        look: Callable[[], None],
        stopped: Callable[[], str],
        lives: Callable[[], bool],
        node_wait_minutes: float,
    ) -> None:
        """Score all shards.

        Args:
            look: Called again and again.
            stopped: Returns why the whole command stops, or "".
            lives: Returns whether Ray is there.
            node_wait_minutes: Stop when there was no room for a worker for so long.

        Raises:
            UsageError: The LM cannot be loaded, or the program cannot be run.
            TrialFailedError: A shard failed twice, or was killed again and again.
            StorageError: The disk is full, or fails.
            StoppedError: The command was asked to stop, or there is no node.
        """
        fitted = time.monotonic()
        try:
            while self._pending or any(worker.shard for worker in self._live.values()):
                if reason := stopped():
                    raise _stopped(reason)
                room = trials_that_fit([self._bundle]) if lives() else 0
                if room:
                    fitted = time.monotonic()
                elif time.monotonic() - fitted > 60 * node_wait_minutes:
                    raise _stopped(f"no node can score since {node_wait_minutes:g} minutes")
                self._assign(room)
                self._patience.look(begun=any(worker.node for worker in self._workers))
                if not self._live:
                    time.sleep(LOOK_SECONDS)
                    continue
                for answer in ray.wait(list(self._live), timeout=LOOK_SECONDS)[0]:
                    self._take(answer)
                look()
        finally:
            with contextlib.suppress(RayError):  # Ray itself may be lost
                for worker in self._workers:
                    ray.kill(worker.handle)

    @property
    def _workers(self) -> list[_Worker]:
        return [*self._live.values(), *self._idle]

    def _assign(self, room: int) -> None:
        """Give each idle worker a shard, and start workers for the others."""
        most = self._share() if room else 0
        for worker in [worker for worker in self._idle if worker.holds][: self._leave]:
            self._leave -= 1
            self._idle.remove(worker)
            ray.kill(worker.handle)
        while self._idle and self._pending:
            worker = self._idle.pop()
            worker.shard = self._pending.popleft()
            alone = worker.shard.number in self._killed
            self._live[worker.handle.score.remote(worker.shard.sentences, alone)] = worker
        loading = sum(worker.shard is None for worker in self._live.values())
        for _ in range(min(most - len(self._live), len(self._pending) - loading)):
            holds = "GPU" in self._bundle or any(not worker.holds for worker in self._workers)
            placed = NodeAffinitySchedulingStrategy(self._freest, soft=True)
            handle: Any = (
                ray.remote(ScoringWorker)
                .options(
                    num_cpus=self._bundle["CPU"] if holds else 0,
                    num_gpus=self._bundle.get("GPU", 0),
                    max_restarts=0,
                    scheduling_strategy="DEFAULT" if holds else placed,
                )
                .remote(self._source, self._scratch)
            )
            self._live[handle.node.remote()] = _Worker(handle=handle, holds=holds)

    def _share(self) -> int:
        """Return how many workers there may be; let some end that others wait for."""
        cluster, workers = look_around(), self._workers
        units = {n: self._bundle for n in cluster.nodes if slots(self._bundle, cluster.nodes[n])}
        self._freest = max(units, key=lambda n: slots(self._bundle, cluster.free[n]), default="")
        held = Counter(worker.node for worker in workers if worker.holds and worker.node)
        extra = sum(not worker.holds for worker in workers)
        asked = len(workers) - held.total() - extra
        share = share_of(cluster, units, held, extra=extra, asked=asked)
        if not self._leave and time.monotonic() - self._gave > SETTLE_SECONDS:
            self._leave = sum(share.give.values())
            self._gave = time.monotonic() if self._leave else self._gave
        return share.workers

    def _take(self, answer: Any) -> None:
        """Take what a worker has answered."""
        worker = self._live.pop(answer)
        try:
            result = ray.get(answer)
        except RayTaskError as error:
            ray.kill(worker.handle)
            if fault := storage_fault(error):
                raise fault from None
            if isinstance(error.cause, UsageError):  # of no use to try it again
                raise error.cause from None
            if isinstance(error.cause, KilledError):
                self._again(worker, str(error.cause), self._killed, TRIES)
                return
            reason = str(error.cause) if isinstance(error.cause, W2LTuneError) else (
                f"{type(error.cause).__name__}: {' '.join(str(error.cause).split())[:300]}"
            )  # fmt: skip
            self._again(worker, reason, self._failed, ATTEMPTS)
        except RayError as error:
            require_ray()
            alive = worker.shard is not None and stays(worker.node)
            reason = f"its worker died, perhaps for want of memory ({type(error).__name__})"
            counted, most = (self._killed, TRIES) if alive else (self._lost, LOST_NODES)
            self._again(worker, reason, counted, most)
        else:
            if not worker.node:
                worker.node = result
                self._live[worker.handle.load.remote(self._vocabulary)] = worker
                return
            if worker.shard is not None:
                self._keep(worker.shard, result)
                worker.shard = None
            self._idle.append(worker)

    def _again(self, worker: _Worker, reason: str, counted: dict[int, int], most: int) -> None:
        """Put a shard back that was not scored, unless that was so too often."""
        shard, number = worker.shard, -1 if worker.shard is None else worker.shard.number
        counted[number] = counted.get(number, 0) + 1
        if counted[number] >= most:
            what = "the LM cannot be loaded" if shard is None else str(shard)
            if counted is self._killed:
                raise killed_again(f"{what}: {reason}")
            raise TrialFailedError(f"{what}: {reason}; tried {most} times, by different workers")
        if shard is not None:
            self._pending.appendleft(shard)


def worker_bundle(source: LMSource, *, gpu: bool) -> dict[str, float]:
    """Return what a worker takes of a node.

    Args:
        source: The LM; a causal one takes a GPU where the cluster has any.
        gpu: GPUs were asked for.
    """
    bundle = {"CPU": float(source.cores)}
    takes = {"kenlm": False, "command": gpu, "causal": gpu or cluster_gpus() > 0}
    return {**bundle, "GPU": 1.0} if takes[source.kind] else bundle


def _stopped(reason: str) -> StoppedError:
    return stopped_error(reason, "; the shards that are done are kept, the same command continues")
