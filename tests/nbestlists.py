"""A small rescoring task: a beam dump, its data list and LM scores, made from a seed.

Hypotheses are references with words changed; the scores know of that, each with noise of its own,
so that weights of several models together are better than any alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WORDS = [
    "a",
    "be",
    "see",
    "the",
    "of",
    "quarter",
    "minute",
    "yes",
    "no",
    "light",
    "lamp",
    "set",
    "turn",
    "on",
    "off",
    "twenty",
]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Files of a list."""

    hyp: Path
    list: Path
    tr: Path
    convlm: Path

    def arguments(self, *, test: bool = False) -> list[str]:
        start = "--test_" if test else "--"
        names = ("hyp", "list", "tr", "convlm")
        return [f"{start}{name}={getattr(self, name)}" for name in names]


def change(words: Sequence[str], edits: int, choose: random.Random) -> list[str]:
    changed = list(words)
    for _ in range(edits):
        place = choose.randrange(len(changed) + 1)
        kind = choose.choice("sdi")
        if kind == "i" or not changed:
            changed.insert(place, choose.choice(WORDS))
        elif kind == "d":
            changed.pop(min(place, len(changed) - 1))
        else:
            changed[min(place, len(changed) - 1)] = choose.choice(WORDS)
    return changed


def distance(one: Sequence[str], other: Sequence[str]) -> int:
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, start=1):
        before, row[0] = row[0], i
        for j, right in enumerate(other, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (left != right))
    return row[-1]


def write_task(
    folder: Path, *, name: str = "dev", utterances: int = 60, depth: int = 12, seed: int = 1
) -> Task:
    """Write a list of so many utterances with up to ``depth`` hypotheses each."""
    choose = random.Random(f"{name} {seed}")
    folder.mkdir(parents=True, exist_ok=True)
    task = Task(
        hyp=folder / f"{name}.lst.hyp", list=folder / f"{name}.lst",
        tr=folder / f"{name}.lst-tr.ppl", convlm=folder / f"{name}.lst-convlm.ppl",
    )  # fmt: skip
    dump, rows, tr, convlm = [], [], [], []
    for number in range(utterances):
        utterance = f"{name}-{number:04d}"
        reference = choose.choices(WORDS, k=choose.randint(2, 9))
        rows.append(f"{utterance} {utterance}.wav 1000 {' '.join(reference)}")
        entries = {}
        for _ in range(choose.randint(1, depth)):
            words = change(reference, choose.choice((0, 1, 1, 2, 3)), choose)
            errors = distance(reference, words)
            am = -3.0 * errors + choose.gauss(0, 4) + 0.5 * len(words)
            lm = -2.0 * len(words) + choose.gauss(0, 2)
            entries[tuple(words)] = (am + 0.5 * lm, am, lm, errors)
        for words, (score, am, lm, errors) in sorted(entries.items(), key=lambda e: -e[1][0]):
            wer = 100 * errors / len(reference)
            dump.append(
                f"{utterance} | {score:.6f} | {am:.6f} | {lm:.6f} | {wer:.6f} | {' '.join(words)}"
            )
            length = -2.5 * len(words)
            tr.append(f"{utterance} {length - 2.0 * errors + choose.gauss(0, 3):.6f}")
            convlm.append(f"{utterance} {length - 2.0 * errors + choose.gauss(0, 5):.6f}")
    for path, lines in ((task.hyp, dump), (task.list, rows), (task.tr, tr), (task.convlm, convlm)):
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return task
