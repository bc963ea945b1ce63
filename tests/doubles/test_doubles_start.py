"""How the doubles start: flags, inputs, and what ends them before the first update."""

import json
import re

import pytest
from fldouble.flags import Flags
from fldouble.testing import config, log, run, stored_flags

# What ends a start: argument, return code, what is said on stderr, number of the captured run.
REFUSED = [
    ("--flagsfile=/nonexistent.cfg", 1, "^/nonexistent.cfg: No such file or directory$", "t03"),
    ("--train=nolist.lst", -6, r"what\(\):  Unable to open file -/.*/nolist.lst$", "t04"),
    ("--nosuchflag=3", 1, "^ERROR: unknown command line flag 'nosuchflag'$", "t05"),
    ("--iter=abc", 1, "^ERROR: illegal value 'abc' specified for int64 flag 'iter'$", "t07"),
    ("--rundir=no/such", -6, r"what\(\):  Unable to create directory - .*no/such", "t08"),
    ("--rundir=train.cfg", -6, r"what\(\):  Unable to create directory - ", "t09"),
    ("--rundir=", -6, r"^F.*Train.cpp:175\] 'runpath' specified by --rundir, --runname can", "t11"),
    ("--tokens=/nonexistent", -6, 'filepath specified with  --tokens: "/nonexistent"$', "t12"),
    ("--lexicon=/nonexistent", -6, "Failed to open file for reading: /nonexistent$", "t13"),
    ("--arch=/nonexistent.arch", -6, "Failed to open file for reading: /nonexistent.arch", "t14"),
    ("--arch=bad.arch", -6, r"what\(\):  Failed parsing - XX 1 2 3$", "t15"),
    ("--valid=", -11, r"^\*\*\* SIGSEGV \(@0x\w+\) received by PID", "t16"),
    ("--train=lost.lst", -6, "could not open file for read /no/audio.wav$", "t17"),
    (
        "--train=short.lst",
        -6,
        r"has invalid columns in line \(expected 3 columns at least\)",
        "t18",
    ),
    ("--flagsfile=value.cfg", 1, "^ERROR: illegal value 'abc' specified for int64 flag", "f1"),
    ("--flagsfile=blank.cfg", 1, "^ERROR: illegal value '20 ' specified for int64 flag", "f2"),
    ("--flagsfile=cr.cfg", -6, r"^F.*Train.cpp:175\] 'runpath' specified by --rundir", "f4"),
    ("--iter", 1, "^ERROR: flag '--iter' is missing its argument", None),
    ("--noiter", 1, r"^ERROR: boolean value \(noiter\) specified for int64 command line", None),
    ("--itersave=maybe", 1, "^ERROR: illegal value 'maybe' specified for bool flag", None),
    ("--lr=1_0", 1, "^ERROR: illegal value '1_0' specified for double flag 'lr'", None),
    ("--beamsize=3000000000", 1, "^ERROR: illegal value '3000000000' specified for int32", None),
    ("--criterion=xyz", -6, r"^F.*Train.cpp:436\] unimplemented criterion$", None),
    ("--criterion=seq2seq", -6, r"^F.*Train.cpp:436\] unimplemented criterion$", None),
    ("--criterion=transformer", -6, r"^F.*Train.cpp:436\] unimplemented criterion$", None),
    ("--lexicon=", -6, r"what\(\):  Unknown entry in dictionary: 'one'$", None),
    ("--lexicon=blank.txt", -6, r"what\(\):  \[loadWords\] Invalid line: $", None),
    ("--lexicon=bare.txt", -6, r"what\(\):  \[loadWords\] Invalid line: two$", None),
    ("--train=unknown.lst", -11, r"^\*\*\* SIGSEGV", None),
    ("--tokens=hash.txt", -6, r"what\(\):  Duplicate entry in dictionary '#'$", None),
    ("--tokens=twice.txt", -6, r"what\(\):  Duplicate entry name in dictionary 'e'$", None),
    ("--surround=_", -6, r"what\(\):  Unknown entry in dictionary: '_'$", None),
    ("--onorm=tgt", -6, r"what\(\):  invalid onorm option$", None),
    ("--features_type=mfcc", -6, "Unsupported feature type for audio preprocessing 'mfcc'", None),
    ("--linseg=5", -6, r"^F.*Train.cpp:\d+\] linseg may only be used with ASG criterion", None),
    ("--fl_amp_max_scale_factor=-1", 1, "illegal value '-1' specified for uint64 flag", None),
    ("--lm=/no/lm.bin", -6, "util::ErrnoException", None),
]


