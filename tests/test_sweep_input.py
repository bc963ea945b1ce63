"""Bad input gives one clear line, exit code 2, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from binarytask import arguments, make_decoding
from conftest import REPOSITORY

from w2ltune import sweep
from w2ltune.errors import run_command
from w2ltune.formats.emissionbin import read_emission_bin
from w2ltune.formats.emissions import open_emissions, write_emission_bin, write_emissions

Task = Callable[..., list[str]]


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a sweep that must be refused and return its one line."""
    folder = Path(next(a for a in command if a.startswith("--logdir=")).partition("=")[2])
    before = sorted(folder.rglob("*"))
    code = run_command(sweep.main, command)
    output = capsys.readouterr()
    assert code == 2, output
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()
    assert sorted(folder.rglob("*")) == before
    line = output.err.strip()
    assert "\n" not in line
    assert line.startswith("w2ltune: error: ")
    return line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": None}, "no --test"),
        ({"test": "nothing.lst"}, "nothing.lst"),
        ({"emission_dir": None}, "no --emission_dir"),
        ({"emission_dir": "/nowhere"}, "/nowhere"),
        ({"lm": "/nowhere/lm.bin"}, "language model (--lm): no such file '/nowhere/lm.bin'"),
        ({"tokens": "/nowhere"}, "token list (--tokens): no such file"),
        ({"lexicon": "/nowhere"}, "lexicon (--lexicon): no such file"),
        ({"lmwieght": 2}, "unknown flag --lmwieght; did you mean 'lmweight'?"),
        ({"samplr": "tpe"}, "unknown flag --samplr; did you mean 'sampler'?"),
        ({"sampler": "tpee"}, "did you mean 'tpe'"),
        ({"lmweight": "unifrom(0, 5)"}, "did you mean 'uniform'"),
        ({"lmweight": "uniform(5, 0)"}, "lmweight"),
        ({"lmweight": "uniform(0)"}, "lmweight"),
        ({"lmweight": "loguniform(0, 5)"}, "lmweight"),
        ({"lmweight": "much"}, "--lmweight='much': not a number"),
        ({"beamsize": "uniform(1, 5)"}, "write randint"),
        ({"eosscore": "uniform(-8, -2)"}, "--eosscore is searched but changes nothing"),
        ({"lm": None}, "--lmweight is searched but changes nothing: there is no --lm"),
        (
            {"uselexicon": "false", "decodertype": "tkn", "lm": None, "lmweight": None},
            "--wordscore is searched but changes nothing: a lexicon-free decoder",
        ),
        ({"wordseparator": "_", "silscore": "uniform(-1, 1)"}, "'_' is not a token"),
        ({"wordseparator": "_", "binary": "/bin/true"}, "--wordseparator=_: is no token of "),
        (
            {"wordseparator": "_", "binary": "/bin/true", "decoder": "binary"},
            "the program ends of it",
        ),
        ({"surround": "_", "binary": "/bin/true"}, "--surround=_: is no token of "),
        ({"lr": "loguniform(1e-4, 1)"}, "--lr is searched but the decoder does not look at it"),
        ({"lmweight": 1, "wordscore": 0}, "nothing to search"),
        ({"n": 0}, "--n=0: must be 1 or more"),
        ({"n": "many"}, "--n='many': must be a whole number"),
        ({"prefix": "a/b"}, "must be a plain folder name"),
        ({"sampler": "gp"}, "pip install 'w2ltune[gp]'"),
        ({"sampler": "cmaes", "smearing": "choice(none, max)"}, "CMA-ES knows numbers only"),
        ({"criterion": "seq2seq"}, "knows ctc, asg"),
        ({"binary": "/bin/tru"}, "--binary=/bin/tru: no such program; did you mean 'true'?"),
        ({"binary": "/bin"}, "--binary=/bin is a folder; name the program itself"),
        ({"decoder": "binary"}, "--decoder=binary: which? give it"),
        ({"decoder": "fast"}, "--decoder=fast: must be one of auto, process, binary"),
        ({"emission_dir": None}, "no --emission_dir: give the emissions"),
        ({"emission_dir": None, "am": "/none.bin"}, "acoustic model (--am): no such file"),
        ({"criterion": "s2srnn"}, "--criterion=s2srnn: the embedded decoder knows ctc, asg"),
        ({"criterion": "s2srnn", "decoder": "process"}, "--decoder=process: --criterion=s2srnn"),
        ({"space": "a.py", "perturb": "b.py"}, "--perturb=b.py and --space=a.py: give one"),
        ({"normalize": "/nowhere.py"}, "--normalize"),
        ({"space": "/nowhere.py"}, "--space"),
        ({"cluster": "("}, "--cluster"),
        (
            {"sampler": "nbest", "lmweight": 2, "wordscore": 1, "beamsize": "randint(5, 9)"},
            "--sampler=nbest: none of lmweight, wordscore, unkscore, silscore has a range",
        ),
        ({"sampler": "nbest", "logadd": "true"}, "with --logadd the score is not linear"),
        ({"sampler": "tpe", "beamsize": "auto"}, "--beamsize=auto needs --sampler=nbest"),
        ({"lmweight": "auto"}, "--lmweight='auto': not a number"),
        ({"heldout": "dev.lst"}, "--heldout=dev.lst is in --test too: what is held out may not be"),
        ({"test": "dev.lst,./dev.lst"}, "'./dev.lst' stands twice"),
        ({"heldout": "nothing.lst"}, "nothing.lst"),
        ({"tune_for": "both"}, "--tune_for=both: must be one of each, joint"),
        ({"max_rtf": 0}, "--max_rtf=0: must be above 0"),
        ({"nbest": 0}, "--nbest=0: must be 1 or more"),
        ({"baseline": "/nowhere.cfg"}, "flagsfile of present weights (--baseline): no such file"),
        ({"warm_start": "/nowhere"}, "--warm_start: no trial there has n-best lists"),
    ],
)
def test_one_line(
    task: Task, capsys: pytest.CaptureFixture[str], changes: dict[str, object], message: str
) -> None:
    assert message in refused(task(**changes), capsys)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("dev.lst", b"", "dev.lst: the list has no utterances"),
        ("dev.lst", b"dev-0001 x.wav\n", "dev.lst:1: "),
        ("dev.lst", b"a x.wav 10 go\na x.wav 10 go\n", "dev.lst:2: "),
        ("dev.lst", b"nobody x.wav 10 go home\n", "no emission: nobody"),
        ("dev.lst", b"dev-0001 x.wav 10 \xff\n", "UTF-8"),
        ("dev.lst", b"dev-0001 x.wav 10\n", "no utterance has a reference"),
        ("tokens.txt", b"", "the token list is empty"),
        ("tokens.txt", b"|\na\nb\n", "is not in"),
        ("lexicon.txt", b"yes y e 5 |\n", "lexicon.txt:1: token '5'"),
        ("lexicon.txt", b"", "the lexicon is empty"),
        ("lm.arpa", b"", "the language model is empty"),
        ("lm.arpa", b"\\data\\\nngram 1=9\n", "cut short"),
        ("dev.npz", b"", "dev.npz"),
        ("dev.npz", b"PK\x03\x04 nonsense", "dev.npz"),
    ],
)
def test_damaged_files(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    file: str, content: bytes, message: str,
) -> None:  # fmt: skip
    (tmp_path / "data" / file).write_bytes(content)
    assert message in refused(task(), capsys)


