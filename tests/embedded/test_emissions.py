"""``w2ltune emissions``: what the outputs show is believed, not what their tokens are called."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from w2ltune.__main__ import _dispatch
from w2ltune.errors import InputError, UsageError
from w2ltune.formats.emissions import open_emissions
from w2ltune.formats.toolkits import LEAST_PROBABILITY

SENTENCES = {"u-1": "yes no", "u-2": "no", "u-3": "yes yes no"}
LETTERS = ["|", "y", "e", "s", "n", "o"]
GIVEN = ["emissions", "--outputs=dev.npz", "--vocabulary=vocabulary.json", "--list=dev.lst"]

Array = np.ndarray[Any, Any]


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [f"{name} {name}.wav 1000 {text}\n" for name, text in SENTENCES.items()]
    (tmp_path / "dev.lst").write_text("".join(rows))
    return tmp_path


def spoken(text: str, tokens: list[str], blank: int, *, second: bool = False) -> Array:
    """Return raw values [frames, tokens]: each letter, then two frames with the blank best.

    Args:
        text: What is said.
        tokens: Of the model.
        blank: The column that is its blank.
        second: The letter is second in the frames of its blank.
    """
    letters = [tokens.index(letter) for letter in text.replace(" ", "|")]
    raw = np.random.default_rng(1).normal(0, 0.1, (3 * len(letters), len(tokens)))
    for number, letter in enumerate(letters):
        raw[3 * number, letter] += 5
        raw[3 * number + 1 : 3 * number + 3, blank] += 5
        if second:
            raw[3 * number + 1 : 3 * number + 3, letter] += 3
    return raw.astype(np.float32)


def probabilities(raw: Array) -> Array:
    exp = np.exp(raw)
    return exp / exp.sum(axis=1, keepdims=True)


def save(
    tokens: list[str],
    blank: int,
    change: Callable[[Array], Array] = lambda raw: raw,
    *,
    named: int | None = None,
    second: bool = False,
) -> None:
    """Save outputs and the vocabulary, of which only the first ``named`` tokens are written."""
    saved = {
        name: change(spoken(text, tokens, blank, second=second)) for name, text in SENTENCES.items()
    }
    np.savez("dev.npz", **saved)
    Path("vocabulary.json").write_text(json.dumps(tokens[:named]))


UNUSED = {
    "a token that is called so": ["⁇", *LETTERS, "<pad>"],  # as SpeechBrain's blank
    "the blank has an odd name": ["<unk>", *LETTERS, "<blank>"],
    "one of many": ["<unk>", *LETTERS, "q", "[PAD]", "<mask>"],
}


@pytest.mark.parametrize("second", [False, True], ids=["noise", "same words"])
@pytest.mark.parametrize("tokens", UNUSED.values(), ids=UNUSED)
def test_an_unused_column_with_a_blanks_name(
    in_folder: Path, tokens: list[str], second: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    # With the letter second everywhere the wrong blank gives the right words, by luck.
    save(tokens, 0, second=second)
    with pytest.raises(InputError) as caught:
        _dispatch([*GIVEN, "--out=out"])
    assert f"{tokens[0]!r} is best in 67 % of the frames" in str(caught.value)
    assert "is that the blank (--blank=0)?" in str(caught.value)
    assert not Path("out").exists()
    assert ("CER 0.0 %" in capsys.readouterr().out) is second
    assert _dispatch([*GIVEN, "--out=out", "--blank=0"]) == 0
    assert "greedy: WER 0.0 %" in capsys.readouterr().out
    assert open_emissions(Path("out/dev.npz")).emission("u-1")[1].argmax() == len(
        Path("out/tokens.txt").read_text().splitlines()
    )


@pytest.mark.parametrize("second", [False, True], ids=["noise", "same words"])
def test_a_column_more_than_tokens(in_folder: Path, second: bool) -> None:
    # NeMo's last column has no name and is the blank; elsewhere it may be an unused one.
    tokens, last = ["<pad>", *LETTERS, "the last"], len(LETTERS) + 1
    save(tokens, last, named=last, second=second)
    assert _dispatch([*GIVEN, "--out=nemo"]) == 0
    save(tokens, 0, named=last, second=second)
    with pytest.raises(InputError, match=r"'<pad>' is best in 67 %.*\(--blank=0\)"):
        _dispatch([*GIVEN, "--out=out"])
    assert _dispatch([*GIVEN, "--out=out", "--blank=0"]) == 0


def test_two_columns_of_the_same_name_are_told_apart(in_folder: Path) -> None:
    last = len(LETTERS) + 1
    save(["<blank>", *LETTERS, "no name"], last, named=last, second=True)
    with pytest.raises(InputError, match=rf"'<blank>' is best in 67 %.*\(--blank={last}\)"):
        _dispatch([*GIVEN, "--out=out"])


def test_digits_that_are_tokens(in_folder: Path) -> None:
    save(["<unk>", *LETTERS, "0", "<pad>"], 0)
    with pytest.raises(InputError, match=r"\('--blank=<unk>'\)"):
        _dispatch([*GIVEN, "--out=out", "--blank=0"])
    assert _dispatch([*GIVEN, "--out=out", "--blank=<unk>"]) == 0


def test_a_model_that_seldom_gives_its_blank(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Silence is the word separator here, and letters last.
    tokens = ["<pad>", *LETTERS]
    outputs = {}
    for name, text in SENTENCES.items():
        path = [1] * 30 + [
            column
            for letter in f"{text} ".replace(" ", "|")
            for column in [tokens.index(letter)] * 3
        ]
        raw = np.random.default_rng(2).normal(0, 0.1, (len(path), len(tokens)))
        raw[np.arange(len(path)), path] += 5
        outputs[name] = raw
    outputs["u-1"][2, 0] += 9
    np.savez("dev.npz", **outputs)
    Path("vocabulary.json").write_text(json.dumps(tokens))
    assert _dispatch([*GIVEN, "--out=out"]) == 0
    assert "WER 0.0 %" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probabilities_of_any_precision(
    in_folder: Path, dtype: type, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = ["<pad>", *LETTERS, *(f"{number}" for number in range(300))]
    save(tokens, 0, lambda raw: probabilities(4 * raw).astype(dtype))
    assert _dispatch([*GIVEN, "--out=out"]) == 0
    assert "the values are probabilities; their logarithms" in capsys.readouterr().out
    emission = open_emissions(Path("out/dev.npz")).emission("u-1")
    assert np.isfinite(emission).all()
    assert emission.min() >= np.log(np.float32(LEAST_PROBABILITY))
    raw = 4 * spoken("yes no", tokens, 0)
    expected = np.log(probabilities(raw))[:, [*range(1, len(tokens)), 0]]
    near = expected > -12
    assert np.abs(emission - expected)[near].max() < (0.01 if dtype == np.float16 else 1e-4)
    assert _dispatch([*GIVEN, "--out=again", "--values=probabilities"]) == 0
    again = open_emissions(Path("again/dev.npz")).emission("u-1")
    assert np.array_equal(again, emission)


def test_what_the_values_are_is_settled_once(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = ["<pad>", *LETTERS]
    for change, said in (
        (lambda raw: raw, "raw"),
        (lambda raw: np.log(probabilities(raw)), "logarithms of probabilities"),
        (lambda raw: np.where(raw < 2, -np.inf, 0), "logarithms of probabilities"),
    ):
        save(tokens, 0, change)
        assert _dispatch([*GIVEN, "--out=out"]) == 0
        assert f"the values are {said}" in capsys.readouterr().out
    outputs = {name: spoken(text, tokens, 0) for name, text in SENTENCES.items()}
    outputs["u-2"] = probabilities(outputs["u-2"])
    np.savez("dev.npz", **outputs)
    with pytest.raises(InputError, match="'u-2' holds probabilities that add up to 1, 'u-1' does"):
        _dispatch([*GIVEN, "--out=other"])
    assert _dispatch([*GIVEN, "--out=other", "--values=raw"]) == 0
    assert np.array_equal(
        open_emissions(Path("other/dev.npz")).emission("u-2"),
        outputs["u-2"][:, [*range(1, len(tokens)), 0]],
    )


def test_probabilities_with_padding(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = ["<pad>", *LETTERS]
    parts = [probabilities(spoken(text, tokens, 0)) for text in SENTENCES.values()]
    padded = np.zeros((3, max(map(len, parts)), len(tokens)), np.float16)
    for row, part in zip(padded, parts, strict=True):
        row[: len(part)] = part
    np.save("dev.npy", padded)
    Path("vocabulary.json").write_text(json.dumps(tokens))
    Path("lengths.txt").write_text(" ".join(str(len(part)) for part in parts))
    given = ["emissions", "--outputs=dev.npy", *GIVEN[2:], "--out=out"]
    assert _dispatch([*given, "--lengths=lengths.txt"]) == 0
    expected = Path("out/dev.npz").read_bytes()
    assert "padding" not in capsys.readouterr().out
    assert _dispatch(given) == 0
    assert "padding cut: 36 frames at the ends of 2 of 3 utterances" in capsys.readouterr().out
    assert Path("out/dev.npz").read_bytes() == expected  # also the logarithms are taken


def test_values_beyond_the_checked_utterances(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("w2ltune.embedded.emissions.MOST_CHECKED", 2)
    tokens = ["<pad>", *LETTERS]
    outputs = {name: spoken(text, tokens, 0) for name, text in SENTENCES.items()}
    outputs["u-3"] = probabilities(outputs["u-3"])
    np.savez("dev.npz", **outputs)
    Path("vocabulary.json").write_text(json.dumps(tokens))
    with pytest.raises(InputError, match="'u-3' holds probabilities"):
        _dispatch([*GIVEN, "--out=out"])
    assert not list(Path("out").iterdir())


def with_value(value: float) -> Callable[[Array], Array]:
    def change(raw: Array) -> Array:
        changed = np.log(probabilities(raw.astype(float)))
        changed[4, 2] = value
        return changed

    return change


@pytest.mark.parametrize(
    ("change", "values", "message"),
    [
        (with_value(np.nan), "log", "'u-1' has nan, which is no number"),
        (with_value(np.nan), "auto", "'u-1' has nan, which is no number"),
        (with_value(np.inf), "log", "'u-1' has inf, which is no logarithm of a probability"),
        (with_value(3), "log", "'u-1' has 3, which is no logarithm of a probability"),
        (with_value(-np.inf), "raw", "'u-1' has -inf; expected are finite values"),
        (with_value(np.inf), "auto", "'u-1' has inf; expected are finite values"),
        (with_value(-1e300), "raw", "'u-1' has -inf; expected are finite values"),
        (lambda raw: np.full_like(raw, -np.inf), "log", "a frame whose values are all -inf"),
        (with_value(0), "probabilities", r"'u-1' has -[\d.]+, which is no probability"),
        (lambda raw: raw**2, "probabilities", r"'u-1' has [\d.]+, which is no probability"),
        (lambda raw: raw + 1j, "auto", "'u-1' holds values of complex64; expected float16"),
        (lambda raw: raw.astype(int), "auto", "'u-1' holds values of int64; expected float16"),
        (lambda raw: raw.astype(str), "auto", "'u-1' holds values of <U"),
        (lambda raw: raw[:0], "auto", "'u-1' has no frames; take it out of the list"),
        (lambda raw: raw[0], "auto", r"'u-1': shape \(7,\); expected \[frames, tokens\]"),
        (lambda raw: raw[: len(raw), : len(raw) // 2], "auto", "'u-2' has 3 columns, 'u-1' has 7"),
    ],
)
def test_values_that_cannot_be(
    in_folder: Path, change: Callable[[Array], Array], values: str, message: str
) -> None:
    save(["<pad>", *LETTERS], 0, change)
    with pytest.raises(InputError, match=message):
        _dispatch([*GIVEN, "--out=out", f"--values={values}"])
    assert not Path("out").exists()


def test_minus_infinity_is_the_logarithm_of_nothing(in_folder: Path) -> None:
    save(["<pad>", *LETTERS], 0, with_value(-np.inf))
    assert _dispatch([*GIVEN, "--out=out", "--values=log"]) == 0
    assert np.isneginf(open_emissions(Path("out/dev.npz")).emission("u-1")).sum() == 1


@pytest.mark.parametrize("blank", [1000, 7, -8])
def test_a_blank_out_of_range(in_folder: Path, blank: int) -> None:
    save(["<pad>", *LETTERS], 0)
    message = f"--blank={blank}: no such column; they are 0 to 6, or -1 for the last"
    with pytest.raises(UsageError, match=message):
        _dispatch([*GIVEN, "--out=out", f"--blank={blank}"])
    assert _dispatch([*GIVEN, "--out=out", "--blank=-7"]) == 0


def test_a_list_without_words(in_folder: Path) -> None:
    save(["<pad>", *LETTERS], 0)
    Path("dev.lst").write_text("u-1 x 1\nu-2 x 1\n")
    with pytest.raises(InputError, match="the list has no words that the outputs could be"):
        _dispatch([*GIVEN, "--out=out"])


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("dev.lst", "dev.lst/dev.npz: dev.lst is not a folder: choose another --out"),
        ("dev.lst/new/x", "dev.lst/new/x/dev.npz: dev.lst is not a folder: choose another --out"),
        ("made", "made/tokens.txt is a folder, not a file: choose another --out"),
        ("/proc/x", "/proc/x/dev.npz cannot be written (No such file or directory)"),
        (f"{'x' * 300}/y", "/y/dev.npz cannot be written (File name too long)"),
    ],
)
def test_a_place_that_cannot_be_written(in_folder: Path, out: str, message: str) -> None:
    Path("made/tokens.txt").mkdir(parents=True)
    with pytest.raises(UsageError, match=re.escape(message)):  # before the outputs are looked for
        _dispatch([*GIVEN, f"--out={out}"])
    assert sorted(path.name for path in in_folder.iterdir()) == ["dev.lst", "made"]


def test_inputs_are_not_replaced(in_folder: Path) -> None:
    save(["<pad>", *LETTERS], 0)
    with pytest.raises(UsageError, match=r"dev.npz would be replaced, which is an input"):
        _dispatch([*GIVEN, "--out=."])
    Path("tokens.txt").write_text("<pad>\n" + "".join(f"{letter}\n" for letter in LETTERS))
    Path("dev.npz").rename("saved.npz")
    with pytest.raises(UsageError, match=r"tokens.txt would be replaced"):
        _dispatch(["emissions", "--outputs=saved.npz", "--vocabulary=./tokens.txt",
                   "--list=dev.lst", "--out=."])  # fmt: skip
    assert Path("tokens.txt").read_text().startswith("<pad>\n|\n")


@pytest.mark.parametrize("token", ["a b", "", "\t", "\ud800"])
def test_a_token_that_a_list_of_tokens_cannot_hold(in_folder: Path, token: str) -> None:
    save(["<pad>", *LETTERS, token], 0)
    with pytest.raises(UsageError, match="of column 7 is empty or has blanks, which a list"):
        _dispatch([*GIVEN, "--out=out"])


def logarithms(raw: Array) -> Array:
    return np.log(probabilities(raw))


@pytest.mark.parametrize("form", ["npz", "npy", "folder"])
@pytest.mark.parametrize(
    ("change", "pad", "kind"),
    [
        (logarithms, 0.0, "logarithms of probabilities"),
        (np.array, -100.0, "raw"),
        (probabilities, 0.0, "probabilities"),
        (logarithms, -np.inf, "logarithms of probabilities"),
        (logarithms, float(np.log(1 / 7)), "logarithms of probabilities"),
    ],
)
def test_padding_is_cut(
    in_folder: Path,
    form: str,
    change: Callable[[Array], Array],
    pad: float,
    kind: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tokens = ["<pad>", *LETTERS]
    parts = {name: change(spoken(text, tokens, 0)) for name, text in SENTENCES.items()}
    longest = max(map(len, parts.values()))
    filled = {
        name: np.pad(part, ((0, longest - len(part)), (0, 0)), constant_values=pad)
        for name, part in parts.items()
    }
    if form == "npy":
        np.save("given.npy", np.stack([*filled.values()]))
    elif form == "npz":
        np.savez("given.npz", **filled)
    else:
        Path("given.folder").mkdir()
        for name, output in filled.items():
            np.save(f"given.folder/{name}.npy", output)
    Path("vocabulary.json").write_text(json.dumps(tokens))
    assert _dispatch(["emissions", f"--outputs=given.{form}", *GIVEN[2:], "--out=out"]) == 0
    said = capsys.readouterr().out
    assert f"the values are {kind}" in said
    frames = sum(longest - len(part) for part in parts.values())
    assert f"padding cut: {frames} frames at the ends of 2 of 3 utterances, of one value" in said
    assert "greedy: WER 0.0 %" in said
    found = open_emissions(Path("out/dev.npz"))
    for name, part in parts.items():
        logs = np.log(part) if kind == "probabilities" else part
        assert np.allclose(found.emission(name), logs[:, [*range(1, 7), 0]], atol=1e-4)


def test_a_frame_that_a_model_made_of_padding(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # What is left of a masked input: the bias, the same for each frame; "s" is best in it.
    tokens = ["<pad>", *LETTERS]
    parts = {name: spoken(text, tokens, 0) for name, text in SENTENCES.items()}
    bias = np.array([0.1, 0, 0.2, 0.3, 0.9, 0.4, 0.5], np.float32)
    tails = {"u-1": 9, "u-2": 15, "u-3": 0}
    np.savez("dev.npz", **{name: np.concatenate([part, np.tile(bias, (tails[name], 1))])
                           for name, part in parts.items()})  # fmt: skip
    Path("vocabulary.json").write_text(json.dumps(tokens))
    assert _dispatch([*GIVEN, "--out=out"]) == 0
    said = capsys.readouterr().out
    assert "padding cut: 24 frames at the ends of 2 of 3 utterances, that are all the same" in said
    assert "greedy: WER 0.0 %" in said
    assert open_emissions(Path("out/dev.npz")).frame_counts == {n: len(p) for n, p in parts.items()}


def test_a_token_that_is_held_is_no_padding(in_folder: Path) -> None:
    # Data that somebody made up: the same values for one, three and five frames of the last letter.
    tokens = ["<pad>", *LETTERS]
    frame = np.where(np.arange(7) == tokens.index("o"), 5, 0).astype(np.float32)
    outputs = {
        name: np.concatenate([spoken(text[:-1], tokens, 0), np.tile(frame, (count, 1))])
        for (name, text), count in zip(SENTENCES.items(), (1, 3, 5), strict=True)
    }
    np.savez("dev.npz", **outputs)
    Path("vocabulary.json").write_text(json.dumps(tokens))
    assert _dispatch([*GIVEN, "--out=out"]) == 0
    found = open_emissions(Path("out/dev.npz")).frame_counts
    assert found == {name: len(output) for name, output in outputs.items()}


def test_an_utterance_of_padding_only(in_folder: Path) -> None:
    tokens = ["<pad>", *LETTERS]
    outputs = {name: spoken(text, tokens, 0) for name, text in SENTENCES.items()}
    np.savez("dev.npz", **{**outputs, "u-2": np.zeros((9, 7), np.float32)})
    Path("vocabulary.json").write_text(json.dumps(tokens))
    with pytest.raises(InputError, match="'u-2' has nothing but frames of one value, as padding"):
        _dispatch([*GIVEN, "--out=out"])


def test_tokens_without_a_column(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = ["[PAD]", *LETTERS]
    save([*tokens, "<s>", "</s>"], 0, lambda raw: raw[:, : len(tokens)])
    for more in ([], ["--drop=<s>,</s>"]):
        assert _dispatch([*GIVEN, "--out=out", *more]) == 0
        said = capsys.readouterr().out
        assert "without a column in the outputs: <s>, </s>" in said
        assert "greedy: WER 0.0 %" in said
    assert Path("out/tokens.txt").read_text().split() == LETTERS
    with pytest.raises(UsageError, match="--blank=<s>: the outputs have no column for it"):
        _dispatch([*GIVEN, "--out=out", "--blank=<s>"])
    save([*tokens, "ä", "</s>"], 0, lambda raw: raw[:, : len(tokens)])
    with pytest.raises(UsageError, match=r"7 columns, the vocabulary 9 tokens \('ä' would have no"):
        _dispatch([*GIVEN, "--out=out"])


@pytest.mark.parametrize("kind", [np.array, logarithms, probabilities])
def test_columns_of_one_token_are_added_up(
    in_folder: Path, kind: Callable[[Array], Array], capsys: pytest.CaptureFixture[str]
) -> None:
    # As of an aggregate tokenizer: the second half of the utterances uses the second column.
    tokens = ["<pad>", *LETTERS, "o", "<space>"]
    twice = {"o": [tokens.index("o"), 7], "|": [1, 8]}
    outputs = {}
    for number, (name, text) in enumerate(SENTENCES.items()):
        raw = spoken(text, tokens, 0)
        if number % 2:
            for first, second in twice.values():
                raw[:, [first, second]] = raw[:, [second, first]]
        outputs[name] = kind(raw)
    np.savez("dev.npz", **outputs)
    Path("vocabulary.json").write_text(json.dumps(tokens))
    assert _dispatch([*GIVEN, "--out=out"]) == 0
    said = capsys.readouterr().out
    assert "more than one column, added up as one: '|', 'o'" in said
    assert "greedy: WER 0.0 %" in said
    assert Path("out/tokens.txt").read_text().split() == LETTERS
    for name, output in outputs.items():
        exp = output if kind is probabilities else np.exp(output.astype(float))
        emission = np.exp(open_emissions(Path("out/dev.npz")).emission(name).astype(float))
        assert np.allclose(emission[:, 5], exp[:, 6] + exp[:, 7], rtol=1e-4)
        assert np.allclose(emission[:, 0], exp[:, 1] + exp[:, 8], rtol=1e-4)


def test_what_is_left_out_and_was_said(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(["<pad>", *LETTERS], 0)
    assert _dispatch([*GIVEN, "--out=out", "--drop=s"]) == 0
    # Each letter is best in one of its three frames.
    frames = sum(3 * len(text) for text in SENTENCES.values())
    share = 100 * sum(text.count("s") for text in SENTENCES.values()) / frames
    said = capsys.readouterr().out
    assert f"note: tokens that are left out are best in {share:.1f} % of the frames, as 's'" in said
    assert "greedy: WER 50.0 %" in said  # each of the three "yes" is a "ye", of six words
    assert _dispatch([*GIVEN, "--out=out", "--drop=4,-1"]) == 0  # by the number of a column
    assert Path("out/tokens.txt").read_text().split() == ["|", "y", "e", "n"]
    with pytest.raises(UsageError, match="--drop=7: no such column; they are 0 to 6"):
        _dispatch([*GIVEN, "--out=out", "--drop=7"])


def test_a_token_that_decoders_take_for_the_blank(in_folder: Path) -> None:
    save(["<pad>", *LETTERS, "#"], 0)
    assert _dispatch([*GIVEN, "--out=out"]) == 0
    assert Path("out/tokens.txt").read_text().split() == LETTERS


def test_lists_called_text(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = ["<pad>", *LETTERS]
    save(tokens, 0)
    for folder, more in (("dev", ""), ("test", "t")):
        Path("data", folder).mkdir(parents=True)
        rows = [f"{more}{name} {text}\n" for name, text in SENTENCES.items()]
        Path("data", folder, "text").write_text("".join(rows))
        outputs = {f"{more}{name}": spoken(text, tokens, 0) for name, text in SENTENCES.items()}
        np.savez(f"{folder}.npz", **outputs)
        assert _dispatch(["emissions", f"--outputs={folder}.npz", GIVEN[2],
                          f"--list=data/{folder}/text", "--out=out"]) == 0  # fmt: skip
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "dev.npz", "test.npz", "tokens.txt",
    ]  # fmt: skip
    assert open_emissions(Path("out/test.npz")).ids == ("tu-1", "tu-2", "tu-3")


def test_emissions_of_another_list_are_not_replaced(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = ["<pad>", *LETTERS]
    save(tokens, 0)
    Path("other").mkdir()
    assert _dispatch([*GIVEN, "--out=out"]) == 0
    before = Path("out/dev.npz").read_bytes()
    np.savez("o.npz", **{f"o{name}": spoken(text, tokens, 0) for name, text in SENTENCES.items()})
    rows = [f"o{name} x.wav 1000 {text}\n" for name, text in SENTENCES.items()]
    Path("other/dev.lst").write_text("".join(rows))
    given = ["emissions", "--outputs=o.npz", GIVEN[2], "--list=other/dev.lst", "--out=out"]
    with pytest.raises(InputError, match="holds the emissions of another list, 3 utterances as"):
        _dispatch(given)
    assert Path("out/dev.npz").read_bytes() == before
    capsys.readouterr()
    assert _dispatch([*GIVEN, "--out=out"]) == 0  # the same utterances
    assert "note" not in capsys.readouterr().out
    Path("dev.lst").write_text(Path("dev.lst").read_text().partition("u-3")[0])
    assert _dispatch([*GIVEN, "--out=out", "--drop=s"]) == 0
    said = capsys.readouterr().out
    assert "out/dev.npz was replaced; 1 of its utterances are not in dev.lst" in said
    assert "out/tokens.txt was replaced; it held other tokens" in said
    Path("out/dev.npz").write_text("something else")
    with pytest.raises(InputError, match="it would be replaced: choose another --out"):
        _dispatch([*GIVEN, "--out=out"])


def test_digits_of_kaldi(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Each row could be wav2letter's: id, path, milliseconds, words.
    tokens = ["<pad>", "|", *"0123456789"]
    said = {f"u{n}": " ".join(str((7 * n + k * k) % 10) for k in range(6)) for n in range(5)}
    np.savez("dev.npz", **{name: spoken(text, tokens, 0) for name, text in said.items()})
    Path("vocabulary.json").write_text(json.dumps(tokens))
    rows = "".join(f"{name} {text}\n" for name, text in said.items())
    for name in ("dev.txt", "dev.text", "dev"):
        Path(name).write_text(rows)
        assert _dispatch(["emissions", *GIVEN[1:3], f"--list={name}", "--out=out"]) == 0
        assert "greedy: WER 0.0 %, CER 0.0 % on 5 utterances" in capsys.readouterr().out
    Path("dev.lst").write_text(rows)
    with pytest.raises(InputError, match=r"'u4 8 9 2 7 4 3' may be wav2letter's .* or Kaldi's"):
        _dispatch([*GIVEN, "--out=out"])
    Path("dev.lst").write_text("u0 one 3 7\nu1 one 4 2 1\nu2 two 9 4\n")
    with pytest.raises(InputError, match=r"3 ms cannot be for \d+ frames: 'u0 one 3 7' may be"):
        _dispatch([*GIVEN, "--out=out", "--force"])


def test_outputs_of_no_row(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(["<pad>", *LETTERS], 0)
    Path("dev.lst").write_text("u-3 x.wav 1000 yes yes no\nu-1 x.wav 1000 yes no\n")
    assert _dispatch([*GIVEN, "--out=out"]) == 0
    said = "note: 1 outputs are in no row of the list, as 'u-2'"
    assert said in capsys.readouterr().out
    Path("given").mkdir()
    for name, output in np.load("dev.npz").items():
        np.save(f"given/{name}.npy", output)
    assert _dispatch(["emissions", "--outputs=given", *GIVEN[2:], "--out=out"]) == 0
    assert said in capsys.readouterr().out


def test_padding_that_looks_like_any_frame(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = ["<pad>", *LETTERS]
    noise = np.random.default_rng(4)
    outputs = {n: spoken(text, tokens, 0)[:24] for n, text in SENTENCES.items()}
    outputs = {n: np.concatenate([own, noise.normal(size=(30 - len(own), 7)).astype(np.float32)])
               for n, own in outputs.items()}  # fmt: skip
    np.savez("dev.npz", **outputs)
    Path("vocabulary.json").write_text(json.dumps(tokens))
    rows = [f"{n} x.wav {60 * len(text)} {text}\n" for n, text in SENTENCES.items()]
    Path("dev.lst").write_text("".join(rows))
    assert _dispatch([*GIVEN, "--out=out", "--force"]) == 0
    said = capsys.readouterr().out
    assert "note: dev.lst: all utterances have 30 frames, but are 0.12 to 0.6 s long" in said


def test_phones_are_no_mistake(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Read as letters they say nothing; only a blank that is another column is certain."""
    phones = ["jh", "eh", "z", "nd", "ow"]
    said = {"u-1": ["jh", "eh", "z", "nd", "ow"], "u-2": ["nd", "ow"], "u-3": ["jh", "eh", "z"]}
    for blank in (5, 0):
        tokens = [*phones, "<blank>"] if blank else ["q", *phones, "<blank>"]
        outputs = {}
        for name, own in said.items():
            frames = [column for phone in own for column in (tokens.index(phone), blank, blank)]
            outputs[name] = np.eye(len(tokens), dtype=np.float32)[frames] * 9
        np.savez("dev.npz", **outputs)
        Path("vocabulary.json").write_text(json.dumps(tokens))
        if blank:
            assert _dispatch([*GIVEN, "--out=out"]) == 0
            assert "the tokens do not spell these words by letters" in capsys.readouterr().out
            assert Path("out/dev.npz").exists()
        else:
            with pytest.raises(
                InputError, match=r"'q' is best in 67 % .* should be the blank, in 0"
            ):
                _dispatch([*GIVEN, "--out=none"])
