"""What rescoring came to: ``best.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from w2ltune import files
from w2ltune.errors import InputError
from w2ltune.runs.outcome import Comparison, Counts

FORMAT = 1
NAME = "best.json"


@dataclass(frozen=True, kw_only=True)
class Rating:
    """What weights come to on a list.

    Attributes:
        counts: Their errors.
        interval: 95 % interval of the rate.
        unit: What was resampled for it.
        against_none: Compared with the decoder's own best hypotheses; None for these.
    """

    counts: Counts
    interval: tuple[float, float]
    unit: str
    against_none: Comparison | None = None

    @property
    def errors(self) -> int:
        """All errors."""
        return sum(self.counts[:3])

    @property
    def rate(self) -> float:
        """Errors for each reference word; nan without any."""
        return self.errors / self.counts[3] if self.counts[3] else float("nan")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Weights that might be the answer, or that the answer is compared with.

    Attributes:
        name: What they are.
        weights: By name; that of the acoustic model is 1.
        k: How many hypotheses of each utterance take part; 1 is no rescoring.
        dev: On the list that was tuned on.
        test: On the other one; None without it.
        chosen_against: The answer compared with them on the test list, else on dev; None for the
            answer itself.
    """

    name: str
    weights: Mapping[str, float]
    k: int
    dev: Rating
    test: Rating | None = None
    chosen_against: Comparison | None = None


@dataclass(frozen=True, kw_only=True)
class ByK:
    """What the answer's weights come to with the k best hypotheses of the decoder.

    Attributes:
        k: How many.
        rate: On the list that was tuned on.
        oracle: The rate of the best of them.
        test_rate: On the other list; None without it.
    """

    k: int
    rate: float
    oracle: float
    test_rate: float | None = None


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What branch and bound says of the box.

    Attributes:
        errors: The fewest found.
        weights: Where.
        bound: Nowhere in the box are fewer.
        gap: The difference: 0 is a proof.
        k: How many hypotheses took part.
        boxes: How many parts were looked at.
        seconds: Processor time it took.
    """

    errors: int
    weights: Mapping[str, float]
    bound: int
    gap: int
    k: int
    boxes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Look:
    """An answer that was evaluated on a held-out list.

    Attributes:
        name: The list.
        weights: The answer's, by name.
        k: How many hypotheses took part.
    """

    name: str
    weights: Mapping[str, float]
    k: int


@dataclass(frozen=True, kw_only=True)
class Rescored:
    """All of it.

    Attributes:
        weights: The answer's, by name.
        k: How many hypotheses take part.
        why: The rule in words.
        candidates: The answer, and what it is compared with.
        by_k: For each k.
        metric: What was counted.
        method: What searched.
        evaluations: How many weights were evaluated, line searches and boxes apart.
        seconds: How long the search took.
        box: The searched range of each weight.
        undecided: Weights that decide nothing.
        oracle: Rate of the best hypotheses.
        depth: Length of the longest n-best list: with this k all hypotheses take part.
        certified: The proof; None without one.
        findings: What is worth knowing, a line each.
        looks: The answers of this folder that were evaluated on held-out lists, each once; where
            there is such a list, this answer is the last.
    """

    weights: Mapping[str, float]
    k: int
    why: str
    candidates: tuple[Candidate, ...]
    by_k: tuple[ByK, ...]
    metric: str
    method: str
    evaluations: int
    seconds: float
    box: Mapping[str, tuple[float, float]]
    undecided: tuple[str, ...]
    oracle: float
    depth: int
    certified: Proof | None = None
    findings: tuple[str, ...] = field(default=())
    looks: tuple[Look, ...] = ()

    @property
    def answer(self) -> Candidate:
        """The candidate that was chosen."""
        return self.candidates[0]

    @property
    def times_looked(self) -> int:
        """How many different answers were evaluated on the last held-out list."""
        return sum(look.name == self.looks[-1].name for look in self.looks)


def looked(rescored: Rescored, name: str) -> Rescored:
    """Count a look at a held-out list; an answer that is shown again is no other look.

    Args:
        rescored: The answer, evaluated on the list, with the looks until now.
        name: The list.
    """
    look = Look(name=name, weights=rescored.weights, k=rescored.k)
    return replace(rescored, looks=(*(other for other in rescored.looks if other != look), look))


def read_looks(folder: Path) -> tuple[Look, ...]:
    """Return the looks that the ``best.json`` of a folder tells of; none where there is no file.

    Raises:
        InputError: The file is damaged, or of a newer w2ltune.
    """
    return read_rescored(folder).looks if (folder / NAME).exists() else ()


def as_json(rescored: Rescored) -> dict[str, Any]:
    """Return what a program wants to know, the answer's numbers first."""
    rating = rescored.answer.dev
    return {
        "format": FORMAT,
        "weights": dict(rescored.weights),
        "errors": rating.errors,
        "wer": rating.rate,
        "interval": list(rating.interval),
        **asdict(rescored),
    }


def write_rescored(folder: Path, rescored: Rescored) -> None:
    """Write ``best.json`` in one step."""
    files.write_json(folder / NAME, as_json(rescored))


def read_rescored(folder: Path) -> Rescored:
    """Return what ``best.json`` tells.

    Raises:
        InputError: There is none, or it is of a newer w2ltune.
    """
    content: dict[str, Any] | None = files.read_json(folder / NAME)
    if content is None:
        raise InputError(f"no {NAME}: the rescoring has not come to its end", path=folder)
    with files.shaped(folder / NAME):
        if content["format"] > FORMAT:
            raise InputError(f"format {content['format']} is newer than this w2ltune", path=folder)
        for name in ("format", "errors", "wer", "interval"):
            del content[name]
        return files.fitted(Rescored, content)
