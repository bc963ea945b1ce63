"""What the best trainings are decoded again with, checked beforehand; how errors are counted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from w2ltune.errors import InputError, UsageError
from w2ltune.formats.listfile import read_list
from w2ltune.runs.trialdir import TrialResult
from w2ltune.scoring.significance import bootstrap_interval, clusters_from_ids
from w2ltune.scoring.text import refuse_alternatives, split_units
from w2ltune.scoring.wer import count_list
from w2ltune.trials.testprogram import find_test_program, program_arguments
from w2ltune.trials.trainjob import TrainJob

EMBEDDED = "w2ltune.embedded.test"

_OF_THE_MODEL = ("tokens", "tokensdir", "lexicon", "features_dir")
"""Flags of the training that the Test program needs too; the others are in the snapshot."""

Words = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Rescoring:
    """What the best trainings of a study are decoded again with.

    Attributes:
        top: How many of them.
        program: The Test program, or what else stands before its flags.
        job: The trainings' own.
        list_name: The list as the program is given it.
        datadir: The folder that the program puts before it; "" for none.
        references: The words of each utterance of the list.
    """

    top: int
    program: tuple[str, ...]
    job: TrainJob
    list_name: str
    datadir: str
    references: Mapping[str, Words]

    @property
    def file_name(self) -> str:
        """Name of the hypotheses."""
        return f"{self.list_name.replace('/', '#')}.hyp"

    def due(self, results: Sequence[TrialResult]) -> list[TrialResult]:
        """Return the best complete trials that were not decoded again yet, best first."""
        complete = [r for r in results if r.state == "COMPLETE" and r.value is not None]
        complete.sort(key=lambda r: (r.value or 0.0, r.number))
        return [result for result in complete[: self.top] if result.counts is None]

    def arguments(self, flags: Mapping[str, str], snapshot: Path) -> tuple[str, ...]:
        """Return the command line for a trial's snapshot, but for the folder of the output.

        Args:
            flags: The trial's flags.
            snapshot: Its best one.
        """
        given = {
            "am": str(snapshot),
            "datadir": self.datadir,
            "test": self.list_name,
            **{name: flags[name] for name in _OF_THE_MODEL if name in flags},
            "emission_dir": "",
        }
        return program_arguments(self.program, given)


def prepare_rescoring(
    job: TrainJob,
    *,
    top: int,
    lists: Mapping[str, str],
    flags: Mapping[str, str],
    test_binary: Path | None,
) -> Rescoring:
    """Check what decoding the best trainings again needs, before any of them is begun.

    Args:
        job: How they are run.
        top: How many are decoded again.
        lists: Of ``--valid``, by tag.
        flags: What all trainings have in common.
        test_binary: The Test program; None for the one beside the trainer.

    Raises:
        UsageError: The metric is no WER of a validation list, or there is no Test program.
        InputError: The list cannot be read, or an id has a "/".
    """
    tag, _, kind = job.metric.rpartition("-")
    if kind != "WER" or tag not in lists:
        known = ", ".join(f"{name}-WER" for name in lists)
        raise UsageError(
            f"--rescore_top={top} counts words: --metric={job.metric} must be one of {known}"
        )
    program = _find_program(job, top, test_binary)
    name, datadir = lists[tag], flags.get("datadir", "")
    embedded = len(program) > 1  # the binaries put the folder before an absolute path too
    path = Path(f"{datadir}/{name}") if datadir and not embedded else Path(datadir, name)
    references = {
        utterance.id: tuple(split_units(" ".join(utterance.reference), "wer"))
        for utterance in read_list(path)
    }
    for utterance, words in references.items():
        refuse_alternatives(" ".join(words), path=path, utterance=utterance)
        if "/" in utterance:
            raise InputError(
                f"the id {utterance!r} has a '/', which the Test program does not bear; rename it, "
                "or leave out --rescore_top",
                path=path,
            )
    return Rescoring(
        top=top, program=program, job=job, list_name=name, datadir=datadir, references=references
    )


def _find_program(job: TrainJob, top: int, given: Path | None) -> tuple[str, ...]:
    *interpreter, trainer = job.program
    if interpreter:
        if given is not None:
            raise UsageError(f"--test_binary={given}: goes with the --binary that made its models")
        return (*interpreter, EMBEDDED)
    found = find_test_program(
        given, decoder=Path(trainer), generation=job.generation, needed_for=f"--rescore_top={top}"
    )
    return (found,)


def read_hypotheses(path: Path) -> dict[str, Words]:
    """Return the words of each utterance in a ``.hyp`` file, rows of ``words (utterance)``."""
    found: dict[str, Words] = {}
    try:
        rows = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        raise InputError("the program ended well, but did not write it", path=path) from None
    for number, row in enumerate(rows, start=1):
        words, bracket, utterance = f" {row}".rpartition(" (")
        if bracket and utterance.endswith(")"):
            found[utterance[:-1]] = tuple(split_units(words, "wer"))
        elif row:
            raise InputError(f"not 'words (utterance)': {row[:80]!r}", path=path, line=number)
    return found


def with_counts(
    result: TrialResult, references: Mapping[str, Words], hypotheses: Mapping[str, Words]
) -> TrialResult:
    """Return a trial's result with the errors of its hypotheses and their interval.

    Its value stays what the trainer logged.

    Args:
        result: The result.
        references: The words of each utterance.
        hypotheses: The same; one that is missing counts as all deletions.
    """
    errors = count_list(references, hypotheses)
    substitutions, deletions, insertions, words = errors.matrix.sum(axis=0).tolist()
    interval = bootstrap_interval(
        errors.matrix[:, :3].sum(axis=1), errors.matrix[:, 3], clusters_from_ids(errors.ids, None)
    )
    return replace(
        result,
        counts=(substitutions, deletions, insertions, words),
        interval=None if math.isnan(interval.low) else (interval.low, interval.high),
        interval_unit=f"{interval.unit} ({interval.count})",
        missing=len(errors.missing),
    )
