"""The text of a job: a script that a person can read and run, with its two blocks filled in.

A template is a whole bash script. After its line ``# @directives`` come the ``#SBATCH`` lines,
after ``# @assignments`` the variables that it works with, after ``# @functions`` what the scripts
share; every other line stays as it is.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from w2ltune.cluster.resources import SlurmResources
from w2ltune.cluster.site import SITE_VARIABLE, Site
from w2ltune.cluster.slurmoptions import SlurmOptions, further_options
from w2ltune.errors import UsageError, W2LTuneError
from w2ltune.runs.runname import plain_name
from w2ltune.runs.sharing import others_can_move

DIRECTIVES, ASSIGNMENTS = "# @directives", "# @assignments"
FUNCTIONS, FUNCTIONS_FILE = "# @functions", "functions.bash"
HOME_FOLDER = ".w2ltune"
CLUSTER_TEMPLATE = "ray_cluster.sbatch"
WORKER_TEMPLATE = "worker.sbatch"

FINISHED = "finished"
"""In the folder of the job's user: why it ended for good."""

_SETUP_FAILED = """\
setup_failed() {{ # status, where, what: nothing would be as it should be
  trap - ERR EXIT
  printf 'the set-up of the site failed with exit code %s in %s: %s\\n' "$@" |
    tee {finished}
  exit 2
}}
trap 'setup_failed $? "${{BASH_SOURCE[0]}}, line $LINENO" \\
  "$(sed -n "${{LINENO}}p" "${{BASH_SOURCE[0]}}")"' ERR
trap 'setup_failed $? "the script of the job" "$BASH_COMMAND"' EXIT
"""


@dataclass(frozen=True, kw_only=True)
class ClusterJob:
    """What is to run, and where.

    Attributes:
        study: The study's folder.
        command: The driver's command, the program first.
        directory: Where it runs.
        user: Who submits; for the names of logs.
        options: Of the command.
        site: Where SLURM is.
        resources: What the job takes.
        worker: It is one more node for the study's job.
    """

    study: Path
    command: Sequence[str]
    directory: Path
    user: str
    options: SlurmOptions
    site: Site
    resources: SlurmResources
    worker: bool = False


def job_name(study: Path) -> str:
    """Return the name in squeue, ``project:experiment``.

    Example:
        >>> job_name(Path("/checkpoints/librispeech/tds_lr0.1"))
        'librispeech:tds_lr0.1'
    """
    return ":".join(Path(os.path.abspath(study)).parts[-2:]).removeprefix("/:")  # noqa: PTH100


def slurm_folder(study: Path) -> Path:
    """Return the folder of a study's scripts and records."""
    return Path(os.path.abspath(study)) / "slurm"  # noqa: PTH100 (links are the user's own)


def scripts_folder(study: Path) -> Path:
    """Return where this user's scripts of a study lie: its ``slurm`` folder if nobody can move it.

    In a folder of a group anybody could put another one in its place, between any look at it and
    any use. There they lie in the user's home folder, which all nodes see as well.
    """
    folder = slurm_folder(study)
    if not others_can_move(folder / "x"):
        return folder
    try:
        return Path.home() / HOME_FOLDER / plain_name(os.path.realpath(study))[-100:]
    except RuntimeError:
        raise UsageError(
            f"{study}: others may write there, so that scripts and logs of jobs must lie in your "
            "home folder, and HOME names none"
        ) from None


def own_folder(study: Path, user: str) -> Path:
    """Return where only one user writes, though the study is a group's: logs, token, address."""
    return scripts_folder(study) / f"of-{plain_name(user)}"


def read_template(name: str) -> str:
    """Return a script of ``slurm/`` with the functions that it shares with others put into it."""
    functions = read_script(FUNCTIONS_FILE)
    return read_script(name).replace(f"{FUNCTIONS}\n", f"{FUNCTIONS}\n{functions}", 1)


