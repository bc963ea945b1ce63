"""A decoder worker: decodes blocks of utterances with everything loaded once."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from w2ltune.cluster.scratch import beside_others, in_use
from w2ltune.embedded.beamsearch import Decoder
from w2ltune.embedded.decoderflags import DecoderFlags, decoder_flags, is_linear
from w2ltune.errors import W2LTuneError, storage_faults
from w2ltune.formats.beamdump import Hypothesis
from w2ltune.formats.nbest import NBest
from w2ltune.scoring.nbest import collect
from w2ltune.trials.binarydecoder import BinaryDecoder, hidden_parts
from w2ltune.trials.dataset import Dataset, DecodeTask
from w2ltune.trials.staging import stage

LOADED_DECODERS = 2


@dataclass(frozen=True, kw_only=True)
class BlockResult:
    """What came of one block.

    Attributes:
        counts: [utterances, 4] int32: S, D, I, reference length.
        hypotheses: The best hypothesis of each utterance as text; None where there is none.
        work_seconds: Processor time of the decoding.
        nbest: The n-best lists, if they were asked for.
        lists: The hypotheses of each utterance, best first, if a dump was asked for.
        linear: Whether all their scores are the weighted sum of parts that are known.
        failure: Why the whole trial cannot work, or its program was killed; None when it went well.
    """

    counts: npt.NDArray[np.int32] | None = None
    hypotheses: tuple[str | None, ...] = ()
    work_seconds: float = 0.0
    nbest: NBest | None = None
    lists: tuple[tuple[Hypothesis, ...], ...] = ()
    linear: bool = True
    failure: W2LTuneError | None = None


class DecoderWorker:
    """Decodes blocks with emissions, LM and trie loaded once; an actor on one core.

    Args:
        task: What to decode.
        name: Of a folder in this node's own scratch, for unpacked emissions and staged models.
    """

    def __init__(self, task: DecodeTask, name: str) -> None:
        if task.folder:  # of the command; the cluster may have been started elsewhere
            with contextlib.suppress(OSError):  # what is not found there is told then
                os.chdir(task.folder)
        self._task = task
        self._scratch = Path(tempfile.gettempdir(), name)
        self._dataset: Dataset | None = None
        self._decoders: dict[tuple[object, ...], Decoder] = {}

    def decode(
        self,
        flags: Mapping[str, str],
        block: Sequence[int],
        nbest: int,
        dump: bool = False,
        alone: bool = False,
    ) -> BlockResult:
        """Decode some utterances; what the user can mend comes back as ``failure``.

        Args:
            flags: The trial's flags.
            block: Numbers of utterances.
            nbest: Return so many hypotheses of each utterance as arrays; 0 for none.
            dump: Return them as they are instead.
            alone: Not beside other workers of this node.
        """
        try:
            with storage_faults():
                return self._decode(flags, block, nbest, dump, alone)
        except W2LTuneError as error:
            return BlockResult(failure=error)

    def _decode(
        self, flags: Mapping[str, str], block: Sequence[int], nbest: int, dump: bool, alone: bool
    ) -> BlockResult:
        if self._dataset is None:
            self._kept = in_use(self._scratch)
            self._scratch = Path(self._kept.name).parent
            self._dataset = Dataset(self._task, scratch=self._scratch)
        if flags.get("lm"):
            staged = stage(Path(flags["lm"]), self._scratch, mode=self._task.stage_lm)
            flags = {**flags, "lm": str(staged)}
        weights = decoder_flags(flags)
        with beside_others(self._scratch, alone=alone):
            lists, work_seconds = self._search(self._dataset, flags, weights, block, max(1, nbest))
        hypotheses = tuple(" ".join(entries[0].words) if entries else None for entries in lists)
        if dump:
            return BlockResult(
                hypotheses=hypotheses, work_seconds=work_seconds, lists=self._rated(block, lists)
            )
        arrays = None
        if nbest:
            references = [self._dataset.references[index] for index in block]
            arrays = collect(lists, references, self._dataset.units)
        return BlockResult(
            counts=self._dataset.count(block, [text or "" for text in hypotheses]),
            hypotheses=hypotheses,
            work_seconds=work_seconds,
            nbest=arrays,
            linear=not nbest or self._is_linear(weights, lists),
        )

    def _is_linear(self, weights: DecoderFlags, lists: Sequence[Sequence[Hypothesis]]) -> bool:
        if self._task.program is not None and hidden_parts(weights):
            return False
        return all(is_linear(entry, weights) for entries in lists for entry in entries)

    def _rated(
        self, block: Sequence[int], lists: Sequence[Sequence[Hypothesis]]
    ) -> tuple[tuple[Hypothesis, ...], ...]:
        """Return hypotheses with the error rate of each, as the binary's dumps have it."""
        assert self._dataset is not None
        rated = []
        for index, entries in zip(block, lists, strict=True):
            texts = [" ".join(entry.words) for entry in entries]
            counts = self._dataset.count([index] * len(texts), texts).reshape(-1, 4)
            wers = counts[:, :3].sum(axis=1) / np.maximum(1, counts[:, 3])
            pairs = zip(entries, wers.tolist(), strict=True)
            rated.append(tuple(replace(entry, wer=wer) for entry, wer in pairs))
        return tuple(rated)

    def _search(
        self,
        dataset: Dataset,
        flags: Mapping[str, str],
        weights: DecoderFlags,
        block: Sequence[int],
        nbest: int,
    ) -> tuple[list[list[Hypothesis]], float]:
        """Return the hypotheses of each utterance, and the processor time of the search."""
        if self._task.program is not None:
            binary = BinaryDecoder(self._task.program, dataset, self._scratch)
            return binary.decode(flags, weights, block, nbest=nbest)
        decoder = self._decoders.pop(weights.loaded, None) or Decoder(weights)
        self._decoders[weights.loaded] = decoder  # the newest stands last
        while len(self._decoders) > LOADED_DECODERS:
            self._decoders.pop(next(iter(self._decoders)))
        start = time.process_time()
        lists = [decoder.decode(dataset.emission(i), weights, nbest=nbest) for i in block]
        return lists, time.process_time() - start
