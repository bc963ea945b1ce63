"""What is counted is what NIST's sclite counts, and jiwer: words, characters, strange blanks."""

import random
import re
import shutil
import subprocess
import unicodedata

import jiwer
import pytest

from w2ltune.errors import InputError
from w2ltune.formats.beamdump import Hypothesis, write_beam_dump
from w2ltune.formats.dumpcolumns import read_dump_columns
from w2ltune.formats.listfile import read_list
from w2ltune.scoring.rescorelists import join
from w2ltune.scoring.text import (
    join_units,
    read_otherwise,
    refuse_alternatives,
    split_units,
    what_is_counted,
)
from w2ltune.scoring.wer import count_matrix, total

needs_sclite = pytest.mark.skipif(not shutil.which("sctk"), reason="sctk is not installed")

CHINESE = [
    ("你好世界", "你好 世界"),
    ("我们 世界天气", "我 们世界 天汽"),
    ("天气", "天 气 好"),
    ("hello 世界", "hullo 世界"),
]
WORDS = [
    ("10\u00a0000 francs", "10 000 francs"),  # 1 word against 2
    ("10\u00a0000 francs", "10\u00a0000 francs"),
    ("a\u3000b c\u2009d", "a b c\u2009d"),
    ("été \u0085 là", "été là"),
]


