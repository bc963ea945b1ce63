"""Cost of n-best evaluations and of certified searches, in evaluations of the ancestor's kind.

    OMP_NUM_THREADS=1 python tests/benchmarks/rescoring_search.py --hyp=DUMP --list=LIST \
        --lm tr=PATH --lm convlm=PATH

The dump may be packed; an LM file has a line of id and log-probability for each line of the dump.
All times are processor time of one process, the least of three where they are short; compiling is
listed apart. The box is that of the ancestor's random search as far as it is known: tr in [0, 2.5],
convlm in [-1, 1], length in [-1, 4]; the decoder's own LM score in [-1, 1].
"""

from __future__ import annotations

import argparse
import gzip
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

import numpy as np  # noqa: E402
from ancestor_rescore import SMALL_KS, Entry, topk_errors  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from w2ltune.formats.beamdump import read_beam_dump  # noqa: E402
from w2ltune.formats.listfile import read_list  # noqa: E402
from w2ltune.formats.nbest import NBest  # noqa: E402
from w2ltune.scoring.kernels import Batch  # noqa: E402
from w2ltune.scoring.nbest import cut  # noqa: E402
from w2ltune.scoring.nbestpool import Pool  # noqa: E402
from w2ltune.search.certified import Certificate, certify  # noqa: E402
from w2ltune.search.exactline import search_lines  # noqa: E402

T = TypeVar("T")
LOW = {"am": 1.0, "tr": 0.0, "convlm": -1.0, "length": -1.0, "words": -1.0, "letters": -1.0}
HIGH = {"am": 1.0, "tr": 2.5, "convlm": 1.0, "length": 4.0, "words": 4.0, "letters": 4.0}
LM = {"lm": (-1.0, 1.0)}
VECTORS = 2048


def timed(work: Callable[[], T], repeats: int = 3) -> tuple[T, float]:
    """Return a result and the least processor time of several runs."""
    seconds = []
    for _ in range(repeats):
        before = time.process_time()
        result = work()
        seconds.append(time.process_time() - before)
    return result, min(seconds)


def load(
    hyp: Path, listed: Path, lms: dict[str, Path]
) -> tuple[dict[str, list[Entry]], dict[str, int], NBest]:
    """Return the dump in the ancestor's manner and as arrays am, tr, convlm, words, letters, lm."""
    lists = read_beam_dump(hyp)
    lengths = {entry.id: len(entry.reference) for entry in read_list(listed)}
    scores = {}
    for name, path in lms.items():
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            scores[name] = [float(line.split()[1]) for line in file]
    dump: dict[str, list[Entry]] = {}
    rows, errors, offsets, first = [], [], [0], 0
    for name, hypotheses in lists.items():
        dump[name] = []
        for place in sorted(range(len(hypotheses)), key=lambda i: -hypotheses[i].score):
            one = hypotheses[place]
            wer = one.wer or 0.0
            tr, convlm = (scores[lm][first + place] for lm in ("tr", "convlm"))
            words, letters = len(one.words), sum(map(len, one.words))
            rows.append((one.am_score, tr, convlm, words, letters, one.lm_score))
            errors.append(round(wer * lengths[name]))
            dump[name].append(
                Entry(
                    decoder_score=one.score, am_score=one.am_score, tr_score=tr,
                    convlm_score=convlm, wer=100 * wer, length=words + letters,
                )
            )  # fmt: skip
        first += len(hypotheses)
        offsets.append(len(errors))
    return dump, lengths, NBest(
        offsets=np.array(offsets, dtype=np.int64),
        features=np.array(rows, dtype=np.float64),
        errors=np.array(errors, dtype=np.int32),
        text_hash=np.zeros(len(errors), dtype=np.uint64),
        reference_words=np.array([lengths[name] for name in lists], dtype=np.int32),
    )  # fmt: skip


def columns(nbest: NBest, *names: str) -> tuple[NBest, NDArray[np.float64], NDArray[np.float64]]:
    """Return lists of some columns, and the box of their weights."""
    own = dict(zip(("am", "tr", "convlm", "words", "letters", "lm"), nbest.features.T, strict=True))
    own["length"] = own["words"] + own["letters"]
    low, high = LOW | {"lm": LM["lm"][0]}, HIGH | {"lm": LM["lm"][1]}
    return (
        NBest(
            offsets=nbest.offsets,
            features=np.column_stack([own[name] for name in names]),
            errors=nbest.errors,
            text_hash=nbest.text_hash,
            reference_words=nbest.reference_words,
        ),
        np.array([low[name] for name in names]),
        np.array([high[name] for name in names]),
    )


