"""What a decode works on: utterances with references and emissions, in a fixed order of blocks."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from w2ltune import files
from w2ltune.errors import InputError, StudyMismatchError
from w2ltune.formats.emissions import EmissionSet, open_emissions
from w2ltune.formats.known_flags import Generation
from w2ltune.formats.listfile import Utterance, fit_durations, read_list
from w2ltune.runs.trialdir import trial_directories
from w2ltune.scoring.text import load_normalizer, refuse_alternatives, split_units
from w2ltune.scoring.wer import count_matrix

Metric = Literal["wer", "cer"]

MOST_BLOCKS = 32
"""Of a list: so often is a trial compared with the best one."""

FORBIDDEN = np.float32(-1000)
"""Of all other tokens in a frame of few; finite, because decoders add it up."""

_ORDER_SEED = 20201016  # any fixed number: the order must be the same in every run of every study


@dataclass(frozen=True, kw_only=True)
class DecodeProgram:
    """The binary that decodes.

    Attributes:
        path: ``fl_asr_decode``, or ``Decoder`` of wav2letter v0.2.
        generation: Of it.
        am: The acoustic model; "" when the emissions and the flags are all that it needs.
        folder: Where it runs; paths in lists are relative to it.
        environment: Additions for it.
    """

    path: str
    generation: Generation
    am: str
    folder: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DecodeTask:
    """What all decodes of a study have in common; small, so that it can be sent to each worker.

    Attributes:
        lists: The data lists that are tuned on; their utterances are decoded as one set.
        heldout: Lists that are decoded once, with the choice.
        emissions: The emission file or folder of each list, of ``lists`` and then ``heldout``;
            none while they are not made yet.
        metric: Count words or characters.
        cer_blanks: Whether the blanks between words are characters.
        normalize: Python file with ``normalize(text)``, or None.
        ignore_case: Whether upper and lower case are the same.
        program: The binary that decodes; None for the decoder in process.
        stage_lm: Whether a language model is copied to each node, as for `staging.stage`.
        gpu: Whether each process of the binary has a GPU of its own, on nodes that have some.
        folder: To which all paths are relative; "" for that of the process.
        end_tokens: Columns that are free in a frame added behind each utterance; none: no frame.
    """

    lists: tuple[Path, ...]
    emissions: tuple[Path, ...]
    heldout: tuple[Path, ...] = ()
    metric: Metric = "wer"
    cer_blanks: bool = False
    normalize: Path | None = None
    ignore_case: bool = False
    program: DecodeProgram | None = None
    stage_lm: str = "auto"
    gpu: bool = False
    folder: str = ""
    end_tokens: tuple[int, ...] = ()


class Dataset:
    """The utterances of a task.

    Args:
        task: Which lists and emissions.
        scratch: Node-local folder where compressed emissions are unpacked once; None loads them.

    Attributes:
        ids: Utterance ids; for several lists prefixed by nothing: an id may stand in one list only.
        dev_count: So many utterances, the first ones, are tuned on; the rest is held out.
        list_of: The number of each utterance's list, held-out lists after the others.
        texts: The reference of each utterance, normalised.
        references: The same in units of the metric.
        normalize: What is done to a text before its errors are counted.
        notes: What is to be said of the lists.

    Raises:
        InputError: A list or emission file is wrong.
    """

    def __init__(self, task: DecodeTask, *, scratch: Path | None = None) -> None:
        self.task = task
        self.normalize = load_normalizer(task.normalize, ignore_case=task.ignore_case)
        self.utterances: list[Utterance] = []
        self._sets: list[EmissionSet] = [
            open_emissions(emissions, scratch=scratch) for emissions in task.emissions
        ]
        self.list_of: list[int] = []
        self.texts: list[str] = []
        self.notes: list[str] = []
        owner: dict[str, Path] = {}
        lists = [*task.lists, *task.heldout]
        for number, path in enumerate(lists):
            frames = self._sets[number].frame_counts if self._sets else {}
            utterances, notes = fit_durations(read_list(path), frames, path=path)
            self.notes += notes
            for utterance in utterances:
                if utterance.id in owner:
                    why = (
                        "what is held out may not be tuned on"
                        if path in task.heldout
                        else "an utterance may be in one list only"
                    )
                    raise InputError(
                        f"utterance {utterance.id!r} stands in {owner[utterance.id]} too; {why}",
                        path=path,
                    )
                owner[utterance.id] = path
                text = self.normalize(" ".join(utterance.reference))
                refuse_alternatives(text, path=path, utterance=utterance.id)
                self.texts.append(text)
                self.utterances.append(utterance)
                self.list_of.append(number)
        self.ids = tuple(utterance.id for utterance in self.utterances)
        self.dev_count = sum(number < len(task.lists) for number in self.list_of)
        self.references = list(map(self._split, self.texts))

        for number, path in enumerate(lists):
            own = zip(self.references, self.list_of, strict=True)
            if not any(reference for reference, of in own if of == number):
                raise InputError(
                    "no utterance has a reference: there is nothing to count errors against",
                    path=path,
                )

    @property
    def emission_sets(self) -> Sequence[EmissionSet]:
        """The emissions of each list; none while they are not made yet."""
        return self._sets

    def units(self, text: str) -> list[str]:
        """Return a reference or hypothesis in the units that are counted."""
        return self._split(self.normalize(text))

    def _split(self, text: str) -> list[str]:
        return split_units(text, self.task.metric, blanks=self.task.cer_blanks)

    def emission(self, index: int) -> npt.NDArray[np.float32]:
        """Return the [frames, tokens] emission of an utterance, float32 and C-contiguous."""
        emission = self.as_given(index)
        return _with_end(emission, self.task.end_tokens) if self.task.end_tokens else emission

    def as_given(self, index: int) -> npt.NDArray[np.float32]:
        """Return an emission without the frame that `DecodeTask.end_tokens` adds."""
        return self._sets[self.list_of[index]].emission(self.ids[index])

    def emission_file(self, index: int) -> Path | None:
        """Return the ``.bin`` file of just this emission; None where there is no such file."""
        if self.task.end_tokens:
            return None
        path = self._sets[self.list_of[index]].path
        return path / f"{self.ids[index]}.bin" if path.is_dir() else None

    def frames(self, index: int) -> int:
        """Return the number of frames of an utterance's emission."""
        frames = self._sets[self.list_of[index]].frames(self.ids[index])
        return frames + bool(self.task.end_tokens)

    def count(self, indices: Sequence[int], hypotheses: Sequence[str]) -> npt.NDArray[np.int32]:
        """Return the [utterances, 4] counts (S, D, I, reference length) of some hypotheses."""
        return count_matrix(
            [self.references[index] for index in indices],
            [self.units(hypothesis) for hypothesis in hypotheses],
        )


