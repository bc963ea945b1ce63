"""One rescoring from its inputs to its answer: search, proof, the middle of the plateau."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from w2ltune.errors import StudyMismatchError, UsageError
from w2ltune.report.progress import bar
from w2ltune.rescoreinput import RescoreInput
from w2ltune.rescoreoptions import DEFAULT_N, LENGTHS, parse_weights
from w2ltune.runs.rescored import NAME, Proof, Rescored, read_rescored
from w2ltune.scoring.kernels import Batch, can_compile
from w2ltune.scoring.nbest import take
from w2ltune.scoring.nbestpool import Pool
from w2ltune.search.certified import Face, certify
from w2ltune.search.exactline import search_lines
from w2ltune.search.plateau import Middle, middle
from w2ltune.search.rescorebox import score_box, widen
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

if TYPE_CHECKING:
    from rich.console import Console

GRID = "grid of rescore.py"
GIVEN = "given by --in_wts"
CERTIFIED = "certified optimum"
MOST_WIDENINGS = 4
RESTARTS = 4
POINTS = 4096
"""Weights looked at around the answer; half of them where nothing is compiled."""
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
        best = self._search()
        # Samplers have boxes of their own, and an earlier run may have widened this one.
        self.low = np.minimum(self.low, best.vector)
        self.high = np.maximum(self.high, best.vector)
        proof = self._prove(best)
        if proof is not None and proof.errors < best.errors:
            best = self._found(self.given.vector(proof.weights), proof.errors, CERTIFIED)
        self.findings += [
            f"the fewest errors are at the {end} end of the box of {self.names[column - 1]}: "
            "beyond there may be fewer"
            for column, end in self._faces(best.vector)
        ]
        self.seconds = time.monotonic() - began
        return self._answer(best, proof)

    # Searching.

    def _search(self) -> Incumbent:
        known = incumbents(self.study, self.names)
        best = min(known, key=lambda found: found.errors, default=None)
        none = self._weighted(NONE, self.given.vector(dict.fromkeys(self.names, 0.0)), 1)
        if known and known[0].how == NONE and known[0].errors != none.total:
            raise StudyMismatchError(
                f"the decoder's best hypotheses had {known[0].errors} errors, and have "
                f"{none.total} now: counted otherwise (by another w2ltune?); use another --out",
                path=self.given.folder,
            )
        if best is None:
            best = Incumbent(vector=none.vector, k=1, errors=none.total, how=NONE, evaluations=0)
            self._record(best)
        elif best.how != NONE:
            self.findings.append(
                f"went on from the {best.errors} errors that an earlier run ({best.how}) found"
            )
        self.others = [*self._given(), *self._grid()]
        for given in [*self._earlier(), *self.others]:
            if given.total < best.errors:
                best = Incumbent(
                    vector=given.vector, k=given.k, errors=given.total, how=given.name,
                    evaluations=0,
                )  # fmt: skip
                self._record(best)
        method = self.given.options.chosen_method
        steps = self._sampled(method) if method in DEFAULT_N else self._lines(best)
        with bar(self.console, f"{method} search") as show:
            for part, found in steps:
                show(part)
                if found.errors < best.errors:
                    best = found
                    self._record(found)
                if self.stops:
                    self.cut_short = True
                    break
        return best

    def _sampled(self, method: str) -> Iterator[tuple[float, Incumbent]]:
        options, own = self.given.options, method in ("random", "grid")
        n = options.n or DEFAULT_N[method]
        found = sample(
            method,
            self._errors_by_k if own else self._errors_of_all,
            self.names,
            as_ancestor=self._ancestor_names() if own else {},
            low=self.low[1:],
            high=self.high[1:],
            n=n,
            seed=options.seed,
        )
        for best in found:
            self.evaluations = best.evaluations
            k = self.given.ks[best.column] if own else self.depth
            yield (
                best.evaluations / n,
                Incumbent(
                    vector=best.vector, k=k, errors=best.errors, how=method,
                    evaluations=best.evaluations,
                ),
            )  # fmt: skip

    def _lines(self, start: Incumbent) -> Iterator[tuple[float, Incumbent]]:
        seed = self.given.options.seed
        for number in range(MOST_WIDENINGS + 1):
            lines = 0
            for step in search_lines(
                self.pool, self.low, self.high, start=start.vector, restarts=RESTARTS, seed=seed
            ):
                self.evaluations += step.lines - lines
                lines = step.lines
                start = self._found(step.weights, step.errors, "line")
                yield number / (MOST_WIDENINGS + 1), start
            faces = self._faces(start.vector)
            if not faces or number == MOST_WIDENINGS:
                return
            self.low, self.high = widen(self.low, self.high, faces)

    def _faces(self, vector: Vector) -> list[Face]:
        """Return the ends of the box to which a weight can be moved without more errors."""
        errors, found = int(self.pool.errors(vector)[0]), list[Face]()
        for column in np.flatnonzero(self.high > self.low).tolist():
            ends = np.tile(vector, (2, 1))
            ends[:, column] = self.low[column], self.high[column]
            low, high = self.pool.errors(ends) <= errors
            if low != high:  # where both ends are as good the weight decides nothing
                found.append((column, "low" if low else "high"))
        return found

    def _prove(self, best: Incumbent) -> Proof | None:
        options = self.given.options
        if not (options.certify or options.chosen_method == "certified"):
            return None
        if self.stops:
            self.cut_short = True
            return None
        self.console.print(f"proving the optimum, {options.time_limit:g} s at most")
        few = take(self.dev.nbest, np.arange(min(20, self.dev.nbest.utterances)))
        certify(few, self.low, self.high, time_limit_seconds=1)  # compiles, beside the clock
        began = time.monotonic()
        with bar(self.console, "proof") as show:

            def stopped() -> bool:
                show((time.monotonic() - began) / options.time_limit)
                return bool(self.stops)

            found = certify(
                self.dev.nbest,
                self.low,
                self.high,
                incumbent=best.vector,
                time_limit_seconds=options.time_limit,
                stopped=stopped,
            )
        self.cut_short |= bool(self.stops) and not found.complete
        if found.errors < best.errors:
            self._record(self._found(found.weights, found.errors, "certified"))
        return Proof(
            errors=found.errors,
            weights=self.given.named(found.weights),
            bound=found.bound,
            gap=found.gap,
            k=self.depth,
            boxes=found.boxes,
            seconds=found.seconds,
        )

    def _found(self, vector: Vector, errors: int, how: str) -> Incumbent:
        return Incumbent(
            vector=vector, k=self.depth, errors=errors, how=how, evaluations=self.evaluations
        )

    def _record(self, found: Incumbent) -> None:
        record(
            self.study, self.names, found, low=self.low[1:], high=self.high[1:],
            reference_words=self.pool.reference_words,
        )  # fmt: skip

    def _errors_of_all(self, vectors: Vector) -> npt.NDArray[np.int64]:
        return self.pool.errors(vectors)[:, np.newaxis]

    def _errors_by_k(self, vectors: Vector) -> npt.NDArray[np.int64]:
        return self.batch.errors_by_depth(
            vectors, self.given.ks, first_of_equals=self.dev.as_ancestor
        )

    def _ancestor_names(self) -> dict[str, str]:
        return ancestor_names(self.names, LENGTHS[self.given.options.length])

    def _weighted(self, name: str, vector: Vector, k: int) -> Weighted:
        return weighted(self.dev, name, vector, k)

    # The answer.

    def _answer(self, best: Incumbent, proof: Proof | None) -> Rescored:
        none = self._weighted(NONE, self.given.vector(dict.fromkeys(self.names, 0.0)), 1)
        fewest = self._weighted(FEWEST, best.vector, best.k)
        plateau = self._plateau(best)
        middles = [self._weighted(MIDDLE, rounded(plateau), k) for k in self.given.ks]
        answer, why = choose(
            self.dev, none=none, fewest=fewest, middles=middles, height=plateau.height
        )
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

    def _plateau(self, best: Incumbent) -> Middle:
        def errors(points: Vector) -> Vector:
            vectors = np.concatenate([np.ones((len(points), 1)), points], axis=1)
            return self.batch.errors(vectors).astype(np.float64)

        points = POINTS if can_compile() else POINTS // 2
        return middle(
            errors, best=best.vector[1:], low=self.low[1:], high=self.high[1:], points=points
        )

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
        errors = self._errors_by_k(vectors)
        row, column = np.unravel_index(errors.argmin(), errors.shape)
        return [self._weighted(GRID, vectors[row], self.given.ks[int(column)])]


def rounded(plateau: Middle) -> Vector:
    """Return the middle of a plateau as it is returned, float64 [columns]."""
    return np.array([1.0, *(float(f"{value:.{DIGITS}g}") for value in plateau.weights)])
