"""The processes of one launch of a training: those of this node, and those of others by Ray."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from w2ltune.errors import TrialFailedError
from w2ltune.runs.process import Child, Program, start, stop
from w2ltune.runs.sharing import share
from w2ltune.trials.trainjob import TrainJob

ANSWER_SECONDS = 30.0
"""A node whose launcher does not answer for so long is lost."""

VISIBLE = "CUDA_VISIBLE_DEVICES"


class NodeLostError(Exception):
    """A node that a training ran on is gone; the training begins again on others."""


class Ranks(Protocol):
    """The processes of a launch."""

    def poll(self) -> Sequence[int | None]:
        """Return the exit code of each rank, None while it runs.

        Raises:
            NodeLostError: A node is gone.
        """

    def local(self) -> Sequence[Child]:
        """Return the processes of this node; rank 0, which writes the checkpoints, is first."""

    def stop(self, rundir: Path, *, patience_seconds: float) -> None:
        """End all, after a checkpoint that is being written."""


class NodeRanks:
    """The processes of one node, started in order.

    Args:
        programs: What to start.
        attempts: The trial's folder of launches.
        attempt: The launch that they belong to; a later one ends them.
    """

    def __init__(self, programs: Sequence[Program], attempts: Path, attempt: int) -> None:
        self._children: list[Child] = []
        try:
            for program in programs:
                self._children.append(start(program, attempts=attempts, attempt=attempt))
        except BaseException:
            self.kill()
            raise

    def poll(self) -> Sequence[int | None]:
        """Return the exit codes."""
        return [child.poll() for child in self._children]

    def local(self) -> Sequence[Child]:
        """Return all processes."""
        return self._children

    def stop(self, rundir: Path, *, patience_seconds: float) -> None:
        """End all, after a checkpoint that is being written."""
        for child in self._children[:1]:
            stop(child, rundir, patience_seconds=patience_seconds)
        self.kill()

    def kill(self) -> None:
        """End all at once."""
        for child in self._children:
            child.kill()


def visible_devices() -> Mapping[str, str]:
    """Return the setting that shows a process the GPUs that Ray gave to its bundle, no others."""
    ids = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    return {VISIBLE: ",".join(ids)} if ids else {}


class NodeLauncher:
    """Starts the ranks of another node; an actor in that node's bundle."""

    def __init__(self) -> None:
        self._ranks: NodeRanks | None = None

    def start(self, programs: Sequence[Program], attempts: Path, attempt: int) -> None:
        """Start the programs with this node's GPUs."""
        share(attempts, worker=True)
        self._ranks = NodeRanks([with_devices(p) for p in programs], attempts, attempt)

    def poll(self) -> Sequence[int | None]:
        """Return the exit codes."""
        assert self._ranks is not None
        return self._ranks.poll()

    def kill(self) -> None:
        """End all at once."""
        if self._ranks is not None:
            self._ranks.kill()


def with_devices(program: Program) -> Program:
    """Return a program that sees the GPUs of this process's bundle only."""
    return replace(program, environment={**program.environment, **visible_devices()})


class SpreadRanks:
    """The processes of a training on several nodes; this process is the first node's launcher.

    Args:
        job: The training's study.
        programs: Of all ranks, in order.
        attempts: The trial's folder of launches.
        attempt: This launch.
    """

    def __init__(
        self, job: TrainJob, programs: Sequence[Program], attempts: Path, attempt: int
    ) -> None:
        each, group = job.ranks_per_node, get_current_placement_group()
        assert group is not None
        self._others: list[Any] = []
        for node in range(1, job.nodes):
            bundle = job.bundles[node]
            place = PlacementGroupSchedulingStrategy(
                placement_group=group, placement_group_bundle_index=node
            )
            self._others.append(
                _LAUNCHER.options(
                    num_cpus=bundle["CPU"], num_gpus=bundle.get("GPU", 0), scheduling_strategy=place
                ).remote()
            )
        parts = [programs[node * each : (node + 1) * each] for node in range(job.nodes)]
        self._ask([launcher.start.remote(part, attempts, attempt)
                   for launcher, part in zip(self._others, parts[1:], strict=True)])  # fmt: skip
        self._own = NodeRanks([with_devices(p) for p in parts[0]], attempts, attempt)

    def poll(self) -> Sequence[int | None]:
        """Return the exit codes of all ranks."""
        parts = self._ask([launcher.poll.remote() for launcher in self._others])
        return [*self._own.poll(), *(code for part in parts for code in part)]

    def _ask(self, answers: Sequence[Any]) -> list[Any]:
        try:
            return list(ray.get(list(answers), timeout=ANSWER_SECONDS))
        except RayTaskError as error:  # the launcher's own: its program cannot be started
            raise TrialFailedError(str(error.cause)) from None
        except RayError as error:
            raise NodeLostError(type(error).__name__) from error

    def local(self) -> Sequence[Child]:
        """Return the processes of this node."""
        return self._own.local()

    def stop(self, rundir: Path, *, patience_seconds: float) -> None:
        """End all, after a checkpoint that is being written."""
        self._own.stop(rundir, patience_seconds=patience_seconds)
        for launcher in self._others:
            with contextlib.suppress(RayError):  # a node may be gone; the guards do the rest
                ray.get(launcher.kill.remote(), timeout=5)
            ray.kill(launcher)


_LAUNCHER = ray.remote(max_restarts=0)(NodeLauncher)


def start_ranks(job: TrainJob, programs: Sequence[Program], attempts: Path, attempt: int) -> Ranks:
    """Start all processes of a launch, from within its trainable."""
    if job.nodes > 1:
        return SpreadRanks(job, programs, attempts, attempt)
    return NodeRanks([with_devices(p) for p in programs], attempts, attempt)
