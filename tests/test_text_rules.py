"""Scripts without blanks, decomposed letters, strange blanks and old counts, in whole commands."""

from __future__ import annotations

import contextlib
import io
import json
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from w2ltune import rescore, sweep
from w2ltune.commandline import parse
from w2ltune.decodeinput import DecodeInput, prepare
from w2ltune.embedded import emissions as emissions_command
from w2ltune.embedded import lexicon as lexicon_command
from w2ltune.embedded.beamsearch import Decoder
from w2ltune.embedded.decoderflags import decoder_flags
from w2ltune.errors import InputError, StudyMismatchError, run_command
from w2ltune.formats.emissions import write_emissions
from w2ltune.listcheck import ListContent, check_words
from w2ltune.runs.provenance import read_request, write_request
from w2ltune.search.decodespace import build_space, example_flags
from w2ltune.search.poolkey import pool_key
from w2ltune.sweepoptions import SweepOptions


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def write_task(
    folder: Path,
    references: Sequence[str],
    *,
    tokens: Sequence[str],
    lexicon: dict[str, str],
    spoken: Sequence[str] = (),
    **changes: object,
) -> list[str]:
    """Write a decoding task and return its command line.

    The emissions say the tokens of each reference (or of what is spoken), which have blanks
    between them here; the LM has all words of the lexicon, each as likely.
    """
    columns = [*tokens, "#"]
    said = {}
    for number, text in enumerate(spoken or references):
        frames = np.full((0, len(columns)), -9.0, np.float32)
        for letter in text.replace(" ", "|"):
            own = np.full((2, len(columns)), -9.0, np.float32)
            own[0, columns.index(letter)] = own[1, -1] = 0
            frames = np.concatenate([frames, own])
        said[f"u-{number}"] = frames
    write_emissions(folder / "dev.npz", said.items())
    rows = [f"u-{n} u.wav 1000 {text}\n" for n, text in enumerate(references)]
    (folder / "dev.lst").write_text("".join(rows), encoding="utf-8")
    (folder / "tokens.txt").write_text("".join(f"{t}\n" for t in tokens), encoding="utf-8")
    (folder / "lexicon.txt").write_text(
        "".join(f"{word}\t{spelling}\n" for word, spelling in lexicon.items()), encoding="utf-8"
    )
    words = ("<s>", "</s>", *lexicon)
    grams = "".join(f"-1\t{word}\t0\n" for word in words)
    (folder / "lm.arpa").write_text(
        f"\\data\\\nngram 1={1 + len(words)}\nngram 2=1\n\n\\1-grams:\n-5\t<unk>\n{grams}"
        "\n\\2-grams:\n-1\t<s> </s>\n\n\\end\\\n", encoding="utf-8",
    )  # fmt: skip
    flags: dict[str, object] = {
        "emission_dir": folder, "datadir": folder, "test": "dev.lst",
        "tokens": folder / "tokens.txt", "lexicon": folder / "lexicon.txt",
        "lm": folder / "lm.arpa", "logdir": folder / "sweeps", "prefix": "a", "n": 2, "seed": 1,
        **changes,
    }  # fmt: skip
    return [f"--{name}={value}" for name, value in flags.items() if value is not None]


def prepared(arguments: Sequence[str]) -> DecodeInput:
    """All that a sweep checks before Ray."""
    options, given = parse(list(arguments), SweepOptions, usage="")
    names = SweepOptions.__dataclass_fields__
    space = build_space(given, script=None, options=names, any_flag=False)
    return prepare(options, space, command=())


def decoded(given: DecodeInput) -> list[list[int]]:
    """The counts of a decode in process, with the flags of a first trial."""
    flags = decoder_flags({**example_flags(given.space), "lmweight": "0", "wordscore": "0"})
    decoder = Decoder(flags)
    found = range(len(given.dataset.ids))
    texts = [
        " ".join(decoder.decode(given.dataset.emission(index), flags, nbest=1)[0].words)
        for index in found
    ]
    return given.dataset.count(found, texts).tolist()


