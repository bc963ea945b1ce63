"""The look at the inputs before the first decode."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from conftest import VOICE_COMMANDS
from ngram import estimate, write_arpa

from w2ltune.embedded.beamsearch import Decoder
from w2ltune.embedded.decoderflags import decoder_flags
from w2ltune.errors import InputError, UsageError
from w2ltune.formats.emissions import open_emissions, write_emissions
from w2ltune.trials.dataset import Dataset, DecodeTask
from w2ltune.trials.sanity import check_task, look_at, refuse_absurd

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
    ignore_case: bool = False,
    normalize: Path | None = None,
    **flags: str,
) -> list[str]:
    dev = open_emissions(VOICE_COMMANDS / "emissions/dev.npz")
    own = (VOICE_COMMANDS / "dev.lst").read_text(encoding="utf-8").splitlines()[:20]
    (tmp_path / "dev.lst").write_text("\n".join(rows or own) + "\n", encoding="utf-8")
    items = [(name, change(dev.emission(name)[:frames])) for name in dev.ids]
    write_emissions(tmp_path / "dev.npz", items)
    task = DecodeTask(
        lists=(tmp_path / "dev.lst",),
        emissions=(tmp_path / "dev.npz",) * made,
        ignore_case=ignore_case,
        normalize=normalize,
    )
    base = {name: str(VOICE_COMMANDS / f"{name}.txt") for name in ("tokens", "lexicon")}
    given = decoder_flags(base | {"lm": str(VOICE_COMMANDS / "lm.arpa")} | flags)
    decoder = Decoder(given, to_decode=False)
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
    with pytest.raises(
        InputError, match=r"unknown to the LM: 340 of 340.*: they differ in the case"
    ):
        findings(tmp_path, lm=str(lm))


def test_too_few_frames_are_said_and_absurd_when_many(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fewer frames than their reference needs"):
        findings(tmp_path, frames=20)


def test_without_lexicon_or_lm_their_lines_are_left_out(tmp_path: Path) -> None:
    lines = findings(tmp_path, lm="")
    assert len(lines) == 2
    lines = findings(tmp_path, lm="", uselexicon="false", lexicon="", decodertype="tkn")
    assert len(lines) == 1


def test_what_is_not_looked_at_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The binary needs nothing of what the decoder in process is made of."""
    (tmp_path / "dev.lst").write_text("u a.wav 9 yes\n")
    dataset = Dataset(DecodeTask(lists=(tmp_path / "dev.lst",), emissions=()))
    base = {name: str(VOICE_COMMANDS / f"{name}.txt") for name in ("tokens", "lexicon")}
    said = "words, spellings and LM were not looked at: "
    (found,) = look_at(dataset, decoder_flags(base | {"criterion": "s2srnn"}), by_binary=True)
    assert str(found).startswith(f"{said}--criterion=s2srnn")
    monkeypatch.setitem(sys.modules, "flashlight.lib.text", None)
    (found,) = look_at(dataset, decoder_flags(base), by_binary=True)
    assert str(found).startswith(f"{said}the embedded decoder and KenLM need flashlight-text")
    with pytest.raises(UsageError, match="need flashlight-text"):
        look_at(dataset, decoder_flags(base), by_binary=False)


HOMOPHONES = [f"right{n}" for n in range(9)]


def homophone_files(tmp_path: Path, *, more: str = "") -> dict[str, str]:
    """Write nine words of one spelling, the last with another one too, and a word beside them."""
    (tmp_path / "tokens.txt").write_text("|\na\nb\n")
    rows = [f"{word}\ta b |\n" for word in HOMOPHONES]
    (tmp_path / "lexicon.txt").write_text("".join([*rows, "right8\tb b |\nleft\tb a |\n", more]))
    return {name: str(tmp_path / f"{name}.txt") for name in ("tokens", "lexicon")}


def spelled(text: str) -> Array:
    """Return frames in which each token is far the best, the blank between them."""
    best = [row for token in text for row in ("|ab".index(token), 3)]
    emission = np.random.default_rng(0).uniform(-1, 0, (len(best), 4)).astype(np.float32)
    emission[np.arange(len(best)), best] = 9
    return emission


