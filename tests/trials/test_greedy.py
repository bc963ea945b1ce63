"""Greedy decoding of graphemes, word pieces and phones, with errors put in by hand."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jiwer
import numpy as np
import pytest

from w2ltune.embedded.beamsearch import Decoder
from w2ltune.embedded.decoderflags import decoder_flags
from w2ltune.errors import InputError
from w2ltune.formats.emissions import write_emissions
from w2ltune.scoring.nearest import nearest_spelling
from w2ltune.trials.dataset import Dataset, DecodeTask
from w2ltune.trials.sanity import check_task, refuse_absurd

PHONES = ["dh", "ah", "iy", "k", "ae", "t", "s", "d", "ao", "g", "r", "n"]
SPOKEN = {
    "the": ["dh ah", "dh iy"],
    "cat": ["k ae t"],
    "cats": ["k ae t s"],
    "dog": ["d ao g"],
    "ran": ["r ae n"],
    "and": ["ae n d", "n"],
}
PIECES = ["▁the", "▁cat", "s", "▁d", "og", "▁ran", "▁and", "▁", "k"]
PIECED = {
    "the": ["▁the"],
    "cat": ["▁cat"],
    "cats": ["▁cat s"],
    "dog": ["▁d og"],
    "ran": ["▁ran"],
    "and": ["▁and"],
}
LETTERS = ["|", *"acdeghknorst"]
WRITTEN = {word: [" ".join([*word, "|"])] for word in SPOKEN}
SENTENCES = [
    words.split() for words in ("the cat ran", "the cats and the dog", "dog and cat", "cats ran")
]


@dataclass
class Task:
    """A set of utterances; what is heard is what is said but for what a test changes."""

    folder: Path
    tokens: list[str]
    lexicon: dict[str, list[str]]
    flags: dict[str, str] = field(default_factory=dict)
    blank_first: bool = False

    def spell(self, words: Sequence[str], which: int = -1) -> list[str]:
        return [token for word in words for token in self.lexicon[word][which].split()]

    def findings(self, heard: list[list[str]], sentences: list[list[str]] = SENTENCES) -> list[str]:
        (self.folder / "tokens.txt").write_text("".join(f"{t}\n" for t in self.tokens))
        rows = [f"{w}\t{s}\n" for w, several in self.lexicon.items() for s in several]
        (self.folder / "lexicon.txt").write_text("".join(rows))
        ids = [f"u{n}" for n in range(len(heard))]
        rows = [f"{i} a.wav 1000 {' '.join(s)}\n" for i, s in zip(ids, sentences, strict=True)]
        (self.folder / "dev.lst").write_text("".join(rows))
        emissions = map(self.emission, heard)
        write_emissions(self.folder / "dev.npz", zip(ids, emissions, strict=True))
        task = DecodeTask(lists=(self.folder / "dev.lst",), emissions=(self.folder / "dev.npz",))
        paths = {name: str(self.folder / f"{name}.txt") for name in ("tokens", "lexicon")}
        decoder = Decoder(decoder_flags(paths | self.flags), to_decode=False)
        found = check_task(Dataset(task), decoder)
        refuse_absurd(found)
        return [str(finding) for finding in found]

    def emission(self, heard: list[str]) -> np.ndarray:
        """Return two frames of each token and one of the blank behind it, with some at the end."""
        best = [row for token in heard for row in (self.tokens.index(token),) * 2 + (-1,)]
        best += [-1] * 60
        shape = (len(best), len(self.tokens) + 1)
        emission = np.random.default_rng(len(best)).uniform(-1, 1, shape).astype(np.float32)
        emission[np.arange(len(best)), best] = 5
        return np.roll(emission, 1, axis=1) if self.blank_first else emission


@pytest.fixture
def phones(tmp_path: Path) -> Task:
    return Task(tmp_path, PHONES, SPOKEN, {"wordseparator": "|"})


@pytest.fixture
def pieces(tmp_path: Path) -> Task:
    return Task(tmp_path, PIECES, PIECED, {"wordseparator": "▁", "usewordpiece": "true"})


@pytest.fixture
def letters(tmp_path: Path) -> Task:
    return Task(tmp_path, LETTERS, WRITTEN)


def characters(said: list[str], heard: list[str]) -> float:
    return jiwer.cer(*([text.replace(" ", "") for text in texts] for texts in (said, heard)))


def test_phones_are_held_against_the_nearest_spelling(phones: Task) -> None:
    heard = [phones.spell(words) for words in SENTENCES]
    del heard[1][3]  # the "t" of "cats"
    heard[3][0] = "g"
    found = phones.findings(heard)
    # By hand: 2 errors in 8 + 12 + 7 + 7 phones, with "iy" in "the" and "and" as "n".
    said = [" ".join(phones.spell(words)) for words in SENTENCES]
    rate = jiwer.wer(said, [" ".join(own) for own in heard])
    assert rate == pytest.approx(2 / 34)
    assert found[0] == (
        f"greedy (no LM): token error rate {rate:.1%}, against the nearest spellings of the lexicon"
    )
    assert found[1] == "reference words outside the lexicon: 0 of 13"


def test_word_pieces_tell_words_letters_and_pieces(pieces: Task) -> None:
    heard = [pieces.spell(words) for words in SENTENCES]
    heard[2] = ["▁d", "▁and", "▁cat"]
    words = ["the cat ran", "the cats and the dog", "d and cat", "cats ran"]
    said = [" ".join(sentence) for sentence in SENTENCES]
    by_piece = jiwer.wer(
        [" ".join(pieces.spell(words)) for words in SENTENCES], [" ".join(own) for own in heard]
    )
    assert pieces.findings(heard)[0] == (
        f"greedy (no LM, no lexicon): WER {jiwer.wer(said, words):.1%}, "
        f"CER {characters(said, words):.1%}, token error rate {by_piece:.1%}"
    )


def test_letters_tell_words_and_letters(letters: Task) -> None:
    heard = [letters.spell(words) for words in SENTENCES]
    heard[2].remove("g")
    said = [" ".join(sentence) for sentence in SENTENCES]
    read = ["the cat ran", "the cats and the dog", "do and cat", "cats ran"]
    assert letters.findings(heard)[0] == (
        f"greedy (no LM, no lexicon): WER {jiwer.wer(said, read):.1%}, "
        f"CER {characters(said, read):.1%}"
    )


@pytest.mark.parametrize("kind", ["phones", "pieces", "letters"])
@pytest.mark.parametrize("wrong", ["order", "blank", "list"])
def test_what_spells_something_else_is_refused(
    request: pytest.FixtureRequest, kind: str, wrong: str
) -> None:
    task: Task = request.getfixturevalue(kind)
    choose = random.Random(3)
    sentences = [choose.choices(list(SPOKEN), k=6) for _ in range(30)]
    heard = [task.spell(words) for words in sentences]
    assert len(task.findings(heard, sentences)) == 2
    if wrong == "order":
        task.tokens = task.tokens[3:] + task.tokens[:3]
        mixed = dict(zip(task.tokens, task.tokens[5:] + task.tokens[:5], strict=True))
        heard = [[mixed[token] for token in own] for own in heard]
    elif wrong == "blank":
        task.blank_first = True
    else:
        heard = [task.spell(choose.choices(["dog", "ran"], k=6)) for _ in sentences]
        sentences = [choose.choices(["the", "cats"], k=6) for _ in sentences]
    with pytest.raises(InputError, match="these emissions do not spell the references"):
        task.findings(heard, sentences)


@pytest.mark.parametrize("kind", ["phones", "pieces", "letters"])
def test_a_weak_model_is_said_and_not_refused(request: pytest.FixtureRequest, kind: str) -> None:
    """It leaves out nearly all tokens, or hears nothing; more weights for words may mend that."""
    task: Task = request.getfixturevalue(kind)
    sentences = [random.Random(n).choices(list(SPOKEN), k=12) for n in range(10)]
    few = [task.spell(words)[::9] for words in sentences]
    assert task.findings(few, sentences)[0].endswith(
        "little of it is right, yet more than by chance"
    )
    said = task.findings([[] for _ in sentences], sentences)[0]
    assert said.endswith("; the blank is the best token of every frame")


def test_words_outside_the_lexicon_do_not_hide_a_wrong_order(phones: Task) -> None:
    """Each reference has a word without a spelling; the others are held against what is heard."""
    sentences = [[*random.Random(n).choices(list(SPOKEN), k=9), "zebra"] for n in range(20)]
    heard = [phones.spell(words[:-1]) for words in sentences]
    assert phones.findings(heard, sentences)[0].startswith("greedy (no LM): token error rate 0.0%")
    mixed = dict(zip(PHONES, PHONES[5:] + PHONES[:5], strict=True))
    with pytest.raises(InputError, match="do not spell the references"):
        phones.findings([[mixed[token] for token in own] for own in heard], sentences)


def _every(words: list[list[list[str]]]) -> list[list[str]]:
    return [list(itertools.chain(*chosen)) for chosen in itertools.product(*words)]


def test_the_nearest_spelling_is_the_nearest_of_all() -> None:
    choose = random.Random(1)

    def some(length: Callable[[], int]) -> list[str]:
        return choose.choices("abc", k=length())

    for _ in range(40):
        words = [
            [some(lambda: choose.randint(1, 3)) for _ in range(choose.randint(1, 3))]
            for _ in range(choose.randint(1, 4))
        ]
        heard = some(lambda: choose.randint(0, 9))
        found = nearest_spelling(words, heard)
        errors = {
            " ".join(text): jiwer.process_words(" ".join(text), " ".join(heard) or "-")
            for text in _every(words)
        }
        counts = {
            text: counted.substitutions + counted.deletions + counted.insertions
            for text, counted in errors.items()
        }
        assert counts[" ".join(found)] == min(counts.values())
