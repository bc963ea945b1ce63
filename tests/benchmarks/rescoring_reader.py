"""Time and memory of what rescoring reads, against reading the dump line by line.

    python tests/benchmarks/rescoring_reader.py --hyp=PATH --list=PATH [--lm=NAME=PATH ...]

Times are processor time of one process, the least of three runs. The dump may be compressed; it is
also read unpacked, from a temporary copy.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from w2ltune.formats.beamdump import read_beam_dump  # noqa: E402
from w2ltune.formats.compressed import open_unpacked  # noqa: E402
from w2ltune.formats.dumpcolumns import read_dump_columns  # noqa: E402
from w2ltune.formats.lmscores import read_lm_scores  # noqa: E402
from w2ltune.scoring.rescorelists import join  # noqa: E402

Result = TypeVar("Result")
RUNS = 3


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Return the least processor time of some runs, and what the last one gave."""
    taken = []
    for _ in range(RUNS):
        before = time.process_time()
        result = work()
        taken.append(time.process_time() - before)
    return min(taken), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hyp", type=Path, required=True)
    parser.add_argument("--list", type=Path, required=True)
    parser.add_argument("--lm", action="append", default=[], metavar="NAME=PATH")
    options = parser.parse_args()
    lms = {name: Path(path) for name, _, path in (text.partition("=") for text in options.lm)}

    rows: list[tuple[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "plain.hyp")
        with open_unpacked(options.hyp) as file:
            plain.write_bytes(file.read())
        taken, _ = timed(lambda: read_beam_dump(plain))
        rows.append(("dump, line by line", taken))
        taken, dump = timed(lambda: read_dump_columns(plain))
        rows.append(("dump, columns", taken))
    taken, _ = timed(lambda: read_dump_columns(options.hyp))
    rows.append((f"dump, columns, {options.hyp.suffix}", taken))
    scores = {}
    for name, path in lms.items():
        taken, scores[name] = timed(lambda path=path: read_lm_scores(path))
        rows.append((f"LM scores {name}", taken))
    taken, lists = timed(lambda: join(dump, options.list, scores))
    rows.append(("join with counting", taken))

    print(f"{len(dump)} hypotheses of {len(dump.ids)} utterances\n")
    print(f"{'':24}  CPU s  ratio to line by line")
    for what, taken in rows:
        print(f"{what:24} {taken:6.3f}  {taken / rows[0][1]:6.3f}")
    nbest = lists.nbest
    arrays = (nbest.features, nbest.errors, nbest.text_hash, nbest.offsets, nbest.reference_words)
    joined = sum(array.nbytes for array in (*arrays, lists.dump_rows))
    texts = lists.dump_texts.begin.nbytes + lists.dump_texts.end.nbytes
    print(f"\nbytes per hypothesis, {len(lists.names)} columns: {joined / len(dump):.1f}")
    print(f"and where its words are: {texts / len(dump):.1f}")
    print(f"words and what else is in the dump: {len(lists.dump_texts.content) / len(dump):.1f}")
    for finding in lists.findings:
        print(f"finding: {finding}")


if __name__ == "__main__":
    main()
