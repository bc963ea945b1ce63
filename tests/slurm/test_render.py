"""The resources and the text of a job; W2LTUNE_WRITE_GOLDEN=1 writes the golden files anew."""

import os
import subprocess
from pathlib import Path

import pytest
from waiting import PATIENCE_SECONDS

from w2ltune.cluster.resources import SlurmResources, job_resources
from w2ltune.cluster.site import Site
from w2ltune.cluster.slurm import ClusterJob, assignments, directives, job_name, render_job
from w2ltune.cluster.slurmoptions import DecodeSlurmOptions, SlurmOptions, submits
from w2ltune.commandline import parse
from w2ltune.errors import UsageError, W2LTuneError

DATA = Path(__file__).parents[1] / "data" / "slurm"
SCRIPTS = Path(__file__).parents[2] / "slurm"
TEMPLATE = (DATA / "template.sbatch").read_text(encoding="utf-8")
STUDY = Path("/checkpoints/librispeech/tds_lr0.1")
TRAIN = ["/opt/bin/python", "-m", "w2ltune.train", "--config=a.cfg", "--ngpu=64"]
AWKWARD = [
    "blank in it",
    'it\'s "quoted"',
    "a;b&c|d>e",
    "$HOME `x` $(y) \\n",
    "größe 日本",
    "",
    "a\nb",
]


def cluster_job(*, gpus=0, options=None, site=None, study=STUDY, command=TRAIN, user="alice"):
    options = options or SlurmOptions(partition="learnfair")
    site = site or Site()
    return ClusterJob(
        study=study,
        command=command,
        directory=Path("/experiments"),
        user=user,
        options=options,
        site=site,
        resources=job_resources(options, site, gpus=gpus),
    )