CHINESE = ["你好世界", "天气你好", "我们世界天气", "天气"]
CHINESE_TOKENS = [*"你好世界天气我们"]
CHINESE_LEXICON = {word: " ".join(word) for word in ("你好", "世界", "天气", "我们")}


def chinese(
    folder: Path,
    *,
    references: Sequence[str] = CHINESE,
    spoken: Sequence[str] = CHINESE,
    metric: str = "cer",
    **changes: object,
) -> list[str]:
    return write_task(
        folder, references, tokens=CHINESE_TOKENS, lexicon=CHINESE_LEXICON, spoken=spoken,
        metric=metric, **changes,
    )  # fmt: skip


def test_a_script_without_blanks(tmp_path: Path) -> None:
    """By hand: 4, 4, 6 and 2 characters, no error, whatever blanks the decoder writes."""
    given = prepared(chinese(tmp_path))
    assert [str(finding) for finding in given.findings] == [
        "CER: characters, blanks left out",
        "greedy (no LM, no lexicon): WER 0.0%, CER 0.0%",
        "reference characters in no word of the lexicon: 0 of 16",
        "lexicon words unknown to the LM: 0 of 4",
    ]
    assert decoded(given) == [[0, 0, 0, 4], [0, 0, 0, 4], [0, 0, 0, 6], [0, 0, 0, 2]]


def test_blanks_are_counted_for_those_who_want_it(tmp_path: Path) -> None:
    """By hand: the decoder writes one blank in the first two, two in the third."""
    given = prepared(chinese(tmp_path, cer_blanks="true"))
    assert str(given.findings[0]) == "CER: characters, one blank between words too"
    assert decoded(given) == [[0, 0, 1, 4], [0, 0, 1, 4], [0, 0, 2, 6], [0, 0, 0, 2]]


def test_characters_that_the_lexicon_lacks_are_a_floor(tmp_path: Path) -> None:
    given = prepared(chinese(tmp_path, references=["你好地球", *CHINESE[1:]]))
    assert (
        "reference characters in no word of the lexicon: 2 of 16; as '地', '球'; "
        "the CER cannot fall below 12.5%"
    ) in [str(finding) for finding in given.findings]
    command = chinese(
        tmp_path, references=["一二三", "四五六", "七八九"], spoken=["世界", "天气", "我们"]
    )
    with pytest.raises(InputError, match=r"in no word of the lexicon: 9 of 9.*--allow_absurd"):
        prepared(command)


def test_blanks_go_with_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(sweep.main, chinese(tmp_path, metric="wer", cer_blanks="true")) == 2
    assert "--cer_blanks goes with --metric=cer" in capsys.readouterr().err


def test_a_study_that_counted_blanks_is_not_continued_without(tmp_path: Path) -> None:
    """Before there was a choice, they were counted."""
    request = prepared(chinese(tmp_path)).request
    path = tmp_path / "sweeps" / "a" / "sweep.json"
    path.parent.mkdir(parents=True)
    write_request(path, request)
    assert prepared(chinese(tmp_path)).request.scoring["cer_blanks"] == "false"
    old = json.loads(path.read_text())
    del old["scoring"]["cer_blanks"]
    path.write_text(json.dumps(old))
    kept = path.parent / "trials" / "0000" / "result.json"
    kept.parent.mkdir(parents=True)
    kept.write_text('{"state": "COMPLETE"}')
    with pytest.raises(StudyMismatchError, match="--cer_blanks was true, is false"):
        prepared(chinese(tmp_path))
    given = prepared(chinese(tmp_path, cer_blanks="true"))
    assert given.request.scoring == (read_request(path) or request).scoring


def test_pools_know_whether_blanks_are_errors(tmp_path: Path) -> None:
    given = prepared(chinese(tmp_path))
    flags = example_flags(given.space)
    keys = {
        pool_key(flags, data=[], scoring=scoring, inputs={})
        for scoring in (
            {"metric": "cer", "cer_blanks": "false"},
            {"metric": "cer", "cer_blanks": "true"},
            {"metric": "wer"},
        )
    }
    assert len(keys) == 3


