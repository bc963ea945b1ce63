"""The layers of tests, and what several tests need: the captures, a small decoding task."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
VOICE_COMMANDS = REPOSITORY / "experiments" / "voice_commands"
sys.path[:0] = [str(Path(__file__).parent), str(VOICE_COMMANDS)]  # killing.py, ngram.py
VOICE_FLAGS = {
    "tokens": str(VOICE_COMMANDS / "tokens.txt"),
    "lexicon": str(VOICE_COMMANDS / "lexicon.txt"),
    "lm": str(VOICE_COMMANDS / "lm.arpa"),
    "smearing": "max",
    "beamsizetoken": "20",
}
"""A decoder's flags for the project's own list, without beam and weights."""

# What the shell left behind must not decide: `nohup pytest &` ignores signals, for every child
# too, and a login on a cluster sets variables that Ray, SLURM and the doubles read.
for _number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(_number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
os.umask(0o022)
sys.dont_write_bytecode = False  # else each worker and each child compiles everything anew
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
_OWN = ("RAY_", "SLURM_", "SBATCH_", "W2LTUNE_", "DOUBLE_", "GLOG_", "OMPI_", "CUDA_VISIBLE")
for _name in [name for name in os.environ if name.startswith(_OWN)]:
    if _name != "W2LTUNE_REQUIRE_SLURM":
        del os.environ[_name]
os.environ["W2LTUNE_DASHBOARD"] = "0"  # but where it is looked at


def pytest_xdist_auto_num_workers() -> int:
    """Return what ``-n auto`` means: two workers a core, twelve at most, and 3 GB for each.

    Most of the time of a test that starts Ray or SLURM is waiting.
    """
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(2 * len(os.sched_getaffinity(0)), 12, memory_bytes // 3_000_000_000))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # xdist reads the groups in its own
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None]:
    """Give each test its layer, and begin with what takes longest.

    A test without ``main`` or ``slow`` is ``quick``. Quick tests stay together by file; of the
    others each goes to whichever worker is free, for most of their time is waiting.
    """
    for item in items:
        layer = item.get_closest_marker("slow") or item.get_closest_marker("main")
        if layer is None:
            item.add_marker(pytest.mark.quick)
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    if getattr(config.option, "loadgroup", False):
        for item in items:
            _name_group(item)
    yield  # tests are deselected
    seconds: Counter[str] = Counter()
    for item in items:
        seconds[_group(item)] += _seconds(item)
    items.sort(key=lambda item: -seconds[_group(item)])


def _group(item: pytest.Item) -> str:
    """Return the tests with which one stays on a worker; its own name if there are none."""
    group = item.get_closest_marker("xdist_group")
    return item.nodeid if group is None else str(group.args[0])


def _name_group(item: pytest.Item) -> None:
    """Add a test's group to its id: xdist 3.8 does it in a way that pytest 9.2 takes no note of."""
    if item.get_closest_marker("xdist_group") and hasattr(item, "_id"):
        item._id = type(item._id).parse(f"{item.nodeid}@{_group(item)}")


def _seconds(item: pytest.Item) -> int:
    """Return about how long a test takes: what its mark says, on an idle machine."""
    layers = [mark for name in ("slow", "main") for mark in item.iter_markers(name)]
    told = [mark.kwargs["seconds"] for mark in layers if "seconds" in mark.kwargs]
    return int(told[0] if told else 10 if layers else 0)


@pytest.fixture(scope="session")
def captures() -> Path:
    """The captured runs of the real binaries; they lie beside the checkout, not in it."""
    folder = REPOSITORY.parent / "shared" / "captures"
    if not folder.is_dir():
        pytest.skip("the captured runs of the real binaries are not beside this checkout")
    return folder


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., list[str]]:
    """Make a small decoding task in ``tmp_path`` and return its command line.

    Keyword arguments replace flags; None leaves one out. The inputs are copies that a test may
    damage: ``data/`` with dev.lst (first 40 utterances), dev.npz, tokens, lexicon and LM.
    """
    data = tmp_path / "data"
    data.mkdir()
    rows = (VOICE_COMMANDS / "dev.lst").read_text(encoding="utf-8").splitlines(keepends=True)
    (data / "dev.lst").write_text("".join(rows[:40]), encoding="utf-8")
    for name in ("emissions/dev.npz", "tokens.txt", "lexicon.txt", "lm.arpa"):
        shutil.copy(VOICE_COMMANDS / name, data)

    def arguments(**changes: object) -> list[str]:
        flags: dict[str, object] = {
            "emission_dir": data,
            "datadir": data,
            "test": "dev.lst",
            "tokens": data / "tokens.txt",
            "lexicon": data / "lexicon.txt",
            "lm": data / "lm.arpa",
            "smearing": "max",
            "beamsize": 50,
            "beamsizetoken": 20,
            "lmweight": "uniform(0, 5)",
            "wordscore": "uniform(-8, 7)",
            "logdir": tmp_path / "sweeps",
            "prefix": "small",
            "n": 6,
            "seed": 1,
            "sampler": "tpe",
            "probe": "false",
            "concurrent_trials": 1,  # a second process of trials costs 2 seconds of processor time
        }
        flags |= changes
        return [f"--{name}={value}" for name, value in flags.items() if value is not None]

    return arguments