def sclite(tmp_path, pairs, *options):
    """Substitutions, deletions, insertions and units that sclite counts."""
    for name, texts in zip(("r", "h"), zip(*pairs, strict=True), strict=True):
        rows = "".join(f"{text} (s-{n})\n" for n, text in enumerate(texts))
        (tmp_path / name).write_text(rows, encoding="utf-8")
    done = subprocess.run(
        ["sctk", "sclite", "-s", "-e", "utf-8", *options, "-i", "spu_id", "-o", "dtl", "stdout",
         "-r", "r", "trn", "-h", "h", "trn"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    counts = {
        name: int(re.search(rf"{name} .*\( *(\d+)\)", done.stdout)[1])
        for name in ("Percent Substitution", "Percent Deletions", "Percent Insertions")
    }
    return (*counts.values(), int(re.search(r"Ref\. words .*\( *(\d+)\)", done.stdout)[1]))


def ours(pairs, metric, **options):
    units = (
        [split_units(text, metric, **options) for text in side] for side in zip(*pairs, strict=True)
    )
    counts = total(count_matrix(*units))
    errors = (counts.substitutions, counts.deletions, counts.insertions)
    return (*errors, counts.reference_words)


@needs_sclite
@pytest.mark.parametrize("pairs", [CHINESE, WORDS])
def test_words_and_characters_are_sclites(tmp_path, pairs):
    assert ours(pairs, "wer") == sclite(tmp_path, pairs)
    assert ours(pairs, "cer") == sclite(tmp_path, pairs, "-c")


def test_by_hand():
    assert ours(CHINESE, "cer") == (2, 0, 1, 19)  # 汽 for 气, u for e, 好; blanks are nothing
    assert ours(CHINESE[:1], "cer") == (0, 0, 0, 4)
    assert ours(CHINESE[:1], "cer", blanks=True) == (0, 0, 1, 4)
    assert ours(CHINESE[3:], "cer", blanks=True) == (1, 0, 0, 8)
    assert ours(WORDS, "wer") == (2, 1, 2, 9)


@needs_sclite
def test_random_texts(tmp_path):
    choose = random.Random(3)
    pairs = []
    for _ in range(60):
        said = choose.choices("你好 世 界天气我们a b", k=choose.randint(1, 9))
        heard = [choose.choice("世 a") if choose.random() < 0.15 else each for each in said]
        heard = [each for each in heard if choose.random() > 0.1]
        pairs.append(("".join(said).strip() or "a", "".join(heard)))
    characters = sclite(tmp_path, pairs, "-c")
    assert ours(pairs, "cer") == characters and sum(characters[:3]) > 20
    without_blanks = ([text.replace(" ", "") for text in side] for side in zip(*pairs, strict=True))
    out = jiwer.process_characters(*map(list, without_blanks))
    assert ours(pairs, "cer")[3] == out.hits + out.substitutions + out.deletions
    assert sum(characters[:3]) == out.substitutions + out.deletions + out.insertions


@needs_sclite
@pytest.mark.parametrize("blanks", [False, True])
def test_transcripts_hold_the_units_that_are_counted(tmp_path, blanks):
    pairs = [tuple(join_units(split_units(t, "cer", blanks=blanks)) for t in p) for p in CHINESE]
    assert sclite(tmp_path, pairs) == ours(CHINESE, "cer", blanks=blanks)


@pytest.mark.parametrize("metric", ["wer", "cer"])
def test_composed_and_decomposed_letters_are_the_same(metric):
    text = "l'été à Malmö 한글"
    decomposed = unicodedata.normalize("NFD", text)
    assert text != decomposed
    assert split_units(text, metric) == split_units(decomposed, metric)


@needs_sclite
@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors"),
    [
        # Alternatives, with blanks and without, of which it takes the best ...
        *[("{a/b} yes", "b yes", 0), ("x {1/2} {a b/c}{d/e}", "x 2 c d", 0)],
        *[("{a / {b / @}} yes", "yes", 0), ("yes", "{no/yes}", 0)],
        # ... and what looks like them but is none.
        *[("and / or a/b", "and / or a/b", 0), ("{ a } / { b }", "a / b", 0), ("yes }", "yes", 1)],
    ],
)
def test_what_sclite_takes_for_alternatives_is_refused(tmp_path, reference, hypothesis, errors):
    assert sum(sclite(tmp_path, [(reference, hypothesis)])[:3]) == errors
    refused = []
    for text in (reference, hypothesis):
        try:
            refuse_alternatives(text, path=tmp_path)
        except InputError as error:
            refused.append(error)
    # Where it may be counted here, it is as sclite has it, or a word is named that is not.
    if not refused and not read_otherwise(reference.split()):
        assert (
            ours([(reference, hypothesis)], "wer")[:3]
            == sclite(tmp_path, [(reference, hypothesis)])[:3]
        )
    assert bool(refused) == ("{" in reference + hypothesis and "} / {" not in reference)


@needs_sclite
@pytest.mark.parametrize(
    ("word", "as_it_reads_it"),
    [("@", ""), ("{laugh}", "laugh"), ("a;b", "a"), (r"a\b", "ab"), ("(um)", "(um)")],
)
def test_words_that_sclite_reads_otherwise_are_named(tmp_path, word, as_it_reads_it):
    assert sclite(tmp_path, [(f"yes {word}", f"yes {as_it_reads_it}")])[:3] == (0, 0, 0)
    line = read_otherwise(["yes", word, word])
    assert line.startswith("reference words counted as they stand, which sclite reads otherwise: 2")
    assert repr(word) in line
    assert read_otherwise(["yes", "l'été", "a-", "%uh", "a:b", "a/b", "<x>", "(", "x@y"]) == ""


def test_a_dump_with_strange_blanks(tmp_path):
    """The list, the dump and what is counted know the same words."""
    (tmp_path / "dev.lst").write_text("u u.wav 1 10\u00a0000 a\u3000b\u0085c\n", encoding="utf-8")
    words = ("10\u00a0000", "a\u3000b\u0085c")
    write_beam_dump(tmp_path / "dev.hyp", [("u", Hypothesis(words, 1.0, 1.0, 1.0, 0.0))])
    columns = read_dump_columns(tmp_path / "dev.hyp")
    lists = join(columns, tmp_path / "dev.lst", {})
    assert read_list(tmp_path / "dev.lst")[0].reference == words
    assert columns.words.tolist() == [2]
    assert lists.nbest.errors.tolist() == [0] and lists.nbest.reference_words.tolist() == [2]
    assert lists.findings == ()


def test_it_is_said_what_is_counted():
    said = [["स", "न"], ["é"]]
    assert what_is_counted("wer", said) == ""
    assert what_is_counted("cer", said) == "CER: characters, blanks left out"
    assert what_is_counted("cer", said, blanks=True) == (
        "CER: characters, one blank between words too"
    )
    assert what_is_counted("cer", [["न", "म", "स्"]]) == (
        "CER: characters, blanks left out, each with its marks, as 'स्', which sclite takes apart"
    )
