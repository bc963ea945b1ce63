import re

import pytest

from w2ltune.errors import FlagError
from w2ltune.formats.flagsfile import Flag
from w2ltune.formats.known_flags import (
    KNOWN_FLAGS,
    RENAMED,
    check_flag,
    is_boolean,
    typed_value,
)

# What fl_asr_decode v0.3.2 logged after parsing, shortened.
LOGGED = (
    "--adambeta1=0.90000000000000002; --am=001_model_dev.bin; --attentionthreshold=2147483647; "
    "--beamsize=50; --beamsizetoken=20; --beamthreshold=30; --decodertype=wrd; "
    "--fl_amp_max_scale_factor=32000; --fl_benchmark_mode=true; --iter=1000; --logadd=false; "
    "--lr_decay=9223372036854775807; --optimepsilon=1e-08; --smearing=max; --surround=; "
    "--trainWithWindow=false; --unkscore=-inf; --uselexicon=true; --wordseparator=|; "
    "--ipl_maxisz=1.7976931348623157e+308; --logtostderr=true"
)


def test_flags_that_the_binary_logs_are_known():
    for item in LOGGED.split("; "):
        name, _, value = item.removeprefix("--").partition("=")
        check_flag(Flag(name=name, value=value), generation="flashlight")


def test_table_is_consistent():
    assert sorted(KNOWN_FLAGS) == list(KNOWN_FLAGS)
    for spec in KNOWN_FLAGS.values():
        value = typed_value(spec, spec.default)
        kinds = {"string": "str", "int32": "int", "int64": "int", "uint64": "int"}
        assert type(value).__name__ == kinds.get(spec.type, spec.type)


def test_generations():
    def having(generation):
        return {name for name, spec in KNOWN_FLAGS.items() if generation in spec.generations}

    old, new = having("wav2letter"), having("flashlight")
    removed = (
        "archdir blobdata dataorder eostoken input inputbinsize maxisz maxtsz memstepsize mfcc "
        "mfsc minisz mintsz noresample outputbinsize pow runname tag target tokensdir"
    )
    assert sorted(old - new) == removed.split()
    assert {"features_type", "fl_amp_scale_factor", "ipl_minisz", "lmweight_low"} <= new - old
    assert {"lmweight", "wordscore", "beamsize", "flagsfile", "rundir"} <= new & old


def test_is_boolean():
    assert is_boolean("show") and is_boolean("noresample") and is_boolean("logtostderr")
    assert not any(map(is_boolean, ["lr", "noshow", "nosuchflag", ""]))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("show", "T", True),
        ("show", "no", False),
        ("show", "0", False),
        ("beamsize", "-1", -1),
        ("lr", "1", 1.0),
        ("lr", "1e-3", 0.001),
        ("unkscore", "-inf", float("-inf")),
        ("beamthreshold", "inf", float("inf")),
        ("netoptim", "adam", "adam"),
    ],
)
def test_typed_value(name, text, expected):
    value = typed_value(KNOWN_FLAGS[name], text)
    assert value == expected and type(value) is type(expected)


# What FlagValue::ParseFrom of gflags 2.2 gives, tried with its code; None: "illegal value".
GFLAGS_NUMBERS = [
    ("beamsize", "2147483647", 2147483647),
    ("beamsize", "2147483648", None),
    ("beamsize", "-2147483648", -2147483648),
    ("beamsize", "3000000000", None),
    ("beamsize", "0x10", 16),
    ("beamsize", "0X1F", 31),
    ("beamsize", "0xffffffff", None),
    ("beamsize", "010", 10),
    ("beamsize", "0x", None),
    ("beamsize", "-0x10", None),
    ("beamsize", " 0x10", None),
    ("beamsize", " 5", 5),
    ("beamsize", "\t5", 5),
    ("beamsize", "5 ", None),
    ("beamsize", "+5", 5),
    ("beamsize", "1e3", None),
    ("beamsize", "1_000", None),
    ("beamsize", "5.0", None),
    ("beamsize", "\u0665", None),
    ("iter", "3000000000", 3000000000),
    ("iter", "9223372036854775807", 2**63 - 1),
    ("iter", "9223372036854775808", None),
    ("iter", "0x7fffffffffffffff", 2**63 - 1),
    ("iter", "9" * 5000, None),
    ("fl_amp_max_scale_factor", "18446744073709551615", 2**64 - 1),
    ("fl_amp_max_scale_factor", "18446744073709551616", None),
    ("fl_amp_max_scale_factor", "-1", None),
    ("fl_amp_max_scale_factor", " -1", None),
    ("lr", "1e3", 1000.0),
    ("lr", "0x10", 16.0),
    ("lr", "0x1.8p-1", 0.75),
    ("lr", "-0x.8", -0.5),
    ("lr", " +5.", 5.0),
    ("lr", ".5", 0.5),
    ("lr", "5 ", None),
    ("lr", ".", None),
    ("lr", "1e", None),
    ("lr", "1e309", None),
    ("lr", "1e-400", None),
    ("lr", "0e-400", 0.0),
    ("lr", "0x1p1024", None),
    ("lr", "-Infinity", float("-inf")),
    ("lr", "infin", None),
    ("lr", "1,5", None),
    ("lr", "1_0.0", None),
]


