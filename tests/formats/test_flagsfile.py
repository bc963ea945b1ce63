import re

import pytest

from w2ltune.errors import InputError, UsageError
from w2ltune.formats.flagsfile import (
    Flag,
    effective,
    format_flagsfile,
    parse_arguments,
    parse_flagsfile,
)

BOOLEAN = {"show", "noresample", "sqnorm", "logtostderr"}.__contains__

# The files, shortened, that the real binary was run with.
TRAIN = """\
# tiny CTC run
--train=train.lst
--valid=dev:dev.lst,tsta:a.lst
--wordseparator=|
--lr=0.002
--sqnorm=true
"""


def pairs(flags):
    return [(flag.name, flag.value) for flag in flags]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], []),
        (["--iter=20", "-lr=0.1"], [("iter", "20"), ("lr", "0.1")]),
        (["--iter", "20", "-lr", "0.1"], [("iter", "20"), ("lr", "0.1")]),
        (["--lm", "a=b"], [("lm", "a=b")]),
        (["--lm=a=b"], [("lm", "a=b")]),
        (["--lm="], [("lm", "")]),
        (["--lm", "", "--show"], [("lm", ""), ("show", "true")]),
        (
            ["--unkscore", "-inf", "--silscore", "-0.5"],
            [("unkscore", "-inf"), ("silscore", "-0.5")],
        ),
        (["--show", "--nosqnorm"], [("show", "true"), ("sqnorm", "false")]),
        (["--noresample"], [("noresample", "true")]),
        (["--nonoresample"], [("noresample", "false")]),
        (["--noresample=false"], [("noresample", "false")]),
        (["--show=false", "--"], [("show", "false")]),
        (["--lmweight=uniform(0, 5)"], [("lmweight", "uniform(0, 5)")]),
        (["--world-rank=1", "--world_size=2"], [("world_rank", "1"), ("world_size", "2")]),
    ],
)
def test_command_line(arguments, expected):
    flags = parse_arguments(arguments, boolean=BOOLEAN)
    assert pairs(flags) == expected
    assert {flag.where for flag in flags} <= {"the command line"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--show", "true"], "not a flag: 'true' on the command line"),
        (["a.lst", "--show", "b.lst"], "not a flag: 'a.lst', 'b.lst'"),
        (["--show", "--", "--lr=1"], "not a flag: '--lr=1'"),
        (["-"], "not a flag: '-'"),
        (["--lr"], "--lr on the command line has no value and is no known boolean flag"),
        (["--lr", "--show"], "write --lr=VALUE"),
        (["--iter 20"], "write --iter=20"),
        (["--iter =20"], "write --iter=20"),
        (["--=3"], "'' is no flag's name"),
        (["-5"], "'5' is no flag's name"),
        (["---lr=5"], "'-lr' is no flag's name"),
        (["--noshow=true"], "write --show=true or --show=false"),
    ],
)
def test_wrong_command_line(arguments, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        parse_arguments(arguments, boolean=BOOLEAN)


def test_command_line_wins_wherever_the_flagsfile_stands(folder):
    (folder / "train.cfg").write_text(TRAIN)
    flags = parse_arguments(["--lr=1", "--flagsfile=train.cfg", "--show"], boolean=BOOLEAN)
    assert pairs(flags) == [
        ("train", "train.lst"),
        ("valid", "dev:dev.lst,tsta:a.lst"),
        ("wordseparator", "|"),
        ("lr", "0.002"),
        ("sqnorm", "true"),
        ("lr", "1"),
        ("show", "true"),
    ]
    in_effect = effective(flags)
    assert in_effect["lr"].value == "1"
    assert in_effect["wordseparator"].where == "train.cfg:4"


def test_several_flagsfiles(folder):
    (folder / "a.cfg").write_text("--lr=1\n")
    (folder / "b.cfg").write_text("--lr=2\n")
    for arguments, expected in [
        (["--flagsfile=a.cfg,b.cfg"], ["1", "2"]),
        (["--flagfile=a.cfg", "--flagsfile", "b.cfg"], ["2", "1"]),
        (["--lr=3", "--flagfile=a.cfg,b.cfg"], ["3", "1", "2"]),
        (["--flagfile=a.cfg", "--lr=3", "--flagfile="], ["1", "3"]),
        (["--flagsfile="], []),
        (["--flagsfile=a.cfg", "--flagsfile="], []),
        (["--flagsfile=a.cfg", "--flagsfile=", "--flagsfile=b.cfg"], ["2"]),
    ]:
        flags = parse_arguments(arguments, boolean=BOOLEAN)
        assert [flag.value for flag in flags] == expected


def test_flagsfile_names_another_at_its_place(folder):
    (folder / "recipes").mkdir()
    (folder / "recipes/inner.cfg").write_text("--lr=1\n--iter=5\n")
    (folder / "outer.cfg").write_text("--lr=2\n--flagfile=recipes/inner.cfg\n--iter=6\n")
    flags = parse_flagsfile("outer.cfg", boolean=BOOLEAN)
    assert pairs(flags) == [("lr", "2"), ("lr", "1"), ("iter", "5"), ("iter", "6")]
    assert [flag.where for flag in flags] == [
        "outer.cfg:1",
        "recipes/inner.cfg:1",
        "recipes/inner.cfg:2",
        "outer.cfg:3",
    ]


def test_flagsfile_in_a_flagsfile_is_refused_as_the_programs_do_not_read_it(folder):
    (folder / "inner.cfg").write_text("--lr=1\n")
    (folder / "outer.cfg").write_text("--iter=5\n--flagsfile=inner.cfg\n")
    message = r"outer\.cfg:2: --flagsfile=inner\.cfg: .* do not read .* write --flagfile=inner\.cfg"
    with pytest.raises(InputError, match=message):
        parse_arguments(["--flagsfile=outer.cfg"], boolean=BOOLEAN)
    (folder / "outer.cfg").write_text("--iter=5\n--flagsfile=\n")
    assert pairs(parse_arguments(["--flagsfile=outer.cfg"], boolean=BOOLEAN)) == [("iter", "5")]


def test_circle_is_shown(folder):
    (folder / "a.cfg").write_text("--flagfile=b.cfg\n")
    (folder / "b.cfg").write_text("--flagfile=./a.cfg\n")
    with pytest.raises(InputError, match=r"circle: a\.cfg -> b\.cfg -> \./a\.cfg"):
        parse_flagsfile("a.cfg", boolean=BOOLEAN)


def test_same_file_twice_is_no_circle(folder):
    (folder / "a.cfg").write_text("--lr=1\n")
    flags = parse_arguments(["--flagsfile=a.cfg,a.cfg"], boolean=BOOLEAN)
    assert pairs(flags) == [("lr", "1"), ("lr", "1")]


def test_missing_flagsfile_names_the_current_directory(folder):
    with pytest.raises(InputError, match=re.escape(f"'none.cfg' (looked in {folder})")):
        parse_arguments(["--flagsfile=none.cfg"], boolean=BOOLEAN)
    (folder / "outer.cfg").write_text("\n--flagfile=none.cfg\n")
    with pytest.raises(InputError, match=r"\(from outer\.cfg:2\): no such file 'none\.cfg'"):
        parse_flagsfile("outer.cfg", boolean=BOOLEAN)
    with pytest.raises(InputError, match="is not a file"):
        parse_flagsfile(folder, boolean=BOOLEAN)


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ("-iter=20", ("iter", "20")),
        ("  \t--iter=20", ("iter", "20")),
        ("--show", ("show", "true")),
        ("--noshow", ("show", "false")),
        ("--lm=", ("lm", "")),
        ("--lm=/my models/lm#3.bin", ("lm", "/my models/lm#3.bin")),
        ("--surround=#", ("surround", "#")),
        ("--lr=loguniform(1e-4, 1)", ("lr", "loguniform(1e-4, 1)")),
        ("--lm=modèle.bin", ("lm", "modèle.bin")),
    ],
)
def test_flagsfile_line(tmp_path, last, expected):
    path = tmp_path / "train.cfg"
    path.write_text(f"{TRAIN}\n   \n  # note\n{last}", encoding="utf-8")
    flag = parse_flagsfile(path, boolean=BOOLEAN)[-1]
    assert flag == Flag(name=expected[0], value=expected[1], path=str(path), line=10)


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ("--iter=20 ", "ends with a blank"),  # the binary: illegal value '20 '
        ("--iter= 20", "begins or ends with a blank"),
        ("iter=20", "write --iter=20"),  # ignored by the binary
        ("--iter 20", "write --iter=20"),  # ignored by the binary
        ("--iter", "write --iter=VALUE"),
        ("--show ", "write --show"),
        ("--iter=20\r", "Windows line end"),  # all flags are lost
        ("--iter=20 # updates", "a comment must stand on its own line"),
        ("--", "is no flag's name"),
        ("[decoder]", "is no flag"),
    ],
)
def test_what_the_binary_would_ignore_is_an_error(tmp_path, last, message):
    path = tmp_path / "train.cfg"
    path.write_text(f"{TRAIN}{last}\n", newline="")
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        parse_flagsfile(path, boolean=BOOLEAN)
    assert str(caught.value).startswith(f"{path}:7: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"--lr=1\n--lm=mod\xe8le\n", "train.cfg:2: not UTF-8"),
        (b"\xef\xbb\xbf--lr=1\n", "train.cfg:1: a byte order mark"),
    ],
)
def test_encoding(tmp_path, content, message):
    path = tmp_path / "train.cfg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        parse_flagsfile(path, boolean=BOOLEAN)


def test_empty_flagsfile_has_no_flags(tmp_path):
    path = tmp_path / "empty.cfg"
    path.write_text("")
    assert parse_flagsfile(path, boolean=BOOLEAN) == []


def test_written_flagsfile_reads_back(tmp_path):
    flags = {"lr": "0.1", "valid": "dev:dev.lst", "lm": "", "show": "true", "wordseparator": "|"}
    path = tmp_path / "best.cfg"
    path.write_text(format_flagsfile(flags, comments=["WER 4.31 [4.02, 4.60]", "", "two\nlines"]))
    assert path.read_text().startswith("# WER 4.31 [4.02, 4.60]\n#\n# two\n# lines\n--lr=0.1\n")
    assert dict(pairs(parse_flagsfile(path, boolean=BOOLEAN))) == flags
    assert format_flagsfile({}) == ""


@pytest.mark.parametrize("value", ["a\nb", "a\r", " a", "a ", "a # b", "\udcff"])
def test_value_that_a_flagsfile_cannot_hold(value):
    with pytest.raises(InputError, match=r"--lm=.* cannot be written to a flagsfile"):
        format_flagsfile({"lm": value})
