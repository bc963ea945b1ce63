"""Which trials share their n-best lists."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY, VOICE_COMMANDS

from w2ltune.errors import InputError
from w2ltune.formats.nbest import NBest, write_nbest
from w2ltune.runs.provenance import fingerprints
from w2ltune.runs.trialdir import TrialDirectory, TrialResult
from w2ltune.search.poolkey import pool_key, warm_pool

FILES = ("tokens", "lexicon", "lm")
SCORING = {"metric": "wer", "ignore_case": "false", "normalize": "", "cluster": ""}
FLAGS = {"smearing": "max", "beamsize": "50", "lmweight": "2", "wordscore": "0"}


@pytest.fixture
def key(tmp_path: Path) -> Callable[..., str]:
    """Return the key of flags; inputs are copies in ``tmp_path``, which a test may change."""
    for name in ("tokens.txt", "lexicon.txt", "lm.arpa", "dev.lst", "emissions/dev.npz"):
        shutil.copy(VOICE_COMMANDS / name, tmp_path)
    shutil.copy(REPOSITORY / "tests/data/voice_commands.klm", tmp_path)
    names = {"tokens": "tokens.txt", "lexicon": "lexicon.txt", "lm": "lm.arpa"}

    def compute(
        *, folder: Path = tmp_path, scoring: Mapping[str, str] = SCORING, **flags: Any
    ) -> str:
        given = FLAGS | names | {name: str(value) for name, value in flags.items()}
        given |= {name: str(folder / given[name]) for name in FILES if given[name]}
        data = [folder / "dev.lst", folder / "dev.npz"]
        files = [Path(given[name]) for name in FILES if given[name]]
        return pool_key(
            given, data=[*map(str, data)], scoring=scoring, inputs=fingerprints([*files, *data])
        )

    return compute


@pytest.mark.parametrize(
    "flags",
    [
        {"beamsize": 500},
        {"beamsizetoken": 3},
        {"beamthreshold": 100},
        {"lmweight": 0.5, "wordscore": -3, "silscore": -0.5, "unkscore": 1},
        {"criterion": "ctc", "decodertype": "wrd", "uselexicon": "true"},  # these are the defaults
        {"nthread_decoder": 8, "sclite": "out"},
    ],
    ids=str,
)
def test_beam_and_weights_share_their_lists(
    key: Callable[..., str], flags: dict[str, object]
) -> None:
    assert key(**flags) == key()


@pytest.mark.parametrize(
    "changes",
    [
        {"lm": "voice_commands.klm"},
        {"lm": ""},
        {"decodertype": "tkn"},
        {"uselexicon": "false", "decodertype": "tkn"},
        {"smearing": "none"},
        {"smearing": "logadd"},
        {"wordseparator": "_"},
        {"maxword": 100},
        {"logadd": "true"},
        {"scoring": {**SCORING, "metric": "cer"}},
        {"scoring": {**SCORING, "ignore_case": "true"}},
    ],
    ids=str,
)
def test_what_makes_other_lists(key: Callable[..., str], changes: dict[str, Any]) -> None:
    assert key(**changes) != key()


@pytest.mark.parametrize("name", ["dev.lst", "lexicon.txt", "lm.arpa", "tokens.txt", "dev.npz"])
def test_the_content_of_the_files_counts(
    key: Callable[..., str], tmp_path: Path, name: str
) -> None:
    before = key()
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # as long as before
    path.write_bytes(content)
    assert key() != before


def test_the_place_of_the_files_does_not_count(
    key: Callable[..., str], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(tmp_path, elsewhere, dirs_exist_ok=True)
    assert key(folder=elsewhere) == key()


def test_the_order_of_the_lists_counts(tmp_path: Path) -> None:
    flags = {**FLAGS, **{name: str(VOICE_COMMANDS / f"{name}.txt") for name in FILES[:2]}}
    lists = [VOICE_COMMANDS / "dev.lst", VOICE_COMMANDS / "dev-long.lst"]
    inputs = fingerprints([*map(Path, (flags["tokens"], flags["lexicon"])), *lists])
    keys = {
        pool_key(flags, data=[*map(str, data)], scoring=SCORING, inputs=inputs)
        for data in (lists, lists[::-1], lists[:1])
    }
    assert len(keys) == 3


@pytest.mark.parametrize("damaged", [False, True])
def test_the_files_of_an_earlier_sweep_are_not_to_be_removed(tmp_path: Path, damaged: bool) -> None:
    trial = TrialDirectory(tmp_path / "trials", 0)
    trial.write_flags({})
    trial.write_result(TrialResult(number=0, attempt=1, state="COMPLETE", value=0.5))
    path = trial.nbest
    nbest = NBest(
        offsets=np.array([0, 1]),
        features=np.zeros((1, 5)),
        errors=np.zeros(1, np.int32),
        text_hash=np.zeros(1, np.uint64),
        reference_words=np.ones(1, np.int32),
    )
    write_nbest(path, nbest, key="ab12")
    assert warm_pool(tmp_path, "ab12").keys() == {"ab12"}
    if damaged:
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="leave out --warm_start") as caught:
        warm_pool(tmp_path, "cd34")
    assert "remove" not in str(caught.value)
