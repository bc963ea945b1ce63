import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from waiting import PATIENCE_SECONDS

from w2ltune import __version__
from w2ltune.collect import CollectOptions
from w2ltune.commandline import option, parse
from w2ltune.errors import FlagError, InputError, UsageError
from w2ltune.sweep import SweepOptions

HOSTILE = ["a b", "a'b", 'a"b', "a;rm -rf b", "$(a)`b`", "é→日本", "-a", "a=b", "*", "a\\b", " a "]


@dataclass(frozen=True, kw_only=True)
class Options:
    logdir: Path = option("folder of sweeps", value="DIR")
    n: int = option("trials in all", 40)
    every_seconds: float = option("pause", 2.0)
    sampler: str = option("how the next is chosen", "tpe", choices=("tpe", "random", "grid"))
    watch: bool = option("show it again", False)
    prune: bool = option("stop bad ones", True)
    seed: int | None = option("seed; drawn when not given", None)
    space: Path | None = option("Python file", None, value="FILE")
    note: str = option("anything", "")


def options(*arguments, logdir="--logdir=sweeps"):
    return parse([logdir, *arguments], Options, usage="usage: test")


def flags(*arguments):
    return {name: flag.value for name, flag in options(*arguments)[1].items()}


def test_defaults():
    found, rest = options()
    assert found == Options(logdir=Path("sweeps"))
    assert rest == {}


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--n=3"], "n", 3),
        (["--n", "3"], "n", 3),
        (["-n", "3"], "n", 3),
        (["--n=3", "--n=4"], "n", 4),
        (["--every_seconds=0.5"], "every_seconds", 0.5),
        (["--every-seconds=1"], "every_seconds", 1.0),
        (["--every-seconds", "1e-1"], "every_seconds", 0.1),
        (["--sampler=grid"], "sampler", "grid"),
        (["--watch"], "watch", True),
        (["-watch"], "watch", True),
        (["--watch=true"], "watch", True),
        (["--watch=Yes"], "watch", True),
        (["--watch=0"], "watch", False),
        (["--watch", "--nowatch"], "watch", False),
        (["--noprune"], "prune", False),
        (["--prune=false"], "prune", False),
        (["--seed=7"], "seed", 7),
        (["--seed=7", "--seed="], "seed", None),
        (["--space=a b.py"], "space", Path("a b.py")),
        (["--space="], "space", None),
    ],
)
def test_values(arguments, name, value):
    found = getattr(options(*arguments)[0], name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_values_arrive_as_they_are(text):
    assert options(f"--note={text}")[0].note == text
    assert flags(f"--lm={text}") == {"lm": text}
    assert options(logdir=f"--logdir={text}")[0].logdir == Path(text)


def test_a_flagsfile_holds_options_and_flags_and_the_command_line_wins(tmp_path):
    path = tmp_path / "my decode.cfg"
    path.write_text(
        "# a sweep\n--n=12\n--every-seconds=9\n--watch\n--lmweight=uniform(0, 5)\n--beamsize=50\n"
    )
    found, rest = options(f"--flagsfile={path}", "--n=13", "--nowatch", "--beamsize=60")
    assert (found.n, found.every_seconds, found.watch) == (13, 9.0, False)
    assert {name: flag.value for name, flag in rest.items()} == {
        "lmweight": "uniform(0, 5)",
        "beamsize": "60",
    }
    assert rest["lmweight"].where == f"{path}:5"
    assert rest["beamsize"].where == "the command line"


def test_a_required_option_may_stand_in_the_flagsfile(tmp_path):
    path = tmp_path / "decode.cfg"
    path.write_text("--logdir=here\n")
    assert parse([f"--flagsfile={path}"], Options, usage="")[0].logdir == Path("here")


def test_boolean_flags_of_the_binary_are_no_options():
    assert flags("--logadd", "--nouselexicon", "--lm-weight=2") == {
        "logadd": "true",
        "uselexicon": "false",
        "lm_weight": "2",
    }


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--n=3.5", "the command line: --n='3.5': must be a whole number"),
        ("--n=", "--n='': must be a whole number"),
        ("--n=1_000", "--n='1_000': must be a whole number"),
        ("--n=٣", "must be a whole number"),
        ("--seed=x", "--seed='x': must be a whole number"),
        ("--every-seconds=fast", "--every_seconds='fast': must be a number"),
        ("--every-seconds=nan", "--every_seconds='nan': must be a number"),
        ("--watch=maybe", "--watch='maybe': must be true or false"),
        ("--logdir=", "--logdir='': must be a path"),
        (
            "--sampler=gird",
            "--sampler=gird: must be one of tpe, random, grid; did you mean 'grid'?",
        ),
        ("--sampler=", "--sampler=: must be one of tpe, random, grid"),
    ],
)
def test_wrong_values(argument, message):
    with pytest.raises(FlagError) as caught:
        options(argument)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_wrong_value_in_a_flagsfile_is_found_there(tmp_path):
    path = tmp_path / "decode.cfg"
    path.write_text("# trials\n\n--n=many\n")
    with pytest.raises(FlagError) as caught:
        options(f"--flagsfile={path}")
    assert str(caught.value) == f"{path}:3: --n='many': must be a whole number"