def _with_end(emission: npt.NDArray[np.float32], free: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return [frames + 1, tokens]: an emission and a frame in which some tokens cost nothing."""
    frame = np.full((1, emission.shape[1]), FORBIDDEN, dtype=np.float32)
    frame[0, list(free)] = 0
    return np.concatenate([emission, frame])


def shuffled_order(count: int) -> list[int]:
    """Return the order in which utterances are decoded, the same for every trial and run.

    Lists are sorted by speaker or length; a prefix of the shuffled order is a fair sample, so that
    a trial can be compared with another on the utterances done so far.
    """
    order = list(range(count))
    random.Random(_ORDER_SEED).shuffle(order)
    return order


def blocks(count: int, *, most: int = MOST_BLOCKS, least_utterances: int = 8) -> list[list[int]]:
    """Return utterance numbers in blocks of about equal size, in the fixed shuffled order.

    Example:
        >>> [len(block) for block in blocks(20)]
        [10, 10]
    """
    order = shuffled_order(count)
    number = max(1, min(most, count // least_utterances))
    bounds = [count * index // number for index in range(number + 1)]
    return [order[begin:end] for begin, end in itertools.pairwise(bounds)]


@dataclass(frozen=True, kw_only=True)
class UtteranceResults:
    """What a trial made of each utterance.

    Attributes:
        ids: The utterances, in the order of the lists.
        counts: int32 [utterances, 4]: substitutions, deletions, insertions, reference length.
        hypotheses: What was recognised, before any normalisation.
    """

    ids: tuple[str, ...]
    counts: npt.NDArray[np.int32]
    hypotheses: tuple[str, ...]

    @property
    def errors(self) -> npt.NDArray[np.int32]:
        """Errors of each utterance, int32 [utterances]."""
        return np.asarray(self.counts[:, :3].sum(axis=1, dtype=np.int32))


def read_utterance_results(path: Path) -> UtteranceResults | None:
    """Return what an ``utterances.tsv`` holds; None where there is none.

    Raises:
        InputError: It is damaged.
    """
    with files.shaped(path):
        try:
            # Not splitlines(): it also splits at characters that a hypothesis may hold.
            lines = files.read_text(path).removesuffix("\n").split("\n")[1:]
        except FileNotFoundError:
            return None
        ids, *counts, hypotheses = zip(*(line.split("\t", 5) for line in lines), strict=True)
        matrix = np.array(counts, dtype=np.int32).reshape(4, len(lines)).T
    return UtteranceResults(ids=ids, counts=matrix, hypotheses=hypotheses)


def require_same_counts(dataset: Dataset, study: Path) -> None:
    """Count a trial of a study again: another w2ltune may have split or compared its words so.

    Args:
        dataset: What errors are counted by now.
        study: The folder of an earlier run; one of other lists is not looked at.

    Raises:
        StudyMismatchError: The trial had other errors.
    """
    count = dataset.dev_count
    for directory in trial_directories(study / "trials"):
        found = read_utterance_results(directory.utterances)
        if found is None or found.ids != dataset.ids[:count]:
            continue
        counts = dataset.count(range(count), found.hypotheses)
        other = np.flatnonzero((counts != found.counts).any(axis=1))
        if len(other):
            first = other[0]
            raise StudyMismatchError(
                f"{len(other)} of its utterances were counted otherwise, as {found.ids[first]!r}: "
                f"{found.errors[first]} errors then, {counts[first, :3].sum()} now (by another "
                "w2ltune, or another normalisation); use another folder",
                path=directory.utterances,
            )
        return


def read_utterance_counts(
    path: Path, *, total: Sequence[int] | None, rows: int | None = None, shuffled: bool = True
) -> npt.NDArray[np.int32]:
    """Return the [utterances, 4] counts of an ``utterances.tsv``.

    Args:
        path: The file.
        total: What its trial counted, of which these are the parts; None where that is not known.
        rows: How many utterances there are, where that is known.
        shuffled: In the fixed shuffled order, as trials report them; else in that of the list.

    Raises:
        InputError: It is damaged, or not of this trial.
    """
    results = read_utterance_results(path)
    if results is None:
        raise InputError("gone, though its trial is finished: put it back", path=path)
    counts = results.counts
    found = counts.sum(axis=0).tolist()
    if rows not in (None, len(counts)) or (total is not None and found != list(total)):
        wanted = "" if total is None else f"; its trial has {list(total)}"
        what = f"{len(counts)} utterances that come to {found}{wanted}"
        raise InputError(f"damaged, restore or remove it: {what}", path=path)
    if not shuffled:
        return counts
    order = [index for block in blocks(len(counts)) for index in block]
    return counts[order]
