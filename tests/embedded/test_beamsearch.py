"""The embedded decoder gives what the real binary gave, and refuses what decodes to garbage."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import VOICE_COMMANDS, VOICE_FLAGS

from w2ltune.embedded.beamsearch import Decoder
from w2ltune.embedded.decoderfiles import check_lm_head, read_lexicon, read_tokens
from w2ltune.embedded.decoderflags import dead_weights, decoder_flags, refuse_in_process
from w2ltune.errors import FlagError, InputError, UsageError
from w2ltune.formats.beamdump import read_beam_dump
from w2ltune.formats.emissions import open_emissions

VOICE = {**VOICE_FLAGS, "beamsize": "50", "lmweight": "1.5", "wordscore": "0.5"}


def captured_flags(captures: Path, **changes: str) -> dict[str, str]:
    """The flags of captures/extra/03 to 05."""
    flags = {
        "lm": str(captures / "data/lm.arpa"),
        "lexicon": str(captures / "data/lexicon.txt"),
        "tokens": str(captures / "data/tokens.txt"),
        "lmweight": "1.5",
        "wordscore": "0.5",
        "beamsize": "100",
        "beamthreshold": "60",
        "beamsizetoken": "20",
        "smearing": "max",
    }
    return flags | changes


def hypotheses(path: Path) -> dict[str, str]:
    rows = [row.rpartition(" (") for row in path.read_text(encoding="utf-8").splitlines()]
    return {name.rstrip(")"): words for words, _, name in rows}


def test_words_are_those_of_the_binary(captures: Path) -> None:
    flags = decoder_flags(captured_flags(captures))
    decoder = Decoder(flags)
    emissions = open_emissions(captures / "extra/emissions_weak")
    expected = hypotheses(captures / "extra/sclw/d1/a.lst,b.lst.hyp")
    assert len(expected) == 28
    found = {
        name: " ".join(decoder.decode(emissions.emission(name), flags, nbest=1)[0].words)
        for name in emissions.ids
    }
    assert found == expected


@pytest.mark.parametrize("dump", ["d2", "d3"])  # one decoder thread, and two
def test_nbest_lists_are_those_of_the_binary(captures: Path, dump: str) -> None:
    flags = decoder_flags(captured_flags(captures))
    decoder = Decoder(flags)
    emissions = open_emissions(captures / "extra/emissions_weak")
    expected = read_beam_dump(captures / f"extra/sclw/{dump}/a.lst,b.lst.hyp")
    assert len(expected) == 28
    for name, theirs in expected.items():
        ours = decoder.decode(emissions.emission(name), flags)
        assert [entry.words for entry in ours] == [entry.words for entry in theirs]
        for field in ("score", "am_score", "lm_score"):
            found = [getattr(entry, field) for entry in ours]
            # The dump has six decimals.
            assert found == pytest.approx([getattr(e, field) for e in theirs], abs=5.1e-7)


def test_lexicon_free_words_are_those_of_the_binary(captures: Path) -> None:
    flags = decoder_flags(
        {
            "tokens": str(captures / "data/tokens.txt"),
            "uselexicon": "false",
            "decodertype": "tkn",
            "beamsize": "50",
            "beamthreshold": "50",
        }
    )
    decoder = Decoder(flags)
    emissions = open_emissions(captures / "extra/emissions_weak")
    expected = hypotheses(captures / "extra/sclw/d5/a.lst,b.lst.hyp")
    found = {
        name: " ".join(decoder.decode(emissions.emission(name), flags, nbest=1)[0].words)
        for name in emissions.ids
    }
    assert found == expected


@pytest.fixture(scope="module")
def utterances() -> list[np.ndarray]:
    emissions = open_emissions(VOICE_COMMANDS / "emissions/dev.npz")
    return [emissions.emission(name) for name in emissions.ids[:12]]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"unkscore": "-2", "silscore": "-0.3"},
        {"decodertype": "tkn", "lm": ""},
        {"uselexicon": "false", "lexicon": "", "decodertype": "tkn", "lm": "", "silscore": "0.4"},
    ],
    ids=["lexicon", "unknown and silence", "token LM with lexicon", "lexicon-free"],
)
def test_score_is_linear_in_the_weights(
    utterances: list[np.ndarray], changes: dict[str, str]
) -> None:
    flags = decoder_flags(VOICE | changes)
    decoder = Decoder(flags)
    for emission in utterances:
        for entry in decoder.decode(emission, flags):
            known = len(entry.words) if flags.uselexicon else 0
            unknown = entry.unknown_words * flags.unkscore if entry.unknown_words else 0.0
            expected = (
                entry.am_score
                + flags.lmweight * entry.lm_score
                + flags.wordscore * known
                + unknown
                + flags.silscore * entry.silence_frames
            )
            assert entry.score == pytest.approx(expected, abs=1e-6)


def test_unknown_words_are_left_out_and_counted(utterances: list[np.ndarray]) -> None:
    flags = decoder_flags(VOICE | {"unkscore": "3"})
    decoder = Decoder(flags)
    some = 0
    for emission in utterances:
        raw = decoder.search(flags).decode(emission.ctypes.data, *emission.shape)
        for found, entry in zip(raw, decoder.decode(emission, flags), strict=True):
            words = [decoder._word_dict.get_entry(i) for i in found.words if i >= 0]
            assert list(entry.words) == [word for word in words if word != "<unk>"]
            assert entry.unknown_words == words.count("<unk>")
            some += entry.unknown_words
    assert some > 100


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("lmweight", "4"),
        ("wordscore", "-6"),
        ("silscore", "-3"),
        ("unkscore", "3"),
        ("beamsize", "1"),
        ("beamsizetoken", "1"),
        ("beamthreshold", "0.5"),
        ("logadd", "true"),
        ("smearing", "none"),
        ("decodertype", "tkn"),
        ("lm", ""),
        ("maxword", "40"),
    ],
)
def test_each_flag_changes_something(utterances: list[np.ndarray], flag: str, value: str) -> None:
    base = VOICE | {"beamsize": "10"}
    results = []
    for flags in (decoder_flags(base), decoder_flags(base | {flag: value})):
        decoder = Decoder(flags)
        results.append([decoder.decode(emission, flags) for emission in utterances])
    assert results[0] != results[1]


# The demo's lm.arpa, written as a trie by KenLM 0.3.0's `build_binary trie`.
BINARY_LM = Path(__file__).resolve().parents[1] / "data" / "voice_commands.klm"


def test_a_binary_lm_is_mapped_and_scores_as_its_arpa(utterances: list[np.ndarray]) -> None:
    results = []
    for lm in (VOICE["lm"], str(BINARY_LM)):
        flags = decoder_flags(VOICE | {"lm": lm})
        decoder = Decoder(flags)
        lists = [decoder.decode(emission, flags) for emission in utterances]
        results.append(
            {
                (number, entry.words, round(entry.am_score, 6)): entry.lm_score
                for number, entries in enumerate(lists)
                for entry in entries
            }
        )
    # Which of several hypotheses with one score the beam keeps may differ from decoder to decoder.
    common = results[0].keys() & results[1].keys()
    assert len(common) > 0.9 * max(map(len, results))
    assert all(results[0][place] == results[1][place] for place in common)
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    mapped = [line.split()[1] for line in maps if line.endswith(str(BINARY_LM))]
    assert set(mapped) == {"r--s"}, "shared by all workers of a computer"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[: len(data) // 2], "Binary file has size"),
        (lambda data: data[:100], "End of file"),
        (lambda data: data[:55] + b"9" + data[56:], "test values don't match"),
    ],
    ids=["cut", "cut in its head", "another version"],
)
def test_a_damaged_binary_lm_is_named(
    tmp_path: Path, damage: Callable[[bytes], bytes], reason: str
) -> None:
    path = tmp_path / "lm.klm"
    path.write_bytes(damage(BINARY_LM.read_bytes()))
    with pytest.raises(InputError, match=rf"lm\.klm: KenLM cannot load.*{reason}"):
        Decoder(decoder_flags(VOICE | {"lm": str(path)}))


def test_token_lm_scores_tokens(tmp_path: Path, utterances: list[np.ndarray]) -> None:
    arpa = tmp_path / "letters.arpa"
    tokens = read_tokens(Path(VOICE["tokens"]))
    unigrams = [f"-1.5\t{token}" for token in ["<unk>", "<s>", "</s>", *tokens]]
    arpa.write_text(
        f"\\data\\\nngram 1={len(unigrams)}\nngram 2=1\n\n\\1-grams:\n"
        + "".join(f"{row}\t0\n" for row in unigrams)
        + "\n\\2-grams:\n-1.5\ta b\n\n\\end\\\n",
        encoding="utf-8",
    )
    changes = {"lm": str(arpa), "decodertype": "tkn"}
    for free in ({}, {"uselexicon": "false", "lexicon": ""}):
        flags = decoder_flags(VOICE | changes | free)
        best = Decoder(flags).decode(utterances[0], flags)[0]
        letters = sum(len(word) + 1 for word in best.words)
        # Each token, separators included, and perhaps the end cost 1.5.
        assert -1.5 * (letters + 2) <= best.lm_score <= -1.5 * (letters - 2)


def test_asg_takes_transitions(tmp_path: Path, utterances: list[np.ndarray]) -> None:
    tokens = read_tokens(Path(VOICE["tokens"]))
    count = len(tokens)
    emission = np.ascontiguousarray(utterances[0][:, :count])
    path = tmp_path / "transitions.npy"
    np.save(path, np.zeros((count, count), np.float32))
    flags = decoder_flags(VOICE | {"criterion": "asg", "transitions": str(path)})
    zero = Decoder(flags).decode(emission, flags)[0]
    np.save(path, np.where(np.eye(count), 0, -3).astype(np.float32))
    costly = Decoder(flags).decode(emission, flags)[0]
    assert costly.am_score < zero.am_score
    np.save(path, np.zeros((count, count + 1), np.float32))
    with pytest.raises(InputError, match=r"transitions of shape"):
        Decoder(flags)


def test_word_pieces_without_separator_token(tmp_path: Path) -> None:
    pieces = ["_he", "llo", "_wor", "ld"]
    (tmp_path / "tokens.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    (tmp_path / "lexicon.txt").write_text("hello _he llo\nworld _wor ld\n", encoding="utf-8")
    emission = np.full((9, 5), -9, np.float32)
    for frame, token in enumerate([0, 4, 1, 4, 4, 2, 4, 3, 4]):
        emission[frame, token] = 0
    common = {
        "tokens": str(tmp_path / "tokens.txt"), "wordseparator": "_", "usewordpiece": "true",
        "beamsize": "20",
    }  # fmt: skip
    for flags in (
        decoder_flags(common | {"lexicon": str(tmp_path / "lexicon.txt")}),
        decoder_flags(common | {"uselexicon": "false", "decodertype": "tkn"}),
    ):
        decoder = Decoder(flags)
        assert decoder.decode(emission, flags)[0].words == ("hello", "world")
        assert decoder.words_spelled(decoder.best_tokens(emission)) == ("hello", "world")
        assert "silscore" in dead_weights(flags, decoder.token_names)


def test_replabel_and_surround(tmp_path: Path) -> None:
    (tmp_path / "tokens.txt").write_text("|\na\nb\n", encoding="utf-8")
    (tmp_path / "lexicon.txt").write_text("aab a a b |\n", encoding="utf-8")
    flags = decoder_flags(
        {
            "tokens": str(tmp_path / "tokens.txt"),
            "lexicon": str(tmp_path / "lexicon.txt"),
            "replabel": "1",
            "surround": "|",
            "beamsize": "20",
        }
    )
    decoder = Decoder(flags)
    assert decoder.token_count == 5  # the repetition label and the blank
    emission = np.full((5, 5), -9, np.float32)
    for frame, token in enumerate([0, 1, 3, 2, 0]):  # | a <1> b |
        emission[frame, token] = 0
    assert decoder.decode(emission, flags)[0].words == ("aab",)
    assert decoder.words_spelled(decoder.best_tokens(emission)) == ("aab",)


@pytest.mark.parametrize(
    "emission",
    [
        np.zeros((4, 29), np.float64),
        np.zeros((4, 28), np.float32),
        np.zeros((29, 4), np.float32).T,
        np.zeros(29, np.float32),
    ],
    ids=["float64", "too narrow", "Fortran order", "one dimension"],
)
def test_what_would_decode_to_garbage_is_refused(emission: np.ndarray) -> None:
    flags = decoder_flags(VOICE)
    decoder = Decoder(flags)
    width = decoder.token_count
    if emission.ndim == 2 and emission.dtype == np.float64:
        emission = np.zeros((4, width))
    if not emission.flags.c_contiguous:
        emission = np.zeros((width, 4), np.float32).T
    if emission.ndim == 2 and emission.flags.c_contiguous and emission.dtype == np.float32:
        emission = np.zeros((4, width - 1), np.float32)
    with pytest.raises(ValueError, match="C-contiguous float32"):
        decoder.decode(emission, flags)


def test_weights_of_another_lexicon_are_refused() -> None:
    decoder = Decoder(decoder_flags(VOICE))
    other = dataclasses.replace(decoder.flags, smearing="none")
    with pytest.raises(ValueError, match="another lexicon"):
        decoder.search(other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"criterion": "seq2seq"}, "--criterion=seq2seq: the embedded decoder knows ctc, asg"),
        ({"decodertype": "word"}, "did you mean 'wrd'"),
        ({"smearing": "mx"}, "did you mean 'max'"),
        ({"lmtype": "convlm"}, "knows kenlm only"),
        ({"beamsize": "0"}, "--beamsize=0: must be 1 or more"),
        ({"beamthreshold": "-1"}, "must be above 0"),
        ({"lmweight": "inf"}, "--lmweight=inf: must be a finite number"),
        ({"unkscore": "inf"}, "--unkscore=inf: must be a finite number, or -inf"),
        ({"tokens": ""}, "no --tokens"),
        ({"lexicon": ""}, "no --lexicon"),
        ({"uselexicon": "false"}, "needs --decodertype=tkn"),
        ({"criterion": "asg"}, "needs --transitions"),
    ],
)  # fmt: skip
def test_flags_that_cannot_work(changes: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        refuse_in_process(decoder_flags({**VOICE, **changes}))


def test_bad_flag_value() -> None:
    with pytest.raises(FlagError, match="beamsize"):
        decoder_flags(VOICE | {"beamsize": "many"})


def test_lexicon_token_outside_the_tokens_is_pointed_at(tmp_path: Path) -> None:
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("yes\ty e s |\nno\tn O |\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"lexicon\.txt:2: token 'O' in the spelling of 'no'"):
        Decoder(decoder_flags(VOICE | {"lexicon": str(lexicon)}))
    lexicon.write_text("yes\ty e s |\nno\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"lexicon\.txt:2: word 'no' has no spelling"):
        list(read_lexicon(lexicon))


def test_blank_lines_of_a_token_list_count_for_nothing(tmp_path: Path) -> None:
    """So flashlight's own dictionary reads it."""
    tokens = Path(VOICE["tokens"]).read_text(encoding="utf-8").splitlines()
    (tmp_path / "tokens.txt").write_text("\n\n".join(tokens) + "\n  \n", encoding="utf-8")
    decoder = Decoder(decoder_flags(VOICE | {"tokens": str(tmp_path / "tokens.txt")}))
    assert decoder.token_names == tokens
    assert decoder.token_count == len(tokens) + 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello", "neither an ARPA file nor a KenLM binary"),
        (b"\x1f\x8b123", "cut or damaged"),
        (b"BZh91AY", "compressed otherwise than by gzip"),
        (b"\\data\\\nngram 1=2\n\n\\1-grams:\n-1\ta\n", "cut short"),
    ],
)
def test_damaged_language_models(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "lm.arpa"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        check_lm_head(path)


def test_kenlm_refusals_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "lm.bin"
    path.write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0" + b"x" * 500)
    with pytest.raises(InputError, match="KenLM cannot load") as caught:
        Decoder(decoder_flags(VOICE | {"lm": str(path)}))
    assert "\n" not in str(caught.value)


def test_dead_weights_name_their_reason() -> None:
    tokens = read_tokens(Path(VOICE["tokens"]))
    assert set(dead_weights(decoder_flags(VOICE), tokens)) == {"eosscore"}
    free = decoder_flags(VOICE | {"uselexicon": "false", "decodertype": "tkn", "lm": ""})
    assert set(dead_weights(free, tokens)) == {"eosscore", "lmweight", "wordscore", "unkscore"}
