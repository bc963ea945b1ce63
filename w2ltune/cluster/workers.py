"""``w2ltune workers --add=N STUDY``: more nodes for the Ray cluster of a study's job.

Each is a job of its own, which joins the cluster, joins it again when the study's job was requeued,
and leaves when the study is finished.
"""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from w2ltune import files
from w2ltune.cluster.jobs import Job, find_jobs, read_job
from w2ltune.cluster.resources import SlurmResources, check_gpu_type, time_limit
from w2ltune.cluster.site import Site, read_site
from w2ltune.cluster.slurm import (
    WORKER_TEMPLATE,
    ClusterJob,
    directives,
    own_folder,
    read_template,
    render_job,
    scripts_folder,
)
from w2ltune.cluster.slurmoptions import SlurmOptions
from w2ltune.cluster.submissions import newest_job, submissions
from w2ltune.cluster.submit import UnknownJobError, sbatch, show_script
from w2ltune.commandline import option, parse_own
from w2ltune.errors import UsageError, did_you_mean, run_command
from w2ltune.runs.rundir import make_shared, user_name
from w2ltune.runs.runname import plain_name
from w2ltune.runs.sharing import make_own

USAGE = """
usage: w2ltune workers --add=N [--partition=NAME] [--hours=H] STUDY

Adds N nodes to a study (LOGDIR/PREFIX, or a run directory) that has a SLURM job: each is a job that
joins its Ray cluster and leaves when the study is finished. They may be in a partition that is
preempted: they come back by themselves, and what ran on them goes on elsewhere. By default each
takes what a node of the study's own job takes. `w2ltune stop STUDY` ends them with the study's job.
"""

MOST_ADDED = 256


@dataclass(frozen=True, kw_only=True)
class WorkerOptions(SlurmOptions):
    """The options of workers."""

    add: int = option("nodes to add", value="N")


def main(arguments: list[str]) -> int:
    """Submit the jobs of more nodes, or show with ``--dry_run`` what would be submitted."""
    words, named = _split(arguments)
    options = parse_own(words, WorkerOptions, usage=USAGE)
    study = _study(named)
    if not 1 <= options.add <= MOST_ADDED:
        raise UsageError(f"--add={options.add}: must be 1 to {MOST_ADDED}")
    if options.nodes is not None:
        raise UsageError(f"--nodes={options.nodes}: each job is one node; how many is --add's")
    site = read_site()
    job = ClusterJob(
        study=study,
        command=[sys.executable],
        directory=Path.cwd(),
        user=user_name(),
        options=options,
        site=site,
        resources=_resources(options, site, study),
        worker=True,
    )
    script = render_job(read_template(WORKER_TEMPLATE), job)
    if options.dry_run:
        show_script(script)
        return 0
    _refuse_another_users(study, _live_job(study))
    path = _write(study, script)
    print("\n".join(directives(job)))
    numbers: list[int] = []
    try:
        while len(numbers) < options.add:
            numbers.append(sbatch(path)[0])
    except UsageError as error:
        if not numbers and not isinstance(error, UnknownJobError):
            path.unlink()
        raise
    finally:
        if numbers:
            jobs = "job" if len(numbers) == 1 else "jobs"
            print(f"submitted {jobs} {', '.join(map(str, numbers))}: {job.resources} each")
    print(f"script: {path}")
    print(f"watch:  {shlex.join(['w2ltune', 'status', str(study)])}")
    return 0


def worker_jobs(study: Path) -> list[Job]:
    """Return the waiting and running jobs of nodes that were added to a study."""
    made = submissions(study)
    folders = {submission.script.parent / "workers" for submission in made}
    cluster = next((submission.cluster for submission in made), "")
    listed = find_jobs(cluster=cluster)
    numbers = [number for number, path in listed.items() if path.parent in folders]
    return [job for number in numbers if (job := read_job(number, cluster=cluster)) is not None]


def _split(arguments: Sequence[str]) -> tuple[list[str], str]:
    """Take the study out of the command line: its last word, or its first."""
    words = list(arguments)
    ends = [place for place in (-1, 0) if words and not words[place].startswith("-")]
    # The last word may be the value of an option.
    place = next((place for place in ends if _is_study(Path(words[place]))), None)
    if place is None:
        place = ends[0] if ends else None
    return words, "" if place is None else words.pop(place)


def _is_study(path: Path) -> bool:
    return (path / "sweep.json").exists() or (path / "slurm").is_dir()


def _study(named: str) -> Path:
    if not named:
        raise UsageError("no study is named; give its folder last, as LOGDIR/PREFIX (see --help)")
    study = Path(named)
    if not _is_study(study):
        folders = [path.parent.name for path in study.parent.glob("*/slurm")]
        raise UsageError(f"{study}: no study there{did_you_mean(study.name, folders)}")
    return study


def _live_job(study: Path) -> Job:
    job = newest_job(study)
    if job is None or not job.live:
        raise UsageError(
            f"{study}: it has no SLURM job that is waiting or running, whose cluster nodes could "
            "join; submit it first, with --partition=… on its own command"
        )
    return job


def _refuse_another_users(study: Path, job: Job) -> None:
    """Ray's token is its user's own: nobody else may join."""
    if plain_name(job.user) != user_name():
        raise UsageError(f"{study}: its {job}: only {job.user} can add nodes to that cluster")


def _resources(options: WorkerOptions, site: Site, study: Path) -> SlurmResources:
    """Return what each node takes: as given, else what one of the study's job takes."""
    made = submissions(study)
    if not made:
        raise UsageError(
            f"{study}: no SLURM job was submitted for it, so there is no cluster to join; submit "
            "it with --partition=… on its own command"
        )
    usual = made[0].resources
    check_gpu_type(options)
    gpus = options.gpus_per_node or usual.gpus_per_node
    gb = options.mem_per_gpu
    if gb is not None and not (gpus and 0 < gb < math.inf):
        wrong = "must be above 0" if gpus else "the nodes have no GPU; use --sbatch=--mem=64G"
        raise UsageError(f"--mem_per_gpu={gb:g}: {wrong}")
    cores = usual.cpus_per_node
    if options.cpus_per_task is not None:
        cores = max(1, gpus) * options.cpus_per_task
    elif gpus != usual.gpus_per_node and usual.gpus_per_node:
        cores = -(-cores * gpus // usual.gpus_per_node)
    return replace(
        usual,
        nodes=1,
        needed_nodes=1,
        gpus_per_node=gpus,
        cpus_per_node=options.cpu or cores,
        gb_per_gpu=gb or usual.gb_per_gpu,
        hours=time_limit(options, site),
        gpu_type=options.gpu_type or usual.gpu_type,
    )


def _write(study: Path, script: str) -> Path:
    """Write the script of this command, with a number of its own."""
    folder = scripts_folder(study) / "workers"
    make_shared(folder)
    make_own(own_folder(study, user_name()))
    taken = [
        int(found[1]) for path in folder.iterdir() if (found := re.search(r"-(\d+)\.", path.name))
    ]
    path = folder / f"{plain_name(user_name())}-{max(taken, default=0) + 1:04d}.sbatch"
    files.write_script(path, script)
    return path


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
