"""Bad input of trainings gives one clear line, exit code 2, and leaves nothing behind."""

from __future__ import annotations

import os
import shlex
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import REPOSITORY, VOICE_COMMANDS
from trainingtask import BINARY, make_training, write_config

from w2ltune import sweep, train
from w2ltune.errors import run_command
from w2ltune.formats.checkpoint import write_header
from w2ltune.runs.provenance import SweepRequest, read_request, write_request
from w2ltune.runs.rundir import claim
from w2ltune.runs.trialdir import TrialDirectory, TrialResult

HEAD = {"epoch": "3", "updates": "60", "gflags": "--lr=0.02\n--iter=60"}
ONE_RANGE = "--lr=uniform(0.01, 0.1)"


@dataclass
class Task:
    """A training in a folder, and the command lines that a user may give for it."""

    folder: Path
    flags: dict[str, str]
    capsys: pytest.CaptureFixture[str]

    @property
    def root(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def rundir(self) -> Path:
        return self.root / "project" / "name"

    def configure(self, text: bytes = b"", **changes: str | None) -> Path:
        """Write the config again, with other flags, or with more lines behind them."""
        flags = {name: value for name, value in {**self.flags, **changes}.items()}
        config = write_config(self.folder, {k: v for k, v in flags.items() if v is not None})
        config.write_bytes(config.read_bytes() + text)
        return config

    def refused(self, *given: str, of_sweep: bool = False, lines: int = 1) -> str:
        """Give a command that must be refused and return what it says.

        DIR in an argument stands for the folder; ``--config=`` and ``--binary=`` with nothing
        behind them leave these out.
        """
        arguments = ["--task=train"] if of_sweep else []
        arguments += [f"--root={self.root}", f"--binary={BINARY}"]
        arguments += [f"--config={self.folder / 'project' / 'name.cfg'}"]
        arguments += [argument.replace("DIR", str(self.folder)) for argument in given]
        before = self._content()
        code = run_command(sweep.main if of_sweep else train.main, arguments)
        output = self.capsys.readouterr()
        assert code == 2, (given, output)
        assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()
        assert self._content() == before
        assert output.err.startswith("w2ltune: error: ")
        assert "Traceback" not in output.err
        assert len(output.err.splitlines()) == lines, output.err
        return output.err.replace(str(self.folder), "DIR")

    def _content(self) -> dict[Path, bytes]:
        return {p: p.read_bytes() if p.is_file() else b"" for p in self.folder.rglob("*")}


@pytest.fixture
def task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Task:
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")  # what is not refused fails at once, with 1
    monkeypatch.chdir(REPOSITORY)
    task = Task(tmp_path, make_training(tmp_path / "data", rows=8), capsys)
    task.configure()
    return task


def all_in(wanted: str | tuple[str, ...], line: str) -> bool:
    return all(part in line for part in ((wanted,) if isinstance(wanted, str) else wanted))


TRAINING = [
    ("--config=", "missing --config=<..>/project/name.cfg"),
    ("--config=/nowhere.cfg", "(--config): no such file '/nowhere.cfg'"),
    ("--config=DIR/project", "'DIR/project' is not a file"),
    ("--config=DIR/project/nmae.cfg", "did you mean 'name.cfg'?"),
    ("--flagsfile=/nowhere.cfg", "flagsfile (from the command line): no such file"),
    ("--extra=--flagsfile=/nowhere.cfg", "no such file '/nowhere.cfg'"),
    ("--momentun=0.8", "unknown flag --momentun; did you mean 'momentum'?"),
    ("--extra=--momentun=0.8", "unknown flag --momentun; did you mean 'momentum'?"),
    ("--extra=--nosuchflag=0.8", "--nosuchflag; --allow_unknown_flags lets it through"),
    ("--extra=--iter=abc", "--iter='abc': not a whole number"),
    ("--extra=--iter=1e5", "--iter='1e5': not a whole number"),
    ("--extra=--iter=99999999999999999999", "--iter='99999999999999999999'"),
    ("--lr=abc", "--lr='abc': not a number"),
    ("--lr=0.1 ", "--lr='0.1 ': not a number; remove the blanks"),
    ("--extra=--lr=0", "--lr=0: 0 must be above 0"),
    ("--extra=--lr=-1", "--lr=-1: -1 must be above 0"),
    ("--batchsize=0", "--batchsize=0"),
    ("--itersave=maybe", "--itersave='maybe': not true or false"),
    ("--noitersave=true", "write --itersave=true or --itersave=false"),
    ("--itersave false", "not a flag: 'false'"),
    ("--extra=--lr=0.1 0.2", "not a flag: '0.2'"),
    ("--extra=lr=0.1", "not a flag: 'lr=0.1'"),
    ("-lr", "write --lr=VALUE"),
    ("lr=0.1", "not a flag: 'lr=0.1'"),
    ("--criterion=ctcc", "the program knows no 'ctcc'; did you mean 'ctc'?"),
    ("--criterion=s2srnn --attention=multikvs", "--attention=multikvs: the program knows none"),
    ("--criterion=seq2seq", "it is s2srnn in flashlight"),
    ("--batching_strategy=dynamc", "did you mean 'dynamic'?"),
    ("--everstoredb=true", "the programs were published without it"),
    ("--pretrainWindow=3", "--pretrainWindow=3 with --criterion=ctc"),
    ("--lexicon=", "no --lexicon: give one (without it the program ends at its first utterance"),
    ("--netoptim=lamb", "the program knows no 'lamb'; take one of sgd, adam"),
    ('--extra=--lr="0.1', '--extra=--lr="0.1: No closing quotation'),
    ("--extra=--lr='0.1", "No closing quotation"),
    ("--train=", "no --train: give the training lists"),
    ("--train=nolist.lst", "list (--train): no such file 'DIR/data/nolist.lst'"),
    ("--train=DIR/data/train.lst", "write --datadir= with nothing after it"),
    ("--datadir=/nowhere", "no such file '/nowhere/train.lst'"),
    ("--valid=", "no --valid: give what the best model is chosen by"),
    ("--valid=dev:nolist.lst", "list (--valid): no such file 'DIR/data/nolist.lst'"),
    ("--valid=a:b:c", "'a:b:c' is not tag:file"),
    ("--valid=dev:dev.lst,dev:other.lst", "the tag 'dev' is given twice"),
    ("--valid=train:dev.lst", "no tag may be 'train'"),
    ("--tokens=", "no --tokens: give the token list"),
    ("--tokens=/nowhere/t.txt", "(--tokens): no such file '/nowhere/t.txt' (nor the folder"),
    ("--lexicon=/nowhere", "lexicon (--lexicon): no such file '/nowhere'"),
    ("--arch=", "no --arch: give the network"),
    ("--arch=DIR/data/net.arhc", "did you mean 'net.arch'?"),
    ("--arch=DIR/data", "'DIR/data' is not a file"),
    ("--lm=/nowhere.bin", "language model (--lm): no such file '/nowhere.bin'"),
    ("--archdir=DIR/data", "flashlight takes the full path in --arch"),
    ("--root=", "--root='': must be a path"),
    ("--mode=frok", "did you mean 'fork'?"),
    ("--binary=/nowhere/fl_asr_train", "--binary=/nowhere/fl_asr_train: no such program"),
    (f"--binary={BINARY.parent}/fl_asr_trian", "did you mean 'fl_asr_train'?"),
    (f"--binary={BINARY.parent}", ("is a folder; name the program itself", "fl_asr_train")),
    ("--binary=DIR/data/net.arch", "may not be executed: chmod +x"),
    ("--generation=v2", "must be one of flashlight, wav2letter"),
    ("--ngpus=8", ("--ngpus", "did you mean 'ngpu'?")),
    ("--extra=--ngpu=8", "--ngpu is an option of w2ltune; give it on the command line"),
    ("--ngpu=12", "--ngpu=12: with 8 GPUs on a node it must be at most 8 or a multiple"),
    ("--ngpu=3 --gpus_per_node=2", "as 2 or 4 (--gpus_per_node)"),
    ("--ngpu=-1", "--ngpu=-1: must be 0 or more"),
    ("--ngpu=many", "--ngpu='many': must be a whole number"),
    ("--gpus_per_node=0", "--gpus_per_node=0: must be 1 or more"),
    ("--cpus_per_task=0", "--cpus_per_task=0: must be 1 or more"),
    ("--cores=0", "--cores=0: must be 1 or more"),
    ("--keep=0", "--keep=0: must be 1 or more"),
    ("--disk_budget_gib=0", "--disk_budget_gib=0: must be above 0"),
    ("--disk_budget_gib=inf", "--disk_budget_gib=inf"),
    ("--stall_minutes=-1", "--stall_minutes=-1: must be 0 or more"),
    ("--node_wait_minutes=-5", "--node_wait_minutes=-5: must be 0 or more"),
    ("--hours=-1", "--hours=-1: must be above 0"),
    ("--project=a/b", "--project=a/b: not a plain folder name"),
    ("--project=..", "--project=..: not a plain folder name"),
    ("--metric=dve-WER", ("--metric=dve-WER: must be one of dev-WER", "mean 'dev-WER'?")),
    ("--metric=WER", "must be one of dev-WER, dev-TER, dev-loss, other-WER"),
    ("--metric=dev-LER", "did you mean 'dev-WER'?"),  # a name of wav2letter's log only
    ("--metric=dev-WER-decoded", "must be one of dev-WER"),  # there is no --lm
    ("--lr=uniform(0.1, 1)", ("--lr=uniform(0.1, 1) is a distribution", "w2ltune.sweep")),
    ("--extra=--lr=uniform(0.1, 1)", "python -m w2ltune.sweep --task=train"),
    ("--n=4", "--n is an option of python -m w2ltune.sweep --task=train only"),
    ("--pruner=asha", "--pruner is an option of python -m w2ltune.sweep --task=train only"),
]


def test_a_training(task: Task) -> None:
    for given, message in TRAINING:
        parted = given.startswith(("--itersave ", "--ngpu=", "--criterion=s2srnn "))
        assert all_in(message, task.refused(*(given.split() if parted else [given])))


SWEEP = [
    ("", 'nothing to search: give a flag a distribution, as in --extra="--lr=loguniform'),
    ("--lr=unifrom(0.1, 1)", "no distribution 'unifrom'; did you mean 'uniform'?"),
    ("--lr=loguniform(0, 1)", "low 0 has no logarithm"),
    ("--lr=uniform(1, 0)", "low 1 is not below high 0"),
    ("--lr=uniform(0, 1)", "--lr=uniform(0, 1): 0.0 must be above 0"),
    ("--lr=uniform(0.1", "the closing bracket is missing"),
    ("--extra=--lr=uniform(0.1, 1", "the closing bracket is missing"),
    ("--lr=choice(0.1, abc)", "--lr='abc': not a number"),
    ("--batchsize=uniform(1, 4)", "write randint(...)"),
    ("--netoptim=uniform(1, 4)", "write choice(x, y, ...)"),
    ("--netoptim=choice(sgd, adma)", "'adma'; did you mean 'adam'?"),
    ("--itersave=randint(0, 1)", "write choice(true, false)"),
    ("--train=choice(train.lst, no.lst)", "no such file 'DIR/data/no.lst'"),
    ("--valid=choice(dev:dev.lst, other:other.lst)", "--valid cannot be searched"),
    ("--momentun=uniform(0, 1)", "did you mean 'momentum'?"),
    (f"{ONE_RANGE};--pruner=ahsa", "did you mean 'asha'?"),
    (f"{ONE_RANGE};--sampler=tep", "did you mean 'tpe'?"),
    (f"{ONE_RANGE};--sampler=gp", "pip install 'w2ltune[gp]'"),
    ("--netoptim=choice(sgd, adam);--sampler=cmaes", "CMA-ES knows numbers only"),
    (f"{ONE_RANGE};--mode=continue", "--mode is an option of python -m w2ltune.train only"),
    (f"{ONE_RANGE};--model_path=DIR", "--model_path is an option of python -m w2ltune.train"),
    (f"{ONE_RANGE};--n=0", "--n=0: must be 1 or more"),
    (f"{ONE_RANGE};--seed=-1", "--seed=-1: must be 0 or more"),
    (f"{ONE_RANGE};--min_epochs=0", "--min_epochs=0: must be 1 or more"),
    (f"{ONE_RANGE};--ngpu=12", "--ngpu=12: with 8 GPUs on a node"),
    (f"{ONE_RANGE};--prefix=a", "--prefix=a: give --logdir too"),
    (f"{ONE_RANGE};--logdir=DIR/sweeps", "give --prefix too"),
    (f"{ONE_RANGE};--logdir=DIR/sweeps;--prefix=a/b", "must be a plain folder name"),
    (f"{ONE_RANGE};--metric=dev-WRE", "did you mean 'dev-WER'?"),
    (f"{ONE_RANGE};--rescore_top=2;--test_binary=none", "--test_binary=none: no such program"),
    (f"{ONE_RANGE};--task=trian", "must be one of decode, train; did you mean 'train'?"),
    ("--space=/nowhere.py", "(--space): no such file '/nowhere.py'"),
]


def test_a_sweep(task: Task) -> None:
    for given, message in SWEEP:
        assert all_in(message, task.refused(*filter(None, given.split(";")), of_sweep=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "DIR/s.py: the search space has no function space(trial)"),
        ("1 / 0", "DIR/s.py: the search space fails: ZeroDivisionError"),
        ("def space(trial): return {'lrr': 1}", "s.py: unknown flag --lrr; did you mean 'lr'?"),
        ("def space(trial): return {'lr': 'high'}", "s.py: --lr='high': not a number"),
        ("def space(trial): return {'lr': 0}", "s.py: --lr=0: 0 must be above 0"),
    ],
)
def test_a_space_that_cannot_be(task: Task, text: str, message: str) -> None:
    (task.folder / "s.py").write_text(text)
    assert message in task.refused("--space=DIR/s.py", of_sweep=True)


