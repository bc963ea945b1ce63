"""Letter models that write the word separator between words only lose no last words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import VOICE_COMMANDS, VOICE_FLAGS

from w2ltune.embedded.beamsearch import Decoder
from w2ltune.embedded.decoderflags import decoder_flags
from w2ltune.formats.emissions import open_emissions, write_emissions
from w2ltune.trials.dataset import Dataset, DecodeTask
from w2ltune.trials.ending import bare_beginnings, end_tokens, padding_note
from w2ltune.trials.sanity import _probabilities

FLAGS = {**VOICE_FLAGS, "beamsize": "100", "lmweight": "2", "wordscore": "1"}
TOKENS = [line.split()[0] for line in (VOICE_COMMANDS / "tokens.txt").read_text().splitlines()]
SEPARATOR, BLANK = TOKENS.index("|"), len(TOKENS)


def without_end(emission: np.ndarray) -> np.ndarray:
    """As of a model that ends with the last letter: blanks from there on."""
    letters = np.flatnonzero(~np.isin(emission.argmax(axis=1), (SEPARATOR, BLANK)))
    ending = emission.copy()
    rest = ending[letters[-1] + 1 :] if len(letters) else ending
    rest[:, BLANK] = np.maximum(rest[:, BLANK], rest[:, SEPARATOR])
    rest[:, SEPARATOR] = -30.0
    return ending


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = (VOICE_COMMANDS / "dev.lst").read_text().splitlines(keepends=True)[:100]
    (tmp_path / "dev.lst").write_text("".join(rows))
    known = open_emissions(VOICE_COMMANDS / "emissions" / "dev.npz")
    ids = [row.split()[0] for row in rows]
    write_emissions(tmp_path / "whole.npz", ((i, known.emission(i)) for i in ids))
    write_emissions(tmp_path / "cut.npz", ((i, without_end(known.emission(i))) for i in ids))
    return tmp_path


def rate(dataset: Dataset) -> float:
    flags = decoder_flags(FLAGS)
    decoder = Decoder(flags)
    every = range(len(dataset.ids))
    texts = [
        " ".join(decoder.decode(dataset.emission(index), flags, nbest=1)[0].words)
        for index in every
    ]
    counts = dataset.count(every, texts)
    return counts[:, :3].sum() / counts[:, 3].sum()


def test_a_frame_for_the_separator_brings_last_words_back(folder: Path) -> None:
    flags = decoder_flags(FLAGS)
    whole, cut = (
        Dataset(DecodeTask(lists=(folder / "dev.lst",), emissions=(folder / f"{name}.npz",)))
        for name in ("whole", "cut")
    )
    assert end_tokens(whole, flags, TOKENS) == ((), "")  # nothing is changed where nothing lacks
    free, why = end_tokens(cut, flags, TOKENS)
    assert free == (SEPARATOR, BLANK)
    assert why == (
        "100 of 100 utterances do not end with the word separator '|', the lexicon's words do"
    )
    as_trained, lost = rate(whole), rate(cut)
    assert lost > as_trained + 0.005
    cut.task = replace(cut.task, end_tokens=free)
    assert rate(cut) == pytest.approx(as_trained, abs=0.0025)
    # The frame costs nothing where the words are whole already.
    whole.task = replace(whole.task, end_tokens=(SEPARATOR, BLANK))
    assert rate(whole) == pytest.approx(as_trained, abs=1e-9)
    assert whole.frames(0) == len(whole.emission(0)) == len(cut.emission(0))
    assert cut.emission_file(0) is None


def test_the_frame_hides_nothing_of_what_was_given(folder: Path) -> None:
    """Probabilities, which decoders take for bad logarithms, and padding are seen as before."""
    known = open_emissions(folder / "cut.npz")
    rows = {name: np.exp(known.emission(name)) for name in known.ids}
    shares = {name: array / array.sum(axis=1, keepdims=True) for name, array in rows.items()}
    padded = {
        name: np.concatenate([known.emission(name), np.eye(BLANK + 1, dtype=np.float32)[[0] * n]])
        for n, name in enumerate(known.ids, start=1)
    }
    for arrays, seen in ((shares, "probabilities"), (padded, "end in one and the same frame")):
        write_emissions(folder / "odd.npz", arrays.items())
        task = DecodeTask(lists=(folder / "dev.lst",), emissions=(folder / "odd.npz",))
        for end in ((), (SEPARATOR, BLANK)):
            dataset = Dataset(replace(task, end_tokens=end))
            assert seen in f"{_probabilities(dataset)} {padding_note(dataset)}"


def test_where_no_word_needs_an_end(folder: Path) -> None:
    cut = Dataset(DecodeTask(lists=(folder / "dev.lst",), emissions=(folder / "cut.npz",)))
    rows = (VOICE_COMMANDS / "lexicon.txt").read_text().splitlines()
    (folder / "bare.txt").write_text("".join(f"{row.removesuffix(' |')}\n" for row in rows))
    for changes, tokens in (
        ({"lexicon": str(folder / "bare.txt")}, TOKENS),  # words end with their last letter
        ({"uselexicon": "false", "decodertype": "tkn", "lm": ""}, TOKENS),
        ({"usewordpiece": "true"}, TOKENS),
        ({"wordseparator": "_"}, TOKENS),
        ({}, TOKENS[1:]),  # these emissions are of other tokens
    ):
        assert end_tokens(cut, decoder_flags({**FLAGS, **changes}), tokens) == ((), "")


def test_one_word_each_needs_an_end_too(folder: Path) -> None:
    """Of commands, none is ever written with a separator."""
    names, rows = ["a", "b", "|"], [("one", "ab"), ("two", "ba")] * 5
    (folder / "words.txt").write_text("one\ta b |\ntwo\tb a |\n")
    (folder / "few.txt").write_text("".join(f"{name}\n" for name in names))
    (folder / "one.lst").write_text("".join(f"u{n} - 0 {w}\n" for n, (w, _) in enumerate(rows)))
    frames = {"a": [5, 0, 0, 0], "b": [0, 5, 0, 0]}
    spoken = [np.array([frames[letter] for letter in text], np.float32) for _, text in rows]
    write_emissions(folder / "one.npz", ((f"u{n}", array) for n, array in enumerate(spoken)))
    flags = decoder_flags({"tokens": str(folder / "few.txt"), "lexicon": str(folder / "words.txt")})
    dataset = Dataset(DecodeTask(lists=(folder / "one.lst",), emissions=(folder / "one.npz",)))
    free, _ = end_tokens(dataset, flags, names)
    dataset.task = replace(dataset.task, end_tokens=free)
    decoder = Decoder(flags)
    found = [decoder.decode(dataset.emission(n), flags)[0].words for n in range(len(rows))]
    assert found == [(word,) for word, _ in rows]


def test_word_pieces_without_the_mark_in_front(folder: Path) -> None:
    names = ["\N{LOWER ONE EIGHTH BLOCK}the", "\N{LOWER ONE EIGHTH BLOCK}cat", "the", "cat"]
    (folder / "pieces.txt").write_text("".join(f"{name}\n" for name in names))
    (folder / "words.txt").write_text(f"the\t{names[0]}\ncat\t{names[1]}\n")
    (folder / "two.lst").write_text("u0 - 0 the cat\nu1 - 0 cat the\n")
    flags = decoder_flags(
        {"tokens": str(folder / "pieces.txt"), "lexicon": str(folder / "words.txt"),
         "wordseparator": names[0][0], "usewordpiece": "true"}
    )  # fmt: skip
    for order, expected in (
        ([[2, 1], [3, 0]], "2 of 2 utterances do not begin with"),
        ([[0, 1], [1, 0]], ""),
    ):
        arrays = [np.eye(5, dtype=np.float32)[row] for row in order]
        write_emissions(folder / "two.npz", ((f"u{n}", array) for n, array in enumerate(arrays)))
        dataset = Dataset(DecodeTask(lists=(folder / "two.lst",), emissions=(folder / "two.npz",)))
        found = bare_beginnings(dataset, flags, names)
        assert found.startswith(expected) and bool(found) == bool(expected)
