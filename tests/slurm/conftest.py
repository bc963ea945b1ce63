"""Small programs in the place of SLURM's, which note what they are asked."""

import os
from pathlib import Path

import pytest
from waiting import wait_for

from w2ltune.cluster.slurm import job_name

RUNNING = (Path(__file__).parents[1] / "data" / "slurm" / "running.txt").read_text(encoding="utf-8")

STAND_IN = """#!/bin/bash
# Notes its arguments, and answers as the files beside it say.
cd "$(dirname "$0")" && name=$(basename "$0")
printf '%s\\n' "$@" --- >> "$name.asked"
for _ in {1..6000}; do [ -e "$name.hold" ] && sleep 0.05 || break; done
[ ! -e "$name.reads" ] || cat > "$name.read"
env > "$name.environment"
cat "$name.err" >&2 2>/dev/null
cat "$name.out" 2>/dev/null
exit "$(cat "$name.code" 2>/dev/null || echo 0)"
"""


class Programs:
    """The stand-ins for sbatch, squeue and scontrol."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("sbatch", "squeue", "scontrol", "scancel"):
            (folder / name).write_text(STAND_IN, encoding="utf-8")
            (folder / name).chmod(0o755)

    def answer(self, program, *, out="", err="", code=0, **others):
        for kind, value in {"out": out, "err": err, "code": code, **others}.items():
            (self.folder / f"{program}.{kind}").write_text(str(value), encoding="utf-8")

    def hold(self, program):
        """Let it not answer until it is released."""
        (self.folder / f"{program}.hold").touch()

    def release(self, program):
        (self.folder / f"{program}.hold").unlink()

    def job(self, study, number=41, state="RUNNING", name=None):
        text = RUNNING.replace("JobId=41 ", f"JobId={number} ")
        text = text.replace("librispeech:tds_lr0.1", name or job_name(study), 1)
        self.answer("scontrol", out=text.replace("JobState=RUNNING", f"JobState={state}", 1))

    def no_job(self):
        self.answer("scontrol", err="slurm_load_jobs error: Invalid job id specified\n", code=1)

    def asked(self, program):
        path = self.folder / f"{program}.asked"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def wait_until_asked(self, program):
        wait_for(lambda: "---" in self.asked(program))

    def environment(self, program):
        return (self.folder / f"{program}.environment").read_text(encoding="utf-8").splitlines()


@pytest.fixture
def programs(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    found = Programs(folder)
    found.answer("sbatch", out="41\n")
    found.no_job()
    return found


@pytest.fixture
def study(tmp_path):
    return tmp_path / "check points" / "librispeech" / "tds"