CONFIG = [
    (b"--momentun=0.8\n", "name.cfg:12: unknown flag --momentun; did you mean 'momentum'?"),
    (b"--momentum=high\n", "name.cfg:12: --momentum='high': not a number"),
    (b"--momentum=0.8 \n", "name.cfg:12: '--momentum=0.8 ': it begins or ends with a blank"),
    (b"--momentum=0.8\r\n", "name.cfg:12: a Windows line end (CR)"),
    (b"momentum=0.8\n", "write --momentum=0.8, or # in front"),
    (b"--momentum 0.8\n", "name.cfg:12: '--momentum 0.8': a blank in the name"),
    (b"--momentum=0.8 # high\n", "a comment must stand on its own line"),
    (b"\n# \n--netoptim=\xff\n", "name.cfg:14: not UTF-8 text"),
    (b"--flagfile=/nowhere.cfg\n", "(from DIR/project/name.cfg:12): no such file '/nowhere"),
    (b"--flagfile=DIR/project/name.cfg\n", "flagsfiles name each other in a circle"),
    (b"--flagsfile=more.cfg\n", "name.cfg:12: --flagsfile=more.cfg: the programs do not read"),
    (b"--ngpu=8\n", "name.cfg:12: --ngpu is an option of w2ltune"),
    (b"--lr=0\n", "name.cfg:12: --lr=0: 0 must be above 0"),
    (b"--train=no.lst\n", "(--train of DIR/project/name.cfg:12): no such file"),
    (b"--criterion=ctcc\n", "name.cfg:12: --criterion=ctcc: the program knows no 'ctcc'"),
]