@pytest.mark.parametrize(
    ("twice", "lost"), [((), {"right0", "right1", "right2"}), (("right6", "right7"), set("01234"))]
)
def test_the_words_that_are_crowded_out_are_those_that_no_lm_can_bring(
    tmp_path: Path, twice: tuple[str, ...], lost: set[str]
) -> None:
    """A word that is written twice takes two of the six places.

    A C++ program that reads these words into a hash table as flashlight does has them in this
    order: right8, 7, 5, 6, 4, 3, 2, 1, 0.
    """
    files = homophone_files(tmp_path, more="".join(f"{word}\ta b |\n" for word in twice))
    found = set()
    for word in HOMOPHONES:
        unigrams = "".join(f"{-1 if w == word else -9}\t{w}\t0\n" for w in (*HOMOPHONES, "left"))
        arpa = f"-5\t<unk>\t0\n-99\t<s>\t0\n-1\t</s>\t0\n{unigrams}"
        (tmp_path / "lm.arpa").write_text(
            f"\\data\\\nngram 1=13\nngram 2=1\n\n\\1-grams:\n{arpa}\n"
            "\\2-grams:\n-1\t<s> left\n\n\\end\\\n"
        )
        flags = decoder_flags(files | {"lm": str(tmp_path / "lm.arpa"), "lmweight": "9"})
        decoder = Decoder(flags)
        heard = [decoder.decode(spelled(own), flags, nbest=1)[0].words for own in ("ab|", "bb|")]
        if (word,) not in heard:
            found.add(word)
    assert found == set(decoder.crowded_out()) == {f"right{word[-1]}" for word in lost}


def test_references_with_words_that_are_crowded_out_are_counted(tmp_path: Path) -> None:
    files = homophone_files(tmp_path)
    references = ["right5 left", "right0 right1 zebra", "left right8", "left right0"]
    rows = [f"u{n} a.wav 9 {text}\n" for n, text in enumerate(references)]
    (tmp_path / "dev.lst").write_text("".join(rows))
    dataset = Dataset(DecodeTask(lists=(tmp_path / "dev.lst",), emissions=()))
    decoder = Decoder(decoder_flags(files), to_decode=False)
    outside, crowded = map(str, check_task(dataset, decoder))
    assert outside == (
        "reference words outside the lexicon: 1 of 9; as 'zebra'; the WER cannot fall below 11.1%"
    )
    # right0, right1, zebra and right0 of nine words.
    assert crowded == (
        "words that are never decoded, as six others have their spelling: 3; as 'right0', "
        "'right1', 'right2'; 2 references hold such words; the WER cannot fall below 44.4%"
    )


def write_lm(path: Path, words: list[str]) -> str:
    write_arpa(path, estimate([words] * 3, order=2))
    return str(path)


def test_an_lm_of_other_units_names_the_decodertype(tmp_path: Path) -> None:
    tokens = (VOICE_COMMANDS / "tokens.txt").read_text().split()
    words = [row.split()[0] for row in (VOICE_COMMANDS / "lexicon.txt").read_text().splitlines()]
    of_tokens = write_lm(tmp_path / "tokens.arpa", tokens)
    of_words = write_lm(tmp_path / "words.arpa", words)
    with pytest.raises(InputError, match=r"338 of 340; .*are the tokens, so .*--decodertype=tkn"):
        findings(tmp_path, lm=of_tokens)
    with pytest.raises(InputError, match=r"tokens unknown .*the lexicon, so .*--decodertype=wrd"):
        findings(tmp_path, lm=of_words, decodertype="tkn")
    assert findings(tmp_path, lm=of_tokens, decodertype="tkn")[-1] == (
        f"tokens unknown to the LM: 0 of {len(tokens)}"
    )


def test_a_large_lexicon_with_an_lm_of_few_words_is_no_mistake(tmp_path: Path) -> None:
    lm = write_lm(tmp_path / "few.arpa", ["lights", "turn", "off", "never"])
    *_, line = findings(tmp_path, lm=lm)
    assert line.startswith("lexicon words unknown to the LM: 337 of 340; as 'a', 'aaron', ")


def test_case_that_does_not_count_is_no_mistake(tmp_path: Path) -> None:
    """With --ignore_case and --normalize words are compared as they are counted."""
    rows = (VOICE_COMMANDS / "dev.lst").read_text(encoding="utf-8").splitlines()[:20]
    loud = [" ".join([*row.split()[:3], *row.upper().split()[3:]]) for row in rows]
    with pytest.raises(
        InputError, match=r"outside the lexicon: \d+ of .*: they differ in the case"
    ):
        findings(tmp_path, rows=loud)
    lines = findings(tmp_path, rows=loud, ignore_case=True)
    assert "reference words outside the lexicon: 0 of" in lines[1]
    (tmp_path / "n.py").write_text("def normalize(text):\n  return text.swapcase()\n")
    with pytest.raises(InputError, match="outside the lexicon"):
        findings(tmp_path, rows=loud, normalize=tmp_path / "n.py")
    (tmp_path / "n.py").write_text("def normalize(text):\n  return text.upper()\n")
    lines = findings(tmp_path, rows=loud, normalize=tmp_path / "n.py")
    assert "reference words outside the lexicon: 0 of" in lines[1]
