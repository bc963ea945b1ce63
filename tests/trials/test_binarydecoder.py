"""Blocks decoded by the binary, on captured emissions of the real one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import VOICE_COMMANDS, VOICE_FLAGS

from w2ltune.embedded.beamsearch import Decoder
from w2ltune.embedded.decoderflags import decoder_flags, is_linear
from w2ltune.errors import InputError, TrialFailedError
from w2ltune.formats.beamdump import Hypothesis
from w2ltune.formats.distributions import FloatRange
from w2ltune.formats.emissions import write_emission_bin
from w2ltune.search.decodespace import sample_settings
from w2ltune.search.space import SearchSpace
from w2ltune.trials.agreement import _difference, compare
from w2ltune.trials.binarydecoder import (
    BinaryDecoder,
    _complete,
    block_arguments,
    hidden_parts,
    refuse_ids,
)
from w2ltune.trials.dataset import Dataset, DecodeProgram, DecodeTask

DOUBLES = Path(__file__).parents[1] / "doubles"
FLAGS = {
    **VOICE_FLAGS,
    "beamsize": "30",
    "beamsizetoken": "10",
    "lmweight": "1.5",
    "wordscore": "0.5",
}


def program(path=DOUBLES / "fl_asr_decode", generation="flashlight", **more):
    return DecodeProgram(
        path=str(path), generation=generation, am="", folder=str(VOICE_COMMANDS),
        environment={"DOUBLE_PYTHON": sys.executable}, **more,
    )  # fmt: skip


@pytest.fixture
def dataset(tmp_path):
    (tmp_path / "some.wav").touch()
    rows = [line.split() for line in (VOICE_COMMANDS / "dev.lst").read_text().splitlines()[:24]]
    lines = [" ".join([row[0], str(tmp_path / "some.wav"), *row[2:]]) for row in rows]
    (tmp_path / "dev.lst").write_text("\n".join(lines) + "\n")
    return Dataset(
        DecodeTask(
            lists=(tmp_path / "dev.lst",), emissions=(VOICE_COMMANDS / "emissions" / "dev.npz",)
        )
    )


def test_both_give_the_same(dataset, tmp_path):
    parts = []
    found = compare(program(), dataset, [FLAGS, {**FLAGS, "lmweight": "0"}], tmp_path,
                    utterances=7, look=parts.append)  # fmt: skip
    assert (found.utterances, found.settings, found.differences) == (14, 2, 0)
    assert found.hypotheses > 100
    assert found.largest < 1e-6
    assert str(found).startswith("14 utterances at 2 settings with ")
    assert not list(tmp_path.glob("block-*"))
    assert parts == sorted(parts) and {*parts} == {0, 0.5}


def test_a_difference_at_one_corner_is_found(dataset, tmp_path):
    odd = tmp_path / "fl_asr_decode"
    odd.write_text(
        f'#!/bin/sh\ncase "$*" in *--lmweight=5.0*) set -- "$@" --beamsize=1;; esac\n'
        f'exec {DOUBLES}/fl_asr_decode "$@"\n'
    )
    odd.chmod(0o755)
    searched = {"lmweight": FloatRange(0.0, 5.0), "wordscore": FloatRange(-8.0, 7.0)}
    settings = sample_settings(SearchSpace(fixed=FLAGS, distributions=searched))
    found = compare(program(odd), dataset, settings, tmp_path, utterances=5)
    assert (found.utterances, found.settings) == (25, 5)
    assert found.differences > 0
    assert "of 25 utterances at 5 settings differ: dev-" in str(found)
    assert compare(program(odd), dataset, settings[:2], tmp_path, utterances=5).differences == 0


def test_of_equal_scores_any_may_be_first():
    def entry(words, score, am_score=0.0):
        return Hypothesis(words=tuple(words), score=score, am_score=am_score, lm_score=0.0)

    one, other = entry("ab", -3.0), entry("ac", -3.0)
    assert _difference([one, other], [other, one]) == ""
    assert _difference([one, entry("ac", -3.1)], [other, one]) == "'a b', the binary 'a c'"
    assert _difference([one], [other]) == "'a b', the binary 'a c'"
    assert _difference([one, entry("ab", -3.0, -0.1)], [entry("ab", -3.0, -0.1)]) == ""
    assert _difference([one], [entry("ab", -3.0, -0.1)]) == (
        "scores -3.000000 (AM 0.000000, LM 0.000000), "
        "the binary -3.000000 (AM -0.100000, LM 0.000000)"
    )
    assert _difference([], [one]) == "0 hypotheses, the binary 1"
    assert _difference([], []) == ""


@pytest.mark.parametrize(
    ("silscore", "unkscore"), [("-0.5", "-inf"), ("0", "-4"), ("0", "2.5"), ("0", "-0.002")]
)
def test_what_a_dump_leaves_out_is_found_again(dataset, tmp_path, silscore, unkscore):
    flags = {**FLAGS, "silscore": silscore, "unkscore": unkscore}
    weights = decoder_flags(flags)
    lists, seconds = BinaryDecoder(program(), dataset, tmp_path).decode(
        flags, weights, [3, 0, 7], nbest=5
    )
    assert seconds > 0
    decoder, unknown = Decoder(weights), 0
    for index, entries in zip([3, 0, 7], lists, strict=True):
        own = decoder.decode(dataset.emission(index), weights, nbest=5)
        if weights.silscore:
            assert [e.silence_frames for e in entries] == [e.silence_frames for e in own]
        assert [e.unknown_words for e in entries] == [e.unknown_words for e in own]
        assert [e.words for e in entries] == [e.words for e in own]
        assert all(is_linear(entry, weights) for entry in entries)
        unknown += sum(entry.unknown_words for entry in own)
    assert (unknown > 0) == (unkscore != "-inf")


def test_what_a_dump_cannot_tell_is_known():
    for silscore, unkscore, hidden in (
        ("2", "-inf", ""),
        ("0", "-1", ""),
        ("0", "0", "how many words are unknown"),
        ("0", "-0.0009", "how many words are unknown"),
        ("-1", "-3", "unknown words from frames of silence"),
    ):
        weights = decoder_flags({**FLAGS, "silscore": silscore, "unkscore": unkscore})
        assert hidden_parts(weights) == hidden
    free = {**FLAGS, "uselexicon": "false", "decodertype": "tkn", "unkscore": "1"}
    assert hidden_parts(decoder_flags(free)) == ""


@pytest.mark.main
@pytest.mark.parametrize(
    "changes",
    [
        {"unkscore": "-1"},
        {"unkscore": "3", "silscore": "0.5"},
        {"unkscore": "0", "smearing": "logadd"},
        {"smearing": "none", "unkscore": "1"},
        {"smearing": "logadd", "logadd": "true", "unkscore": "-4"},
        {"smearing": "none", "maxword": "40"},
        {"smearing": "max", "maxword": "7", "unkscore": "-4"},
        {"decodertype": "tkn", "lm": "", "unkscore": "-2"},
        {"uselexicon": "false", "decodertype": "tkn", "lm": "", "silscore": "-0.4"},
    ],
    ids=lambda changes: " ".join(f"{name}={value}" for name, value in changes.items()),
)
def test_errors_are_those_that_the_program_counts(dataset, tmp_path, changes):
    """Its summary counts the errors of a whole list by itself."""
    flags = {**FLAGS, **changes}
    decoder = Decoder(decoder_flags(flags))
    every = range(len(dataset.ids))
    folder = tmp_path / "emissions" / "dev.lst"
    folder.mkdir(parents=True)
    random = np.random.default_rng(3)  # else many scores tie, and chance decides
    emissions = [
        dataset.emission(i) + random.normal(0, 1e-3, dataset.emission(i).shape).astype(np.float32)
        for i in every
    ]
    for name, emission in zip(dataset.ids, emissions, strict=True):
        write_emission_bin(folder, name, emission)
    done = subprocess.run(
        [DOUBLES / "fl_asr_decode", "--criterion=ctc", f"--datadir={tmp_path}", "--test=dev.lst",
         f"--emission_dir={tmp_path / 'emissions'}", f"--sclite={tmp_path}", "--logtostderr",
         *(f"--{name}={value}" for name, value in flags.items())],
        env={**os.environ, "DOUBLE_PYTHON": sys.executable}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = float(re.search(r"WER: ([0-9.]+)%", done.stderr)[1])
    lines = (tmp_path / "dev.lst.hyp").read_text().splitlines()
    theirs = {name.rstrip(")"): words for words, _, name in (row.rpartition(" (") for row in lines)}
    counts = dataset.count(every, [theirs[name] for name in dataset.ids])
    assert 100 * counts[:, :3].sum() / counts[:, 3].sum() == pytest.approx(printed, abs=1e-3)
    own = [decoder.decode(emission, decoder.flags, nbest=1)[0] for emission in emissions]
    assert theirs == {
        name: " ".join(best.words) for name, best in zip(dataset.ids, own, strict=True)
    }


def test_a_score_that_is_no_sum_is_seen():
    weights = decoder_flags({**FLAGS, "silscore": "2"})
    entry = Hypothesis(words=("a",), score=10.7, am_score=5.0, lm_score=-1.0)
    assert not is_linear(_complete(entry, weights), weights)  # 3.35 frames


def test_the_command_line(tmp_path):
    flags = {**FLAGS, "nthread_decoder": "8", "transitions": "x", "test": "all.lst", "am": "m.bin"}
    line = block_arguments(program(), flags, tmp_path)
    assert line[1] == "--flagsfile="
    assert f"--emission_dir={tmp_path}/emissions" in line
    assert "--nthread_decoder=1" in line
    assert "--isbeamdump=true" in line
    assert "--criterion=ctc" in line  # in process it is; the program's own default is asg
    names = [word.partition("=")[0] for word in line[1:]]
    assert len(names) == len(set(names))
    assert "--transitions" not in names
    assert "--am" not in names


def test_no_flag_of_the_search_is_left_to_the_model(tmp_path):
    line = block_arguments(program(), {"lm": "", "beamsize": "7", "am": "m.bin"}, tmp_path)
    given = dict(argument[2:].partition("=")[::2] for argument in line[2:])
    expected = {
        "beamsize": "7", "beamsizetoken": "250000", "beamthreshold": "25", "lmweight": "0",
        "wordscore": "0", "silscore": "0", "unkscore": "-inf", "eosscore": "0",
        "logadd": "false", "smearing": "none", "decodertype": "wrd", "lm": "", "lmtype": "kenlm",
    }  # fmt: skip
    assert given.items() >= expected.items()


def test_flags_of_the_other_generation_are_left_out(tmp_path):
    flags = {**FLAGS, "tokensdir": "/t", "tokens": "tokens.txt"}
    assert "--tokens=/t/tokens.txt" in block_arguments(program(), flags, tmp_path)
    line = block_arguments(program(generation="wav2letter"), flags, tmp_path)
    assert "--tokensdir=/t" in line and "--tokens=tokens.txt" in line


def test_what_fails_is_told(dataset, tmp_path):
    weights = decoder_flags(FLAGS)
    cut = tmp_path / "lm.bin"
    cut.write_bytes((VOICE_COMMANDS.parents[1] / "tests/data/voice_commands.klm").read_bytes()[:99])
    with pytest.raises(TrialFailedError, match="fl_asr_decode: "):
        BinaryDecoder(program(), dataset, tmp_path).decode(
            {**FLAGS, "lm": str(cut)}, weights, [0], nbest=1
        )
    silent = tmp_path / "fl_asr_decode"
    silent.write_text("#!/bin/sh\n")
    silent.chmod(0o755)
    with pytest.raises(TrialFailedError, match="without its last line"):
        BinaryDecoder(program(silent), dataset, tmp_path).decode(FLAGS, weights, [0], nbest=1)
    assert not list(tmp_path.glob("block-*"))


def test_an_utterance_without_a_line_has_no_hypothesis(dataset, tmp_path):
    """The dump of a decoder that found nothing for an utterance has no line of it."""
    lossy = tmp_path / "fl_asr_decode"
    lossy.write_text(
        f'#!/bin/sh\n{DOUBLES}/fl_asr_decode "$@" || exit\nfor a; do case $a in --sclite=*) '
        f"sed -i '/^{dataset.ids[1]} /d' \"${{a#*=}}\"/*.hyp; esac; done\n"
    )
    lossy.chmod(0o755)
    weights = decoder_flags(FLAGS)
    lists, _ = BinaryDecoder(program(lossy), dataset, tmp_path).decode(
        FLAGS, weights, [0, 1, 2], nbest=1
    )
    assert [len(entries) for entries in lists] == [1, 0, 1]


def test_what_the_program_does_not_bear(dataset, tmp_path):
    refuse_ids(dataset)
    row = dataset.utterances[1]
    for change, message in (
        ({"id": "a/b"}, "the id 'a/b' has a '/'"),
        ({"id": "a|b"}, r"the id 'a\|b' has a '\|'"),
        ({"path": "my a.wav"}, "the audio path 'my a.wav' has a blank"),
        ({"path": " a.wav"}, "the audio path ' a.wav' has a blank"),
        ({"path": ""}, "has no audio file in its list"),
        ({"path": "/none.wav"}, "no such audio file '/none.wav'"),
    ):
        from dataclasses import replace

        dataset.utterances[1] = replace(row, **change)
        with pytest.raises(InputError, match=message):
            refuse_ids(dataset)
