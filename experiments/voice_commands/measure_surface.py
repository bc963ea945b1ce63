"""Measure the word error rate over LM weight and word score with flashlight-text alone.

::

    python experiments/voice_commands/measure_surface.py [--test=dev] [--beamsize=100]

It shares no decoding code with ``w2ltune``: a check from outside, and the README's tables.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from flashlight.lib.text import decoder
from flashlight.lib.text.decoder.kenlm import KenLM
from flashlight.lib.text.dictionary import Dictionary

from w2ltune.scoring.wer import count_matrix, total

HERE = Path(__file__).parent
LM_WEIGHTS = [0, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5]
WORD_SCORES = [-8, -4, -2, 0, 1, 2, 4, 7]
BEAM_SIZE_TOKEN, BEAM_THRESHOLD = 20, 25


def read_emissions(path: Path) -> list[np.ndarray]:
    """Return each utterance's emission as the decoder wants it: float32, rows in one piece."""
    with np.load(path) as arrays:
        parts = np.split(arrays["emissions"], np.cumsum(arrays["frames"])[:-1])
    return [np.ascontiguousarray(part, np.float32) for part in parts]


def main() -> None:
    """Read the command line and print a table in Markdown."""
    parser = argparse.ArgumentParser(description="Measure WER over lmweight and wordscore.")
    parser.add_argument("--test", default="dev", help="name of a list: dev, test, dev-long, ...")
    parser.add_argument("--beamsize", type=int, default=100)
    options = parser.parse_args()

    tokens = (HERE / "tokens.txt").read_text(encoding="utf-8").split()
    rows = (HERE / "lexicon.txt").read_text(encoding="utf-8").splitlines()
    lexicon = {row.split()[0]: [tokens.index(token) for token in row.split()[1:]] for row in rows}
    words = Dictionary([*lexicon, "<unk>"])
    lm = KenLM(str(HERE / "lm.arpa"), words)
    trie = decoder.Trie(len(tokens) + 1, tokens.index("|"))
    for word, spelling in lexicon.items():
        index = words.get_index(word)
        trie.insert(spelling, index, lm.score(lm.start(False), index)[1])
    trie.smear(decoder.SmearingMode.MAX)

    rows = (HERE / f"{options.test}.lst").read_text(encoding="utf-8").splitlines()
    references = [row.split()[3:] for row in rows]
    emissions = read_emissions(HERE / "emissions" / f"{options.test}.npz")

    def decode(lm_weight: float, word_score: float) -> list[list[str]]:
        settings = decoder.LexiconDecoderOptions(
            beam_size=options.beamsize,
            beam_size_token=BEAM_SIZE_TOKEN,
            beam_threshold=BEAM_THRESHOLD,
            lm_weight=lm_weight,
            word_score=word_score,
            unk_score=float("-inf"),
            sil_score=0,
            log_add=False,
            criterion_type=decoder.CriterionType.CTC,
        )
        search = decoder.LexiconDecoder(
            settings, trie, lm, 0, len(tokens), words.get_index("<unk>"), [], False
        )
        best = [search.decode(e.ctypes.data, *e.shape)[0].words for e in emissions]
        return [[words.get_entry(index) for index in result if index >= 0] for result in best]

    print("| lmweight \\ wordscore | " + " | ".join(map(str, WORD_SCORES)) + " |")
    print("|---" * (len(WORD_SCORES) + 1) + "|")
    begin = time.process_time()
    for lm_weight in LM_WEIGHTS:
        counts = [
            total(count_matrix(references, decode(lm_weight, score))) for score in WORD_SCORES
        ]
        cells = " | ".join(f"{100 * count.wer:.1f}" for count in counts)
        print(f"| {lm_weight} | {cells} |", flush=True)
    decodes = len(LM_WEIGHTS) * len(WORD_SCORES)
    print(f"\n{(time.process_time() - begin) / decodes:.2f} CPU seconds for one decode")


if __name__ == "__main__":
    main()
