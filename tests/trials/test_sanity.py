"""The look at the inputs before the first decode."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from conftest import VOICE_COMMANDS

from w2ltune.embedded.beamsearch import Decoder
from w2ltune.embedded.decoderflags import decoder_flags
from w2ltune.errors import InputError
from w2ltune.formats.emissions import open_emissions, write_emissions
from w2ltune.trials.dataset import Dataset, DecodeTask
from w2ltune.trials.sanity import check_task, refuse_absurd

Array = npt.NDArray[np.float32]


def softmax(emission: Array) -> Array:
    values: Array = np.exp(emission - emission.max(axis=1, keepdims=True))
    values /= values.sum(axis=1, keepdims=True)
    return values


def findings(
    tmp_path: Path,
    *,
    rows: list[str] | None = None,
    frames: int | None = None,
    made: bool = True,
    change: Callable[[Array], Array] = np.array,
    **flags: str,
) -> list[str]:
    dev = open_emissions(VOICE_COMMANDS / "emissions/dev.npz")
    own = (VOICE_COMMANDS / "dev.lst").read_text(encoding="utf-8").splitlines()[:20]
    (tmp_path / "dev.lst").write_text("\n".join(rows or own) + "\n", encoding="utf-8")
    items = [(name, change(dev.emission(name)[:frames])) for name in dev.ids]
    write_emissions(tmp_path / "dev.npz", items)
    task = DecodeTask(lists=(tmp_path / "dev.lst",), emissions=(tmp_path / "dev.npz",) * made)
    base = {name: str(VOICE_COMMANDS / f"{name}.txt") for name in ("tokens", "lexicon")}
    decoder = Decoder(decoder_flags(base | {"lm": str(VOICE_COMMANDS / "lm.arpa")} | flags))
    found = check_task(Dataset(task), decoder)
    refuse_absurd(found)
    return [str(finding) for finding in found]


def test_good_inputs(tmp_path: Path) -> None:
    greedy, lexicon, lm = findings(tmp_path)
    assert greedy.startswith("greedy (no LM, no lexicon): WER ")
    assert lexicon.startswith("reference words outside the lexicon: 0 of ")
    assert lm == "lexicon words unknown to the LM: 0 of 340"  # bake has the score of <unk>


def test_probabilities_are_absurd(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="add up to 1 in each frame, so they are probabilities"):
        findings(tmp_path, change=softmax)
    assert len(findings(tmp_path, change=lambda emission: np.log(softmax(emission)))) == 3


def test_before_emissions_are_made_the_words_are_looked_at(tmp_path: Path) -> None:
    assert findings(tmp_path, made=False) == findings(tmp_path)[1:]


def test_words_outside_the_lexicon_bound_the_wer(tmp_path: Path) -> None:
    rows = (VOICE_COMMANDS / "dev.lst").read_text(encoding="utf-8").splitlines()[:20]
    rows[0] += " zzyzx"
    _, lexicon, _ = findings(tmp_path, rows=rows)
    assert "reference words outside the lexicon: 1 of" in lexicon
    assert "as 'zzyzx'; the WER cannot fall below 0." in lexicon


def test_upper_case_lm_is_absurd(tmp_path: Path) -> None:
    lm = tmp_path / "upper.arpa"
    text = (VOICE_COMMANDS / "lm.arpa").read_text(encoding="utf-8")
    keep = {"<S>": "<s>", "</S>": "</s>", "<UNK>": "<unk>", "\\DATA\\": "\\data\\"}
    upper = text.upper().replace("NGRAM ", "ngram ").replace("-GRAMS:", "-grams:")
    for old, new in {**keep, "\\END\\": "\\end\\"}.items():
        upper = upper.replace(old, new)
    lm.write_text(upper, encoding="utf-8")
    with pytest.raises(InputError, match=r"unknown to the LM: 340 of 340.*'A', in another case"):
        findings(tmp_path, lm=str(lm))


def test_too_few_frames_are_said_and_absurd_when_many(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fewer frames than their reference needs"):
        findings(tmp_path, frames=20)


def test_without_lexicon_or_lm_their_lines_are_left_out(tmp_path: Path) -> None:
    lines = findings(tmp_path, lm="")
    assert len(lines) == 2
    lines = findings(tmp_path, lm="", uselexicon="false", lexicon="", decodertype="tkn")
    assert len(lines) == 1