@pytest.mark.parametrize("errors", [0, 1])
def test_a_study_that_was_counted_otherwise_is_not_continued(tmp_path: Path, errors: int) -> None:
    """As by a w2ltune that split words at a no-break space, or compared bytes."""
    command = write_task(
        tmp_path, ["été"], tokens=[*"éte|"], lexicon={"été": "é t é |"}, metric="wer"
    )
    study = tmp_path / "sweeps" / "a"
    trial = study / "trials" / "0000"
    trial.mkdir(parents=True)
    write_request(study / "sweep.json", prepared(command).request)
    row = f"u-0\t{errors}\t0\t0\t1\t{nfd('été')}\n"
    (trial / "utterances.tsv").write_text(f"id\tS\tD\tI\tN\thypothesis\n{row}", encoding="utf-8")
    if not errors:
        prepared(command)
        return
    with pytest.raises(StudyMismatchError, match="counted otherwise, as 'u-0': 1 errors then, 0"):
        prepared(command)


@pytest.mark.parametrize("of_lexicon", [nfc, nfd])
@pytest.mark.parametrize("of_list", [nfc, nfd])
def test_forms_of_letters_make_no_errors(tmp_path: Path, of_lexicon, of_list) -> None:  # type: ignore[no-untyped-def]
    words = ["été", "là", "thé"]
    command = write_task(
        tmp_path,
        [of_list("été là"), of_list("thé")],
        tokens=[*"éàtlh|"],
        lexicon={of_lexicon(word): " ".join([*word, "|"]) for word in words},
        spoken=["été là ", "thé "],
    )
    given = prepared(command)
    texts = [str(finding) for finding in given.findings]
    assert "greedy (no LM, no lexicon): WER 0.0%, CER 0.0%" in texts
    assert "reference words outside the lexicon: 0 of 3" in texts
    assert decoded(given) == [[0, 0, 0, 2], [0, 0, 0, 1]]


def test_a_spelling_in_another_form_than_the_tokens(tmp_path: Path) -> None:
    command = write_task(tmp_path, ["été"], tokens=[*"éte|"], lexicon={"été": nfd("é t é |")})
    message = r"lexicon\.txt:1: token .* is not in .*; they are decomposed \(NFD\), the known ones"
    with pytest.raises(InputError, match=message):
        prepared(command)


@pytest.mark.parametrize("blank", ["\u00a0", "\u3000", "\u2009", "\u0085", "\x1c"])
def test_other_blanks_are_parts_of_words(tmp_path: Path, blank: str) -> None:
    """In the list, the tokens, the lexicon, the LM and what is counted."""
    word = f"a{blank}b"
    command = write_task(
        tmp_path, [f"{word} a"], tokens=["a", "b", blank, "|"], spoken=[f"{word} a "],
        lexicon={word: f"a {blank} b |", "a": "a |"},
    )  # fmt: skip
    given = prepared(command)
    assert given.dataset.utterances[0].reference == (word, "a")
    assert [str(finding) for finding in given.findings] == [
        "greedy (no LM, no lexicon): WER 0.0%, CER 0.0%",
        "reference words outside the lexicon: 0 of 2",
        "lexicon words unknown to the LM: 0 of 2",
    ]
    assert decoded(given) == [[0, 0, 0, 2]]


def test_words_that_sclite_reads_otherwise_are_said(tmp_path: Path) -> None:
    command = write_task(
        tmp_path, ["@ a"], tokens=[*"@a|"], lexicon={"@": "@ |", "a": "a |"}, spoken=["@ a "]
    )
    assert "reference words counted as they stand, which sclite reads otherwise: 1, as '@'" in [
        str(finding) for finding in prepared(command).findings
    ]


