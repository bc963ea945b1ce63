"""Makes the doubles' modules importable, and what their tests need."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # behind tests/, which has a conftest of its own

from fldouble.testing import end_all, run


@pytest.fixture(autouse=True)
def _none_left_behind():
    yield
    end_all()


@pytest.fixture
def data(tmp_path):
    """A training task of 12 utterances, 3 updates an epoch; train.cfg holds its flags."""
    for name in ("train", "dev"):
        (tmp_path / f"{name}.wav").touch()
        rows = (f"{name}-{i} {tmp_path}/{name}.wav {1400 + 10 * i} one two" for i in range(12))
        (tmp_path / f"{name}.lst").write_text("".join(f"{row}\n" for row in rows))
    (tmp_path / "empty.lst").touch()
    (tmp_path / "tokens.txt").write_text("|\ne\nn\no\nt\nw\n")
    (tmp_path / "lexicon.txt").write_text("one\to n e |\ntwo\tt w o |\n")
    (tmp_path / "net.arch").write_text("# comment\nV -1 1 NFEAT 0\nL NFEAT NLABEL\n")
    flags = {
        "datadir": tmp_path,
        "train": "train.lst",
        "valid": "dev:dev.lst,abc:dev.lst",
        "tokens": tmp_path / "tokens.txt",
        "lexicon": tmp_path / "lexicon.txt",
        "arch": tmp_path / "net.arch",
        "criterion": "ctc",
        "batchsize": 4,
        "lr": 0.01,
        "iter": 6,
        "rundir": tmp_path / "run",
        "logtostderr": "true",
    }
    text = "".join(f"--{name}={value}\n" for name, value in flags.items())
    (tmp_path / "train.cfg").write_text(text)
    return tmp_path


@pytest.fixture
def base(data):
    """The flags of train.cfg as a command line."""
    return (data / "train.cfg").read_text().splitlines()


@pytest.fixture
def train(data):
    """Run a training with the flags of train.cfg and more; it must end well."""

    def go(*more, **options):
        done = run("train", f"--flagsfile={data / 'train.cfg'}", *more, **options)
        assert done.returncode == 0, done.stderr
        return done

    return go