@pytest.mark.parametrize(
    ("argument", "code", "text", "capture"), REFUSED, ids=[row[0] for row in REFUSED]
)
def test_refused(data, base, argument, code, text, capture):
    (data / "bad.arch").write_text("XX 1 2 3\n")
    (data / "blank.txt").write_text("one\to n e |\n\ntwo\tt w o |\n")
    (data / "bare.txt").write_text("one\to n e |\ntwo\n")
    (data / "hash.txt").write_text("|\ne\nn\no\nt\nw\n#\n")
    (data / "twice.txt").write_text("|\ne\nn\no\nt\nw\ne\n")
    (data / "unknown.lst").write_text(f"zz {data}/train.wav 1000 one <unk>\n")
    (data / "lost.lst").write_text("zz /no/audio.wav 1000 one two\n")
    (data / "short.lst").write_text("onlyid path\n")
    (data / "value.cfg").write_text("--iter=abc\n")
    (data / "blank.cfg").write_text("--iter=20 \n")
    (data / "cr.cfg").write_bytes(b"# all of this is one line\n--rundir=run\n--iter=20\r\n")
    others = ["--logtostderr=1"] if argument.startswith("--flagsfile") else base
    done = run("train", *others, argument, cwd=data)
    assert done.returncode == code
    assert re.search(text, done.stderr, re.MULTILINE), done.stderr
    assert not (data / "run" / "001_model_last.bin").exists()


def test_refused_as_captured(captures):
    for _, code, text, number in REFUSED:
        if number is not None:
            (path,) = (captures / "err").glob(f"{number}_*.stderr")
            assert re.search(text, path.read_text(), re.MULTILINE), path
            assert int(path.with_suffix(".rc").read_text()) == (code if code >= 0 else 128 - code)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("beamsize", "0x10", 16),
        ("beamsize", " 0x10", None),
        ("beamsize", "010", 10),
        ("beamsize", " +5", 5),
        ("beamsize", "5 ", None),
        ("beamsize", "\u0665", None),
        ("lr", "0x1p-1", 0.5),
        ("lr", "1e309", None),
        ("lr", "1e-400", None),
        ("lr", "0e-400", 0.0),
        ("lr", "-inf", float("-inf")),
        ("fl_amp_max_scale_factor", "-1", None),
    ],
)
def test_numbers_as_gflags_reads_them(name, text, value):
    flags = Flags("fl_asr_train", "flashlight")
    if value is None:
        with pytest.raises(SystemExit) as end:
            flags.parse([f"--{name}={text}"])
        assert end.value.code == 1
    else:
        flags.parse([f"--{name}={text}"])
        assert flags[name] == value


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], -6, "basic_string: construction from null is not valid"),
        (["foo"], -6, r"Train.cpp:171\] Usage: \n .*fl_asr_train train \[flags\]\n or .*contin"),
        (["--help"], -6, r"Usage: \n .*fl_asr_train train"),
        (["continue"], -11, r"\*\*\* SIGSEGV"),
        (["fork"], -11, r"\*\*\* SIGSEGV"),
        (["fork", "/no/model.bin"], -6, r"what\(\):  failed to open file for reading: /no/model"),
        (["continue", "/no/dir"], -6, 'loading "/no/dir/000_model_last.bin": failed to open file'),
        (["train", "--help"], 1, "^$"),
        (["train", "--version"], 0, "^$"),
    ],
)
def test_command_line(arguments, code, text):
    done = run(*arguments)
    assert done.returncode == code
    assert re.search(text, done.stderr), done.stderr
    is_retried = "/no/" in done.stderr
    assert done.stderr.count("Error while loading") == 6 * is_retried
    if code == -6:
        assert ("*** Check failure stack trace" in done.stderr) != ("*** Aborted at" in done.stderr)
    if code >= 0:
        assert done.stdout.startswith("fl_asr_train")


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (
            ["--iter", "3", "-seed=3", "--batchsize=0x4", "--itersave", "--lr=.02", "--surround="],
            {"iter": "3", "seed": "3", "batchsize": "4", "itersave": "true", "lr": "0.02",
             "surround": ""},
        ),
        (
            ["--itersave", "--noitersave", "--lr=0.2", "--unkscore=-inf", "--", "--iter=3"],
            {"itersave": "false", "lr": "0.20000000000000001", "unkscore": "-inf", "iter": "6"},
        ),
        (["--itersave=T"], {"itersave": "true"}),
        (["--itersave", "false"], {"itersave": "true"}),
    ],
)  # fmt: skip
def test_values_on_the_command_line(train, data, arguments, values):
    train(*arguments)
    assert stored_flags(data / "run").items() >= values.items()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("--seed=3\n", "3"),
        ("-seed=3\n", "3"),
        ("  --seed=3\n", "3"),
        ("--nosuchflag=1\n--seed=3\n", "3"),
        ("--seed 3\n", "0"),
        ("seed=3\n", "0"),
        ("something\n--seed=3\n", "0"),
        ("something\nfl_asr_train\n--seed=3\n", "3"),
        ("#--seed=3\n", "0"),
        ("--seed=3\r\n", "3"),
        ("--itersave\n--seed=3", "3"),
        ("# swallowed\n--seed=3\n# up to here\r\n", "0"),
    ],
)
def test_values_in_a_flagsfile(data, base, text, value):
    (data / "more.cfg").write_bytes(text.encode())
    done = run("train", *base, f"--flagsfile={data}/more.cfg")
    assert done.returncode == 0, done.stderr
    flags = stored_flags(data / "run")
    assert flags["seed"] == value
    assert flags["itersave"] == ("true" if "--itersave" in text else "false")