def test_a_line_of_the_config(task: Task) -> None:
    for lines, message in CONFIG:
        task.configure(lines.replace(b"DIR", os.fsencode(task.folder)))
        assert message in task.refused()
        assert message in task.refused(f"--extra={ONE_RANGE.replace('lr', 'gamma')}", of_sweep=True)


@pytest.mark.parametrize("name", ["train", "valid", "tokens", "lexicon", "arch"])
def test_what_is_left_out_of_the_config(task: Task, name: str) -> None:
    task.configure(**{name: None})
    assert f"no --{name}: give " in task.refused()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train.lst", b"", "list (--train of DIR/project/name.cfg:2): 'DIR/data/train.lst' is emp"),
        ("train.lst", b"\n\n", "train.lst: the list has no utterances"),
        ("train.lst", b"onlyid path\n", "train.lst:1: 'onlyid path': a row is 'id path duration"),
        ("train.lst", b"a /no/audio.wav 1 one\n", "train.lst:1: no audio file '/no/audio.wav'"),
        ("train.lst", b"a x 1 \xff\n", "train.lst:1: not UTF-8"),
        ("dev.lst", b"", "list (--valid of DIR/project/name.cfg:3): 'DIR/data/dev.lst' is empty"),
        ("other.lst", b"a x one\n", "other.lst:1: "),
        ("tokens.txt", b"", "token list (--tokens of DIR/project/name.cfg:4)"),
        ("lexicon.txt", b"", "lexicon (--lexicon of DIR/project/name.cfg:5)"),
        ("lexicon.txt", b"one\t5 n e |\n", "lexicon.txt:1: the spelling of 'one' needs"),
        ("net.arch", b"", "network (--arch of DIR/project/name.cfg:6)"),
    ],
)
def test_a_damaged_file(task: Task, file: str, content: bytes, message: str) -> None:
    (task.folder / "data" / file).write_bytes(content)
    assert message in task.refused()


