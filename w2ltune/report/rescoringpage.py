"""The report of rescoring: one HTML file that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from w2ltune.report import rescoringplots as plots
from w2ltune.report.leaderboard import error_line, per_cent, rate_cells, show_value
from w2ltune.report.markup import Html, element, figure, section, side_by_side, table, write_page
from w2ltune.report.numbers import difference_text, split_line
from w2ltune.report.rescoring import looks_text, weights_text
from w2ltune.report.sections import reproduction
from w2ltune.runs.provenance import SweepRequest
from w2ltune.runs.rescored import Rescored
from w2ltune.search.rescorestudy import Incumbent
from w2ltune.search.slices import Slice, WeightMap


def build_rescoring_report(
    folder: Path,
    request: SweepRequest,
    rescored: Rescored,
    *,
    slices: Sequence[Slice],
    maps: Sequence[WeightMap],
    found: Sequence[Incumbent],
) -> Path:
    """Write ``report.html`` into a study's folder.

    Args:
        folder: The study's.
        request: What was asked.
        rescored: What it came to.
        slices: Rates along each weight.
        maps: Rates over pairs of weights.
        found: What was the best when it was found, in order.

    Returns:
        The report's path.
    """
    body = [
        *_headline(folder, rescored),
        *_candidates(rescored),
        *_over_weights(rescored, slices, maps),
        *_by_k(rescored),
        *_convergence(rescored, found),
        *reproduction(
            request,
            sampler=rescored.method,
            program="w2ltune.rescore",
            again="the same command in the same folder goes on from the best weights found",
        ),
    ]
    return write_page(folder, "rescoring", body)


def _headline(folder: Path, rescored: Rescored) -> Iterator[Html]:
    yield element("h1", f"{folder.resolve().name}: rescoring")
    answer, metric = rescored.answer, rescored.metric
    line, kinds = split_line(error_line(metric, answer.dev.counts, answer.dev.interval))
    parts = [kinds.strip()]
    if answer.dev.against_none is not None:
        was = answer.dev.rate - answer.dev.against_none.difference
        parts.append(f"was {per_cent(was)} ({difference_text(answer.dev.against_none)})")
    parts += [f"oracle {per_cent(rescored.oracle)}", f"{rescored.seconds:.3g} s"]
    yield element("p", element("strong", line), ", ".join(parts), class_="headline")
    what = "words" if metric == "wer" else "characters"
    yield element(
        "p",
        f"Per cent of the reference {what}, on the list that was tuned on. Brackets: 95 % "
        f"bootstrap interval by {answer.dev.unit}. “Was”: the decoder's own best hypotheses.",
        class_="says",
    )
    yield from (element("p", text, class_="warning") for text in rescored.findings)
    weights = weights_text(answer.weights)
    yield element("p", f"Weights ({rescored.why}): ", element("code", f"--in_wts={weights}"))
    if answer.test is not None:
        text = error_line(metric, answer.test.counts, answer.test.interval)
        against = difference_text(answer.test.against_none)
        yield element(
            "p",
            f"Held out: {text}"
            + (f", against no rescoring {against}" * bool(against))
            + looks_text(rescored),
        )
    proof = rescored.certified
    if proof is not None:
        sure = "proven" if not proof.gap else f"at most {proof.gap} errors fewer are possible"
        box = "; ".join(f"{n} {low:.4g} to {high:.4g}" for n, (low, high) in rescored.box.items())
        yield element(
            "p",
            f"Yardstick: {proof.errors} errors are the fewest that any weights give on this list, "
            f"{sure} (branch and bound over {box}; {proof.boxes} boxes, "
            f"{proof.seconds:.3g} CPU s).",
        )


def _candidates(rescored: Rescored) -> Iterator[Html]:
    test = rescored.answer.test is not None
    head = ["", *rescored.weights, "top", f"{rescored.metric.upper()} %", "95 %", "S", "D", "I"]
    head += ["held-out %", "95 %"] if test else []
    rows = []
    for candidate in rescored.candidates:
        cells = [candidate.name, *(show_value(value) for value in candidate.weights.values())]
        cells += [str(candidate.k), *rate_cells(candidate.dev.counts, candidate.dev.interval)]
        if candidate.test is not None:
            cells += rate_cells(candidate.test.counts, candidate.test.interval)[:2]
        rows.append([*cells, difference_text(candidate.chosen_against)])
    yield section(
        "The answer and what it is compared with",
        "The last column is the paired difference of the answer to each, with its 95 % interval, "
        + ("on the held-out list." if test else "on the list that was tuned on."),
        table([*head, "answer minus it"], rows, text_columns={""}, marked=[0]),
    )


def _over_weights(
    rescored: Rescored, slices: Sequence[Slice], maps: Sequence[WeightMap]
) -> Iterator[Html]:
    drawn = [
        figure(
            f"Along the weight of {found.name}.", plots.slice_plot(found, metric=rescored.metric)
        )
        for found in slices
    ] + [
        figure(
            f"Over the weights of {found.x_name} and {found.y_name}.",
            plots.map_plot(found, metric=rescored.metric),
        )
        for found in maps
    ]
    if drawn:
        yield section(
            f"{rescored.metric.upper()} over the weights",
            "Exact rates through the answer (the star), the other weights at its values.",
            side_by_side(*drawn),
        )


def _by_k(rescored: Rescored) -> Iterator[Html]:
    rows = [
        [str(row.k), per_cent(row.rate), per_cent(row.oracle), per_cent(row.test_rate)]
        for row in rescored.by_k
    ]
    svg = plots.by_k_plot(rescored.by_k, metric=rescored.metric, chosen=rescored.k)
    yield section(
        "By number of hypotheses",
        "The answer's weights on the k best hypotheses of the decoder; 1 is no rescoring.",
        side_by_side(figure("Rates over k.", svg)),
        table(["k", f"{rescored.metric.upper()} %", "oracle %", "held-out %"], rows),
    )


def _convergence(rescored: Rescored, found: Sequence[Incumbent]) -> Iterator[Html]:
    words = rescored.answer.dev.counts[3]
    if len(found) > 1 and words:
        svg = plots.convergence_plot(found, metric=rescored.metric, reference_words=words)
        yield section(
            "Convergence",
            f"The fewest errors after so many evaluations; {rescored.evaluations} in all.",
            side_by_side(figure("The best rate so far.", svg)),
        )
