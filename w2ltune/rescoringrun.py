"""Rescoring as a user runs it: a study's folder that is ours, what is printed, what is left there.

::

    dev.lst-rescored-tr-len/
      sweep.json          what was asked
      study.journal       Optuna's, of the weights that were better than all before
      best.json           the answer, what it is compared with, the proof
      report.html
      dev.lst.rescored.hyp       the hypotheses in the order of the answer's weights, a beam dump
      dev.lst.rescored.hyp.trn   the best of each utterance; dev.lst.rescored.ref.trn the references
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from rich.console import Console

from w2ltune.cluster.jobs import owned
from w2ltune.formats.beamdump import write_dump_rows
from w2ltune.report.leaderboard import error_line
from w2ltune.report.progress import make_console, say
from w2ltune.report.rescoring import print_answer, print_evaluation, weights_text
from w2ltune.report.rescoringpage import build_rescoring_report
from w2ltune.rescoreinput import RescoreInput
from w2ltune.rescoreoptions import LENGTHS, parse_weights
from w2ltune.rescoring import Rescoring
from w2ltune.runs.provenance import SweepRequest, fingerprints, git_commit, settle_request, versions
from w2ltune.runs.rescored import Rating, Rescored, as_json, looked, read_looks, write_rescored
from w2ltune.runs.signals import stopped_error, stopping_signals
from w2ltune.scoring.weighing import RescoreList, ranking
from w2ltune.search.rescorechoice import by_k, oracle_rate, rate
from w2ltune.search.rescoresampling import check_method
from w2ltune.search.rescorestudy import incumbents
from w2ltune.search.residual import Vector
from w2ltune.search.study import open_study
from w2ltune.trials.dumps import write_transcripts


def search(given: RescoreInput, *, command: Sequence[str]) -> int:
    """Search weights, print the answer and return the exit code.

    Args:
        given: The inputs.
        command: The command line, for the record.

    Raises:
        StoppedError: A signal stopped the search; the answer is that of what was found until then.
    """
    check_method(given.options.chosen_method, given.weights, LENGTHS[given.options.length])
    as_text = given.options.format == "table"
    console = make_console() if as_text else Console(stderr=True, highlight=False)
    with owned(given.folder) as lock:
        request = settle_request(
            given.folder / "sweep.json", _request(given, command), keep_seed=False
        )
        looks = read_looks(given.folder)
        rescoring = Rescoring(given=given, study=open_study(given.folder, lock), console=console)
        with stopping_signals(rescoring.stops.append):
            rescored = rescoring.run()
        rescored = replace(rescored, looks=looks)
        if given.test is not None:
            rescored = looked(rescored, given.test.name)
        write_rescored(given.folder, rescored)
        if as_text:
            print_answer(console, rescored)
        else:
            json.dump(as_json(rescored), sys.stdout, indent=1, ensure_ascii=False)
            print()
        _write_lists(given, rescored)
        report = build_rescoring_report(
            given.folder,
            request,
            rescored,
            slices=rescoring.slices,
            maps=rescoring.maps,
            found=incumbents(rescoring.study, given.weights),
        )
    if as_text:
        say(console, f"report: {report}")
    if rescoring.cut_short:
        raise stopped_error(
            rescoring.stops[0],
            "; the answer above is that of what was found until then, and the same command goes on "
            "from it",
        )
    return 0


def evaluate(given: RescoreInput) -> int:
    """Print what the weights of ``--in_wts`` come to; return the exit code."""
    weights = parse_weights(given.options.in_wts, given.weights)
    vector, metric, depth = given.vector(weights), given.options.metric, given.dev.depth
    ratings = _evaluated(given.dev, vector)
    test = None if given.test is None else _evaluated(given.test, vector)
    rows = list(by_k(given.dev, given.test, vector, given.ks))
    if given.options.format == "json":
        best = min(rows, key=lambda row: row.rate)
        value = {
            "weights": weights,
            "errors": ratings["rescored"].errors,
            "wer": ratings["rescored"].rate,
            "interval": list(ratings["rescored"].interval),
            "k": depth,
            "original": ratings["original"].rate,
            "oracle": oracle_rate(given.dev),
            "best_k": best.k,
            "by_k": [{"k": row.k, "wer": row.rate, "oracle": row.oracle} for row in rows],
        }
        if test is not None:
            value["test"] = {"errors": test["rescored"].errors, "wer": test["rescored"].rate}
        print(json.dumps(value, indent=1, ensure_ascii=False))
        return 0
    lines = [f"weights: {weights_text(weights)}"]
    lines += [
        f"{name}: {error_line(metric, found.counts, found.interval)}"
        for name, found in ratings.items()
    ]
    lines.append(f"oracle: {metric.upper()} {100 * oracle_rate(given.dev):.2f}")
    lines += [
        f"held-out, {name}: {error_line(metric, found.counts, found.interval)}"
        for name, found in (test or {}).items()
    ]
    lines += [f"note: {text}" for text in given.notes]
    print_evaluation(make_console(), lines, rows, metric=metric, depth=depth)
    return 0


def _evaluated(of: RescoreList, vector: Vector) -> dict[str, Rating]:
    original = of.chosen(vector, 1)
    chosen = of.chosen(vector, None)
    return {"original": rate(of, original, None), "rescored": rate(of, chosen, of.errors(original))}


def _request(given: RescoreInput, command: Sequence[str]) -> SweepRequest:
    options = given.options
    return SweepRequest(
        task="rescore",
        flags={"hyp": str(options.hyp), "list": str(options.list), "length": options.length},
        space=dict.fromkeys(given.weights, "searched"),
        scoring={
            "metric": options.metric,
            "normalize": str(options.normalize or ""),
            "ignore_case": str(options.ignore_case).lower(),
            **({"cer_blanks": str(options.cer_blanks).lower()} if options.metric == "cer" else {}),
            "ancestor_wer": str(options.ancestor_wer).lower(),
        },
        inputs=fingerprints(given.files),
        seed=options.seed,
        versions=versions(),
        commit=git_commit(),
        command=tuple(command),
    )


def _write_lists(given: RescoreInput, rescored: Rescored) -> None:
    """Write the hypotheses of both lists in the order of the answer's weights."""
    vector = given.vector(rescored.weights)
    for of in (given.dev, given.test):
        if of is not None:
            name = f"{of.name}.rescored"  # a sweep's dumps, dev.lst.hyp, may lie there too
            write_dump_rows(given.folder / f"{name}.hyp", _reordered(of, vector, rescored.k))
            best = [of.lists.text(row) for row in of.chosen(vector, rescored.k)]
            said = [" ".join(words) for words in of.lists.references]
            for kind, texts in (("hyp", best), ("ref", said)):
                path = given.folder / f"{name}.{kind}.trn"
                write_transcripts(path, of.lists.ids, map(of.units, texts))


def _reordered(
    of: RescoreList, vector: Vector, k: int
) -> Iterator[tuple[str, float, float, float, float, str]]:
    """Return the rows of a dump with the weighted scores, utterance by utterance, best first."""
    nbest, names = of.lists.nbest, of.lists.names
    rows = ranking(of.nbest, vector, of.limit(k))
    rows = rows[of.lists.dump_rows[rows] >= 0]
    utterance = np.repeat(np.arange(nbest.utterances), np.diff(nbest.offsets))[rows]
    words = nbest.reference_words[utterance].astype(np.float64)
    words[words == 0] = np.nan  # no WER
    columns = (
        of.nbest.features[rows] @ vector,
        *(nbest.features[rows, names.index(name)] for name in ("am", "lm")),
        100 * (nbest.errors[rows] / words),
    )
    ids = map(of.lists.ids.__getitem__, utterance.tolist())
    texts = map(bytes.decode, of.lists.dump_texts.take(of.lists.dump_rows[rows]))
    return zip(ids, *(column.tolist() for column in columns), texts, strict=True)
