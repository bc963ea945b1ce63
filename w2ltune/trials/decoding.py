"""A decode as a Ray Tune trainable: a light actor on the head that collects the pool's results."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from ray import tune
from ray.exceptions import RayError

from w2ltune import files
from w2ltune.errors import TrialFailedError, W2LTuneError, storage_fault
from w2ltune.formats.nbest import write_nbest
from w2ltune.runs.explain import killed_again
from w2ltune.runs.lock import is_overtaken
from w2ltune.runs.sharing import share
from w2ltune.runs.trialdir import TrialDirectory
from w2ltune.scoring.nbest import concatenate
from w2ltune.trials.dataset import blocks
from w2ltune.trials.pool import HEAD_RESOURCE
from w2ltune.trials.worker import BlockResult

SLICE_SECONDS = 0.5
"""How long a step waits for news; a stop is noticed between steps."""

MOST_LAUNCHES = 5
"""After so many launches in one run of the sweep the trial fails: its process dies of itself."""


RESOURCES = {HEAD_RESOURCE: 0.001}
"""What Tune reserves for a trial: it pins the trainable to the head, without a core.

The head has 1 of it, for all studies of the cluster.
"""

PROCESS_SECONDS = 3.0
"""About what the start of a trial's process takes."""


class LiveTrials:
    """How many trials may be live: one more only when none has ended for a while.

    Where a trial ends while the process of another one is being started, Tune gives that one the
    process that is free and ends the new one. With short trials a process would be started for
    each, and do nothing; and one trial after the other keeps the pool busy.

    Args:
        most: So many at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._processes = 1
        self._live = 0
        self._since = time.monotonic()

    def __call__(self, live: int) -> int:
        """Return how many there may be when so many are live."""
        now = time.monotonic()
        if live != self._live:
            self._live, self._since = live, now
        if live == self._processes < self._most and now - self._since > PROCESS_SECONDS:
            self._processes += 1
        return self._processes


class DecodeTrial(tune.Trainable):
    """Decodes the list with one trial's flags.

    The configuration holds ``number``, ``trials`` (folder), ``flags``, ``launched`` (attempts
    before this run), ``pool`` (name of the decoder pool), ``nbest`` (hypotheses kept of each
    utterance, 0 for none), ``key`` (of the n-best file) and ``most_blocks`` (into which the list
    is cut). Each step reports::

        attempt          the number of this launch of the trial
        seconds          wall time of this launch
        done             whether the trial is over
        step             utterances in the finished prefix of the fixed order
        value            error rate of that prefix
        utterance_counts S, D, I, reference length of each utterance of the prefix, [n, 4]
        counts           S, D, I, reference length: of the prefix; of the whole list when done
        fraction         part of the list that is decoded
        work_seconds     processor time so far
        missing          utterances without a hypothesis so far
        linear           whether the scores were linear in the weights
        failure          why the trial failed, or cannot go on now (a `StorageError`), or None
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Take a trial; it begins with the first step."""
        share(Path(config["trials"]), worker=True)
        self._ids: tuple[str, ...] = ()
        self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial in the same process."""
        self.cleanup()
        self._start(new_config)
        return True

    def _start(self, config: dict[str, Any]) -> None:
        self._directory = TrialDirectory(Path(config["trials"]), config["number"])
        self._launched: int = config["launched"]
        self._generation: int = config.get("generation") or sys.maxsize
        self._attempt = 0
        self._started = time.monotonic()
        self._flags: dict[str, str] = config["flags"]
        self._pool: str = config["pool"]
        self._nbest: int = config["nbest"]
        self._key: str = config["key"]
        self._most: int = config["most_blocks"]
        self._blocks: dict[int, list[int]] = {}
        self._results: dict[int, BlockResult] = {}

    def step(self) -> dict[str, Any]:
        """Wait a moment for news and report what there is."""
        failure: W2LTuneError | None = None
        try:
            failure = self._collect()
            done = failure is not None or len(self._results) == len(self._blocks) > 0
            if done and failure is None:
                self._write_utterances()
        except RayError:
            # The pool is restarting; it is asked again, with the blocks that are still to do.
            time.sleep(SLICE_SECONDS)
            done = False
        except BlockingIOError:  # a newer launch, of this owner or the next one, does it
            time.sleep(SLICE_SECONDS)
            done = False
        except Exception as error:  # Tune would try the same again without end
            failure = storage_fault(error) or TrialFailedError(f"{type(error).__name__}: {error}")
            done = True
        return self._report(done=done, failure=failure)

    def _collect(self) -> W2LTuneError | None:
        """Take what the pool has for us; return why the trial fails, or None."""
        if not self._attempt:
            # Not earlier: Tune prepares processes for a trial that it then gives to another one,
            # and starts a trial again that was stopped or done when its process died.
            if self._directory.result.exists():
                return TrialFailedError("the trial has a result already")
            if is_overtaken(self._directory.path.parents[1] / "lock", self._generation):
                raise BlockingIOError("another process took the sweep over")
            self._attempt = self._directory.begin_attempt()
            files.fence(self._directory.path.parents[1], self._is_newest, _leave)
        if self._attempt - self._launched > MOST_LAUNCHES:
            return killed_again("the trial's own process died", times=MOST_LAUNCHES)
        pool: Any = ray.get_actor(self._pool)
        self._ids = self._ids or ray.get(pool.ids.remote())
        self._blocks = self._blocks or dict(enumerate(blocks(len(self._ids), most=self._most)))
        own, have = (self._directory.number, self._attempt), list(self._results)
        found: dict[int, BlockResult] | None
        found = ray.get(pool.poll.remote(*own, have, SLICE_SECONDS))
        if found is None:
            rest = {n: block for n, block in self._blocks.items() if n not in self._results}
            ray.get(pool.submit.remote(*own, self._flags, rest, self._nbest))
            found = ray.get(pool.poll.remote(*own, have, SLICE_SECONDS))
        self._results |= found or {}
        return next((found.failure for found in self._results.values() if found.failure), None)

    def _report(self, *, done: bool, failure: W2LTuneError | None) -> dict[str, Any]:
        results = [result for number, result in self._results.items() if number >= 0]
        prefix = self._prefix()
        total = prefix.sum(axis=0)
        return {
            "done": done,
            "failure": failure,
            "attempt": self._attempt,
            "seconds": time.monotonic() - self._started,
            "step": len(prefix),
            "value": float(total[:3].sum() / total[3]) if total[3] else float("nan"),
            "utterance_counts": prefix,
            "counts": tuple(int(value) for value in total),
            "fraction": len(results) / max(1, len(self._blocks)),
            "work_seconds": sum(result.work_seconds for result in results),
            "missing": sum(result.hypotheses.count(None) for result in results),
            "linear": all(result.linear for result in results),
        }

    def _prefix(self) -> npt.NDArray[np.int32]:
        """Return the [utterances, 4] counts of the blocks finished without a gap."""
        parts = [np.zeros((0, 4), np.int32)]
        for number in sorted(self._blocks):
            result = self._results.get(number)
            if result is None or result.counts is None:
                break
            parts.append(result.counts)
        return np.concatenate(parts)

    def _is_newest(self) -> bool:
        return self._directory.attempt() == self._attempt

    def _write_utterances(self) -> None:
        """Write each utterance's errors and n-best list."""
        if not self._is_newest():
            _leave()
        rows: dict[int, str] = {}
        for number, block in self._blocks.items():
            result = self._results[number]
            assert result.counts is not None
            for index, counts, text in zip(block, result.counts, result.hypotheses, strict=True):
                cells = [self._ids[index], *map(str, counts), "" if text is None else text]
                rows[index] = "\t".join(cells) + "\n"
        if self._nbest:
            parts = [self._results[number].nbest for number in self._blocks]
            found = concatenate([part for part in parts if part], list(self._blocks.values()))
            write_nbest(self._directory.nbest, found, key=self._key)
        header = "id\tsubstitutions\tdeletions\tinsertions\treference_length\thypothesis\n"
        files.write_text(
            self._directory.utterances, header + "".join(rows[i] for i in sorted(rows))
        )

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing: the trial's folder is the truth."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Load nothing."""

    def cleanup(self) -> None:
        """Tell the pool to forget the trial: nothing of it is asked for again."""
        files.unfence(self._directory.path.parents[1], self._is_newest)
        if self._attempt:
            try:
                pool: Any = ray.get_actor(self._pool)
                ray.get(pool.cancel.remote(self._directory.number, self._attempt), timeout=5)
            except (RayError, ValueError):
                pass


def _leave() -> None:
    raise BlockingIOError("a newer launch of the trial is at work")
