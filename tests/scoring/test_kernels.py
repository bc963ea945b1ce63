"""The compiled evaluation gives what numpy gives, ties included."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bothways import BOTH
from randomlists import plain_choice, random_lists

from w2ltune.scoring.kernels import Batch
from w2ltune.scoring.nbestpool import Pool


@BOTH
@pytest.mark.parametrize("columns", [1, 4])
def test_errors_are_those_of_the_pool(compiled: bool, columns: int) -> None:
    rng = np.random.default_rng(columns)
    for coarse in (False, True, False, True):
        nbest = random_lists(rng, 50, 15, columns, coarse=coarse)
        weights = rng.integers(-3, 4, (300, columns)) / 2.0
        weights[0] = 0.0
        expected = Pool(nbest).errors(weights)
        found = Batch(nbest, compiled=compiled).errors(weights)
        assert found.dtype == np.int64
        assert found.tolist() == expected.tolist()
        assert expected[:3].tolist() == [plain_choice(nbest, v) for v in weights[:3].tolist()]


@BOTH
def test_a_fixed_acoustic_weight_and_columns_without_differences(compiled: bool) -> None:
    rng = np.random.default_rng(1)
    nbest = random_lists(rng, 50, 15, 4)
    nbest.features[:, 2] = 7.0
    weights = rng.normal(size=(257, 4))
    weights[:, 0] = 1.0
    batch = Batch(nbest, compiled=compiled)
    assert batch.errors(weights).tolist() == Pool(nbest).errors(weights).tolist()
    assert batch.errors(weights[0]).tolist() == Pool(nbest).errors(weights[0]).tolist()
    assert batch.errors(np.empty((0, 4))).tolist() == []
    with pytest.raises(ValueError, match="for 4 features"):
        batch.errors(np.zeros(3))


def test_without_numba_numpy_answers() -> None:
    code = (
        "import sys, numpy as np\n"
        "sys.modules['numba'] = None\n"
        "import importlib.util, importlib.machinery\n"
        "class Hide:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        return None\n"
        "del sys.modules['numba']\n"
        "sys.path_importer_cache.clear()\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'numba' else real(name, *a)\n"
        "from randomlists import random_lists\n"
        "from w2ltune.scoring.kernels import Batch\n"
        "from w2ltune.search.certified import certify\n"
        "nbest = random_lists(np.random.default_rng(0), 9, 4, 2)\n"
        "Batch(nbest).errors([1, 2])\n"
        "certify(nbest, [1, -1], [1, 1])\n"
        "assert 'numba' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


PROGRAM = """
from w2ltune.scoring.compiledkernels import compiled

@compiled()
def add(one, other):
    return one + other

print(add(1.0, 2.0))
"""


@pytest.mark.slow
def test_a_cache_of_compiled_code_that_fails_ends_nothing(tmp_path: Path) -> None:
    """Whether it is full, cut or empty: what is not to be had from it is compiled."""

    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(most_bytes: int = resource.RLIM_INFINITY) -> None:
        done = subprocess.run(
            [sys.executable, program],
            env={**os.environ, "PYTHONPATH": ":".join(sys.path), **environment},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes)),
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (0, "3.0\n"), done.stderr

    run(1000)  # as on a full disk
    run()
    files = sorted(tmp_path.rglob("*.nb*"))
    assert {path.suffix for path in files} == {".nbi", ".nbc"}
    for damaged in files:
        for kept in (damaged.stat().st_size // 2, 0):
            os.truncate(damaged, kept)
            run()
            assert all(path.stat().st_size > 0 for path in files if path.exists())