def test_alternatives_that_the_normalisation_takes_away_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "n.glm").write_text(";; one of them\n[{a/b}] => [a] / [ ] __ [ ]\n")
    command = write_task(
        tmp_path, ["{a/b} b"], tokens=[*"ab|"], lexicon={"a": "a |", "b": "b |"},
        spoken=["a b "], normalize=tmp_path / "n.glm",
    )  # fmt: skip
    assert decoded(prepared(command)) == [[0, 0, 0, 2]]
    with pytest.raises(InputError, match=r"reference has alternatives '\{a/b\}' \(utterance 'u-0'"):
        prepared([a for a in command if "normalize" not in a])


# Rescoring.


def rescored(folder: Path, reference: str, hypothesis: str, *options: str) -> tuple[int, str, str]:
    """Evaluate one hypothesis; return exit code, output and errors."""
    (folder / "dev.lst").write_text(f"u a.wav 1000 {reference}\n", encoding="utf-8")
    (folder / "dev.hyp").write_text(f"\nu | -5 | -4 | -1 | nan | {hypothesis}\n", encoding="utf-8")
    (folder / "tr.ppl").write_text("u -1\n")
    out, err = io.StringIO(), io.StringIO()
    files = [f"--hyp={folder}/dev.hyp", f"--list={folder}/dev.lst", f"--tr={folder}/tr.ppl"]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(rescore.main, [*files, "--in_wts=0,0", *options])
    return code, out.getvalue(), err.getvalue()


def errors_of(folder: Path, reference: str, hypothesis: str, *options: str) -> int:
    code, out, err = rescored(folder, reference, hypothesis, *options, "--format=json")
    assert code == 0, err
    return int(json.loads(out)["errors"])


@pytest.mark.parametrize(
    ("reference", "hypothesis", "options", "errors"),
    [
        ("你好世界", "你好 世界", ["--metric=cer"], 0),
        ("你好世界", "你好 世界", ["--metric=cer", "--cer_blanks"], 1),
        ("l'été", nfd("l'été"), [], 0),
        (nfd("l'été"), "l'été", ["--metric=cer"], 0),
        (nfd("L'ÉTÉ"), "l'été", ["--ignore_case"], 0),
        ("10\u00a0000 a", "10\u00a0000 a", [], 0),
        ("10\u00a0000 a", "10 000 a", [], 2),  # one word is two others
        ("a\u3000b", "a\u3000b", ["--ignore_case"], 0),
    ],
)
def test_rescoring(
    tmp_path: Path, reference: str, hypothesis: str, options: list[str], errors: int
) -> None:
    assert errors_of(tmp_path, reference, hypothesis, *options) == errors


def test_rescoring_says_what_it_counts(tmp_path: Path) -> None:
    _, out, _ = rescored(tmp_path, "你好", "你 好", "--metric=cer")
    assert "note: CER: characters, blanks left out" in out
    code, _, err = rescored(tmp_path, "a", "a", "--cer_blanks")
    assert code == 2 and "--cer_blanks goes with --metric=cer" in err


@pytest.mark.parametrize(
    ("rules", "reference", "errors"),
    [
        ("[um] => [uh] / [ ] __ [ ]", "UM yes", 1),
        ("[um] => [uh] / [ ] __ [ ] ;; hesitations", "um yes", 0),
        ("* case_sensitive = 'F'\n[um] => [uh] / [ ] __ [ ]", "UM yes", 0),
    ],
)
def test_word_mapping_files(tmp_path: Path, rules: str, reference: str, errors: int) -> None:
    (tmp_path / "n.glm").write_text(f";; c\n{rules}\n")
    assert errors_of(tmp_path, reference, "uh yes", f"--normalize={tmp_path}/n.glm") == errors


def test_a_normalisation_gets_composed_letters(tmp_path: Path) -> None:
    (tmp_path / "n.py").write_text("def normalize(text):\n    return text.replace('\\xe9', 'e')\n")
    assert errors_of(tmp_path, "ete", nfd("été"), f"--normalize={tmp_path}/n.py") == 0


