"""Processor time of a decode sweep before Ray: its inputs checked and put together.

    python tests/benchmarks/prepare.py [--utterances=2700] [--tokens=30] [--words=200000]
           [--ngrams=1000000] [--profile]

Lists, emissions, a lexicon of letters and an ARPA file of three orders are made up in a temporary
folder. Each part is also told as a ratio to loading the LM alone, which nobody can do without.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

LETTERS = "abcdefghijklmnopqrstuvwxyz'"
FRAMES_OF_A_TOKEN = 4


def make(folder: Path, options: argparse.Namespace) -> dict[str, str]:
    """Write all inputs; return the flags of the sweep."""
    random = np.random.default_rng(7)
    tokens = ["|", *LETTERS]
    (folder / "tokens.txt").write_text("".join(f"{token}\n" for token in tokens))
    words = list(dict.fromkeys(_words(random, options.words)))
    (folder / "lexicon.txt").write_text("".join(f"{w}\t{' '.join(w)} |\n" for w in words))
    _write_arpa(folder / "lm.arpa", words, options.ngrams, random)
    rows, items = [], []
    for number in range(options.utterances):
        said: list[str] = []
        while sum(len(word) + 1 for word in said) < options.tokens:
            said.append(words[random.integers(len(words))])
        rows.append(f"utterance-{number:05d} some.wav 4000 {' '.join(said)}\n")
        items.append((f"utterance-{number:05d}", _emission(" ".join(said), tokens, random)))
    (folder / "dev.lst").write_text("".join(rows))
    from w2ltune.formats.emissions import write_emissions

    write_emissions(folder / "dev.npz", items)
    return {
        "test": "dev.lst",
        "datadir": str(folder),
        "emission_dir": str(folder),
        **{name: str(folder / f"{name}.txt") for name in ("tokens", "lexicon")},
        "lm": str(folder / "lm.arpa"),
        "smearing": "max",
    }


def _words(random: np.random.Generator, count: int) -> Iterator[str]:
    for length in random.integers(4, 12, count):
        yield "".join(LETTERS[n] for n in random.integers(0, len(LETTERS), length))


def _emission(text: str, tokens: list[str], random: np.random.Generator) -> Any:
    """Return what a good model would give: each token in two of its four frames, else the blank."""
    letters = [*text.replace(" ", "|"), "|"]
    emission = random.normal(0, 1, (FRAMES_OF_A_TOKEN * len(letters), len(tokens) + 1))
    emission[:, -1] += 6
    for place, letter in enumerate(letters):
        begin = FRAMES_OF_A_TOKEN * place
        emission[begin : begin + 2, tokens.index(letter)] += 9
    return emission.astype(np.float32)


def _write_arpa(path: Path, words: list[str], ngrams: int, random: np.random.Generator) -> None:
    """Write an LM of three orders: all words, pairs of them, and those pairs with a word more."""
    pairs = sorted(
        {tuple(p) for p in random.integers(0, len(words), (ngrams * 9 // 20, 2)).tolist()}
    )
    # A trigram needs the pair of its last two words: made by joining pairs that meet.
    first: dict[int, list[int]] = {}
    for one, two in pairs:
        first.setdefault(one, []).append(two)
    joined = ((one, two, three) for one, two in pairs for three in first.get(two, ()))
    triples = [triple for triple, _ in zip(joined, range(ngrams // 2), strict=False)]
    with path.open("w") as file:
        file.write(f"\\data\\\nngram 1={len(words) + 3}\nngram 2={len(pairs)}\n")
        file.write(
            f"ngram 3={len(triples)}\n\n\\1-grams:\n-9\t<unk>\t0\n-99\t<s>\t-1\n-2\t</s>\t0\n"
        )
        file.writelines(f"-{4 + n % 99 / 99:.4f}\t{word}\t-0.5\n" for n, word in enumerate(words))
        file.write("\n\\2-grams:\n")
        file.writelines(
            f"-1.{n % 97:02d}\t{words[a]} {words[b]}\t-0.3\n" for n, (a, b) in enumerate(pairs)
        )
        file.write("\n\\3-grams:\n")
        file.writelines(
            f"-0.{n % 89:02d}\t{words[a]} {words[b]} {words[c]}\n"
            for n, (a, b, c) in enumerate(triples)
        )
        file.write("\n\\end\\\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--utterances", type=int, default=2700)
    parser.add_argument("--tokens", type=int, default=30)
    parser.add_argument("--words", type=int, default=200_000)
    parser.add_argument("--ngrams", type=int, default=1_000_000)
    parser.add_argument("--profile", action="store_true", help="show where the rest goes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(make(Path(folder), options), Path(folder), profile=options.profile)


def measure(flags: dict[str, str], folder: Path, *, profile: bool) -> None:
    """Print the parts."""
    import w2ltune.decodeinput as decodeinput
    from w2ltune.decodeinput import prepare
    from w2ltune.embedded import beamsearch, kenlm
    from w2ltune.search.space import ANCESTOR_RANGES, SearchSpace
    from w2ltune.sweepoptions import SweepOptions
    from w2ltune.trials import sanity

    dictionary = kenlm.import_flashlight()[1].Dictionary()
    with Path(flags["lexicon"]).open() as lines:
        for line in lines:
            dictionary.add_entry(line.split("\t")[0])
    before = time.process_time()
    kenlm.load_kenlm(Path(flags["lm"]), dictionary)
    alone = time.process_time() - before
    parts: dict[str, float] = {}
    watched = [
        (beamsearch, "load_kenlm"), (beamsearch.Decoder, "_load_lexicon"),
        (decodeinput, "Dataset"),
        (decodeinput, "fingerprints"), (sanity, "check_all_emissions"),
        (sanity, "_probabilities"), (sanity, "decode_greedily"), (sanity, "_outside_lexicon"),
        (sanity, "_crowded_out"), (sanity, "_unknown_to_lm"), (sanity, "_too_short"),
    ]  # fmt: skip
    for place, name in watched:
        setattr(place, name, _timed(getattr(place, name), name.strip("_"), parts))
    space = SearchSpace(fixed=flags, distributions=ANCESTOR_RANGES)
    profiler = cProfile.Profile()
    if profile:
        profiler.enable()
    before = time.process_time()
    given = prepare(SweepOptions(logdir=folder, prefix="run", n=5), space, command=())
    whole = time.process_time() - before
    profiler.disable()
    rest = whole - sum(parts.values())
    print(f"{'':24}  CPU s  ratio to loading the LM alone ({alone:.2f} s)")
    for name, seconds in [*parts.items(), ("the rest", rest), ("before Ray", whole)]:
        print(f"{name:24} {seconds:6.2f}  {seconds / alone:6.2f}")
    for finding in given.findings:
        print(f"finding: {finding}")
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def _timed(work: Callable[..., Any], name: str, parts: dict[str, float]) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:
        before = time.process_time()
        try:
            return work(*arguments, **named)
        finally:
            parts[name] = parts.get(name, 0.0) + time.process_time() - before

    return timed


if __name__ == "__main__":
    main()
