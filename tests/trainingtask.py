"""A small training for the double of the binary: lists, tokens, lexicon, architecture, audio."""

from __future__ import annotations

import wave
from pathlib import Path

DOUBLES = Path(__file__).parent / "doubles"
BINARY = DOUBLES / "fl_asr_train"
WORDS = ["one", "two", "three", "four"]


def make_training(folder: Path, *, rows: int = 40) -> dict[str, str]:
    """Write the inputs of a training to ``folder`` and return its flags."""
    audio = folder / "audio"
    audio.mkdir(parents=True)
    for name, count in (("train", rows), ("dev", 8), ("other", 8)):
        lines = []
        for number in range(count):
            path = audio / f"{name}-{number}.wav"
            with wave.open(str(path), "wb") as file:
                file.setparams((1, 2, 8000, 0, "NONE", ""))
                file.writeframes(b"\0\0" * 80)
            words = " ".join(WORDS[(number + k) % 4] for k in range(1 + number % 3))
            lines.append(f"{name}-{number} {path} 1000 {words}\n")
        (folder / f"{name}.lst").write_text("".join(lines))
    letters = sorted({letter for word in WORDS for letter in word})
    (folder / "tokens.txt").write_text("".join(f"{token}\n" for token in ["|", *letters]))
    spelt = "".join(f"{word}\t{' '.join(word)} |\n" for word in WORDS)
    (folder / "lexicon.txt").write_text(spelt)
    (folder / "net.arch").write_text(
        "V -1 1 NFEAT 0\nC NFEAT 8 3 1 -1\nR\nRO 2 0 3 1\nL 8 NLABEL\n"
    )
    return {
        "datadir": str(folder),
        "train": "train.lst",
        "valid": "dev:dev.lst,other:other.lst",
        "tokens": str(folder / "tokens.txt"),
        "lexicon": str(folder / "lexicon.txt"),
        "arch": str(folder / "net.arch"),
        "criterion": "ctc",
        "batchsize": "4",
        "lr": "0.02",
        "iter": "100",
        "seed": "1",
    }


def write_config(folder: Path, flags: dict[str, str], name: str = "name.cfg") -> Path:
    """Write a flagsfile ``folder/project/name.cfg``."""
    path = folder / "project" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"--{flag}={value}\n" for flag, value in flags.items()))
    return path
