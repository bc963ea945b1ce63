"""The compiled evaluation gives what numpy and a plain loop give, ties included."""

import itertools
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from randomlists import COMPILED, plain_choice, random_lists

from w2ltune.scoring.kernels import Batch
from w2ltune.scoring.nbest import cut
from w2ltune.scoring.nbestpool import Pool

pytestmark = COMPILED
KS = [1, 3, 2, 5, 5, 40, 8]


@pytest.mark.parametrize("columns", [1, 4])
def test_errors_are_those_of_the_pool(columns: int) -> None:
    rng = np.random.default_rng(columns)
    for coarse in (False, True, False, True):
        nbest = random_lists(rng, 50, 15, columns, coarse=coarse)
        weights = rng.integers(-3, 4, (300, columns)) / 2.0
        weights[0] = 0.0
        expected = Pool(nbest).errors(weights)
        found = Batch(nbest).errors(weights)
        assert found.dtype == np.int64
        assert found.tolist() == expected.tolist()
        assert expected[:3].tolist() == [plain_choice(nbest, v) for v in weights[:3].tolist()]


def test_a_fixed_acoustic_weight_and_columns_without_differences() -> None:
    rng = np.random.default_rng(1)
    nbest = random_lists(rng, 50, 15, 4)
    nbest.features[:, 2] = 7.0
    weights = rng.normal(size=(257, 4))
    weights[:, 0] = 1.0
    batch = Batch(nbest)
    assert batch.errors(weights).tolist() == Pool(nbest).errors(weights).tolist()
    assert batch.errors(weights[0]).tolist() == Pool(nbest).errors(weights[0]).tolist()
    assert batch.errors(np.empty((0, 4))).tolist() == []
    with pytest.raises(ValueError, match="for 4 features"):
        batch.errors(np.zeros(3))


@pytest.mark.parametrize("columns", [1, 3])
def test_each_depth_is_that_of_the_plain_loop(columns: int) -> None:
    rng = np.random.default_rng(columns)
    for coarse, first in itertools.product((False, True), repeat=2):
        nbest = random_lists(rng, 30, 12, columns, coarse=coarse)
        weights = rng.integers(-2, 3, (6, columns)).astype(float)
        expected = [
            [plain_choice(nbest, vector, k, first_of_equals=first) for k in KS]
            for vector in weights.tolist()
        ]
        found = Batch(nbest).errors_by_depth(weights, KS, first_of_equals=first)
        assert found.dtype == np.int64
        assert found.tolist() == expected


def test_long_lists_and_many_utterances() -> None:
    nbest = random_lists(np.random.default_rng(3), 300, 150, 3)
    vector = [1.0, 0.3, -0.2]
    ks = [1, 10, 50, 100, 150]
    expected = [plain_choice(nbest, vector, k) for k in ks]
    assert Batch(nbest).errors_by_depth(vector, ks).tolist() == [expected]


@pytest.mark.parametrize("k", [1, 4, 100])
def test_a_cut_list_is_a_depth(k: int) -> None:
    rng = np.random.default_rng(k)
    nbest = random_lists(rng, 40, 9, 3)
    weights = rng.normal(size=(20, 3))
    short = cut(nbest, k)
    assert np.diff(short.offsets).tolist() == np.minimum(np.diff(nbest.offsets), k).tolist()
    found = Batch(nbest).errors_by_depth(weights, [k])[:, 0]
    assert Pool(short).errors(weights).tolist() == found.tolist()


def test_nothing_and_what_is_refused() -> None:
    nbest = random_lists(np.random.default_rng(0), 3, 4, 2)
    batch = Batch(nbest)
    assert batch.errors_by_depth(np.empty((0, 2)), [1, 2]).shape == (0, 2)
    assert batch.errors_by_depth([1, 2], []).shape == (1, 0)
    with pytest.raises(ValueError, match="lists of 0 hypotheses"):
        batch.errors_by_depth([1, 2], [3, 0])
    with pytest.raises(ValueError, match="lists of 0 hypotheses"):
        cut(nbest, 0)
    with pytest.raises(ValueError, match=r"shape \[1, 3\] for 2 features"):
        batch.errors_by_depth([1, 2, 3], [1])


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
