"""Outputs of other toolkits: each export of experiments/toolkits runs on tiny models' outputs."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from w2ltune.__main__ import _dispatch
from w2ltune.commandline import parse
from w2ltune.errors import InputError, UsageError
from w2ltune.formats.emissions import open_emissions
from w2ltune.formats.spelling import speller
from w2ltune.formats.toolkitfiles import read_vocabulary
from w2ltune.formats.toolkits import arrange, kind_of

README = Path(__file__).parents[2] / "experiments" / "toolkits" / "README.md"
SENTENCES = {"u-1": "yes no", "u-2": "no", "u-3": "yes yes no"}
LETTERS = ["y", "e", "s", "n", "o"]
PIECES = ["▁yes", "▁no", "▁", "y", "e", "s", "n", "o"]


class Tensor(np.ndarray):
    """What the exports use of a tensor."""

    def numpy(self) -> np.ndarray:
        return np.asarray(self)


def tensor(value: Any) -> Tensor:
    return np.asarray(value).view(Tensor)


def scores(text: str, vocabulary: Sequence[str], blank: int, space: str, *, log: bool) -> Tensor:
    """Return [1, frames, tokens] of a model that says a text: a peak for each token, blanks."""
    if "▁yes" in vocabulary:
        said = [f"▁{word}" for word in text.split()]
    else:
        said = list(text.replace(" ", space)) if len(space) == 1 else [
            space if letter == " " else letter for letter in text
        ]  # fmt: skip
    path = [index for token in said for index in [vocabulary.index(token), blank, blank]]
    raw = np.random.default_rng(1).normal(0, 0.1, (len(path), len(vocabulary)))
    raw[np.arange(len(path)), path] += 5
    if log:
        raw -= np.log(np.exp(raw).sum(axis=1, keepdims=True))
    return tensor(raw[None].astype(np.float32))


def transformers() -> dict[str, Any]:
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS]

    class Model:
        @classmethod
        def from_pretrained(cls, name: str) -> Model:
            return cls()

        def eval(self) -> Model:
            return self

        def __call__(self, values: Any) -> Any:
            return SimpleNamespace(logits=scores(str(values), tokens, 0, "|", log=False))

    class Processor:
        tokenizer = SimpleNamespace(get_vocab=lambda: {t: i for i, t in enumerate(tokens)})

        @classmethod
        def from_pretrained(cls, name: str) -> Processor:
            return cls()

        def __call__(self, wave: Any, **_: Any) -> Any:
            return SimpleNamespace(input_values=wave)

    return {"transformers": {"AutoModelForCTC": Model, "AutoProcessor": Processor}}


def nemo() -> dict[str, Any]:
    class Model:
        decoder = SimpleNamespace(vocabulary=PIECES)

        @classmethod
        def from_pretrained(cls, name: str) -> Model:
            return cls()

        def eval(self) -> Model:
            return self

        def __call__(self, input_signal: Any, input_signal_length: Any) -> Any:
            text = str(np.asarray(input_signal)[0])
            out = scores(text, [*PIECES, "<blank>"], len(PIECES), "▁", log=True)
            padded = np.concatenate([out, np.zeros((1, 7, out.shape[2]), np.float32)], axis=1)
            return tensor(padded), tensor([out.shape[1]]), None

    return {"nemo.collections.asr.models": {"ASRModel": Model}}


def espnet() -> dict[str, Any]:
    tokens = ["<blank>", "<unk>", *PIECES, "<sos/eos>"]

    class Speech2Text:
        asr_model = SimpleNamespace(
            encode=lambda signal, length: (signal, length),
            ctc=SimpleNamespace(
                log_softmax=lambda x: scores(str(np.asarray(x)[0]), tokens, 0, "▁", log=True)
            ),
            token_list=tokens,
        )

        @classmethod
        def from_pretrained(cls, name: str) -> Speech2Text:
            return cls()

    return {"espnet2.bin.asr_inference": {"Speech2Text": Speech2Text}}


def speechbrain() -> dict[str, Any]:
    tokens = ["⁇", *PIECES]  # column 0 is the blank, whatever the tokenizer calls it

    class EncoderASR:
        tokenizer = SimpleNamespace(id_to_piece=lambda i: tokens[i])

        @classmethod
        def from_hparams(cls, name: str) -> EncoderASR:
            return cls()

        def encode_batch(self, signal: Any, lengths: Any) -> Tensor:
            return scores(str(np.asarray(signal)[0]), tokens, 0, "▁", log=True)

    return {"speechbrain.inference.ASR": {"EncoderASR": EncoderASR}}


TOOLKITS: dict[str, tuple[Callable[[], dict[str, Any]], list[str]]] = {
    "wav2vec2": (transformers, []),
    "NeMo": (nemo, []),
    "ESPnet": (espnet, []),
    "SpeechBrain": (speechbrain, ["--blank=0"]),
}


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [f"{name} {name}.wav 1000 {text}" for name, text in SENTENCES.items()]
    (tmp_path / "dev.lst").write_text("\n".join(rows) + "\n")
    (tmp_path / "words.txt").write_text("yes\nno\nmaybe\n")
    return tmp_path


def export(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the export of a toolkit, as it stands in the page, with its modules stood in for."""
    text = README.read_text(encoding="utf-8")
    block = next(
        part.split("```python\n")[1].split("```")[0]
        for part in text.split("\n## ")[1:]
        if part.startswith(name)
    )
    assert len(block.split("\n")) <= 18
    torch = {"no_grad": contextlib.nullcontext, "tensor": tensor, "ones": np.ones}
    for module, content in {"torch": torch, **TOOLKITS[name][0]()}.items():
        parts = module.split(".")
        for depth in range(1, len(parts)):
            parent = ".".join(parts[:depth])
            monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        made = ModuleType(module)
        made.__dict__.update(content)
        monkeypatch.setitem(sys.modules, module, made)
    exec(compile(block, name, "exec"), {"NAME": "x", "utterances": SENTENCES.items()})


