"""Letter models that write the word separator between words only lose no last words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import VOICE_COMMANDS

from w2ltune.embedded.beamsearch import Decoder
from w2ltune.embedded.decoderflags import decoder_flags
from w2ltune.formats.emissions import open_emissions, write_emissions
from w2ltune.trials.dataset import Dataset, DecodeTask
from w2ltune.trials.ending import end_tokens

FLAGS = {
    "tokens": str(VOICE_COMMANDS / "tokens.txt"),
    "lexicon": str(VOICE_COMMANDS / "lexicon.txt"),
    "lm": str(VOICE_COMMANDS / "lm.arpa"),
    "smearing": "max",
    "beamsize": "100",
    "beamsizetoken": "20",
    "lmweight": "2",
    "wordscore": "1",
}
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
    assert end_tokens(whole, flags, TOKENS) == ()  # nothing is changed where nothing lacks
    assert end_tokens(cut, flags, TOKENS) == (SEPARATOR, BLANK)
    as_trained, lost = rate(whole), rate(cut)
    assert lost > as_trained + 0.005
    cut.task = replace(cut.task, end_tokens=end_tokens(cut, flags, TOKENS))
    assert rate(cut) == pytest.approx(as_trained, abs=0.0025)
    # The frame costs nothing where the words are whole already.
    whole.task = replace(whole.task, end_tokens=(SEPARATOR, BLANK))
    assert rate(whole) == pytest.approx(as_trained, abs=1e-9)
    assert whole.frames(0) == len(whole.emission(0)) == len(cut.emission(0))
    assert cut.emission_file(0) is None


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
        assert end_tokens(cut, decoder_flags({**FLAGS, **changes}), tokens) == ()