def test_missing_options_are_named():
    with pytest.raises(UsageError, match=r"missing --logdir \(see --help\)"):
        parse([], Options, usage="")
    with pytest.raises(UsageError, match="missing --logdir, --prefix"):
        parse([], CollectOptions, usage="")


def test_a_missing_option_that_was_misspelled(tmp_path):
    path = tmp_path / "decode.cfg"
    path.write_text("# a sweep\n--lm=x\n--log-dirs=here\n")
    with pytest.raises(UsageError, match=r"g:3: unknown option --log.dirs; did you mean 'logdir'"):
        parse([f"--flagsfile={path}"], Options, usage="")
    with pytest.raises(UsageError, match=r"^the command line: unknown option --perfix; did you"):
        parse(["--logdir=l", "--perfix=x"], CollectOptions, usage="")
    for other in ("--datadir=x", "--lmweight=3", "--anything=4"):  # the binary's, or far off
        with pytest.raises(UsageError, match=r"^missing --logdir \(see --help\)"):
            parse([other], Options, usage="")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--n"], UsageError, "--n on the command line has no value"),
        (["--watch", "true"], UsageError, "not a flag: 'true'"),
        (["sweeps"], UsageError, "not a flag: 'sweeps'"),
        (["--flagsfile=none.cfg"], InputError, "no such file 'none.cfg'"),
    ],
)
def test_what_is_no_flag(arguments, error, message):
    with pytest.raises(error, match=message):
        options(*arguments)


@pytest.mark.parametrize("flag", ["--help", "-h", "-help"])
@pytest.mark.parametrize("options_class", [Options, SweepOptions, CollectOptions])
def test_help_says_everything(options_class, flag, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["--n=wrong", flag], options_class, usage="\n    usage: this\n")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: this\n")
    for name in options_class.__dataclass_fields__:
        assert f"\n  --{name}" in text
    assert "--logdir=DIR" in text
    assert "(required)" in text
    assert max(map(len, text.splitlines())) <= 100


def test_help_names_choices_and_defaults(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"], Options, usage="")
    text = capsys.readouterr().out
    assert "--sampler=tpe|random|grid" in text
    assert "how the next is chosen [tpe]" in text
    assert "trials in all [40]" in text


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["--version"], Options, usage="")
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"w2ltune {__version__}\n"


def command(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "w2ltune", *arguments],
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["swep"], "unknown command 'swep'; did you mean 'sweep'? (known: train, sweep, collect,"),
        (["sweep"], "missing --logdir, --prefix (see --help)"),
        (["sweep", "--logdir=l", "--prefix=p", "--lmwieght=3"], "did you mean 'lmweight'?"),
        (["sweep", "--logdir=l", "--prefix=p", "--lmweight=unifrom(0, 5)"], "'uniform'?"),
        (["sweep", "--logdir=l", "--prefix=p/../q"], "--prefix='p/../q': must be a plain folder"),
        (["sweep", "--logdir=l", f"--prefix={'é' * 101}"], "éé…': longer than 200 bytes"),
        (["sweep", "--logdir=l", "--prefix=p", "--n=0"], "--n=0: must be 1 or more"),
        (["sweep", "--logdir=l", "--prefix=p", "--nodes=0"], "--nodes=0: must be 1 or more"),
        (["train", "--config=c", "--cpus_per_task=-3"], "--cpus_per_task=-3: must be 1 or more"),
        (["collect", "--logdir=l", "--prefix=p"], "no sweep in 'l/p'"),
        (["collect", "--logdir=l", "--prefix=p", "--wacth=1"], "did you mean 'watch'?"),
    ],
)
def test_wrong_command_lines_end_with_one_line_and_write_nothing(tmp_path, arguments, message):
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("w2ltune: error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_umbrella_command(tmp_path):
    done = command("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "usage: w2ltune COMMAND" in done.stdout
    assert command(cwd=tmp_path).stdout == done.stdout
    assert command("--version", cwd=tmp_path).stdout == f"w2ltune {__version__}\n"
