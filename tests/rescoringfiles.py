"""Small random inputs of rescoring, kept beside what they were made from."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from w2ltune.formats.beamdump import Hypothesis, write_beam_dump
from w2ltune.formats.dumpcolumns import DumpColumns, read_dump_columns
from w2ltune.scoring.wer import count_errors

WORDS = ("the", "cat", "sat", "on", "a", "mat", "l'été")


@dataclass(frozen=True, kw_only=True)
class Files:
    """A data list, the dump of its decode, and the lines of the dump; scores have six decimals."""

    data_list: Path
    hyp: Path
    references: dict[str, tuple[str, ...]]
    items: list[tuple[str, Hypothesis]]

    @property
    def dump(self) -> DumpColumns:
        return read_dump_columns(self.hyp)

    def write_ppl(self, path: Path, ids: list[str] | None = None) -> list[float]:
        """Write a score for each line, and return them."""
        names = [name for name, _ in self.items] if ids is None else ids
        scores = [round(-1.5 * number - 0.25, 6) for number in range(len(names))]
        lines = [f"{name} {score:f}\n" for name, score in zip(names, scores, strict=True)]
        path.write_text("".join(lines), encoding="utf-8")
        return scores


def write_list(path: Path, references: dict[str, tuple[str, ...]]) -> None:
    rows = [" ".join([name, f"{name}.wav", "1", *words]) for name, words in references.items()]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def make_files(folder: Path, *, seed: int = 1, utterances: int = 8, missing: int = 0) -> Files:
    """Write a list and its dump, the lines of two utterances at a time interleaved."""
    rng = random.Random(seed)
    references = {
        f"u-{number}": tuple(rng.choices(WORDS, k=rng.randrange(7))) for number in range(utterances)
    }
    references["u-0"] = ("the", "cat")
    lists: list[list[tuple[str, Hypothesis]]] = []
    for name, reference in list(references.items())[missing:]:
        entries = []
        for _ in range(rng.randrange(1, 6)):
            words = tuple(rng.choices(WORDS, k=rng.choice((0, 1, 3, 6))))
            wer = count_errors(reference, words).wer
            score = float(rng.randrange(-9, 0))  # ties come often
            am, lm = (round(rng.gauss(0, 5), 6) for _ in range(2))
            entries.append((name, Hypothesis(words, score, am, lm, wer)))
        lists.append(entries)
    rng.shuffle(lists)
    items = []
    for pair in (lists[start : start + 2] for start in range(0, len(lists), 2)):
        while any(pair):
            items.append(rng.choice([entries for entries in pair if entries]).pop(0))
    data_list, hyp = folder / "dev.lst", folder / "dev.hyp"
    write_list(data_list, references)
    write_beam_dump(hyp, items)
    return Files(data_list=data_list, hyp=hyp, references=references, items=items)