GOLDEN = {
    "train64": cluster_job(
        gpus=64,
        options=SlurmOptions(
            partition="learnfair", hours=72, mem_per_gpu=60, cpus_per_task=10, comment="ICASSP",
            gpu16=True, mail="alice@example.org", exclude="n[7-8]", sbatch="--nice=100 --mincpus 8",
        ),
        site=Site(
            gpus_per_node=8, gpu16_constraint="volta16gb", account="speech", constraint="ib",
            modules=("cuda/12.2", "open mpi"), setup="/site/set up.sh", scratch="/local/$USER/x y",
            interface="ib0", sbatch=("--exclusive",), file=Path("/site/site.toml"),
        ),
    ),
    "decode": cluster_job(
        options=DecodeSlurmOptions(partition="default", cpu=20, hour=0.1),
        command=["/opt/bin/python", "-m", "w2ltune.sweep", "--lmweight=uniform(0, 5)"],
    ),
    "container": cluster_job(
        gpus=2,
        options=SlurmOptions(partition="dev", nodes=3, qos="long", reservation="deadline"),
        site=Site(
            gpu_option="gpus-per-node", cpus_per_gpu=5, hours=24,
            container=("apptainer", "exec", "--bind", "${TMPDIR}:/tmp", "a b.sif"),
            python="python3",
        ),
    ),
    "awkward": cluster_job(
        study=Path("/checkpoints/it's 100%j/größe \"x\"; y"),
        options=SlurmOptions(partition="a b", comment="it's \\ \"x\"; # $HOME", constraint="a|b"),
        site=Site(constraint="c"),
        command=["/opt/bin/python", *AWKWARD],
        user="o'neil smith",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name):
    path = DATA / f"{name}.sbatch"
    text = render_job(TEMPLATE, GOLDEN[name])
    if os.environ.get("W2LTUNE_WRITE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_bash_reads_what_was_meant():
    job = GOLDEN["awkward"]
    done = subprocess.run(
        ["bash", "-c", render_job(TEMPLATE, job)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.stderr == ""
    assert done.stdout.startswith(f"study={job.study}\n")
    assert "".join(f"command={word}\n" for word in AWKWARD) in done.stdout
    assert "prefix=\n" in done.stdout  # no word


def test_variables_of_the_site_file_are_filled_in_on_the_node():
    site = Site(scratch="/local/$USER x/${JOB}'\"`", container=("run", "$USER;b"))
    script = render_job(TEMPLATE, cluster_job(site=site))
    environment = {**os.environ, "USER": "al ice", "JOB": "7"}
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env=environment,
    )
    assert "scratch=/local/al ice x/7'\"`\n" in done.stdout
    assert "prefix=run\nprefix=al ice;b\n" in done.stdout


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.sbatch")), ids=lambda path: path.name)
def test_the_scripts_have_both_markers(path):
    text = path.read_text(encoding="utf-8")
    if "# @directives" not in text:
        pytest.skip("not a template")
    script = render_job(text, GOLDEN["train64"])
    done = subprocess.run(
        ["bash", "-n"], input=script, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert (done.returncode, done.stderr) == (0, "")
    # sbatch reads directives up to the first command only.
    lines = script.splitlines()
    command = next(number for number, line in enumerate(lines) if line and line[0] != "#")
    assert lines.index(directives(GOLDEN["train64"])[0]) < command
    assert not any(line.startswith("#SBATCH") for line in lines[command:])


def test_a_template_without_a_marker():
    with pytest.raises(W2LTuneError, match="must have the line '# @assignments' once"):
        render_job("#!/bin/bash\n# @directives\n", GOLDEN["decode"])


@pytest.mark.parametrize(
    ("study", "name"),
    [("/a/b/c", "b:c"), ("c", f"{Path.cwd().name}:c"), ("/c", "c"), ("/a b/c:d", "a b:c:d")],
)
def test_job_name(study, name):
    assert job_name(Path(study)) == name


@pytest.mark.parametrize(
    ("options", "site", "gpus", "wanted"),
    [
        ({}, {}, 0, {"cpus_per_node": 16}),
        ({}, {"cpus_per_node": 40}, 0, {"cpus_per_node": 40}),
        ({"cpus_per_task": 20}, {}, 0, {"cpus_per_node": 20}),
        ({"cpu": 3}, {}, 0, {"cpus_per_node": 3}),
        ({}, {}, 1, {"gpus_per_node": 1, "cpus_per_node": 1}),
        ({}, {"cpus_per_gpu": 10}, 8, {"gpus_per_node": 8, "cpus_per_node": 80}),
        ({"cpus_per_task": 4}, {"cpus_per_gpu": 10}, 8, {"gpus_per_node": 8, "cpus_per_node": 32}),
        ({}, {}, 64, {"nodes": 8, "needed_nodes": 8, "gpus_per_node": 8, "cpus_per_node": 8}),
        (
            {"gpus_per_node": 4},
            {},
            64,
            {"nodes": 16, "needed_nodes": 16, "gpus_per_node": 4, "cpus_per_node": 4},
        ),
        (
            {"nodes": 4, "cpu": 10},
            {},
            16,
            {"nodes": 4, "needed_nodes": 2, "gpus_per_node": 8, "cpus_per_node": 10},
        ),
        ({"nodes": 2}, {}, 2, {"nodes": 2, "gpus_per_node": 2, "cpus_per_node": 2}),
        (
            {"nodes": 2, "gpus_per_node": 8},
            {},
            2,
            {"nodes": 2, "gpus_per_node": 8, "cpus_per_node": 8},
        ),
        ({"gpus_per_node": 4}, {}, 2, {"gpus_per_node": 2, "cpus_per_node": 2}),
        ({"hours": 0.5}, {"hours": 3}, 0, {"cpus_per_node": 16, "hours": 0.5}),
        ({"hour": 2}, {"hours": 3}, 0, {"cpus_per_node": 16, "hours": 2}),
        ({"hour": 2, "hours": 2}, {}, 0, {"cpus_per_node": 16, "hours": 2}),
        ({}, {"hours": 3}, 0, {"cpus_per_node": 16, "hours": 3}),
    ],
)
def test_resources(options, site, gpus, wanted):
    usual = {"nodes": 1, "needed_nodes": 1, "gpus_per_node": 0}
    found = job_resources(SlurmOptions(**options), Site(**site), gpus=gpus)
    assert found == SlurmResources(**{**usual, **wanted})


def test_resources_in_words():
    resources = job_resources(SlurmOptions(hours=72, mem_per_gpu=1.5), Site(), gpus=16)
    assert str(resources) == "2 nodes with 8 GPUs and 8 cores, 72 hours"
    assert (resources.gpus, resources.memory_mb, resources.minutes) == (16, 12 * 1024, 72 * 60)


@pytest.mark.parametrize(
    ("options", "gpus", "message"),
    [
        ({}, -1, "--ngpu=-1: must be 0 or more"),
        ({}, 12, "--ngpu=12: with 8 GPUs on a node it must be at most 8 or a multiple of it, "
         "as 8 or 16 (--gpus_per_node)"),
        ({"nodes": 1}, 16, "--nodes=1: 16 GPUs take 2 nodes of 8; leave --nodes out, or give "
         "--nodes=2 or more"),
        ({"cpu": 4}, 8, "--cpu=4: a node needs 8 cores, --cpus_per_task=1 for each of 8 processes"),
        ({"hours": 0.0}, 0, "--hours=0: must be above 0 and at most 8760"),
        ({"hours": float("nan")}, 0, "--hours=nan: must be above 0"),
        ({"hour": float("inf")}, 0, "--hour=inf: must be above 0"),
        ({"hours": 3.0, "hour": 4.0}, 0, "--hours=3 and --hour=4: give one of them"),
        ({"mem_per_gpu": 0.0}, 1, "--mem_per_gpu=0: must be above 0"),
        ({"mem_per_gpu": 3.0}, 0, "--mem_per_gpu=3: the job has no GPU; use --sbatch=--mem=64G"),
    ],
)  # fmt: skip
def test_resources_that_cannot_be_meant(options, gpus, message):
    with pytest.raises(UsageError) as caught:
        job_resources(SlurmOptions(**options), Site(), gpus=gpus)
    assert str(caught.value).startswith(message)


def test_gpus_of_decodes_are_those_of_a_node():
    message = r"^--gpu=16: must be 0 or more and at most 8, those of a node \(--gpus_per_node\)$"
    with pytest.raises(UsageError, match=message):
        job_resources(DecodeSlurmOptions(), Site(), gpus=16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"comment": "a\nb"}, r"--comment='a\nb': an #SBATCH line takes no line breaks"),
        ({"sbatch": "'--nice"}, '--sbatch="\'--nice": No closing quotation'),
        ({"sbatch": "mem=3G"}, "--sbatch: 'mem=3G' is no option; write it as --mem=3G"),
        ({"sbatch": "--array=1-4"}, "--sbatch: '--array=1-4' may not be given, the job is one Ray"),
        ({"sbatch": "--nice=3 -o x"}, "--sbatch: '-o' may not be given, logs lie in the study's"),
        ({"sbatch": "-t10"}, "--sbatch: '-t10' may not be given, use --hours"),
        ({"sbatch": "--gres=x:1,gpu:a:4"}, "--sbatch: '--gres=x:1,gpu:a:4' may not be given for G"),
        ({"sbatch": "--gres gpu"}, "--sbatch: '--gres=gpu' may not be given for GPUs, use --ngpu"),
        ({"gpu16": True}, "--gpu16: the site file ($W2LTUNE_SITE) does not say which nodes"),
    ],
)
def test_options_that_cannot_be_meant(options, message):
    with pytest.raises(UsageError) as caught:
        directives(cluster_job(options=SlurmOptions(partition="x", **options)))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("site", "options", "wanted"),
    [
        ({}, {"gpu_type": "a100"}, ["--gres=gpu:a100:4"]),
        ({"gres_name": "gpu:volta"}, {}, ["--gres=gpu:volta:4"]),
        ({"gres_name": "gpu:volta"}, {"gpu_type": "a100"}, ["--gres=gpu:a100:4"]),
        (
            {"gres_name": "gpu:volta", "gpu_option": "gpus-per-node"},
            {},
            ["--gpus-per-node=volta:4"],
        ),
        ({"gpu_option": "gpus-per-node"}, {"gpu_type": "a"}, ["--gpus-per-node=a:4"]),
        # One list of gres would replace another.
        (
            {"sbatch": ("--gres", "scratch:9", "--nice")},
            {"sbatch": "--gres=fast"},
            ["--gres=gpu:4,scratch:9,fast", "--nice"],
        ),
    ],
)
def test_what_is_asked_for_gpus(site, options, wanted):
    options = SlurmOptions(partition="x", **options)
    lines = directives(cluster_job(gpus=4, options=options, site=Site(**site)))
    found = [line.removeprefix("#SBATCH ") for line in lines]
    assert [line for line in found if line.startswith(("--g", "--nice"))] == wanted


