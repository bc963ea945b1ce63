"""Decodes outside of any trial: probes of the beam, held-out lists, dumps."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from ray.exceptions import RayError

from w2ltune.cluster.session import require_ray
from w2ltune.errors import StoppedError, StorageError, TrialFailedError
from w2ltune.formats.beamdump import Hypothesis
from w2ltune.formats.nbest import NBest
from w2ltune.scoring.nbest import concatenate
from w2ltune.trials.worker import BlockResult

BLOCKS = 16
WAIT_SECONDS = 0.5
GIVE_UP_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class SomeDecoded:
    """What came of some utterances, in the order asked.

    Attributes:
        counts: [utterances, 4] int32: S, D, I, reference length.
        missing: Utterances without a hypothesis.
        work_seconds: Processor time.
        nbest: Their n-best lists, if they were asked for.
        linear: Whether all scores are the weighted sum of parts that are known.
    """

    counts: npt.NDArray[np.int32]
    missing: int
    work_seconds: float
    nbest: NBest | None
    linear: bool


def decode_some(
    pool: Any,
    flags: Mapping[str, str],
    utterances: Sequence[int],
    *,
    nbest: int = 0,
    most_blocks: int = BLOCKS,
    progress: Callable[[float], None],
    stopped: Callable[[], str] = lambda: "",
) -> SomeDecoded:
    """Decode some utterances in the pool.

    Args:
        pool: The handle of the decoder pool.
        flags: All flags of the decoder.
        utterances: Their numbers.
        nbest: Return so many hypotheses of each as arrays; 0 for none.
        most_blocks: Into which they are cut.
        progress: Called with the part that is done.
        stopped: Returns why the whole command stops, or "".

    Raises:
        TrialFailedError: The decoder failed.
        StorageError: The disk is full, or fails.
        StoppedError: The command was asked to stop, or the pool cannot be reached.
    """
    found = _in_blocks(
        pool, flags, utterances, nbest=nbest, most_blocks=most_blocks, progress=progress,
        stopped=stopped,
    )  # fmt: skip
    lists = [part.nbest for part in found if part.nbest is not None]
    ends = np.cumsum([0, *(one.utterances for one in lists)])
    places = [np.arange(low, high) for low, high in itertools.pairwise(ends)]
    return SomeDecoded(
        counts=np.concatenate([part.counts for part in found if part.counts is not None]),
        missing=sum(part.hypotheses.count(None) for part in found),
        work_seconds=sum(part.work_seconds for part in found),
        nbest=concatenate(lists, places) if lists else None,
        linear=all(part.linear for part in found),
    )


def decode_lists(
    pool: Any,
    flags: Mapping[str, str],
    utterances: Sequence[int],
    *,
    nbest: int,
    progress: Callable[[float], None],
    stopped: Callable[[], str] = lambda: "",
) -> list[tuple[Hypothesis, ...]]:
    """Return the n-best lists of some utterances, in the order asked, best first.

    Args:
        pool: The handle of the decoder pool.
        flags: All flags of the decoder.
        utterances: Their numbers.
        nbest: So many hypotheses of each at most.
        progress: Called with the part that is done.
        stopped: Returns why the whole command stops, or "".

    Raises:
        TrialFailedError: The decoder failed.
        StoppedError: The command was asked to stop, or the pool cannot be reached.
    """
    found = _in_blocks(
        pool, flags, utterances, nbest=nbest, dump=True, progress=progress, stopped=stopped
    )
    return [entries for part in found for entries in part.lists]


def _in_blocks(
    pool: Any,
    flags: Mapping[str, str],
    utterances: Sequence[int],
    *,
    nbest: int = 0,
    dump: bool = False,
    most_blocks: int = BLOCKS,
    progress: Callable[[float], None],
    stopped: Callable[[], str],
) -> list[BlockResult]:
    # The pool tells jobs apart by their number; trials have those from 0.
    number = -time.time_ns()
    count = min(most_blocks, len(utterances))
    bounds = [len(utterances) * index // count for index in range(count + 1)]
    blocks = {index: list(utterances[bounds[index] : bounds[index + 1]]) for index in range(count)}
    results: dict[int, BlockResult] = {}
    reached = time.monotonic()
    while len(results) < count:
        if stopped():
            raise StoppedError(f"stopped ({stopped()}); the same command continues")
        try:
            found = ray.get(pool.poll.remote(number, 1, list(results), WAIT_SECONDS))
            if found is None:
                rest = {index: part for index, part in blocks.items() if index not in results}
                ray.get(pool.submit.remote(number, 1, dict(flags), rest, nbest, dump))
            results |= found or {}
            reached = time.monotonic()
        except RayError:  # the pool is being started again
            require_ray()
            if time.monotonic() - reached > GIVE_UP_SECONDS:
                raise StoppedError(
                    "the decoder pool cannot be reached; the same command continues"
                ) from None
            time.sleep(WAIT_SECONDS)
        for result in results.values():
            if isinstance(result.failure, StorageError):
                raise result.failure
            if result.failure:
                raise TrialFailedError(str(result.failure))
        progress(len(results) / count)
    ray.get(pool.cancel.remote(number, 1))
    return [results[index] for index in range(count)]