def test_an_empty_list_is_told_before_it_has_no_emissions(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "empty.lst").write_text("\n \n")
    for changes in ({"test": "empty.lst"}, {"heldout": "empty.lst"}):
        assert "empty.lst: the list has no utterances" in refused(task(**changes), capsys)


def test_tokens_and_lexicon_that_are_swapped(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens, lexicon = (tmp_path / "data" / f"{name}.txt" for name in ("tokens", "lexicon"))
    line = refused(task(tokens=lexicon, lexicon=tokens), capsys)
    assert f"{lexicon}:" in line
    assert "340 of its 340 lines are a word and a spelling, as in a lexicon (--lexicon)" in line


def test_truncated_language_model(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "data" / "lm.arpa"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "cut short" in refused(task(), capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: np.where(np.arange(e.size).reshape(e.shape) == 5, np.nan, e), "NaN"),
        (lambda e: e[:, :-1], "token"),
        (lambda e: e[:, ::-1], "do not spell the references"),
    ],
    ids=["NaN", "one token less", "tokens in another order"],
)
def test_damaged_emissions(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    change: Callable[[np.ndarray], np.ndarray], message: str,
) -> None:  # fmt: skip
    path = tmp_path / "data" / "dev.npz"
    emissions = open_emissions(path)
    items = [(name, change(emissions.emission(name))) for name in emissions.ids[:40]]
    write_emissions(path, items)
    assert message in refused(task(), capsys)


