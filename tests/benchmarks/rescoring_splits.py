"""Whether the weights that rescoring returns hold on data that they were not tuned on.

    python tests/benchmarks/rescoring_splits.py --hyp=DUMP --list=LIST --tr=SCORES
        [--convlm=SCORES] [--sizes=200,1000] [--splits=20] [--seed=1]

Each split tunes on so many random utterances and counts the errors on all others: the middle of the
plateau (what w2ltune returns), the fewest errors found by exact line searches, the certified
optimum, the grid and the random search of wav2letter's rescore.py with the best k, and no
rescoring. Differences are paired by split; splits overlap, so that their intervals are too narrow.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from w2ltune.commandline import parse_own
from w2ltune.formats.nbest import NBest
from w2ltune.rescoreinput import RescoreInput, read_input
from w2ltune.rescoreoptions import LENGTHS, RescoreOptions
from w2ltune.rescoring import POINTS, RESTARTS, rounded
from w2ltune.scoring.kernels import Batch
from w2ltune.scoring.nbest import take
from w2ltune.scoring.nbestpool import Pool
from w2ltune.search.certified import certify
from w2ltune.search.exactline import search_lines
from w2ltune.search.plateau import middle
from w2ltune.search.rescorebox import score_box
from w2ltune.search.rescoresampling import ancestor_names, sample

MIDDLE = "middle of the plateau (w2ltune)"


def tune(given: RescoreInput, train: NBest, seed: int) -> dict[str, tuple[np.ndarray, int]]:
    """Return what each method chooses: weights [columns] and k."""
    pool, batch, depth = Pool(train), Batch(train), given.ks[-1]
    low, high = score_box(train)
    start = np.zeros(len(low))
    start[0] = 1.0
    for step in search_lines(pool, low, high, starts=[start], restarts=RESTARTS, seed=seed):
        best = step.weights

    def errors(points: np.ndarray) -> np.ndarray:
        vectors = np.concatenate([np.ones((len(points), 1)), points], axis=1)
        return batch.errors(vectors).astype(np.float64)

    plateau = middle(errors, best=best[1:], low=low[1:], high=high[1:], points=POINTS)
    proof = certify(train, low, high, incumbent=best, time_limit_seconds=20)
    found = {
        "no rescoring": (start, 1),
        MIDDLE: (rounded(plateau), depth),
        "fewest errors, line search": (best, depth),
        "certified optimum" if proof.complete else "best of branch and bound": (
            proof.weights, depth
        ),
    }  # fmt: skip
    length = LENGTHS[given.options.length]
    for name, n in (("grid", 600), ("random", 1000)):
        for luckiest in sample(  # noqa: B007 (the last one)
            name,
            lambda vectors: batch.errors_by_depth(vectors, given.ks[1:]),
            given.weights,
            as_ancestor=ancestor_names(given.weights, length),
            low=low[1:], high=high[1:], n=n, seed=seed, batch=200,
        ):  # fmt: skip
            pass
        found[f"{name} of rescore.py, best k"] = luckiest.vector, given.ks[1 + luckiest.column]
    return found


def rate(nbest: NBest, weights: np.ndarray, k: int) -> float:
    errors = Batch(nbest).errors_by_depth(weights, [k])[0, 0]
    return 100 * float(errors) / float(nbest.reference_words.sum())


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="200,1000")
    parser.add_argument("--splits", type=int, default=20)
    own, rest = parser.parse_known_args(arguments)
    given = read_input(parse_own(rest, RescoreOptions, usage=""))
    lists, began = given.dev.nbest, time.process_time()
    for size in map(int, own.sizes.split(",")):
        rates: dict[str, list[tuple[float, float]]] = {}
        for number in range(own.splits):
            order = np.random.default_rng([given.options.seed, size, number]).permutation(
                lists.utterances
            )
            train, test = take(lists, order[:size]), take(lists, order[size:])
            for name, (weights, k) in tune(given, train, number).items():
                rates.setdefault(name, []).append((rate(train, weights, k), rate(test, weights, k)))
        print(f"\n{own.splits} splits, tuned on {size} utterances, the other "
              f"{lists.utterances - size} held out (WER %)\n")  # fmt: skip
        print("| | tuned on | held out | w2ltune minus it, held out | better / worse |")
        print("|---|---|---|---|---|")
        ours = np.array([held for _, held in rates[MIDDLE]])
        for name, pairs in rates.items():
            on, held = np.array(pairs).mean(axis=0)
            difference = ours[: len(pairs)] - np.array([held for _, held in pairs])
            error = difference.std(ddof=1) / math.sqrt(len(difference))
            better, worse = int((difference < 0).sum()), int((difference > 0).sum())
            text = "" if name == MIDDLE else (
                f"{difference.mean():+.3f} [{difference.mean() - 1.96 * error:+.3f}, "
                f"{difference.mean() + 1.96 * error:+.3f}]"
            )  # fmt: skip
            counts = "" if name == MIDDLE else f"{better} / {worse}"
            print(f"| {name} | {on:.3f} | {held:.3f} | {text} | {counts} |", flush=True)
    print(f"\n{time.process_time() - began:.0f} s of processor time")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