def lines(nbest: NBest, low: NDArray[np.float64], high: NDArray[np.float64]) -> tuple[str, float]:
    """Search lines from three starting points."""
    (*_, last), seconds = timed(
        lambda: list(search_lines(Pool(nbest), low, high, restarts=2)), repeats=1
    )
    return f"{last.errors} errors after {last.lines} lines", seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hyp", type=Path, required=True)
    parser.add_argument("--list", type=Path, required=True)
    parser.add_argument("--lm", action="append", required=True, metavar="NAME=PATH")
    parser.add_argument("--seconds", type=float, default=60.0, help="for the search of 5 weights")
    options = parser.parse_args()
    paths = {name: Path(path) for name, _, path in (pair.partition("=") for pair in options.lm)}
    dump, lengths, every = load(options.hyp, options.list, paths)
    nbest, low, high = columns(every, "am", "tr", "convlm", "length")
    print(f"{nbest.hypotheses} hypotheses of {nbest.utterances} utterances, processor time\n")

    weights = np.random.default_rng(0).uniform(low, high, (VECTORS, len(low)))
    one = dict(zip(("tr", "convlm", "len"), weights[0, 1:].tolist(), strict=True))
    deepest = [max(SMALL_KS)]
    (single, _), plain = timed(lambda: topk_errors(dump, lengths, one, deepest))
    (all_ks, _), plain_all = timed(lambda: topk_errors(dump, lengths, one))
    rows: list[tuple[str, float, float]] = [
        ("plain loop, one k", plain, plain),
        ("plain loop, 18 k", plain_all, plain_all),
    ]
    pool, laid_out = timed(lambda: Pool(cut(nbest, deepest[0])))
    found, seconds = timed(lambda: pool.errors(weights[:200]))
    assert found[:1].tolist() == single
    rows.append(("numpy, one k", seconds / 200, plain))
    batch, batch_laid_out = timed(lambda: Batch(nbest))
    _, compiling = timed(lambda: batch.errors(weights[:1]), repeats=1)
    totals, seconds = timed(lambda: batch.errors(weights))
    assert totals[:200].tolist() == found.tolist()
    rows.append(("compiled, one k", seconds / VECTORS, plain))
    _, depth_compiling = timed(lambda: batch.errors_by_depth(weights[:1], SMALL_KS), repeats=1)
    totals_by_k, seconds = timed(lambda: batch.errors_by_depth(weights, SMALL_KS))
    assert totals_by_k[0].tolist() == all_ks
    rows.append(("compiled, 18 k", seconds / VECTORS, plain_all))
    print("| one weight vector | us | plain loop of as many k / this |\n|---|---|---|")
    for name, taken, base in rows:
        print(f"| {name} | {1e6 * taken:.1f} | {base / taken:.0f} |")
    print(
        f"\nLaid out: Pool {laid_out:.2f} s, Batch {batch_laid_out:.2f} s; "
        f"first call (compiled, or read from disk): one k {compiling:.2f} s, "
        f"18 k {depth_compiling:.2f} s"
    )

    print("\n| search | result | boxes | s | plain evaluations of 18 k |\n|---|---|---|---|---|")
    search, seconds = lines(nbest, low, high)
    print(f"| lines, 3 weights | {search} | | {seconds:.2f} | {seconds / plain_all:.1f} |")
    _, compiling = timed(lambda: certify(nbest, low, high, time_limit_seconds=0.1), repeats=1)
    for title, names, limit, repeats in (
        ("1 weight", ("am", "tr"), np.inf, 3),
        ("2 weights", ("am", "tr", "length"), np.inf, 3),
        ("3 weights", ("am", "tr", "convlm", "length"), np.inf, 3),
        ("4 weights", ("am", "tr", "convlm", "length", "lm"), np.inf, 1),
        ("5 weights", ("am", "tr", "convlm", "words", "letters", "lm"), options.seconds, 1),
    ):
        own, own_low, own_high = columns(every, *names)
        certify(own, own_low, own_high, time_limit_seconds=2)  # compiles
        start = None
        if len(names) > 4:  # with few weights the search needs no incumbent
            *_, last = search_lines(Pool(own), own_low, own_high, restarts=0)
            start = last.weights

        def certified() -> Certificate:
            return certify(own, own_low, own_high, incumbent=start, time_limit_seconds=limit)  # noqa: B023

        proof, seconds = timed(certified, repeats=repeats)
        assert Pool(own).errors(proof.weights).tolist() == [proof.errors]
        result = (
            f"{proof.errors} errors, bound {proof.bound} ({100 * proof.gap / proof.errors:.2f} %)"
        )
        print(
            f"| certified, {title} | {result}, {proof.slivers} slivers | {proof.boxes} "
            f"| {seconds:.2f} | {seconds / plain_all:.1f} |",
            flush=True,
        )
    print(f"\nFirst certified search (compiled, or read from disk): {compiling:.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"Peak memory with the dicts of the plain loop: {peak:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
