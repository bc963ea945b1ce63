"""Everything that a training or a sweep of trainings is given, checked and put together."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from w2ltune.binaryrules import check_binary, generation_of
from w2ltune.cluster.slurmoptions import in_job, submits
from w2ltune.errors import UsageError, did_you_mean
from w2ltune.formats.distributions import Distribution
from w2ltune.formats.flagsfile import Flag, effective, parse_arguments
from w2ltune.formats.known_flags import Generation, is_boolean
from w2ltune.runs.provenance import (
    SweepRequest,
    fingerprints,
    git_commit,
    nothing_was_kept,
    read_request,
    require_same,
    versions,
)
from w2ltune.runs.rundir import refuse_another_config, require_checkpoint, require_model
from w2ltune.runs.runname import plain_name, run_directory
from w2ltune.runs.trialdir import trial_directories
from w2ltune.search.samplers import grid_points
from w2ltune.search.space import SearchSpace
from w2ltune.traincheck import check_training, valid_sets
from w2ltune.trainflags import base_flags, check_space, script_flags, split_extra, split_flags
from w2ltune.trainoptions import JobOptions, TrainOptions, TrainSweepOptions, gpus_per_node
from w2ltune.trials.trainjob import OUR_FLAGS, Mode, TrainJob

EMBEDDED = (sys.executable, "-m", "w2ltune.embedded.train")
_MODES: Mapping[str, Mode] = {mode: mode for mode in get_args(Mode)}
_SLURM_OPTIONS = ("hours", "mem_per_gpu", "comment", "gpu16", "gpu_type")


@dataclass(frozen=True, kw_only=True)
class TrainInput:
    """What is to be trained.

    Attributes:
        options: The command's options.
        folder: The study's folder; of a single training its run directory.
        space: Fixed and searched flags.
        job: How each training is run; its GPUs are settled when the cluster is known.
        request: What ``sweep.json`` is to hold.
        notes: What is worth knowing of the inputs.
    """

    options: JobOptions
    folder: Path
    space: SearchSpace
    job: TrainJob
    request: SweepRequest
    notes: Sequence[str]

    @property
    def single(self) -> bool:
        """Whether it is one training instead of a sweep."""
        return isinstance(self.options, TrainOptions)

    @property
    def gpus(self) -> int:
        """GPUs that a SLURM job needs for one training: as asked for, else 1 for a binary."""
        if self.options.ngpu is not None:
            return self.options.ngpu
        return int(self.job.program != EMBEDDED)


def prepare_training(
    options: JobOptions, given: Mapping[str, Flag], *, command: Sequence[str]
) -> TrainInput:
    """Check the inputs and put them together."""
    extra = parse_arguments(split_extra(options.extra), boolean=is_boolean)
    extra = list(effective([*extra, *given.values()]).values())
    mode = _MODES[options.mode] if isinstance(options, TrainOptions) else "train"
    program, generation = _program(options)
    embedded = program == EMBEDDED
    base = base_flags(options, mode)
    flags = {**base, **effective(extra)}
    notes = [
        f"--{name} has no effect here: it is for a SLURM job"
        for name in _SLURM_OPTIONS
        if getattr(options, name) and not (submits(options, local=options.local) or in_job())
    ]
    for name in OUR_FLAGS:
        flag = flags.pop(name, None)
        if flag is not None and name != "logtostderr":  # which is given
            notes.append(f"--{name} ({flag.where}) is not used: w2ltune gives it")
    extra = [flag for flag in extra if flag.name not in OUR_FLAGS]
    fixed, distributions = split_flags(flags, generation, embedded, options)
    space = SearchSpace(
        fixed=fixed, distributions=distributions, script=getattr(options, "space", None)
    )
    check_space(options, space)
    flags |= script_flags(space)
    if embedded and options.ngpu:
        raise UsageError(f"--ngpu={options.ngpu}: w2ltune's own trainer uses none; give --binary")
    if isinstance(options, TrainSweepOptions) and options.sampler == "grid":
        points = len(grid_points(distributions, options.n))
        options = replace(options, n=min(options.n, points))  # a point twice tells nothing new
    notes += check_training(
        {flag.name: flag.value for flag in flags.values()},
        mode=mode,
        generation=generation,
        embedded=embedded,
        where=flags,
        extra_known=set(flags) if options.allow_unknown_flags else (),
    )
    decodes = not embedded and "lm" in flags and flags["lm"].value != ""
    metric = _metric(options.metric, fixed, generation, decodes=decodes)
    folder = _folder(options, mode, extra, distributions)
    model = ""
    if mode == "fork":
        assert isinstance(options, TrainOptions) and options.model_path is not None
        require_model(options.model_path, generation=generation)
        # Not the link: best_model.bin may mean another checkpoint the next time.
        model = str(options.model_path.resolve())
    job = TrainJob(
        program=program,
        generation=generation,
        mode=mode,
        model_path=model,
        metric=metric,
        folder=str(Path.cwd()),
        cpus_per_rank=options.cpus_per_task or 1,
        stall_minutes=options.stall_minutes,
        keep=options.keep,
        disk_budget_bytes=(
            None if options.disk_budget_gib is None else int(options.disk_budget_gib * 2**30)
        ),
    )
    seed = getattr(options, "seed", None)
    identity = {"binary": "" if embedded else program[0], "mode": mode, "model_path": model}
    request = SweepRequest(
        task="train",
        flags={**fixed, **{name: value for name, value in identity.items() if value}},
        space={name: str(value) for name, value in distributions.items()}
        | ({"space": str(space.script)} if space.script else {}),
        scoring={"metric": metric},
        inputs=fingerprints(_input_paths(fixed, options, embedded, program, model)),
        seed=secrets.randbelow(2**31) if seed is None else seed,
        versions=versions(),
        commit=git_commit(),
        command=tuple(command),
    )
    given_input = TrainInput(
        options=options, folder=folder, space=space, job=job, request=request, notes=notes
    )
    if mode != "continue":
        assert options.config is not None
        refuse_another_config(folder, options.config)
        _refuse_another(given_input)
    return given_input


def _program(options: JobOptions) -> tuple[tuple[str, ...], Generation]:
    """Return how the program is started, and its generation."""
    binary = options.binary
    if binary is None and isinstance(options, TrainOptions) and options.mode == "continue":
        binary = _recorded_binary(options.model_path)
    if binary is None:
        return EMBEDDED, "flashlight"
    found = check_binary(binary)
    generation: Generation = generation_of(found)
    if options.generation:
        generation = "wav2letter" if options.generation == "wav2letter" else "flashlight"
    return (str(found),), generation


def _recorded_binary(rundir: Path | None) -> Path | None:
    """Return the binary that began a run directory; None for the embedded one."""
    if rundir is None or not rundir.exists():
        return None  # said later
    require_checkpoint(rundir)
    # A trial of a sweep lies in SWEEP/trials/0007/run.
    studies = [rundir, *rundir.absolute().parents[2:3]]
    request = next(filter(None, (read_request(study / "sweep.json") for study in studies)), None)
    if request is None or request.task != "train":
        raise UsageError(f"--model_path={rundir}: not begun by w2ltune; give its --binary")
    return Path(request.flags["binary"]) if "binary" in request.flags else None


def _metric(wanted: str, fixed: Mapping[str, str], generation: Generation, *, decodes: bool) -> str:
    """Return the key of the log that is minimised, one that the program will write."""
    tags = list(valid_sets(fixed.get("valid", "")))
    target = fixed.get("target", "tkn") if generation == "wav2letter" else "tkn"
    kinds = ["WER", f"{target[:1].upper()}ER", "loss", *(["WER-decoded"] if decodes else [])]
    if not wanted:
        if not tags:
            raise UsageError("--metric: there is no --valid set to take it from; give TAG-WER")
        return f"{tags[0]}-WER"
    known = [f"{tag}-{kind}" for tag in tags for kind in dict.fromkeys(kinds)]
    if not (wanted in known if tags else wanted.endswith(tuple(f"-{kind}" for kind in kinds))):
        raise UsageError(f"--metric={wanted}: must be one of {', '.join(known)}"
                         f"{did_you_mean(wanted, known)}")  # fmt: skip
    return wanted


def _folder(
    options: JobOptions,
    mode: Mode,
    extra: Sequence[Flag],
    distributions: Mapping[str, Distribution],
) -> Path:
    if isinstance(options, TrainOptions) and mode == "continue":
        assert options.model_path is not None
        return options.model_path
    if isinstance(options, TrainSweepOptions) and (options.logdir or options.prefix):
        if options.logdir is None or not options.prefix:
            given, lacking = ("prefix", "logdir") if options.prefix else ("logdir", "prefix")
            raise UsageError(f"--{given}={getattr(options, given)}: give --{lacking} too")
        if plain_name(options.prefix) != options.prefix:
            raise UsageError(f"--prefix={options.prefix}: must be a plain folder name")
        return options.logdir / options.prefix
    assert options.config is not None
    fixed = [flag for flag in extra if flag.name not in distributions]
    folder = run_directory(options.root, options.config, fixed, project=options.project)
    if isinstance(options, TrainSweepOptions):
        return folder.with_name(f"{folder.name}_sweep-{'-'.join(distributions) or 'space'}")
    return folder


def _input_paths(
    fixed: Mapping[str, str],
    options: JobOptions,
    embedded: bool,
    program: Sequence[str],
    model: str,
) -> list[Path]:
    """Return the files that decide the result."""
    datadir = fixed.get("datadir", "")
    names = [name for name in fixed.get("train", "").split(",") if name]
    names += valid_sets(fixed.get("valid", "")).values()
    paths = [Path(f"{datadir}/{name}" if datadir else name) for name in names]
    paths += [Path(fixed[name]) for name in ("tokens", "lexicon", "arch", "lm") if fixed.get(name)]
    if embedded and "features_dir" in fixed:
        paths += [Path(fixed["features_dir"]) / f"{path.stem}.npz" for path in paths[: len(names)]]
    paths += [] if embedded else [Path(program[0])]
    paths += [Path(model)] if model else []
    script = getattr(options, "space", None)
    paths += [script] if script is not None else []
    return [path for path in dict.fromkeys(paths) if path.exists()]


def _refuse_another(given: TrainInput) -> None:
    """Refuse a folder that holds another training, before anything is written."""
    path = given.folder / "sweep.json"
    old = read_request(path)
    if old is not None:
        require_same(old, given.request, path=path)
    if given.single and old is not None and not nothing_was_kept(given.folder, old):
        later = [t for t in trial_directories(given.folder / "trials") if t.was_asked()]
        if later and later[-1].read_flags() != dict(given.space.fixed):
            raise UsageError(
                f"{given.folder} was continued since with other flags: go on with it by "
                f"--mode=continue --model_path={given.folder}"
            )


def with_gpus(job: TrainJob, options: JobOptions, *, gpus: int) -> TrainJob:
    """Return the job with the GPUs of each node settled."""
    embedded = job.program == EMBEDDED
    wanted = options.ngpu
    if wanted is None:
        wanted = 1 if gpus and not embedded else 0
    if options.local:
        wanted = min(wanted, 1, gpus)
    each = gpus_per_node(options)
    nodes = wanted // each if wanted > each else 1
    return replace(job, nodes=nodes, gpus_per_node=wanted // nodes)