def test_alternatives_are_refused_wherever_sclite_finds_them(tmp_path: Path) -> None:
    code, _, err = rescored(tmp_path, "{a/b} yes", "b yes")
    assert code == 2 and "dev.lst: the reference has alternatives '{a/b}' (utterance 'u')" in err
    code, _, err = rescored(tmp_path, "b yes", "{a / b} yes")
    assert code == 2 and "dev.hyp:2: the hypothesis has alternatives '{a / b}', which" in err
    assert errors_of(tmp_path, "a/b yes}", "a/b yes}") == 0


def test_a_rescoring_that_was_counted_otherwise_is_not_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a w2ltune that split words at a no-break space."""
    texts = ("10\u00a0000", "10 000")
    search = ("--search", "--method=grid")
    monkeypatch.setattr("w2ltune.rescoreinput.WORDS", str.split)
    code, _, err = rescored(tmp_path, *texts, *search)
    assert code == 0, err
    monkeypatch.undo()
    code, _, err = rescored(tmp_path, *texts, *search)
    assert code == 2 and "best hypotheses had 0 errors, and have 2 now: counted otherwise" in err


# Making the inputs.


def test_a_lexicon_for_tokens_of_the_other_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tokens").write_text("".join(f"{t}\n" for t in nfd("été|")[:3] + "|"))
    (tmp_path / "words").write_text("été\nETE\n")
    files = [f"--{name}={tmp_path / name}" for name in ("tokens", "words")]
    assert run_command(lexicon_command.main, [*files, f"--out={tmp_path}/lexicon"]) == 0
    spelled = (tmp_path / "lexicon").read_text()
    assert spelled == f"été\t{' '.join(nfd('été'))} |\n"
    (tmp_path / "words").write_text("ETE\n")
    assert run_command(lexicon_command.main, [*files, f"--out={tmp_path}/lexicon"]) == 2
    assert "as 'ETE'; in lower case they can" in capsys.readouterr().err


def test_a_training_names_the_form_of_the_letters(tmp_path: Path) -> None:
    words = frozenset([nfd("été")])
    content = ListContent(path=tmp_path / "train.lst", ids=["u"], words=words)
    cause = r"\(they are decomposed \(NFD\), the known ones composed \(NFC\)\)"
    tokens = frozenset("éte|")
    other, lexicon = tmp_path / "other", tmp_path / "lexicon"
    other.write_text("tee\tt é é |\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"the tokens lack '\u0301' {cause}"):
        check_words([content], other, tokens, skips_letters=False)
    _, note = check_words([content], other, tokens, skips_letters=True)
    assert re.search(f"{cause}: the program leaves them out of words of train.lst", note)
    lexicon.write_text("été\té t é |\n", encoding="utf-8")
    (note,) = check_words([content], lexicon, frozenset(), skips_letters=True)
    assert note.endswith("; they are decomposed (NFD), the known ones composed (NFC)")


@pytest.mark.parametrize(
    ("tokens", "reference", "wer"),
    [("你好世", "你好 世", 100), ("éta", nfd("éta"), 0), ("a\u00a0b", "a\u00a0b", 0)],
)
def test_the_greedy_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tokens: str, reference: str, wer: int
) -> None:
    outputs = np.eye(4, dtype=np.float32)[[0, 3, 3, 1, 3, 2]]
    np.save(tmp_path / "out.npy", outputs[np.newaxis] * 9)
    vocabulary = [*tokens, "<blank>"]
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary))
    (tmp_path / "dev.lst").write_text(f"u u.wav 1000 {reference}\n")
    code = run_command(
        emissions_command.main,
        [f"--outputs={tmp_path}/out.npy", f"--vocabulary={tmp_path}/vocab.txt",
         f"--list={tmp_path}/dev.lst", f"--out={tmp_path}/made"],
    )  # fmt: skip
    said = capsys.readouterr()
    assert code == 0, said.err
    assert f"WER {wer}.0 %, CER 0.0 % on 1 utterances" in said.out
    assert "\n  CER: characters, blanks left out\n" in said.out
