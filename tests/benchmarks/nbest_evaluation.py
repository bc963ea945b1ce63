"""Time of an n-best evaluation and of an exact line search, against a loop over dicts.

    OMP_NUM_THREADS=1 python tests/benchmarks/nbest_evaluation.py [--hypotheses=250000]

Decodes the dev set of experiments/voice_commands at beam 500 and repeats its n-best lists, each
copy with other scores (normal, standard deviation 0.5), until there are enough hypotheses. All
times are processor time of one process.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import numpy as np  # noqa: E402

from w2ltune.embedded.beamsearch import Decoder  # noqa: E402
from w2ltune.embedded.decoderflags import decoder_flags  # noqa: E402
from w2ltune.formats.beamdump import Hypothesis  # noqa: E402
from w2ltune.formats.emissions import open_emissions  # noqa: E402
from w2ltune.formats.listfile import read_list  # noqa: E402
from w2ltune.formats.nbest import FEATURES, NBest, read_nbest, write_nbest  # noqa: E402
from w2ltune.scoring.nbest import collect, merge, take  # noqa: E402
from w2ltune.scoring.nbestpool import Pool  # noqa: E402

VOICE = REPOSITORY / "experiments" / "voice_commands"
VECTORS = 500


def seconds(work: Callable[[], object], *, repeats: int) -> float:
    """Return the least processor time of several runs."""
    taken = []
    for _ in range(repeats):
        before = time.process_time()
        work()
        taken.append(time.process_time() - before)
    return min(taken)


def decoded() -> tuple[list[list[Hypothesis]], list[tuple[str, ...]]]:
    """Return n-best lists and references of the dev set."""
    flags = decoder_flags(
        {
            "tokens": str(VOICE / "tokens.txt"),
            "lexicon": str(VOICE / "lexicon.txt"),
            "lm": str(VOICE / "lm.arpa"),
            "smearing": "max",
            "beamsize": "500",
            "beamsizetoken": "20",
            "beamthreshold": "50",
            "lmweight": "1.5",
            "wordscore": "0.5",
        }
    )
    decoder = Decoder(flags)
    emissions = open_emissions(VOICE / "emissions/dev.npz")
    utterances = list(read_list(VOICE / "dev.lst"))
    lists = [decoder.decode(emissions.emission(entry.id), flags) for entry in utterances]
    return lists, [entry.reference for entry in utterances]


def enlarged(nbest: NBest, hypotheses: int) -> NBest:
    """Repeat the lists with other scores until there are so many hypotheses."""
    copies = -(-hypotheses // nbest.hypotheses)
    many = take(nbest, np.tile(np.arange(nbest.utterances), copies))
    many = take(many, np.arange(np.searchsorted(many.offsets, hypotheses)))
    features = many.features.copy()
    features[:, :2] += np.random.default_rng(1).normal(0, 0.5, (many.hypotheses, 2))
    return dataclasses.replace(many, features=features)


def as_dicts(nbest: NBest) -> list[list[dict[str, float]]]:
    rows = [
        dict(zip((*FEATURES, "errors"), (*features, errors), strict=True))
        for features, errors in zip(nbest.features.tolist(), nbest.errors.tolist(), strict=True)
    ]
    bounds = nbest.offsets.tolist()
    return [rows[low:high] for low, high in itertools.pairwise(bounds)]


def loop(lists: list[list[dict[str, float]]], weights: dict[str, float]) -> float:
    """Evaluate one weight vector the plain way: a score for each hypothesis, the highest wins."""
    total = 0.0
    for hypotheses in lists:
        best_score = best_errors = None
        for entry in hypotheses:
            score = 0.0
            for name, weight in weights.items():
                score += weight * entry[name]
            if best_score is None or score > best_score:
                best_score, best_errors = score, entry["errors"]
        total += best_errors or 0.0
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hypotheses", type=int, default=250_000)
    options = parser.parse_args()

    lists, references = decoded()
    before = time.process_time()
    small = collect(lists, references, str.split)
    collecting = time.process_time() - before
    nbest = enlarged(small, options.hypotheses)
    pool = Pool(nbest)
    vector = np.array([1.0, 1.5, 0.5, 0.0, 0.0])
    vectors = np.random.default_rng(2).normal(vector, [0, 1, 2, 0, 1], (VECTORS, 5))
    dicts = as_dicts(nbest)
    plain = dict(zip(FEATURES, vector.tolist(), strict=True))
    found, expected = int(pool.errors(vector)[0]), loop(dicts, plain)
    if found != expected:
        sys.exit(f"{found} errors, but the loop over dicts finds {expected}")
    direction = np.array([0, 1.0, 1.0, 0, 0])
    line = pool.line(vector, direction, -5, 5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "nbest.npz"
        write_nbest(path, nbest, key="0")
        size = path.stat().st_size
        reading = seconds(lambda: read_nbest(path, key=None), repeats=3)

    slow = seconds(lambda: loop(dicts, plain), repeats=3)
    one = seconds(lambda: pool.errors(vector), repeats=50)
    batch = seconds(lambda: pool.errors(vectors), repeats=3) / VECTORS
    search = seconds(lambda: pool.line(vector, direction, -5, 5), repeats=5)
    rows = [
        ("loop over lists of dicts, one weight vector", slow),
        ("Pool.errors, one weight vector", one),
        (f"Pool.errors, each of {VECTORS} weight vectors", batch),
        (f"Pool.line, {len(line.errors)} pieces", search),
        ("Pool(nbest)", seconds(lambda: Pool(nbest), repeats=3)),
        ("merge of two such decodes", seconds(lambda: merge([nbest, nbest]), repeats=3)),
        (f"read_nbest, {size / 1e6:.1f} MB", reading),
        (f"collect, {small.hypotheses} hypotheses with their alignments", collecting),
    ]
    print(f"{nbest.hypotheses} hypotheses of {nbest.utterances} utterances, processor time\n")
    print("| work | ms | loop over dicts / this |\n|---|---|---|")
    for name, taken in rows:
        print(f"| {name} | {1000 * taken:.3f} | {slow / taken:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