def test_wrong_case_is_absurd(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "data" / "dev.lst"
    rows = [row.split() for row in path.read_text().splitlines()]
    path.write_text("".join(" ".join([*r[:3], *map(str.upper, r[3:])]) + "\n" for r in rows))
    assert "they differ in the case of the letters" in refused(task(), capsys)


def test_reference_with_alternatives(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "data" / "dev.lst"
    path.write_text("dev-0001 x.wav 10 the { colour / color } red\n")
    assert "sclite" in refused(task(), capsys)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dump": "true"}, "which separates the fields of a beam dump; rename it, or leave"),
        ({"decoder": "binary", "binary": "/bin/true"}, "which the decoder program does not bear"),
    ],
)
def test_an_id_with_a_bar(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    changes: dict[str, object], message: str,
) -> None:  # fmt: skip
    (tmp_path / "data" / "dev.lst").write_text("a|1 x.wav 10 go\n")
    assert f"the id 'a|1' has a '|', {message}" in refused(task(**changes), capsys)


def test_the_binary_needs_audio_paths_without_blanks(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audio = tmp_path / "my a.wav"
    audio.touch()
    row = {"id": "dev-0001", "audio": str(audio), "text": "go"}
    (tmp_path / "data" / "dev.lst").write_text(json.dumps(row))
    line = refused(task(decoder="binary", binary="/bin/true"), capsys)
    assert f"utterance 'dev-0001': the audio path {str(audio)!r} has a blank" in line


def test_what_the_binary_decodes_is_looked_at_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A blank in the wrong place and missing files are told at once, whatever decodes."""
    decoding = make_decoding(tmp_path)
    folder = tmp_path / "data" / "emissions" / "dev.lst"
    for path in folder.iterdir():
        emission = read_emission_bin(path)
        write_emission_bin(folder, path.stem, np.ascontiguousarray(np.roll(emission, 1, axis=1)))
    said = refused(arguments(decoding, decoder="binary"), capsys)
    assert "these emissions do not spell the references" in said
    for name in ("dev-0001", "dev-0002"):
        (folder / f"{name}.bin").unlink()
    for more in ({}, {"lmtype": "convlm", "lm_vocab": "tokens.txt"}):
        said = refused(arguments(decoding, decoder="binary", **more), capsys)
        assert "2 of the list's 40 utterances have no emission: dev-0001, dev-0002" in said
    (tmp_path / "data" / "some.wav").unlink()
    said = refused(arguments(decoding, decoder="binary"), capsys)
    assert "the decoder program opens it even where it reads emissions" in said
    assert not (tmp_path / "sweeps").exists()


def test_bad_flagsfile_points_at_its_line(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "my flags.cfg"
    path.write_text("# weights\n--lmweight=uniform(0, x)\n")
    line = refused([f"--flagsfile={path}", *task(lmweight=None)], capsys)
    assert "my flags.cfg:2: " in line


def test_folder_of_another_sweep(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sweeps" / "small"
    folder.mkdir(parents=True)
    request = {
        "task": "decode", "flags": {"beamsize": "500"}, "space": {}, "scoring": {}, "inputs": {},
        "seed": 1, "versions": {}, "commit": "", "format": 1,
    }  # fmt: skip
    (folder / "sweep.json").write_text(json.dumps(request))
    (folder / "trials" / "0000").mkdir(parents=True)
    (folder / "trials" / "0000" / "result.json").write_text('{"state": "COMPLETE"}')
    code = run_command(sweep.main, task())
    error = capsys.readouterr().err
    assert code == 2
    assert "holds another sweep" in error
    assert "--beamsize was 500, is 50" in error
    assert "--wordscore was not given, is uniform(-8, 7)" in error
    assert sorted(path.name for path in folder.iterdir()) == ["sweep.json", "trials"]


def test_folder_of_a_running_sweep(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sweeps" / "small"
    folder.mkdir(parents=True)
    holder = subprocess.Popen(
        [
            sys.executable, "-c",
            "import sys, pathlib; from w2ltune.runs.lock import *\n"
            "lock = StudyLock(pathlib.Path(sys.argv[1]), this_process()); lock.acquire()\n"
            "print('mine', flush=True); sys.stdin.read()",
            str(folder / "lock"),
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mine\n"
        line = refused(task(), capsys)
    finally:
        holder.communicate(b"")
    assert f"running already (process {holder.pid}" in line


def test_paths_with_hostile_names(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "a b; 'c\" $(d) ü.lst"
    (tmp_path / "data" / "dev.lst").rename(tmp_path / "data" / name)
    line = refused(task(test=name, lm="/no where/l'm;.bin"), capsys)
    assert "a b; 'c" in line or "l'm;.bin" in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("--lmweight=1\n--lmwieght=2\n", "old.cfg:2: unknown flag --lmwieght; did you mean"),
        (
            "--lmweight=uniform(0, 3)\n",
            "old.cfg:1: --lmweight=uniform(0, 3): a baseline has",
        ),
        ("--beamsize=many\n", "--beamsize='many': not a whole number"),
        ("--lm=/nowhere/old.bin\n", "language model (--lm): no such file '/nowhere/old.bin'"),
        ("--criterion=s2s\n", "--criterion=s2s: the decoders know ctc, asg, s2srnn"),
        ("--criterion=s2srnn\n", "--criterion=s2srnn: the embedded decoder knows ctc, asg"),
    ],
)
def test_a_baseline_that_does_not_fit(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    path = tmp_path / "old.cfg"
    path.write_text(content)
    assert message in refused(task(baseline=path), capsys)


def test_lists_without_a_common_token_set(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    (data / "other.lst").write_text("o-1 o.wav 10 lights on\n")
    write_emissions(data / "other.npz", {"o-1": np.zeros((50, 9), np.float32)}.items())
    line = refused(task(test="dev.lst,other.lst"), capsys)
    assert "other.npz" in line and "9" in line and "28" in line


def test_n_best_lists_of_another_lm(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from w2ltune.formats.beamdump import Hypothesis
    from w2ltune.formats.nbest import write_nbest
    from w2ltune.runs.trialdir import TrialDirectory, TrialResult
    from w2ltune.scoring.nbest import collect

    entry = Hypothesis(words=("go",), score=0.0, am_score=0.0, lm_score=0.0)
    directory = TrialDirectory(tmp_path / "earlier/trials", 0)
    directory.write_flags({"lmweight": "1"})
    write_nbest(directory.nbest, collect([[entry]], [["go"]], str.split), key="another")
    directory.write_result(TrialResult(number=0, attempt=1, state="COMPLETE", value=0.5))
    line = refused(task(sampler="nbest", warm_start=tmp_path / "earlier"), capsys)
    assert "nbest.npz" in line and "cannot serve here" in line


def test_held_out_utterances_may_not_be_tuned_on(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    rows = (data / "dev.lst").read_text().splitlines(keepends=True)
    (data / "other.lst").write_text("".join(rows[-3:]))
    (data / "other.npz").write_bytes((data / "dev.npz").read_bytes())
    line = refused(task(heldout="other.lst"), capsys)
    assert "other.lst" in line and "what is held out may not be tuned on" in line


def test_max_rtf_needs_durations(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "data/dev.lst"
    rows = [row.split(" ") for row in path.read_text().splitlines()]
    path.write_text("".join(" ".join([*row[:2], "0", *row[3:]]) + "\n" for row in rows))
    assert "do not tell how long" in refused(task(max_rtf=1), capsys)
