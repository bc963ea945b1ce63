"""Make the data set: text from the grammar, speech by espeak-ng, features, lists, LM.

::

    python experiments/voice_commands/make_data.py [--folder=FOLDER] [--audio=FOLDER]

Everything is drawn from one seed, so the same espeak-ng gives the same files. ``--audio`` also
writes the noisy speech as wav files below that folder, at the paths that the lists name.
"""

from __future__ import annotations

import argparse
import wave
from dataclasses import dataclass
from pathlib import Path

import ngram
import numpy as np
from grammar import Grammar, draw, read_grammar, vocabulary
from speech import SAMPLE_RATE, Voices, log_mel, mix, noise, speak

HERE = Path(__file__).parent
TOKENS = ["|", *"abcdefghijklmnopqrstuvwxyz"]
SPREAD = 0.7  # how unequal the phrases of a rule are
SPEECH_TASTE, TEXT_TASTE = 1, 2  # seeds of what the speakers and the LM's text like to say
LM_SENTENCES = 4000
RESCORING_TASTE, RESCORING_SENTENCES = 3, 10_000

TRAIN_VOICES = Voices(
    accents=("en-us", "en-gb", "en-gb-x-rp"),
    variants=("m1", "m2", "m3", "m6", "m7", "f1", "f2", "f3"),
    words_per_minute=(130, 180),
    pitch=(25, 75),
)
DEV_VOICES = Voices(
    accents=("en-us", "en-gb"),
    variants=("m4", "f4"),
    words_per_minute=(140, 190),
    pitch=(20, 80),
)
TEST_VOICES = Voices(
    accents=("en-us", "en-gb-x-rp"),
    variants=("m5", "f5"),
    words_per_minute=(140, 190),
    pitch=(20, 80),
)


@dataclass(frozen=True, kw_only=True)
class List:
    """One list of utterances.

    Attributes:
        name: ``dev`` for ``dev.lst``.
        utterances: How many.
        least_words: Commands are said in a row until there are so many words.
        voices: Who speaks.
        ratio_decibel: Lowest and highest signal-to-noise ratio.
    """

    name: str
    utterances: int
    least_words: int
    voices: Voices
    ratio_decibel: tuple[float, float]


LISTS = [
    List(name="train", utterances=440, least_words=1, voices=TRAIN_VOICES, ratio_decibel=(8, 22)),
    List(name="dev", utterances=250, least_words=1, voices=DEV_VOICES, ratio_decibel=(10, 22)),
    List(name="test", utterances=250, least_words=1, voices=TEST_VOICES, ratio_decibel=(10, 22)),
    List(name="dev-long", utterances=50, least_words=25, voices=DEV_VOICES, ratio_decibel=(10, 22)),
    List(
        name="test-long", utterances=50, least_words=25, voices=TEST_VOICES, ratio_decibel=(10, 22)
    ),
]


def sentence(grammar: Grammar, random: np.random.Generator, least_words: int) -> list[str]:
    """Draw commands until there are enough words."""
    words = draw(grammar, random)
    while len(words) < least_words:
        words += draw(grammar, random)
    return words


def make_list(
    wanted: List, grammar: Grammar, talkers: list[np.ndarray], folder: Path, audio: Path | None
) -> None:
    """Write a list and the features of its utterances."""
    random = np.random.default_rng([1, *wanted.name.encode()])
    rows, features = [], []
    for number in range(1, wanted.utterances + 1):
        words = sentence(grammar, random, wanted.least_words)
        name = f"{wanted.name}-{number:04}"
        speech = speak(" ".join(words), wanted.voices, random)
        kind = str(random.choice(["white", "pink", "babble"]))
        disturbance = noise(kind, len(speech), talkers, random)
        samples = mix(speech, disturbance, random.uniform(*wanted.ratio_decibel))
        features.append(log_mel(samples))
        wav = f"audio/{wanted.name}/{name}.wav"
        rows.append(f"{name} {wav} {1000 * len(samples) / SAMPLE_RATE:.0f} {' '.join(words)}\n")
        if audio:
            write_wav(audio / wav, samples)
    (folder / f"{wanted.name}.lst").write_text("".join(rows), encoding="utf-8")
    np.savez_compressed(
        folder / "features" / f"{wanted.name}.npz",
        ids=np.array([row.split()[0] for row in rows]),
        frames=np.array([len(matrix) for matrix in features], np.int32),
        features=np.concatenate(features),
    )


def write_wav(path: Path, samples: np.ndarray) -> None:
    """Write samples as 16-bit mono, scaled to the loudest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((samples / np.abs(samples).max() * 32767).astype("<i2").tobytes())


def write_language(folder: Path, grammar: Grammar) -> None:
    """Write tokens, lexicon, and two language models of text with tastes of their own."""
    words = vocabulary(grammar)
    (folder / "tokens.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    lexicon = "".join(f"{word}\t{' '.join(word)} |\n" for word in words)
    (folder / "lexicon.txt").write_text(lexicon, encoding="utf-8")
    for name, taste, seed, sentences, order in (
        ("lm", TEXT_TASTE, 2, LM_SENTENCES, 3),
        ("rescoring", RESCORING_TASTE, 4, RESCORING_SENTENCES, 4),
    ):
        other = read_grammar(HERE / "grammar.txt", seed=taste, spread=SPREAD)
        random = np.random.default_rng(seed)
        # Every fourth line has commands in a row, so that the model knows what follows a command.
        text = [sentence(other, random, 14 if line % 4 == 0 else 1) for line in range(sentences)]
        model = ngram.estimate(text, order=order, vocabulary=words)
        ngram.write_arpa(folder / f"{name}.arpa", model)


def main() -> None:
    """Read the command line and make everything."""
    parser = argparse.ArgumentParser(description="Make the voice commands data set.")
    parser.add_argument("--folder", type=Path, default=HERE, help="where to write")
    parser.add_argument("--audio", type=Path, help="also write wav files below this folder")
    options = parser.parse_args()
    (options.folder / "features").mkdir(parents=True, exist_ok=True)
    grammar = read_grammar(HERE / "grammar.txt", seed=SPEECH_TASTE, spread=SPREAD)
    write_language(options.folder, grammar)
    random = np.random.default_rng(3)
    talkers = [speak(" ".join(draw(grammar, random)), TRAIN_VOICES, random) for _ in range(12)]
    for wanted in LISTS:
        make_list(wanted, grammar, talkers, options.folder, options.audio)


if __name__ == "__main__":
    main()