def test_the_table_holds_the_flags_of_the_binary(train, data, base, captures):
    train()
    content = json.loads((captures / "train" / "001_config").read_text())
    captured = {entry["key"]: entry["value"] for entry in content["config"]}
    own = config(data / "run")
    assert list(own) == list(captured)
    defaults = dict(line[2:].split("=", 1) for line in captured["gflags"].splitlines())
    flags = stored_flags(data / "run")
    assert list(flags) == list(defaults)
    given = [*base, *(captures / "data" / "train.cfg").read_text().splitlines(), "--flagsfile"]
    for name in flags.keys() - {line[2:].partition("=")[0] for line in given}:
        assert flags[name] == defaults[name], name


def test_order_of_flags_on_continue(train, data):
    folder, file = data / "run", data / "train.cfg"
    train("--lr=0.02")

    def lr_of(index, *flags):
        done = run("continue", folder, f"--iter={3 * index + 3}", *flags)
        assert done.returncode == 0, done.stderr
        return float(log(folder, index)[0]["lr"])

    assert lr_of(2) == 0.01  # the file, which is read again, wins over what is stored
    assert lr_of(3, "--lr=0.02") == 0.02
    assert lr_of(4, "--flagsfile=") == 0.02
    assert lr_of(5, f"--flagsfile={file}") == 0.01
    file.write_text(file.read_text().replace("--lr=0.01", "--lr=0.03"))
    assert lr_of(6) == 0.03
    file.unlink()
    done = run("continue", folder, "--iter=30")
    assert done.returncode == 1
    assert done.stderr.endswith(f"{file}: No such file or directory\n")
    assert lr_of(7, "--flagsfile=") == 0.03


def test_absolute_lists_are_put_below_datadir_too(data):
    done = run("train", f"--flagsfile={data}/train.cfg", f"--train={data}/train.lst")
    assert f"Unable to open file -{data}//" in done.stderr.replace(f"{data}/{data}", f"{data}/")