@pytest.mark.parametrize(("name", "text", "expected"), GFLAGS_NUMBERS)
def test_numbers_as_gflags_reads_them(name, text, expected):
    if expected is None:
        with pytest.raises(FlagError, match=r"not a (whole )?number"):
            typed_value(KNOWN_FLAGS[name], text)
    else:
        value = typed_value(KNOWN_FLAGS[name], text)
        assert value == expected and type(value) is type(expected)


def test_ranges_within_the_type():
    with pytest.raises(FlagError, match="'3000000000': not a whole number of 32 bits"):
        check_flag(Flag(name="beamsize", value="randint(10, 3000000000)"))
    check_flag(Flag(name="iter", value="randint(10, 3000000000)"))
    with pytest.raises(FlagError, match="not a whole number from 0 on"):
        check_flag(Flag(name="fl_amp_max_scale_factor", value="randint(-1, 5)"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("nosuchflag", "3", "unknown flag --nosuchflag; --allow_unknown_flags lets it through"),
        ("lmwieght", "3", "unknown flag --lmwieght; did you mean 'lmweight'?"),
        ("my_optoin", "3", "unknown flag --my_optoin; did you mean 'my_option'?"),
        ("beamscore", "3", "unknown flag --beamscore; it is --beamthreshold since"),
        ("iter", "abc", "--iter='abc': not a whole number"),
        ("iter", "20 ", "--iter='20 ': not a whole number; remove the blanks"),
        ("iter", "1.5", "not a whole number"),
        ("iter", "", "not a whole number"),
        ("lr", "0,1", "--lr='0,1': not a number"),
        ("lr", "nan", "not a number"),
        ("show", "maybe", "--show='maybe': not true or false"),
        ("beamsize", "uniform(1, 5)", "takes whole numbers; write randint(...)"),
        ("beamsize", "loguniform(1, 5)", "write lograndint(...)"),
        ("beamsize", "quniform(1, 5, 2)", "write qrandint(...)"),
        ("beamsize", "choice(10, 1.5)", "--beamsize='1.5': not a whole number"),
        ("show", "randint(0, 1)", "write choice(true, false)"),
        ("netoptim", "uniform(0, 1)", "takes text; write choice"),
        ("lr", "unifrom(0, 1)", "did you mean 'uniform'?"),
    ],
)
def test_wrong_flag(name, value, message):
    flag = Flag(name=name, value=value, path="a.cfg", line=3)
    with pytest.raises(FlagError, match=re.escape(message)) as caught:
        check_flag(flag, extra_known=["my_option"])
    assert str(caught.value).startswith("a.cfg:3: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", "loguniform(1e-4, 1)"),
        ("lr", "randint(1, 3)"),
        ("unkscore", "choice(-inf, -10)"),
        ("beamsize", "randint(10, 500)"),
        ("show", "choice(true, false)"),
        ("netoptim", "choice(sgd, adam)"),
        ("lm", "/lm/3-gram(1).bin"),
        ("my_option", "anything"),
    ],
)
def test_right_flag(name, value):
    check_flag(Flag(name=name, value=value), extra_known=["my_option"])


def test_flag_of_the_other_generation():
    mfcc = Flag(name="mfcc", value="true")
    check_flag(mfcc)
    check_flag(mfcc, generation="wav2letter")
    check_flag(mfcc, generation="flashlight", extra_known=["mfcc"])
    with pytest.raises(FlagError, match="no release of flashlight can compute it"):
        check_flag(mfcc, generation="flashlight")
    with pytest.raises(FlagError, match="only flashlight has it, this is wav2letter"):
        check_flag(Flag(name="sfx_config", value=""), generation="wav2letter")


def test_every_renamed_flag_is_gone_from_flashlight():
    assert not [
        name
        for name in RENAMED
        if name in KNOWN_FLAGS and "flashlight" in KNOWN_FLAGS[name].generations
    ]