@pytest.mark.parametrize(
    ("text", "hours"),
    [("36", 36), ("1-00:00:00", 24), ("1-2", 26), ("90:30:00", 90.5), ("0-00:30", 0.5)],
)
def test_times_as_slurm_has_them(text, hours):
    options, flags = parse([f"--hours={text}"], SlurmOptions, usage="")
    assert (options.hours, flags) == (hours, {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (f"--hours={'9' * 5000}-1", "must be a number of hours, or a time as SLURM has it"),
        ("--hours=30:00", "--hours='30:00': must be a number of hours, or a time as SLURM has it"),
        ("--time=1-00:00:00", "--time is no option here; use --hours (see --help)"),
        ("--mem=64G", "--mem is no option here; use --sbatch=--mem=64G (see --help)"),
        ("--gres=gpu:a100:4", "--gres is no option here; use --gpu (see --help)"),
        ("--mem-per-cpu=4G", "use --sbatch=--mem-per-cpu=4G"),
    ],
)
def test_options_of_sbatch_on_our_command_line(given, message):
    with pytest.raises(UsageError) as caught:
        parse([given], DecodeSlurmOptions, usage="")
    assert message in str(caught.value)


def test_a_path_that_slurm_cannot_take():
    with pytest.raises(UsageError, match="takes no backslash in the path of a log"):
        directives(cluster_job(study=Path("/a\\b")))


