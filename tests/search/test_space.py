import os

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from w2ltune.errors import InputError
from w2ltune.formats.distributions import Choice, FloatRange, IntegerRange
from w2ltune.search.space import SearchSpace, call_space, load_space, to_optuna


@pytest.fixture
def study():
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "my space.py"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    ("ours", "optunas"),
    [
        (FloatRange(0.0, 5.0), FloatDistribution(0.0, 5.0)),
        (FloatRange(1e-4, 1.0, log=True), FloatDistribution(1e-4, 1.0, log=True)),
        (FloatRange(0.0, 1.0, step=0.25), FloatDistribution(0.0, 1.0, step=0.25)),
        (IntegerRange(10, 500), IntDistribution(10, 500)),
        (IntegerRange(1, 64, log=True), IntDistribution(1, 64, log=True)),
        (IntegerRange(0, 100, step=20), IntDistribution(0, 100, step=20)),
        (Choice(("none", "max")), CategoricalDistribution(("none", "max"))),
    ],
)
def test_distributions(ours, optunas):
    assert to_optuna(ours) == optunas


def test_a_trial_gets_fixed_and_searched_flags(study):
    space = SearchSpace(
        fixed={"lm": "lm.arpa"},
        distributions={"lmweight": FloatRange(0.0, 5.0), "smearing": Choice(("none", "max"))},
    )
    trial, flags = space.ask(study)
    assert trial.number == 0
    assert flags["lm"] == "lm.arpa"
    assert float(flags["lmweight"]) == trial.params["lmweight"]  # to the last digit
    assert flags["smearing"] == trial.params["smearing"]
    assert len(flags) == 3


def test_a_script_makes_a_conditional_space(study, write):
    path = write(
        "def space(trial):\n"
        "    flags = {'uselexicon': trial.suggest_categorical('uselexicon', [True, False])}\n"
        "    if flags['uselexicon']:\n"
        "        flags['wordscore'] = trial.suggest_float('wordscore', -1, 1)\n"
        "    return flags\n"
    )
    space = SearchSpace(fixed={"beamsize": "50"}, script=path)
    asked = [space.ask(study) for _ in range(10)]
    assert {flags["uselexicon"] for _, flags in asked} == {"true", "false"}
    for trial, flags in asked:
        assert ("wordscore" in flags) == (flags["uselexicon"] == "true")
        assert trial.params.keys() == flags.keys() - {"beamsize"}


def test_numbers_of_numpy_are_plain_numbers(study, write):
    path = write(
        "import numpy as np\n"
        "def space(trial):\n"
        "    x = trial.suggest_float('x', 1, 2)\n"
        "    return {'lmweight': np.log(x), 'beamsize': np.int64(50), 'logadd': np.bool_(True)}\n"
    )
    _, flags = SearchSpace(fixed={}, script=path).ask(study)
    assert 0 <= float(flags["lmweight"]) <= 0.7
    assert (flags["beamsize"], flags["logadd"]) == ("50", "true")


PERTURB = """\
import random
import numpy
def perturb_parameters(args):
    args.lmweight = random.uniform(1, 3) + numpy.random.uniform(0, 1)
    args.beamsize += numpy.random.randint(1, 9)
    args.silscore = 0
"""


@pytest.mark.parametrize("end", ["", "    return args\n"], ids=["in place", "returned"])
def test_a_perturb_file_is_repeatable(write, end):
    space = SearchSpace(fixed={"beamsize": "50", "lm": "lm.arpa"}, script=write(PERTURB + end))
    asked = []
    for _ in range(2):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
        asked.append([space.ask(study)[1] for _ in range(3)])
    assert asked[0] == asked[1]
    assert len({flags["lmweight"] for flags in asked[0]}) == 3
    for flags in asked[0]:
        assert flags.keys() == {"beamsize", "lm", "lmweight"}
        assert 51 <= int(flags["beamsize"]) < 59


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("3", r"my space\.py: perturb_parameters\(args\) must return args, not a int$"),
        ("vars(args)", r"perturb_parameters\(args\) must return args, not a dict$"),
        ("args.nothing", "fails: AttributeError"),
    ],
)
def test_perturb_files_that_give_no_flags(study, write, returned, message):
    path = write(f"def perturb_parameters(args):\n    return {returned}\n")
    with pytest.raises(InputError, match=message):
        SearchSpace(fixed={}, script=path).ask(study)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def space(trial:", r"my space\.py: the search space fails: SyntaxError"),
        ("import no_such_module", r"fails: ModuleNotFoundError: No module named 'no_such_module'"),
        ("def spaces(trial): return {}", r"my space\.py: the search space has no function space"),
        ("space = {}", "has no function space"),
        ("raise SystemExit(3)", "fails: SystemExit: 3"),
    ],
)
def test_files_that_are_no_space(write, text, message):
    with pytest.raises(InputError, match=message):
        load_space(write(text))


def test_a_file_that_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"search space \(--space\): no such file '.*none\.py'"):
        load_space(tmp_path / "none.py")
    os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(InputError, match="is not a file"):
        load_space(tmp_path / "pipe.py")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("trial.suggest_float('x', 2, 1)", r"my space\.py: space\(trial\) fails: ValueError"),
        ("1 / 0", "fails: ZeroDivisionError"),
        ("None", "must return a dict of flag to value, not None"),
        ("{3: 4}", "must return a dict of flag to value"),
        ("{'lmweight': None}", "gives --lmweight the value None: must be a number or a text"),
        ("{'lmweight': [1, 2]}", r"gives --lmweight the value \[1, 2\]"),
    ],
)
def test_spaces_that_give_no_flags(study, write, body, message):
    path = write(f"def space(trial):\n    return {body}\n")
    with pytest.raises(InputError, match=message):
        call_space(load_space(path), study.ask(), path)
