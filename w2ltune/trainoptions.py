"""The options of trainings, single and swept, their help and their first check."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from w2ltune.cluster.resources import check_whole_nodes
from w2ltune.cluster.site import read_site
from w2ltune.cluster.slurmoptions import GPUS, SlurmOptions
from w2ltune.commandline import option
from w2ltune.errors import UsageError

TRAIN_USAGE = """
usage: python -m w2ltune.train --config=<..>/project/name.cfg [--binary=fl_asr_train]
           [--extra="--lr=0.1"] [--ngpu=8]
       python -m w2ltune.train --mode=continue --model_path=RUN_DIRECTORY [--extra=...]
       python -m w2ltune.train --mode=fork --config=... --model_path=CHECKPOINT.bin

Trains one model in ROOT/project/name, or ROOT/project/name_lr0.1 with --extra="--lr=0.1".
Whatever kills it, the same command goes on from the newest good checkpoint. Without --binary the
small trainer of w2ltune itself runs. With RAY_ADDRESS set it runs on that Ray cluster, else it
starts one on this machine. Flags of the binary may also stand on the command line.
"""

SWEEP_USAGE = """
usage: python -m w2ltune.sweep --task=train --config=<..>/project/name.cfg
           --extra="--lr=loguniform(1e-4,1)" [--binary=fl_asr_train] [--n=40] [--ngpu=8]

Searches the flags of a training. Any flag of the config or of --extra may have a distribution:
    --lr=loguniform(1e-4,1)     uniform(low,high)    quniform(low,high,step)
    --batchsize=randint(4,32)   lograndint(low,high) --netoptim=choice(sgd,adam)
Each trial is a training that goes on from its newest good checkpoint, whatever killed it; the same
command again continues the sweep. Without --binary the small trainer of w2ltune itself runs.
"""


@dataclass(frozen=True, kw_only=True)
class JobOptions(SlurmOptions):
    """What single trainings and sweeps of trainings share."""

    config: Path | None = option("flagsfile of the training, project/name.cfg", None, value="FILE")
    binary: Path | None = option(
        "fl_asr_train, or Train of wav2letter v0.2; without it w2ltune's own small trainer", None,
        value="FILE",
    )  # fmt: skip
    generation: str = option(
        "of the binary; by its name when not given", "", choices=("", "flashlight", "wav2letter")
    )
    extra: str = option(
        "further flags of the training, which win; they name the run directory", "", value="FLAGS"
    )
    root: Path = option("folder of run directories", Path("checkpoints"), value="DIR")
    project: str = option("folder in root; the config's own folder's name by default", "")
    ngpu: int | None = option(
        "GPUs of a training, in all; 0 for none. By default 1 with --binary where there are GPUs",
        None, also=GPUS, least=0,
    )  # fmt: skip
    metric: str = option(
        "what is minimised: TAG-WER, TAG-TER or TAG-loss of a valid set; by default the WER of the "
        "first one", "",
    )  # fmt: skip
    stall_minutes: float | None = option(
        "a training without a new line in its log for so long is started again; 0 for never. By "
        "default five times its longest silence so far, at least 10 minutes", None, least=0,
    )  # fmt: skip
    keep: int = option(
        "newest snapshots that are kept of a training, beside the best of each valid set",
        2,
        least=1,
    )
    disk_budget_gib: float | None = option(
        "most disk for the folder with all models, snapshots and logs: no snapshot is taken beyond",
        None,
    )
    local: bool = option("run here, on one GPU at most, to spot obvious errors", False)
    cores: int | None = option("cores of a local Ray cluster; all that may be used", None, least=1)
    node_wait_minutes: float = option(
        "stop (exit code 75) when no training fits the cluster for this long", 5.0, least=0
    )
    allow_unknown_flags: bool = option("let unknown flags through", False)


@dataclass(frozen=True, kw_only=True)
class TrainOptions(JobOptions):
    """The options of a single training."""

    mode: str = option(
        "begin, go on with a run directory, or begin from a checkpoint's network", "train",
        choices=("train", "continue", "fork"),
    )  # fmt: skip
    model_path: Path | None = option(
        "run directory to continue, or checkpoint to fork", None, value="PATH"
    )


@dataclass(frozen=True, kw_only=True)
class TrainSweepOptions(JobOptions):
    """The options of a sweep of trainings."""

    task: str = option("train", "train", choices=("train",))
    logdir: Path | None = option(
        "folder of sweeps, with --prefix; by default the sweep lies in ROOT/project", None,
        value="DIR",
    )  # fmt: skip
    prefix: str = option("name of this sweep", "", value="NAME")
    n: int = option("trials in all; may grow when a sweep is continued", 40, least=1)
    sampler: str = option(
        "how the next trial is chosen", "tpe",
        choices=("tpe", "random", "qmc", "cmaes", "grid", "gp"),
    )  # fmt: skip
    pruner: str = option(
        "stops trainings that fall behind after the same number of epochs", "asha",
        choices=("asha", "median", "hyperband", "none"),
    )  # fmt: skip
    min_epochs: int = option("no training is stopped before so many epochs", 3, least=1)
    space: Path | None = option(
        "Python file with space(trial) in Optuna's define-by-run style", None, value="FILE"
    )
    seed: int | None = option(
        "seed of the sampler, drawn and recorded when not given (the training's own --seed goes "
        "into --extra)", None, least=0,
    )  # fmt: skip
    rescore_top: int = option(
        "so many of the best trainings are decoded again, for error counts and an interval; by the "
        "validation list of --metric", 0, least=0,
    )  # fmt: skip
    test_binary: Path | None = option(
        "fl_asr_test, or Test, for --rescore_top; by default the one beside --binary", None,
        value="FILE",
    )  # fmt: skip


def gpus_per_node(options: JobOptions) -> int:
    """Return the GPUs of a node: as given, else as the site file says."""
    return options.gpus_per_node or read_site().gpus_per_node


def check_job_options(options: JobOptions) -> None:
    """Refuse values that cannot be meant."""
    if isinstance(options, TrainSweepOptions) and options.test_binary and not options.rescore_top:
        raise UsageError(f"--test_binary={options.test_binary}: needs --rescore_top=K")
    for name in ("disk_budget_gib", "hours", "mem_per_gpu"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"--{name}={value:g}: must be above 0, and finite")
    check_whole_nodes(options.ngpu or 0, gpus_per_node(options))