@pytest.mark.parametrize(
    ("minutes", "line"),
    [
        (1, "#SBATCH --signal=B:USR1@15"),
        (2, "#SBATCH --signal=B:USR1@30"),
        (60, "#SBATCH --signal=B:USR1@120"),
        (1.5, "#SBATCH --time=0-00:02:00"),
        (24 * 60 + 61, "#SBATCH --time=1-01:01:00"),
    ],
)
def test_times(minutes, line):
    assert line in directives(cluster_job(options=SlurmOptions(hours=minutes / 60)))


@pytest.mark.parametrize(
    ("gpus", "gb", "line"), [(1, 0.5, "--mem=512M"), (8, 60, "--mem=480G"), (3, 0.7, "--mem=2151M")]
)
def test_memory(gpus, gb, line):
    job = cluster_job(gpus=gpus, options=SlurmOptions(mem_per_gpu=gb))
    assert f"#SBATCH {line}" in directives(job)


def test_a_path_of_any_bytes():
    study = Path(os.fsdecode(b"/checkpoints/\xff/x"))
    job = cluster_job(study=study)
    assert f"W2LTUNE_STUDY='{study}'" in assignments(job)
    assert any(
        f'"--output={study}/slurm/of-alice/alice-%j.out"' in line for line in directives(job)
    )


IN_JOB = {"RAY_ADDRESS": "a", "SLURM_JOB_ID": "3", "RAY_AUTH_TOKEN_PATH": "/s/.token-3.0"}


@pytest.mark.parametrize(
    ("options", "local", "environment", "wanted"),
    [
        ({}, False, {}, False),
        ({"partition": "x"}, False, {}, True),
        ({"partition": "x"}, True, {}, False),
        ({"partition": "x"}, False, IN_JOB, False),
        ({"partition": "x"}, False, {**IN_JOB, "SLURM_JOB_ID": "4"}, True),
        ({"partition": "x"}, False, {"RAY_ADDRESS": "a", "SLURM_JOB_ID": "3"}, True),
        ({"partition": "x"}, False, {"SLURM_JOB_ID": "3"}, True),
        ({"partition": "x"}, False, {"RAY_ADDRESS": "a"}, True),
        ({"dry_run": True}, True, IN_JOB, True),
    ],
)
def test_submits(options, local, environment, wanted):
    options = SlurmOptions(**options)
    assert submits(options, local=local, environment=environment) == wanted


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("conda() { return 3; }\n[ -e /none ] && :\nfalse || :\n\nconda activate asr\n:",
         "exit code 3 in {file}, line 5: conda activate asr"),
        (":\nexit 4", "exit code 4 in the script of the job: . '{file}'"),
        ("none --x", "exit code 127 in {file}, line 1: none --x"),
        (": fine", None),
    ],
)  # fmt: skip
def test_a_setup_that_fails_is_named(tmp_path, lines, said):
    setup = tmp_path / "set up.sh"
    setup.write_text(f"{lines}\n")
    study = tmp_path / "p/s"
    job = cluster_job(study=study, site=Site(setup=str(setup)))
    own = study / "slurm" / "of-alice"
    own.mkdir(parents=True)
    script = "\n".join(["#!/bin/bash", *assignments(job), "echo went on"])
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    if said is None:
        assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")
    else:
        told = f"the set-up of the site failed with {said.format(file=setup)}\n"
        assert (done.returncode, done.stdout) == (2, told)
        assert (own / "finished").read_text() == told


def test_the_options_on_a_command_line():
    options, flags = parse(
        ["--partition=learnfair", "--gpu=2", "--cpu=10", "--hour=12", "--dry-run", "--nodes", "2"],
        DecodeSlurmOptions,
        usage="",
    )
    assert flags == {}
    assert options == DecodeSlurmOptions(
        partition="learnfair", gpu=2, cpu=10, hour=12.0, dry_run=True, nodes=2
    )