def read_script(name: str) -> str:
    """Return a file of the installed package, or of the checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "slurm_scripts", package.parent / "slurm"):
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8")
    raise W2LTuneError(f"{name} is not beside the package {package}; install w2ltune again")


def render_job(template: str, job: ClusterJob) -> str:
    """Return the script of a job."""
    blocks = {DIRECTIVES: directives(job), ASSIGNMENTS: assignments(job)}
    lines = template.splitlines()
    for marker in blocks:
        if lines.count(marker) != 1:
            raise W2LTuneError(f"the template must have the line '{marker}' once")
    return "".join(f"{row}\n" for line in lines for row in (line, *blocks.get(line, ())))


def directives(job: ClusterJob) -> list[str]:
    """Return the ``#SBATCH`` lines; the user's own options come last, so that they win.

    Raises:
        UsageError: A value cannot stand in such a line.
    """
    options, site, resources = job.options, job.site, job.resources
    partition = site.partition if options.partition in ("", "default") else options.partition
    study = _study(job)
    if "\\" in study:
        raise UsageError(
            f"{study!r}: SLURM takes no backslash in the path of a log; use another folder"
        )
    log = f"{own_folder(job.study, job.user)}/{plain_name(job.user)}-".replace("%", "%%") + "%j"
    gpus, by_gres = resources.gpus_per_node, site.gpu_option == "gres"
    name, _, kind = site.gres_name.partition(":")
    typed = ":".join(filter(None, [resources.gpu_type or kind, str(gpus)]))
    further, gres = [], [f"{name}:{typed}"] if gpus and by_gres else []
    for where, given in ((f"{site.file}: sbatch", site.sbatch), ("--sbatch", options.sbatch)):
        others, more = further_options(given, where)
        further.append(others)
        gres += more
    values: dict[str, object] = {
        "job-name": job_name(job.study) + ("/worker" if job.worker else ""),
        "partition": partition,
        "account": options.account or site.account,
        "qos": options.qos or site.qos,
        "reservation": options.reservation or site.reservation,
        "clusters": site.clusters,
        "constraint": _constraint(options, site),
        "exclude": options.exclude,
        "comment": options.comment,
        "mail-user": options.mail,
        "mail-type": "END,FAIL,REQUEUE" if options.mail else "",
        "nodes": resources.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": resources.cpus_per_node,
        "gres": ",".join(gres),  # of several the last one would count
        "gpus-per-node": typed if gpus and not by_gres else "",
        "mem": resources.memory,
        "time": resources.time,
        "chdir": job.directory,
        "output": f"{log}.out",
        "error": f"{log}.err",
        "open-mode": "append",
        "signal": f"B:USR1@{_notice(resources, site)}",
    }
    words: list[tuple[str, ...]]
    words = [(f"--{name}={value}",) for name, value in values.items() if value not in ("", None)]
    words += [("--requeue",), ("--no-kill",)]
    words += [tuple(given) for given in further if given]
    return [f"#SBATCH {_directive(line)}" for line in words]


def assignments(job: ClusterJob) -> list[str]:
    """Return the lines that set the script's variables and the job's environment."""
    site, resources = job.site, job.resources
    python = site.python or job.command[0]
    lines = [
        f"W2LTUNE_STUDY={shlex.quote(_study(job))}",
        f"W2LTUNE_USER={shlex.quote(plain_name(job.user))}",
        *_elsewhere(job.study),
        f"W2LTUNE_PYTHON={shlex.quote(python)}",
        *_array("W2LTUNE_COMMAND", [shlex.quote(word) for word in (python, *job.command[1:])]),
        *_array("W2LTUNE_PREFIX", [_with_variables(word) for word in site.container]),
        f"W2LTUNE_NODES={resources.nodes}",
        f"W2LTUNE_NEED_NODES={resources.needed_nodes}",
        f"W2LTUNE_CPUS={resources.cpus_per_node}",
        f"W2LTUNE_GPUS={resources.gpus_per_node}",
        f"W2LTUNE_SCRATCH={_with_variables(site.scratch)}",
        f"W2LTUNE_INTERFACE={shlex.quote(site.interface)}",
    ]
    if site.file is not None:
        lines.append(f"export {SITE_VARIABLE}={shlex.quote(str(site.file))}")
    setup = ["module load " + " ".join(map(shlex.quote, site.modules))] if site.modules else []
    setup += [f". {shlex.quote(site.setup)}"] if site.setup else []
    finished = "/dev/null" if job.worker else f"{own_folder(job.study, job.user)}/{FINISHED}"
    failed = _SETUP_FAILED.format(finished=shlex.quote(finished)).splitlines()
    return [*lines, *failed, *setup, "trap - ERR EXIT"] if setup else lines


def _elsewhere(study: Path) -> list[str]:
    folder = scripts_folder(study)
    return [] if folder == slurm_folder(study) else [f"W2LTUNE_SLURM={shlex.quote(str(folder))}"]


def _study(job: ClusterJob) -> str:
    return os.path.abspath(job.study)  # noqa: PTH100 (as the user knows it, links and all)


def _constraint(options: SlurmOptions, site: Site) -> str:
    if options.gpu16 and not site.gpu16_constraint:
        where = site.file or f"the site file (${SITE_VARIABLE})"
        raise UsageError(
            f'--gpu16: {where} does not say which nodes these are; add gpu16_constraint = "…" to '
            "it, or give --constraint instead"
        )
    gpu16 = site.gpu16_constraint if options.gpu16 else ""
    parts = [part for part in (site.constraint, gpu16, options.constraint) if part]
    if len(parts) > 1:  # a part may hold alternatives, which bind less than '&'
        parts = [f"({part})" if re.search(r"[|&]", part) else part for part in parts]
    return "&".join(parts)


def _notice(resources: SlurmResources, site: Site) -> int:
    """Return the seconds of the notice; of a short job at most a quarter of its time."""
    minutes = resources.minutes
    return site.notice_seconds if minutes is None else min(site.notice_seconds, minutes * 15)


def _directive(words: Sequence[str]) -> str:
    for word in words:
        if re.search(r"[\x00-\x1f\x7f]", word):
            name, _, value = word.partition("=")
            raise UsageError(
                f"{name}={value!r}: an #SBATCH line takes no line breaks or control characters"
            )
    return " ".join(map(_directive_word, words))


def _directive_word(word: str) -> str:
    """Quote a word for sbatch, which unlike a shell knows nothing but quotes and backslashes."""
    if re.fullmatch(r"[\w@%+=:,./&|-]+", word, re.ASCII):
        return word
    return '"' + re.sub(r'(["\\])', r"\\\1", word) + '"'


def _with_variables(text: str) -> str:
    """Quote a text of the site file for bash, all but its variables."""
    parts = re.split(r"(\$\w+|\$\{\w+\})", text)
    quoted = [
        f'"{part}"' if index % 2 else shlex.quote(part) for index, part in enumerate(parts) if part
    ]
    return "".join(quoted) or "''"


def _array(name: str, words: Sequence[str]) -> list[str]:
    """Return a bash array, a word a line."""
    return [f"{name}=(", *(f"  {word}" for word in words), ")"] if words else [f"{name}=()"]


if __name__ == "__main__":  # for scripts that are submitted by hand: SLURM runs a copy of them
    print(read_script(sys.argv[1]))