def test_an_id_that_the_test_program_does_not_bear(task: Task) -> None:
    path = task.folder / "data/dev.lst"
    path.write_text(path.read_text().replace("dev-3 ", "dev/3 "))
    assert "the id 'dev/3' has a '/'" in task.refused(ONE_RANGE, "--rescore_top=2", of_sweep=True)


@pytest.mark.parametrize(
    "place", ["checkpoints", "checkpoints/project", "checkpoints/project/name"]
)
def test_a_file_where_the_run_directory_is_to_be(task: Task, place: str) -> None:
    (task.folder / place).parent.mkdir(parents=True, exist_ok=True)
    (task.folder / place).write_text("mine")
    assert f"DIR/{place} is a file; move it away" in task.refused()


def write_model(path: Path, *, of_bytes: int | None = None) -> None:
    """Write the head of a model, or its first bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_header(file, HEAD)
        file.write(bytes(100))
    if of_bytes is not None:
        path.write_bytes(path.read_bytes()[:of_bytes])


MODELS: list[tuple[str, str | tuple[str, ...]]] = [
    ("--mode=continue", "give the run directory by --model_path=DIR"),
    ("--mode=continue --model_path=DIR/emtpy", "did you mean 'empty'?"),
    ("--mode=continue --model_path=/nowhere", "no such run directory to continue"),
    ("--mode=continue --model_path=DIR/empty", "nothing to continue, no 001_model_last.bin"),
    ("--mode=continue --model_path=DIR/runs", "there is one in good"),
    ("--mode=continue --model_path=DIR/gap", ("no 001_model_last.bin", "002_model_last.bin")),
    ("--mode=continue --model_path=DIR/torn", "001_model_last.bin: cut short or damaged"),
    ("--mode=continue --model_path=DIR/sweep", "is a sweep, not a training"),
    ("--mode=continue --model_path=DIR/runs/good/001_model_last.bin", "takes its folder"),
    ("--mode=continue --model_path=DIR/data/dev.lst", "names a file"),
    ("--mode=fork", "give the checkpoint by --model_path=FILE.bin"),
    ("--mode=fork --model_path=DIR/runs/good/001_model_lats.bin", "mean '001_model_last.bin'?"),
    ("--mode=fork --model_path=DIR/runs/good", "give one of 001_model_last.bin"),
    ("--mode=fork --model_path=DIR/empty", "there is no .bin file in it"),
    ("--mode=fork --model_path=DIR/torn/001_model_last.bin", "cut short or damaged"),
    ("--mode=fork --model_path=DIR/torn/none.bin", "the model is empty"),
    (
        "--mode=fork --model_path=DIR/cut/001_model_last.bin",
        "cut short: 60 bytes and more are miss",
    ),
    ("--mode=continue --model_path=DIR/cut", "cut short: 60 bytes and more are missing"),
    ("--mode=fork --model_path=DIR/data/dev.lst", "is no model file of flashlight"),
    ("--model_path=DIR/torn/none.bin", "--mode=train begins from nothing"),
]


@pytest.mark.parametrize(
    "without", [[], ["--binary="], ["--config="]], ids=["", "binary", "config"]
)
def test_continue_and_fork(task: Task, without: list[str]) -> None:
    for name in ("empty", "gap"):
        (task.folder / name).mkdir()
    write_model(task.folder / "runs/good/001_model_last.bin")
    write_model(task.folder / "gap/002_model_last.bin")
    write_model(task.folder / "torn/001_model_last.bin", of_bytes=40)
    write_model(task.folder / "torn/none.bin", of_bytes=0)
    write_model(task.folder / "cut/001_model_last.bin")
    with (task.folder / "cut/001_model_last.bin").open("ab") as file:  # half of 30 numbers
        file.write(struct.pack("<4qiQ", 30, 1, 1, 1, 0, 120) + bytes(60))
    write_model(task.folder / "sweep/trials/0000/snapshots/60.bin")
    write_request(task.folder / "sweep/sweep.json", request({"lr": "uniform(0, 1)"}))
    if without == ["--binary="]:  # w2ltune's own trainer
        without = [*without, f"--config={VOICE_COMMANDS / 'train.cfg'}"]
    for given, message in MODELS:
        if without == ["--config="] and given.startswith("--mode=fork --model_path"):
            message = "missing --config"
        assert all_in(message, task.refused(*without, *given.split()))


def request(space: dict[str, str], **changes: str) -> SweepRequest:
    return SweepRequest(
        task="train", flags=changes, space=space, scoring={"metric": "dev-WER"}, inputs={}, seed=1
    )


def begun(task: Task) -> None:
    """Leave what a training of the config as it is leaves."""
    identity = {"binary": str(BINARY), "mode": "train"}
    task.rundir.mkdir(parents=True)
    claim(task.rundir, task.folder / "project" / "name.cfg")
    write_request(task.rundir / "sweep.json", request({}, **task.flags, **identity))
    write_model(task.rundir / "001_model_last.bin")


def test_models_that_are_not_of_w2ltune_are_not_overwritten(task: Task) -> None:
    write_model(task.rundir / "001_model_last.bin")
    write_model(task.folder / "start.bin")
    for given in ([], ["--mode=fork", "--model_path=DIR/start.bin"]):
        line = task.refused(*given)
        assert "holds a training already (001_model_last.bin)" in line
        assert "--mode=continue --model_path=DIR/checkpoints/project/name" in line


def test_another_config_of_the_same_name(task: Task) -> None:
    begun(task)
    (task.folder / "b").mkdir()
    for flags in (task.flags, {**task.flags, "lr": "0.5"}):
        other = write_config(task.folder / "b", flags)
        line = task.refused(f"--config={other}")
        assert "was made for DIR/project/name.cfg, not for DIR/b/project/name.cfg" in line
        assert "--project=NAME" in line


def test_the_same_folder_with_other_flags(task: Task) -> None:
    begun(task)
    task.configure(lr="0.5", momentum="0.8")
    said = task.refused(lines=3)
    assert "DIR/checkpoints/project/name/sweep.json: holds another training" in said
    assert "--lr was 0.02, is 0.5" in said
    assert "--momentum was not given, is 0.8" in said
    assert "--prefix" not in said  # which a single training does not have
    task.configure()
    assert "--metric was dev-WER, is other-WER" in task.refused("--metric=other-WER", lines=2)
    said = task.refused(
        f"--extra={ONE_RANGE}", "--logdir=DIR/checkpoints/project", "--prefix=name",
        of_sweep=True, lines=3,
    )  # fmt: skip
    assert "--lr was not given, is uniform(0.01, 0.1)" in said


def test_a_first_training_that_kept_nothing_gives_way(task: Task) -> None:
    begun(task)
    (task.rundir / "001_model_last.bin").unlink()
    directory = TrialDirectory(task.rundir / "trials", 0)
    directory.write_flags(task.flags)
    failed = TrialResult(number=0, attempt=2, state="FAIL", value=None, reason="a typo")
    directory.write_result(failed)
    config = task.configure(lr="0.5")
    command = [f"--root={task.root}", f"--binary={BINARY}", f"--config={config}"]
    assert run_command(train.main, command) == 1  # there is no Ray here
    said = task.capsys.readouterr().err
    assert said.count("it is begun anew (--lr was 0.02, is 0.5); what was left") == 1
    asked = read_request(task.rundir / "sweep.json")
    assert asked is not None
    assert asked.flags["lr"] == "0.5"
    assert (task.rundir / "failed-1/trials/0000/result.json").exists()
    assert run_command(train.main, command) == 1
    assert "anew" not in task.capsys.readouterr().err


def test_a_run_directory_that_is_being_trained_in(task: Task) -> None:
    begun(task)
    (task.rundir / "lock").mkdir()
    holder = subprocess.Popen(
        [
            sys.executable, "-c",
            "import sys, pathlib; from w2ltune.runs.lock import *\n"
            "lock = StudyLock(pathlib.Path(sys.argv[1]), this_process()); lock.acquire()\n"
            "print('mine', flush=True); sys.stdin.read()",
            str(task.rundir / "lock"),
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mine\n"
        line = task.refused()
    finally:
        holder.communicate(b"")
    assert f"running already (process {holder.pid}" in line


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--features_dir=/nowhere", "no such file '/nowhere/train.npz'"),
        ("--features_dir=", "no --features_dir: give the folder of features"),
        ("--criterion=asg", "--criterion=asg: the embedded training knows ctc only"),
        ("--netoptim=adamw", "--netoptim=adamw: unknown here; did you mean 'adam'?"),
        ("--hiden=64", "unknown flag --hiden; did you mean 'hidden'?"),
        ("--hidden=0", "--hidden=0: must be 1 or more"),
        ("--ngpu=8", "--ngpu=8: w2ltune's own trainer uses none; give --binary"),
        ("--metric=dev-WER-decoded", "--metric=dev-WER-decoded: must be one of dev-WER"),
    ],
)
def test_the_embedded_trainer(task: Task, given: str, message: str) -> None:
    config = VOICE_COMMANDS / "train.cfg"
    assert message in task.refused("--binary=", f"--config={config}", given)


def test_wav2letter_has_its_own_flags_and_metrics(task: Task) -> None:
    train = f"--binary={BINARY.parent / 'Train'}"
    assert "no such file 'x/" in task.refused(train, "--archdir=x")
    assert "must be one of dev-WER, dev-LER, dev-loss" in task.refused(
        train, "--target=ltr", "--metric=dev-TER"
    )
    assert "only flashlight has it" in task.refused(train, "--features_type=mfsc")


@pytest.mark.parametrize("name", ["a b; 'c\" $(d) ü", "two\nlines", "-x"])
def test_hostile_names(task: Task, name: str) -> None:
    folder = task.folder / name
    folder.mkdir()
    for given in ("--lexicon=", "--extra=--lexicon="):
        path = str(folder / "no.txt")
        quoted = shlex.quote(path) if given.startswith("--extra") else path
        assert repr(path).strip("'\"").replace(str(task.folder), "DIR") in task.refused(
            f"{given}{quoted}"
        )
    assert "did you mean" in task.refused(f"--model_path={folder}", "--mode=contineu")


def test_a_path_that_is_no_text(task: Task) -> None:
    path = os.fsdecode(os.fsencode(task.folder) + b"/project/\xff.cfg")
    Path(path).write_text("")
    assert "is not UTF-8 text; rename" in task.refused(f"--config={path}")


@pytest.mark.parametrize("name", ["flagsfile", "flagfile"])
def test_the_task_may_stand_in_either_file_of_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "sweep.cfg").write_text("--task=train\n")
    assert run_command(sweep.main, [f"--{name}={tmp_path / 'sweep.cfg'}"]) == 2
    assert "missing --config=" in capsys.readouterr().err
