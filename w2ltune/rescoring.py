"""One rescoring from its inputs to its answer: search, proof, the middle of the plateau."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from w2ltune.errors import StudyMismatchError, UsageError
from w2ltune.report.progress import bar
from w2ltune.rescoreinput import RescoreInput
from w2ltune.rescoreoptions import DEFAULT_N, LENGTHS, parse_weights
from w2ltune.runs.rescored import NAME, Proof, Rescored, read_rescored
from w2ltune.scoring.kernels import Batch
from w2ltune.scoring.nbest import take
from w2ltune.scoring.nbestpool import Pool
from w2ltune.scoring.weighing import RescoreList
from w2ltune.search.certified import certify
from w2ltune.search.exactline import search_lines
from w2ltune.search.plateau import Middle, middle
from w2ltune.search.rescorebox import Face, score_box, widen
from w2ltune.search.rescorechoice import (
    FEWEST,
    MIDDLE,
    NONE,
    Weighted,
    by_k,
    choose,
    oracle_rate,
    rate_candidates,
    weighted,
)
from w2ltune.search.rescoresampling import ancestor_names, grid_vectors, sample
from w2ltune.search.rescorestudy import Incumbent, incumbents, record
from w2ltune.search.residual import Vector
from w2ltune.search.slices import Rates, make_maps, make_slices

if TYPE_CHECKING:
    from rich.console import Console

GRID = "grid of rescore.py"
GIVEN = "given by --in_wts"
CERTIFIED = "certified optimum"
MOST_WIDENINGS = 4
RESTARTS = 4
MOST_NESTED = 5
"""With more weights than these not all spaces of fewer are searched: there are too many."""
FEW = 16
"""Weights that are evaluated as fast by numpy, one by one."""
POINTS = 4096
"""Weights looked at around the answer."""
DIGITS = 4
"""Of the answer's weights: on a plateau more decide nothing, and people write them down."""