@pytest.mark.parametrize("name", TOOLKITS)
def test_exports(
    name: str, in_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export(name, monkeypatch)
    given = ["--outputs=dev_outputs.npz", "--vocabulary=vocabulary.json", "--list=dev.lst"]
    assert _dispatch(["emissions", *given, "--out=emissions", *TOOLKITS[name][1]]) == 0
    said = capsys.readouterr().out
    assert "greedy: WER 0.0 %, CER 0.0 % on 3 utterances" in said
    tokens = (in_folder / "emissions" / "tokens.txt").read_text().splitlines()
    found = open_emissions(in_folder / "emissions" / "dev.npz")
    assert found.ids == tuple(SENTENCES)
    assert found.token_count == len(tokens) + 1
    assert {"y", "e", "s", "n", "o"} <= set(tokens)
    assert not {"<s>", "<unk>", "<sos/eos>", "<pad>", "<blank>"} & set(tokens)
    assert _dispatch(["lexicon", "--tokens=emissions/tokens.txt", "--words=words.txt",
                      "--out=lexicon.txt"]) == 0  # fmt: skip
    lines = (in_folder / "lexicon.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["yes", "no"]
    assert "left out, as the tokens cannot spell them: 1, as 'maybe'" in capsys.readouterr().out

    # What is written decodes to the words.
    from w2ltune.embedded.beamsearch import Decoder
    from w2ltune.embedded.decoderflags import decoder_flags

    flags = {"tokens": "emissions/tokens.txt", "lexicon": "lexicon.txt", "beamsize": "10"}
    if "|" not in tokens:
        flags |= {"wordseparator": "▁", "usewordpiece": "true"}
    weights = decoder_flags(flags)
    decoder = Decoder(weights)
    for utterance, text in SENTENCES.items():
        best = decoder.decode(found.emission(utterance), weights)[0]
        assert " ".join(best.words) == text


def test_a_padded_array(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = ["<blank>", "|", *LETTERS]
    parts = [scores(text, tokens, 0, "|", log=False)[0] for text in SENTENCES.values()]
    longest = max(map(len, parts))
    padded = np.full((3, longest, len(tokens)), 9.0, np.float32)
    for row, part in zip(padded, parts, strict=True):
        row[: len(part)] = part
    exp = np.exp(padded)
    np.save("dev.npy", np.swapaxes(exp / exp.sum(axis=2, keepdims=True), 1, 2))
    np.save("lengths.npy", [len(part) for part in parts])
    (in_folder / "vocabulary.txt").write_text("".join(f"{token}\n" for token in tokens))
    given = ["emissions", "--outputs=dev.npy", "--vocabulary=vocabulary.txt", "--list=dev.lst",
             "--out=out", "--layout=vt"]  # fmt: skip
    assert _dispatch([*given, "--lengths=lengths.npy"]) == 0
    assert "greedy: WER 0.0 %" in capsys.readouterr().out
    found = open_emissions(in_folder / "out" / "dev.npz")
    assert [found.frames(name) for name in found.ids] == [len(part) for part in parts]
    assert found.emission("u-1").max() <= 0  # logarithms of what were probabilities
    (in_folder / "lengths.txt").write_text("1 2\n")
    with pytest.raises(InputError, match="3 utterances, but 2 lengths"):
        _dispatch([*given, "--lengths=lengths.txt"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--blank=y"], "'<pad>' is best in 67 % of the frames, 'y' in 6 %: is that the blank"),
        (["--layout=vt"], "is it this model's, and are the axes in the right order"),
        (["--blank=z"], "--blank=z: no such token"),
        (["--drop=z"], "--drop=z: no such token"),
        (["--outputs=none.npz"], "no such file 'none.npz'"),
        (["--vocabulary=short.json"], "columns, the vocabulary 3 tokens"),
        (["--blnak=0"], "unknown option --blnak; did you mean 'blank'?"),
    ],
)
def test_what_is_wrong_is_seen_before_a_sweep(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], message: str
) -> None:
    export("wav2vec2", monkeypatch)
    (in_folder / "short.json").write_text(json.dumps(["a", "b", "c"]))
    given = ["--outputs=dev_outputs.npz", "--vocabulary=vocabulary.json", "--list=dev.lst"]
    names = [word.partition("=")[0] for word in more]
    kept = [word for word in given if word.partition("=")[0] not in names]
    with pytest.raises(UsageError, match=re.escape(message)):
        _dispatch(["emissions", *kept, "--out=emissions", *more])
    assert not (in_folder / "emissions").exists()


def test_columns() -> None:
    found = arrange(["<blank>", "<unk>", "a", "<space>", "b"], 5)
    assert found.names == ("a", "|", "b")
    assert found.order == (2, 3, 4, 0)
    assert found.dropped == ("<unk>",)
    assert arrange(["a", "b"], 3).order == (0, 1, 2)
    counted = ["<s>", "<pad>", "</s>", "<unk>", "a", "b"]
    assert arrange(counted, 3).names == arrange(counted, 6).names == ("a", "b")
    assert (arrange(counted, 3).order, arrange(counted, 6).order) == ((0, 1, 2), (4, 5, 0))
    assert arrange(["a", "b", "c"], 3, blank="-1").names == ("a", "b")
    with pytest.raises(UsageError, match="no token looks like the blank"):
        arrange(["a", "b"], 2)


def test_probabilities_of_coarse_logarithms() -> None:
    raw = np.random.default_rng(2).normal(0, 3, (40, 9)).astype(np.float32)
    logs = raw - np.log(np.exp(raw).sum(axis=1, keepdims=True))
    exact = np.exp(logs)
    assert (kind_of(logs), kind_of(exact), kind_of(raw)) == ("log", "probabilities", "raw")
    for factor in (0.985, 1.016, 0.96):
        assert kind_of(np.minimum(exact * np.float32(factor), 1)) == "probabilities"
    assert kind_of(np.minimum(exact * np.float32(0.94), 1)) == "raw"
    assert kind_of(np.concatenate([exact, np.zeros_like(exact[:1])])) == "raw"  # padded
    high = np.array([[1.005, 0.0], [0.5, 0.5]], np.float32)
    assert kind_of(high) == "probabilities"
    high[0] = [1.02, 0]
    assert kind_of(high) == "raw"


def test_vocabularies(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    path.write_text('{"b": 1, "a": 0}')
    assert read_vocabulary(path) == ["a", "b"]
    path.write_text('{"b": 2, "a": 0}')
    with pytest.raises(InputError, match="its columns are not 0 to 1"):
        read_vocabulary(path)
    path = tmp_path / "spm.vocab"
    path.write_text("<unk>\t0\n▁the\t-3.2\n \t-1\n")
    assert read_vocabulary(path) == ["<unk>", "▁the", " "]


def test_spellings() -> None:
    assert speller(["a", "aa", "b", "|"])("aab") == ["aa", "b", "|"]
    assert speller(["▁", "▁a", "a", "b", "ab"])("ab") == ["▁a", "b"]
    assert speller(["a"])("x") is None


def test_a_lexicon_of_the_words_of_an_lm(in_folder: Path) -> None:
    (in_folder / "lm.arpa").write_text(
        "\n\\data\\\nngram 1=4\nngram 2=1\n\n\\1-grams:\n-1\t<s>\t0\n-1\t</s>\n-2\tyes\t0\n"
        "-2\tno\n\n\\2-grams:\n-1\tyes no\n\n\\end\\\n"
    )
    (in_folder / "tokens.txt").write_text("|\ny\ne\ns\nn\no\n")
    done = _dispatch(["lexicon", "--tokens=tokens.txt", "--words=lm.arpa", "--out=lexicon.txt"])
    assert done == 0
    assert (in_folder / "lexicon.txt").read_text() == "yes\ty e s |\nno\tn o |\n"
    for word, why in (("YES", "in lower case they can"), ("ox", "no token has 'x'")):
        (in_folder / "words.txt").write_text(f"{word}\n")
        with pytest.raises(InputError, match=f"the 1 words can be spelled, as '{word}'.*{why}"):
            _dispatch(["lexicon", "--tokens=tokens.txt", "--words=words.txt", "--out=x"])


def test_the_word_separator_is_in_no_word(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # It stands at the end: a word with it inside would be decoded as two.
    for word in ("|", "||", "a|b", "a|", "|a", ""):
        assert speller(["|", "a", "b"])(word) is None
    assert speller(["_", "|", "a", "b"], separator="_")("a|b") == ["a", "|", "b", "_"]
    assert speller(["_", "|", "a", "b"], separator="_")("a_b") is None
    assert speller(["a", "b"])("ab") == ["a", "b"]
    assert speller(["▁a", "|", "b"])("a|b") == ["▁a", "|", "b"]
    for word in ("▁", "a▁a", "▁a", ""):
        assert speller(["▁a", "▁", "a"])(word) is None
    (in_folder / "tokens.txt").write_text("|\ny\ne\ns\nn\no\n")
    (in_folder / "words.txt").write_text("|\nyes\nyes|no\nno\n")
    given = ["lexicon", "--tokens=tokens.txt", "--words=words.txt"]
    assert _dispatch([*given, "--out=lexicon.txt"]) == 0
    assert (in_folder / "lexicon.txt").read_text() == "yes\ty e s |\nno\tn o |\n"
    assert "cannot spell them: 2, as '|', 'yes|no'" in capsys.readouterr().out
    assert _dispatch([*given, "--out=new/lexicon.txt", "--wordseparator=_"]) == 0
    assert (
        in_folder / "new/lexicon.txt"
    ).read_text() == "|\t|\nyes\ty e s\nyes|no\ty e s | n o\nno\tn o\n"
    assert "spelled without word separators: '_' is no token" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--out=new: this is a folder; name the file"):
        _dispatch([*given, "--out=new"])
    for out in ("tokens.txt/x.txt", "tokens.txt/new/x.txt"):
        with pytest.raises(UsageError, match=r"tokens\.txt is not a folder: choose another"):
            _dispatch([*given, f"--out={out}"])
    for out in ("/proc/x/lexicon.txt", "x" * 250):
        with pytest.raises(UsageError, match=r"cannot be written .*: choose another"):
            _dispatch([*given, f"--out={out}"])
    # The tokens themselves are words where somebody wants them.
    assert _dispatch([*given[:2], "--words=tokens.txt", "--out=letters.txt"]) == 0
    assert (in_folder / "letters.txt").read_text().startswith("y\ty |\ne\te |\n")


ARPA = "\\data\\\nngram 1=3\nngram 2=1\n\n\\1-grams:\n-1\t<s>\t0\n-1 yes 0\n-2\tno\n"
AFTER = "\n\\2-grams:\n-1\tyes no\n\n\\end\\\n"


@pytest.mark.parametrize(
    ("content", "there"),
    [
        (ARPA + AFTER, 3),
        (ARPA, 3),
        (ARPA.replace("1=3", "1=2") + AFTER, 3),
        (ARPA.replace("ngram 1=3\n", "") + AFTER, 3),
        ("ngram 1=9\n" + ARPA + AFTER, 3),  # prose
        (ARPA.replace("-1 yes 0\n", "") + AFTER, 2),
        (ARPA.replace("1=3", "1 = 4") + "\n\\end\\\n", 3),
        (ARPA[: ARPA.index("-2")], 2),
        (ARPA[: ARPA.index("-1\t")], 0),
        (ARPA[: ARPA.index("\n\\1-grams")], 0),
    ],
)
def test_an_arpa_file_that_was_cut(in_folder: Path, content: str, there: int) -> None:
    (in_folder / "tokens.txt").write_text("|\ny\ne\ns\nn\no\n")
    (in_folder / "lm.arpa").write_text(content)
    given = ["lexicon", "--tokens=tokens.txt", "--words=lm.arpa", "--out=lexicon.txt"]
    if there == 3 and "1 = 4" not in content:
        assert _dispatch(given) == 0
        assert (in_folder / "lexicon.txt").read_text() == "yes\ty e s |\nno\tn o |\n"
        return
    with pytest.raises(InputError) as caught:
        _dispatch(given)
    message = rf"lm.arpa: [34] unigrams announced, {there} there: the file is cut"
    assert re.fullmatch(message, str(caught.value))
    assert not (in_folder / "lexicon.txt").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "words.txt: no words in it"),
        (b"\n \n", "words.txt: no words in it"),
        (b"<s>\n</s>\n", "words.txt: no words in it"),
        (b"\\data\\\nngram 1=0\n\n\\1-grams:\n\n\\end\\\n", "words.txt: no words in it"),
        (b"yes\nn\xf6\n", "words.txt:2: not UTF-8 text"),
        (b"\x1f\x8b\x08\x00", "words.txt:1: not UTF-8 text"),
        (b"mmap lm http://kheafield.com/code format version 5\n\0\0\0", "words.txt:2: no text but"),
        (b"\xef\xbb\xbfyes\n", "words.txt:1: a byte order mark"),
    ],
)
def test_words_that_are_none(in_folder: Path, content: bytes, message: str) -> None:
    (in_folder / "tokens.txt").write_text("|\ny\ne\ns\nn\no\n")
    (in_folder / "words.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        _dispatch(["lexicon", "--tokens=tokens.txt", "--words=words.txt", "--out=lexicon.txt"])
    assert not (in_folder / "lexicon.txt").exists()


def test_words_of_odd_files(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (in_folder / "tokens.txt").write_text("|\ny\ne\ns\nn\no\n\\\n")
    given = ["lexicon", "--tokens=tokens.txt", "--words=words.txt", "--out=lexicon.txt"]
    (in_folder / "words.txt").write_text("no\n\\no\nyes 5\n")  # a backslash begins no section
    assert _dispatch(given) == 0
    assert (in_folder / "lexicon.txt").read_text() == "no\tn o |\n\\no\t\\ n o |\nyes\ty e s |\n"
    assert "the first word of each row" not in capsys.readouterr().out
    (in_folder / "text.txt").write_text("no one\nyes sir no\n")
    assert _dispatch([given[0], given[1], "--words=text.txt", "--out=text.lexicon"]) == 0
    said = "the first word of each row is taken; the others, as 'no', are no tokens"
    assert said in capsys.readouterr().out
    (in_folder / "words.txt").write_text("son of\n\\data\\\n\n\\1-grams:\n-1\tno\n\n\\end\\\nyes\n")
    assert _dispatch(given) == 0
    assert (in_folder / "lexicon.txt").read_text() == "no\tn o |\n"
    with pytest.raises(UsageError, match=r"words.txt would be replaced, which is an input"):
        _dispatch([*given[:3], "--out=./words.txt"])


LM = """\\data\\
ngram 1=5
ngram 2=1

\\1-grams:
-2	<unk>
-99	<s>	0
-0.5	</s>
-0.4	yes	0
-0.5	no	0

\\2-grams:
-0.2	<s> yes

\\end\\
"""


@pytest.mark.parametrize("tokens", [["<pad>", "|", *LETTERS], ["<pad>", *PIECES]], ids=len)
def test_the_commands_of_the_page(
    in_folder: Path, tokens: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from w2ltune.decodeinput import prepare
    from w2ltune.search.decodespace import build_space
    from w2ltune.sweepoptions import USAGE, SweepOptions

    outputs = {n: scores(text, tokens, 0, "|", log=True)[0] for n, text in SENTENCES.items()}
    np.savez("dev_outputs.npz", **outputs)
    (in_folder / "vocabulary.json").write_text(json.dumps(tokens))
    (in_folder / "lm.arpa").write_text(LM)
    block = README.read_text(encoding="utf-8").split("```sh\n")[1].split("```")[0]
    commands = [shlex.split(row) for row in block.replace("\\\n", " ").splitlines()]
    assert _dispatch(commands[0][1:]) == 0
    assert _dispatch(commands[1][1:]) == 0
    assert commands[2][:3] == ["python", "-m", "w2ltune.sweep"]
    options, given = parse(commands[2][3:], SweepOptions, usage=USAGE)
    space = build_space(given, script=None, options=(), any_flag=False)
    made = prepare(options, space, command=())
    greedy = next(finding for finding in made.findings if finding.value is not None)
    assert "WER 0.0%, CER 0.0%" in str(greedy)
    said = "the tokens are word pieces: --wordseparator=▁ --usewordpiece=true"
    assert (said in map(str, made.findings)) is ("▁" in tokens)
    assert made.space.fixed.get("usewordpiece") == ("true" if "▁" in tokens else None)


PIECES_OF = {
    "▁": (["▁yes", "▁no", "ter", "day"], "▁yes ter day ▁no"),
    "▁ at the end": (["yes", "no▁", "ter", "day▁"], "yes ter day▁ no▁"),
    "##": (["[CLS]", "[UNK]", "yes", "no", "##ter", "##day"], "yes ##ter ##day no"),
    "@@": (["<s>", "<unk>", "yes@@", "no", "ter@@", "day"], "yes@@ ter@@ day no"),
    "</w>": (["<unk>", "yes", "no</w>", "ter", "day</w>"], "yes ter day</w> no</w>"),
    "Ġ": (["<unk>", "Ġyes", "Ġno", "ter", "day"], "Ġyes ter day Ġno"),
    "_": (["_yes", "_no", "ter", "day"], "_yes ter day _no"),
    "letters": (["</w>", *"yesnotrda"], "y e s t e r d a y </w> n o </w>"),
    "letters of SentencePiece": (["▁", *"yesnotrda"], "▁ y e s t e r d a y ▁ n o"),
}


@pytest.mark.parametrize("habit", PIECES_OF)
def test_word_pieces_of_any_habit(
    in_folder: Path, habit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pieces, said = PIECES_OF[habit]
    tokens = ["[PAD]", *pieces]
    path = [column for piece in said.split() for column in (tokens.index(piece), 0)]
    raw = np.random.default_rng(3).normal(0, 0.1, (len(path), len(tokens)))
    raw[np.arange(len(path)), path] += 9
    np.savez("dev_outputs.npz", a=raw)
    (in_folder / "vocabulary.json").write_text(json.dumps(tokens))
    (in_folder / "dev.lst").write_text("a a.wav 300 yesterday no\n")
    (in_folder / "words.txt").write_text("yesterday\nno\n")
    given = ["--outputs=dev_outputs.npz", "--vocabulary=vocabulary.json", "--list=dev.lst"]
    assert _dispatch(["emissions", *given, "--out=em"]) == 0
    assert "greedy: WER 0.0 %, CER 0.0 %" in capsys.readouterr().out
    lexicon = ["lexicon", "--words=words.txt", "--out=lexicon.txt"]
    assert _dispatch([*lexicon, "--tokens=em/tokens.txt"]) == 0
    assert "2 words" in capsys.readouterr().out

    # By the flags that a sweep finds, with the lexicon and without.
    from w2ltune.decodeprogram import with_piece_flags
    from w2ltune.embedded.beamsearch import Decoder
    from w2ltune.embedded.decoderflags import decoder_flags
    from w2ltune.search.space import SearchSpace

    emission = open_emissions(in_folder / "em/dev.npz").emission("a")
    common = {"tokens": "em/tokens.txt", "lexicon": "lexicon.txt", "beamsize": "20"}
    for more in ({}, {"uselexicon": "false", "decodertype": "tkn"}):
        fixed = with_piece_flags(SearchSpace(fixed=common | more, distributions={})).fixed
        assert ("usewordpiece" in fixed) is (habit != "letters")
        flags = decoder_flags(fixed)
        decoder = Decoder(flags)
        assert decoder.words_spelled(decoder.best_tokens(emission)) == ("yesterday", "no")
        assert decoder.decode(emission, flags)[0].words == ("yesterday", "no")

    # The toolkit's own token list is spelled with its own names.
    (in_folder / "own.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    separator = ["--wordseparator=</w>"] if habit == "letters" else []
    assert _dispatch([*lexicon, "--tokens=own.txt", *separator]) == 0
    spelled = dict(row.split("\t") for row in (in_folder / "lexicon.txt").read_text().splitlines())
    assert f"{spelled['yesterday']} {spelled['no']}" == said


@pytest.mark.parametrize("mark", ["##", "@@", "</w>", "Ġ"])
def test_pieces_that_a_decoder_cannot_join(in_folder: Path, mark: str) -> None:
    from w2ltune.decodeprogram import piece_note, with_piece_flags
    from w2ltune.embedded.decoderflags import decoder_flags
    from w2ltune.search.space import SearchSpace

    (in_folder / "tokens.txt").write_text("".join(f"{piece}\n" for piece in PIECES_OF[mark][0]))
    fixed = {"tokens": "tokens.txt", "lexicon": "lexicon.txt"}
    space = SearchSpace(fixed=fixed, distributions={})
    assert with_piece_flags(space) == space  # words come from the lexicon
    said = piece_note(fixed, decoder_flags(fixed), PIECES_OF[mark][0])
    assert said.startswith(f"the tokens are word pieces marked by '{mark}': the lexicon makes")
    space = SearchSpace(fixed=fixed | {"uselexicon": "false"}, distributions={})
    with pytest.raises(InputError, match=f"tokens.txt: word pieces marked by '{mark}', which the"):
        with_piece_flags(space)


@pytest.mark.parametrize(
    ("tokens", "given", "found"),
    [
        ("▁a b", {}, {"wordseparator": "▁", "usewordpiece": "true"}),
        ("▁a b |", {}, {"wordseparator": "▁", "usewordpiece": "true"}),
        ("▁a b", {"wordseparator": "▁"}, {"wordseparator": "▁", "usewordpiece": "true"}),
        ("▁a b", {"wordseparator": "b"}, {"wordseparator": "b"}),
        ("▁a b", {"usewordpiece": "false"}, {"wordseparator": "▁", "usewordpiece": "false"}),
        ("▁ a b", {}, {"wordseparator": "▁", "usewordpiece": "true"}),
        ("▁ a b |", {}, {}),
        ("_a b", {}, {"wordseparator": "_", "usewordpiece": "true"}),
        ("_noise a b c d e f g h i j k |", {}, {}),
        ("_noise a |", {}, {}),
        ("a b |", {}, {}),
    ],
)
def test_the_flags_of_word_pieces(
    in_folder: Path, tokens: str, given: dict[str, str], found: dict[str, str]
) -> None:
    from w2ltune.decodeprogram import with_piece_flags
    from w2ltune.search.space import SearchSpace

    (in_folder / "tokens.txt").write_text(tokens.replace(" ", "\n") + "\n")
    fixed = {"tokens": "tokens.txt", "tokensdir": str(in_folder), **given}
    space = with_piece_flags(SearchSpace(fixed=fixed, distributions={}))
    assert space.fixed == {**fixed, **found}


@pytest.mark.parametrize(
    ("name", "content", "tokens"),
    [
        ("tokens.txt", "<blk> 0\n▁a 2\nb 1\n", ["<blk>", "b", "▁a"]),  # k2, icefall
        ("units.txt", "<blank>\t0\n<unk>\t1\n▁a\t2\n", ["<blank>", "<unk>", "▁a"]),  # WeNet
        ("units.txt", "<unk> 1\na 2\nb 3\n", ["<blank>", "<unk>", "a", "b"]),  # ESPnet 1
        ("dict.txt", "| 94\ne 51\nt 51\n", ["<s>", "<pad>", "</s>", "<unk>", "|", "e", "t"]),
        ("tokens.txt", "<blk> 0\n  1\n5 2\n", ["<blk>", " ", "5"]),
        ("digits.txt", "0\n1\n2\n", ["0", "1", "2"]),
        ("spm.vocab", "<unk>\t0\n▁t\t-0\n▁a\t-1\n", ["<unk>", "▁t", "▁a"]),
    ],
)
def test_vocabularies_with_numbers(
    tmp_path: Path, name: str, content: str, tokens: list[str]
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_vocabulary(tmp_path / name) == tokens


@pytest.mark.parametrize("content", ["a 0\nb 1\nc 3\n", "a 0\nb 1\nc 1\n", "a 5\nb 4\nc 9\n"])
def test_numbers_that_are_no_columns(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokens.txt").write_text(content)
    with pytest.raises(InputError, match="neither the columns 0 to 2 nor counts that fall"):
        read_vocabulary(tmp_path / "tokens.txt")


def test_the_blank_of_fairseq(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dictionary = ["|", *"esnoy"]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *dictionary]
    outputs = {n: scores(text, tokens, 0, "|", log=True)[0] for n, text in SENTENCES.items()}
    np.savez("dev_outputs.npz", **outputs)
    rows = [f"{token} {90 - number}\n" for number, token in enumerate(dictionary)]
    (in_folder / "dict.ltr.txt").write_text("".join(rows))
    given = ["--outputs=dev_outputs.npz", "--vocabulary=dict.ltr.txt", "--list=dev.lst"]
    assert _dispatch(["emissions", *given, "--out=em"]) == 0
    said = capsys.readouterr().out
    assert "blank '<s>' moved to the end; left out: <pad>, </s>, <unk>" in said
    assert "greedy: WER 0.0 %" in said
    # k2 has symbols for its graphs behind the tokens of the model.
    (in_folder / "tokens.txt").write_text(
        "".join(f"{t} {n}\n" for n, t in enumerate(["<blk>", *tokens[1:], "#0", "#1"]))
    )
    given[1] = "--vocabulary=tokens.txt"
    assert _dispatch(["emissions", *given, "--out=em"]) == 0
    assert "without a column in the outputs: #0, #1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("YES NO", "as 'YES'; in lower case they can"),
        ("nö", "as 'nö'; no token has 'ö'"),
        ("▁no ▁yes", "as '▁no'; they are tokens: those of an LM over tokens are decoded without"),
        ("yesé", ""),
        ("cafe\u0301", ""),  # the tokens are composed letters, and so is it then
    ],
)
def test_why_words_cannot_be_spelled(
    in_folder: Path, words: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = ["▁no", "▁yes"] if "▁" in words else ["|", *"yesnocafé"]
    (in_folder / "tokens.txt").write_text("".join(f"{token}\n" for token in tokens))
    (in_folder / "words.txt").write_text(words.replace(" ", "\n") + "\n")
    given = ["lexicon", "--tokens=tokens.txt", "--words=words.txt", "--out=lexicon.txt"]
    if not why:
        (in_folder / "lexicon.txt").write_text("mine\tm i n e |\n")
        assert _dispatch(given) == 0
        assert "lexicon.txt: 1 words, in place of others" in capsys.readouterr().out
        assert _dispatch(given) == 0
        assert "in place" not in capsys.readouterr().out
        return
    with pytest.raises(InputError, match=re.escape(why)):
        _dispatch(given)
