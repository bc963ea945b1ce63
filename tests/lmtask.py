"""A small task of LM forwarding: a beam dump, an LM, and a program that scores and remembers."""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments" / "voice_commands"))
from ngram import estimate, write_arpa

from w2ltune.formats.beamdump import Hypothesis, write_beam_dump

WORDS = ["yes", "no", "grün", "日本", "it's", "a|b", "$(x)", "on"]

PROGRAM = """
import os, sys, time
seconds = float(sys.argv[1])
ledger = os.environ.get("LEDGER") or sys.argv[2] + ".txt"

def has_leave():
    try:
        with open(ledger + "-leave") as leave, open(ledger, "rb") as file:
            return file.read().count(b"\\n") < int(leave.read() or 0)
    except FileNotFoundError:
        return True

with open(ledger, "a", encoding="utf-8") as file:
    for line in sys.stdin:
        time.sleep(seconds)
        while not has_leave():
            time.sleep(0.05)
        print(-len(line.rstrip("\\n")) / 8)
        file.write(line)
        file.flush()
"""


def hypotheses(utterances: int, *, most: int = 6, seed: int = 1) -> list[tuple[str, str]]:
    """Return ids and texts as several decoder threads write them: some empty, many the same."""
    choose = random.Random(seed)
    lists = {
        f"utt/{n}-1" if n % 7 == 0 else f"utt-{n}": [
            " ".join(choose.choices(WORDS, k=choose.choice([0, 1, 1, 2, 3, 5, 8])))
            for _ in range(choose.randrange(1, most + 1))
        ]
        for n in range(utterances)
    }
    rows = []
    while lists:
        name = choose.choice(list(lists)[:2])
        rows.append((name, lists[name].pop(0)))
        if not lists[name]:
            del lists[name]
    return rows


def write_dump(path: Path, rows: list[tuple[str, str]]) -> Path:
    """Write a dump of these hypotheses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    items = [
        (name, Hypothesis(words=tuple(text.split()), score=-n, am_score=-n, lm_score=0.0, wer=0.5))
        for n, (name, text) in enumerate(rows)
    ]
    write_beam_dump(path, items)
    return path


def write_lm(path: Path, *, words: list[str] = WORDS[:-1], seed: int = 2) -> Path:
    """Write an LM that does not know the last word."""
    choose = random.Random(seed)
    sentences = [choose.choices(words, k=choose.randrange(1, 6)) for _ in range(50)]
    write_arpa(path, estimate([words, *sentences], order=3))
    return path


def write_program(folder: Path) -> Path:
    """Write the program; it takes seconds for each sentence, and the ledger without its ``.txt``.

    The ledger may stand in LEDGER instead. With a file ``<ledger>-leave`` it stands still when so
    many lines are there, until the file is gone or allows more.
    """
    path = folder / "score_it.py"
    path.write_text(PROGRAM, encoding="utf-8")
    return path


def expected_scores(rows: list[tuple[str, str]]) -> str:
    """Return what the program's scores look like in the file."""
    return "".join(f"{name} {-len(text) / 8!r}\n" for name, text in rows)