@dataclass(kw_only=True)
class Rescoring:
    """A rescoring whose study is ours.

    Attributes:
        given: Its inputs.
        study: Optuna's, for what was found.
        console: Where to show progress.
        stops: Why the command was asked to stop, if it was.
        cut_short: Whether that ended the search or the proof before their time.
        best: The fewest errors of all that was evaluated, whatever for.
        slices: Rates along each weight, for the report; `maps`: over pairs of them.
    """

    given: RescoreInput
    study: Any
    console: Console
    stops: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dev, self.names = self.given.dev, self.given.weights
        self.pool = Pool(self.dev.nbest)
        self.batch = Batch(self.dev.nbest)
        self.depth = self.given.ks[-1]
        self.low, self.high = score_box(self.dev.nbest)
        self.evaluations = 0
        self.others: list[Weighted] = []
        self.seconds = 0.0
        self.cut_short = False
        self.findings = self.given.notes

    def run(self) -> Rescored:
        """Search, prove if asked, choose, and compare."""
        began = time.monotonic()
        self._search()
        # Samplers have boxes of their own, and an earlier run may have widened this one.
        self.low = np.minimum(self.low, self.best.vector)
        self.high = np.maximum(self.high, self.best.vector)
        proof = self._prove()
        self.findings += [
            f"the fewest errors are at the {end} end of the box of {self.names[column - 1]}: "
            "beyond there may be fewer"
            for column, end in self._faces(self.best.vector, self.low, self.high)
        ]
        self.seconds = time.monotonic() - began
        return self._answer(proof)

    # Searching.

    def _search(self) -> None:
        known, none = incumbents(self.study, self.names), self._none()
        if known and known[0].how == NONE and known[0].errors != none.total:
            raise StudyMismatchError(
                f"the decoder's best hypotheses had {known[0].errors} errors, and have "
                f"{none.total} now: counted otherwise (by another w2ltune?); use another --out",
                path=self.given.folder,
            )
        if known:
            self.best = min(known, key=lambda found: found.errors)
        else:
            self._take(none)
        if self.best.how != NONE:
            self.findings.append(
                f"went on from the {self.best.errors} errors that an earlier run "
                f"({self.best.how}) found"
            )
        self._earlier()
        self.others = [*self._given(), *self._grid()]
        method = self.given.options.chosen_method
        steps = self._sampled(method) if method in DEFAULT_N else self._lines()
        with bar(self.console, f"{method} search") as show:
            for part in steps:
                show(part)
                if self.stops:
                    self.cut_short = True
                    break

    def _sampled(self, method: str) -> Iterator[float]:
        options, own = self.given.options, method in ("random", "grid")
        ks = self.given.ks if own else [self.depth]
        n = options.n or DEFAULT_N[method]
        found = sample(
            method,
            lambda vectors: self._errors(method, vectors, ks),
            self.names,
            as_ancestor=self._ancestor_names() if own else {},
            low=self.low[1:],
            high=self.high[1:],
            n=n,
            seed=options.seed,
        )
        for number in found:
            self.evaluations = number
            yield number / n

    def _lines(self) -> Iterator[float]:
        """Search the lines of all spaces of one weight, of two, and so on.

        What was found in smaller spaces is where a larger one is begun, so that no weight more
        makes what is found worse.
        """
        box, free = (self.low, self.high), np.flatnonzero(self.high > self.low).tolist()
        sizes = range(1, len(free) + 1) if len(free) <= MOST_NESTED else (1, len(free))
        smaller: dict[tuple[int, ...], Vector] = {}
        low, high = box
        for size in sizes:
            spaces = list(itertools.combinations(free, size))
            solved: dict[tuple[int, ...], Vector] = {}
            for number, space in enumerate(spaces):
                inside = np.isin(np.arange(len(self.low)), (0, *space))
                low, high = (np.where(inside, end, 0.0) for end in box)
                starts = [point for of, point in smaller.items() if {*of} < {*space}]
                starts = starts or [self._none().vector]
                if size == len(free):
                    starts.append(self.best.vector)
                for _ in range(MOST_WIDENINGS + 1):
                    lines = 0
                    for step in search_lines(
                        self.pool, low, high, starts=starts, restarts=RESTARTS,
                        seed=self.given.options.seed,
                    ):  # fmt: skip
                        self.evaluations += step.lines - lines
                        lines = step.lines
                        self._see("line", step.weights[None], [self.depth], [[step.errors]])
                        yield (size - 1 + number / len(spaces)) / len(free)
                    starts = [step.weights]
                    faces = self._faces(step.weights, low, high)
                    if not faces:
                        break
                    low, high = widen(low, high, faces)
                solved[space] = step.weights
            smaller = solved
        self.low, self.high = low, high

    def _faces(self, vector: Vector, low: Vector, high: Vector) -> list[Face]:
        """Return the ends of a box to which a weight can be moved without more errors."""
        found = list[Face]()
        for column in np.flatnonzero(high > low).tolist():
            points = np.tile(vector, (3, 1))
            points[:2, column] = low[column], high[column]
            *ends, here = self._errors("line", points, [self.depth])[:, 0].tolist()
            at_low, at_high = (errors <= here for errors in ends)
            if at_low != at_high:  # where both ends are as good the weight decides nothing
                found.append((column, "low" if at_low else "high"))
        return found

    def _prove(self) -> Proof | None:
        options = self.given.options
        if not (options.certify or options.chosen_method == "certified"):
            return None
        if self.stops:
            self.cut_short = True
            return None
        self.console.print(f"proving the optimum, {options.time_limit:g} CPU seconds at most")
        few = take(self.dev.nbest, np.arange(min(20, self.dev.nbest.utterances)))
        certify(few, self.low, self.high, time_limit_seconds=1)  # compiles, beside the clock
        began = time.process_time()
        with bar(self.console, "proof") as show:

            def stopped() -> bool:
                show((time.process_time() - began) / options.time_limit)
                return bool(self.stops)

            found = certify(
                self.dev.nbest,
                self.low,
                self.high,
                incumbent=self.best.vector,
                time_limit_seconds=options.time_limit,
                stopped=stopped,
            )
        self.cut_short |= bool(self.stops) and not found.complete
        self._see("certified", found.weights[None], [self.depth], [[found.errors]])
        return Proof(
            errors=found.errors,
            weights=self.given.named(found.weights),
            bound=found.bound,
            gap=found.gap,
            k=self.depth,
            boxes=found.boxes,
            seconds=found.seconds,
        )

    def _errors(self, how: str, vectors: Vector, ks: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return the errors of weights with the first hypotheses, int64 [vectors, ks]."""
        if ks == [self.depth] and not self.dev.as_ancestor:
            few = len(vectors) < FEW
            errors = (self.pool if few else self.batch).errors(vectors)[:, np.newaxis]
        else:
            errors = self.batch.errors_by_depth(vectors, ks, first_of_equals=self.dev.as_ancestor)
        self._see(how, vectors, ks, errors)
        return errors

    def _see(self, how: str, vectors: Vector, ks: Sequence[int], errors: npt.ArrayLike) -> None:
        """Take the best of what was evaluated if it is the best of all."""
        found = np.asarray(errors)
        row, column = np.unravel_index(found.argmin(), found.shape)
        if found[row, column] < self.best.errors:
            self._weighted(how, vectors[row], ks[int(column)])

    def _take(self, found: Weighted) -> None:
        self.best = Incumbent(
            vector=found.vector, k=found.k, errors=found.total, how=found.name,
            evaluations=self.evaluations,
        )  # fmt: skip
        record(
            self.study, self.names, self.best, low=self.low[1:], high=self.high[1:],
            reference_words=self.pool.reference_words,
        )  # fmt: skip

    def _ancestor_names(self) -> dict[str, str]:
        return ancestor_names(self.names, LENGTHS[self.given.options.length])

    def _weighted(self, name: str, vector: Vector, k: int) -> Weighted:
        """Return what weights choose, counted as the answer is; the best of all is kept."""
        found = weighted(self.dev, name, vector, k)
        if found.total < self.best.errors:
            self._take(found)
        return found

    def _none(self) -> Weighted:
        return weighted(self.dev, NONE, self.given.vector(dict.fromkeys(self.names, 0.0)), 1)

    # The answer.

    def _answer(self, proof: Proof | None) -> Rescored:
        none, plateau = self._none(), self._plateau()
        middles = [self._weighted(MIDDLE, rounded(plateau), k) for k in self.given.ks]
        drawn = -1
        while drawn != self.best.errors:  # what is drawn may be better, too
            fewest = self._weighted(FEWEST, self.best.vector, self.best.k)
            answer, why = choose(
                self.dev, none=none, fewest=fewest, middles=middles, height=plateau.height
            )
            drawn = self.best.errors
            self._draw(answer)
        others = [none, *self.others, fewest]
        if proof is not None:
            optimum = self._weighted(CERTIFIED, self.given.vector(proof.weights), proof.k)
            others = (
                [*others[:-1], optimum] if optimum.total <= fewest.total else [*others, optimum]
            )
        others = [other for other in others if other is not answer]
        candidates = rate_candidates(self.dev, self.given.test, answer, others, self.names)
        box = zip(self.low[1:].tolist(), self.high[1:].tolist(), strict=True)
        return Rescored(
            weights=candidates[0].weights,
            k=answer.k,
            why=why,
            candidates=candidates,
            by_k=tuple(by_k(self.dev, self.given.test, answer.vector, self.given.ks)),
            metric=self.given.options.metric,
            method=self.given.options.chosen_method,
            evaluations=self.evaluations,
            seconds=self.seconds,
            box=dict(zip(self.names, box, strict=True)),
            undecided=tuple(
                n for n, nothing in zip(self.names, plateau.undecided, strict=True) if nothing
            ),
            oracle=oracle_rate(self.dev),
            depth=self.depth,
            certified=proof,
            findings=tuple(self.findings),
        )

    def _draw(self, answer: Weighted) -> None:
        """Evaluate what the report shows of the weights around the answer."""
        test, k = self.given.test, self.dev.limit(answer.k)

        def of_dev(vectors: Vector) -> Vector:
            errors = self._errors("around the answer", vectors, [k])
            found: Vector = errors[:, 0] / max(1, self.pool.reference_words)
            return found

        around = self.names, answer.vector, self.low[1:], self.high[1:]
        self.slices = make_slices(*around, of_dev, None if test is None else rates(test, answer.k))
        self.maps = make_maps(*around, of_dev)
        self._errors("around the answer", answer.vector[None], self.given.ks)

    def _plateau(self) -> Middle:
        def errors(points: Vector) -> Vector:
            vectors = np.concatenate([np.ones((len(points), 1)), points], axis=1)
            return self._errors("around the best", vectors, [self.depth])[:, 0].astype(np.float64)

        while True:  # another run, that begins with the best one, is to have the same middle
            best = self.best
            found = middle(
                errors, best=best.vector[1:], low=self.low[1:], high=self.high[1:], points=POINTS
            )
            if self.best.errors == best.errors:
                return found

    def _earlier(self) -> list[Weighted]:
        """Return an earlier run's answers: a journal that was cut or lost does not tell them."""
        if not (self.given.folder / NAME).exists():
            return []
        return [
            self._weighted("an earlier run", self.given.vector(one.weights), one.k)
            for one in read_rescored(self.given.folder).candidates
            if one.weights.keys() == {*self.names} and one.k <= self.depth
        ]

    def _given(self) -> list[Weighted]:
        text = self.given.options.in_wts
        if not text:
            return []
        vector = self.given.vector(parse_weights(text, self.names))
        return [self._weighted(GIVEN, vector, self.depth)]

    def _grid(self) -> list[Weighted]:
        """Return what the grid of rescore.py finds on this list, where it fits."""
        try:
            vectors = grid_vectors(self.names, self._ancestor_names())
        except UsageError:
            return []
        errors = self._errors(GRID, vectors, self.given.ks)
        row, column = np.unravel_index(errors.argmin(), errors.shape)
        return [self._weighted(GRID, vectors[row], self.given.ks[int(column)])]


def rates(of: RescoreList, k: int) -> Rates:
    """Return what gives the error rates of weights with the first k hypotheses."""
    batch, words = Batch(of.nbest), int(of.nbest.reference_words.sum(dtype=np.int64))

    def found(vectors: Vector) -> Vector:
        errors = batch.errors_by_depth(vectors, [of.limit(k)], first_of_equals=of.as_ancestor)
        per_word: Vector = errors[:, 0] / max(1, words)
        return per_word

    return found


def rounded(plateau: Middle) -> Vector:
    """Return the middle of a plateau as it is returned, float64 [columns]."""
    return np.array([1.0, *(float(f"{value:.{DIGITS}g}") for value in plateau.weights)])
