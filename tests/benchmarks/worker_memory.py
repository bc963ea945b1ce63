"""Memory of a decoder worker beyond its emissions and LM, and what the workers share.

    python tests/benchmarks/worker_memory.py [--copies=400] [--trigrams=3000000]
                                             [--build_binary=kenlm/build/bin/build_binary]

Writes an uncompressed emission file that repeats the dev set many times, runs a real sweep on it
and watches the decoder workers: the peak of what is their own (USS: Ray, Python, numpy, utterance
list and trie, but no emissions) and what they map of the emission file (shared pages). With
KenLM's tool that writes binaries, the LM is a large one of random probabilities, watched too.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

import numpy as np  # noqa: E402
import psutil  # noqa: E402
from killing import Sweep  # noqa: E402  (it lies in tests/)

VOICE = REPOSITORY / "experiments" / "voice_commands"


def mapped_bytes(pid: int, name: str, kind: str) -> int:
    """Return the bytes of a mapped file that are in memory, by kind (Rss or Private_Dirty)."""
    text = Path(f"/proc/{pid}/smaps").read_text()
    blocks = re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", text)
    pattern = re.compile(rf"^{kind}:\s+(\d+) kB", re.MULTILINE)
    found = [pattern.search(block) for block in blocks if name in block.split("\n", 1)[0]]
    return sum(int(match[1]) * 1024 for match in found if match)


def write_large_lm(folder: Path, trigrams: int, tool: str) -> Path:
    """Write a 3-gram LM of the demo's words, every bigram and so many trigrams, as a binary."""
    rows = (VOICE / "lexicon.txt").read_text().splitlines()
    words = ["<unk>", "<s>", "</s>", *dict.fromkeys(row.split()[0] for row in rows)]
    words = list(dict.fromkeys(words))
    inner = [word for word in words if word not in ("<unk>", "<s>", "</s>")]
    rng = np.random.default_rng(1)
    pairs = [(first, second) for first in ["<s>", *inner] for second in inner]
    chosen = np.sort(rng.choice(len(pairs) * len(inner), size=trigrams, replace=False))
    scores = rng.uniform(-4, -0.1, trigrams)
    # A score of its own for <unk>: words that score as it are taken for unknown ones.
    unigrams = [f"{-5 if word == '<unk>' else -2.5}\t{word}\t-0.3\n" for word in words]
    arpa = folder / "large.arpa"
    with arpa.open("w") as file:
        counts = (len(words), len(pairs), trigrams)
        file.write("\\data\\\n" + "".join(f"ngram {n}={c}\n" for n, c in enumerate(counts, 1)))
        file.write("\n\\1-grams:\n" + "".join(unigrams))
        file.write("\n\\2-grams:\n" + "".join(f"-2\t{a} {b}\t-0.2\n" for a, b in pairs))
        file.write("\n\\3-grams:\n")
        for index, score in zip(chosen.tolist(), scores.tolist(), strict=True):
            first, second = pairs[index // len(inner)]
            file.write(f"{score:.4f}\t{first} {second} {inner[index % len(inner)]}\n")
        file.write("\n\\end\\\n")
    binary = folder / "large.klm"
    subprocess.run([tool, "probing", arpa, binary], check=True, capture_output=True)
    arpa.unlink()
    return binary


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--copies", type=int, default=400)
    parser.add_argument("--trigrams", type=int, default=3_000_000)
    parser.add_argument("--build_binary", help="KenLM's tool; without it the demo's ARPA is used")
    options = parser.parse_args()

    from w2ltune.formats.emissions import open_emissions, write_emissions

    dev = open_emissions(VOICE / "emissions" / "dev.npz")
    rows = [row.split(" ", 1) for row in (VOICE / "dev.lst").read_text().splitlines()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copies = range(options.copies)
        write_emissions(
            folder / "many.npz",
            ((f"{name}-{copy}", dev.emission(name)) for copy in copies for name in dev.ids),
        )
        (folder / "many.lst").write_text(
            "".join(f"{name}-{copy} {rest}\n" for copy in copies for name, rest in rows)
        )
        size = (folder / "many.npz").stat().st_size
        arguments = [
            "--flagsfile=experiments/voice_commands/decode.cfg", "--test=many.lst", "--n=3",
            f"--emission_dir={folder}", f"--datadir={folder}", f"--logdir={folder}",
            "--beamsize=20", "--pruner=none", "--sampler=tpe", "--noprobe", "--heldout=",
        ]  # fmt: skip
        files = ["many.npz"]
        if options.build_binary:
            binary = write_large_lm(folder, options.trigrams, options.build_binary)
            print(f"binary LM {binary.stat().st_size / 2**20:.0f} MiB", flush=True)
            arguments.append(f"--lm={binary}")
            files.append(binary.name)
        sweep = Sweep(arguments, REPOSITORY, folder / "log")
        sweep.start()
        own: dict[int, int] = {}
        mapped: dict[tuple[int, str, str], int] = {}
        while sweep.alive():
            for pid in sweep.victims("worker"):
                with contextlib.suppress(psutil.Error, OSError):
                    own[pid] = max(own.get(pid, 0), psutil.Process(pid).memory_full_info().uss)
                    for key in itertools.product([pid], files, ["Rss", "Private_Dirty"]):
                        mapped[key] = max(mapped.get(key, 0), mapped_bytes(*key))
            time.sleep(0.2)
        if sweep.wait(10) != 0:
            sys.exit((folder / "log").read_text())
    print(f"emission file {size / 2**20:.0f} MiB, {options.copies * len(dev.ids)} utterances")
    print("| worker | file | peak of its own memory (USS) MiB | mapped MiB | of it private MiB |")
    print("|---|---|---|---|---|")
    for number, pid in enumerate(own):
        for file in files:
            kinds = (mapped.get((pid, file, kind), 0) for kind in ("Rss", "Private_Dirty"))
            row = [f"{size / 2**20:.0f}" for size in (own[pid], *kinds)]
            print(f"| {number} | {file} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
