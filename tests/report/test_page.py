import re
import subprocess
import sys
from dataclasses import asdict, replace
from html.parser import HTMLParser

import numpy as np
import pytest

from w2ltune import files
from w2ltune.errors import InputError
from w2ltune.report.content import find_warnings, read_content
from w2ltune.report.findings import compare_settings, rivals_of_best, worst_utterances
from w2ltune.report.page import build_report
from w2ltune.runs.outcome import (
    Choice,
    Comparison,
    Look,
    Outcome,
    Probe,
    ProbeRow,
    write_outcome,
)
from w2ltune.runs.provenance import Fingerprint, SweepRequest, write_request
from w2ltune.runs.trialdir import TrialDirectory, TrialResult
from w2ltune.scoring.text import split_units
from w2ltune.scoring.wer import count_matrix, total
from w2ltune.search.surface import Surface

HEADER = "id\tsubstitutions\tdeletions\tinsertions\treference_length\thypothesis\n"
REFERENCES = {
    "u-1": "switch the light on",
    "u-2": 'call <b>anna</b> & "bob"',
    "u-3": "stop",
    "u-4": "日本 語 the end",
}
GOOD = ["switch the light on", "call <i>anna</i> bob", "stop", "日本 語 an end"]
BAD = ["switch light", "", "stop it now", "日本"]
SPACE = {"lmweight": "uniform(0, 5)", "wordscore": "uniform(-8, 7)"}


class Page(HTMLParser):
    """Checks that every element is closed in order, and gathers what a test asks for."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words, self.ids, self.uses = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            self.ids += [value] if name == "id" else []
            self.uses += [value] if name in ("src", "href", "xlink:href", "data") else []
            self.uses += re.findall(r"url\(([^)]*)\)", value or "")
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def sections(self):
        return {title for title in TITLES if title in self.text}


TITLES = (
    "Leaderboard",
    "over the weights",
    "Convergence",
    "Trials not distinguishable from the best",
    "Beam",
    "Error rate against speed",
    "Utterances with most errors",
    "Time and decodes spent",
    "How to reproduce",
)


@pytest.fixture
def study(tmp_path):
    """A study without trials; `add` puts some into it."""
    folder = tmp_path / "sweeps" / "a <study> & 'more'"
    folder.mkdir(parents=True)
    request(folder)
    rows = [f"{name} {name}.wav 1000 {text}\n" for name, text in REFERENCES.items()]
    (tmp_path / "dev.lst").write_text("".join(rows), encoding="utf-8")
    return folder


def request(folder, *, space=SPACE, metric="wer", **scoring):
    write_request(
        folder / "sweep.json",
        SweepRequest(
            task="decode",
            flags={"test": "dev.lst", "lm": "<lm>.arpa"},
            space=space,
            scoring={"metric": metric, "normalize": "", "ignore_case": "false", "cluster": ""}
            | scoring,
            inputs={"<lm>.arpa": Fingerprint(size=12345, sha256="abc123")},
            seed=17,
            versions={"w2ltune": "0.1.0"},
            commit="c0ffee",
            command=("--test=dev.lst", "--lmweight=uniform(0, 5)"),
        ),
    )


def add(study, number, hypotheses=None, *, state="COMPLETE", metric="wer", **more):
    directory = TrialDirectory(study / "trials", number)
    params = more.pop("params", {"lmweight": 2.0 + number / 10, "wordscore": 0.5})
    flags = {"datadir": str(study.parents[1]), "test": "dev.lst"}
    flags |= {name: str(value) for name, value in params.items()}
    directory.write_flags(flags)
    if state == "RUNNING":
        return
    counts = None
    if hypotheses is not None:
        pairs = zip(REFERENCES.values(), hypotheses, strict=True)
        units = [[split_units(text, metric) for text in pair] for pair in pairs]
        matrix = count_matrix(*zip(*units, strict=True))
        lines = [
            "\t".join([name, *map(str, row), text]) + "\n"
            for name, row, text in zip(REFERENCES, matrix, hypotheses, strict=True)
        ]
        files.write_text(directory.utterances, HEADER + "".join(lines))
        counts = tuple(asdict(total(matrix)).values())
    value = None if counts is None else sum(counts[:3]) / counts[3]
    interval = None if value is None else (value / 2, value * 1.5)
    result = {
        "value": value, "counts": counts, "interval": interval,
        "interval_unit": "utterance (40)", "seconds": 2.0, "work_seconds": 0.5 + number,
    }  # fmt: skip
    directory.write_result(
        TrialResult(
            number=number, attempt=1, state=state, params=params, flags=flags, **(result | more)
        )
    )


COMPARED = Comparison(difference=-0.064, interval=(-0.09, 0.001), unit="utterance (40)")
CHOICE = Choice(
    target="", trial=1, best_trial=1, why="middle of the plateau", counts=(2, 1, 0, 13),
    interval=(0.1, 0.3), unit="utterance (40)", oracle=0.05, against_baseline=COMPARED,
)  # fmt: skip


def surface(**changes):
    x, y = np.linspace(0, 5, 11), np.linspace(-8, 7, 9)
    rates = 0.1 + 0.01 * (x[None, :] - 2) ** 2 + 0.001 * y[:, None] ** 2
    whole = {
        "target": "", "setting": {}, "x_name": "lmweight", "y_name": "wordscore", "x": x, "y": y,
        "predicted": rates - 0.01, "corrected": rates, "known": rates < 0.13,
        "points": np.array([[2.1, 0.5, 0.1123], [3.0, 1.0, 0.1234]]), "chosen": (2.1, 0.5),
    }  # fmt: skip
    return Surface(**(whole | changes))


def page_of(study, **more):
    path = build_report(study, **more)
    assert path == study / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_all_sections(study):
    add(study, 0, BAD, work_seconds=4.0)
    add(study, 1, GOOD)
    add(study, 2, ["switch the light", *GOOD[1:]], params={"lmweight": 3.0, "beamsize": 500})
    add(study, 3, GOOD, state="PRUNED", reason="worse than the best trial")
    add(study, 4, state="FAIL", reason="<script>alert('x')</script> $died$")
    add(study, 5, state="RUNNING")
    (study / "best.cfg").write_text("--lmweight=2.1\n")
    row = ProbeRow(
        label="as searched", beam={"beamsize": "50"}, counts=(1, 1, 0, 9), work_seconds=1
    )
    wider = replace(row, label="4x <beam>", against_searched=COMPARED)
    probe = Probe(trial=1, utterances=4, audio_seconds=5.0, rows=(row, wider), advice="<try>")
    look = Look(
        name="test<1>.lst", trial=1, flags={}, counts=(5, 0, 0, 100), interval=(0.02, 0.08),
        unit="speaker (7)", missing=2, baseline=(6, 0, 0, 100), against_baseline=COMPARED,
    )  # fmt: skip
    outcome = Outcome(
        reason="nothing more to gain", sampler="nbest, then tpe", baselines={"greedy": 0.4},
        choices=(CHOICE,), looks=(look, look), audio_seconds=20.0,
        probes=(probe,),
    )  # fmt: skip
    write_outcome(study, outcome)
    page = page_of(study, surfaces=[surface()])
    assert page.sections == set(TITLES)
    assert "WER 23.08 [10.00, 30.00] (S 15.38 D 7.69 I 0.00), was 29.48" in page.text
    assert "(−6.40 [−9.00, +0.10]), oracle 5.00, RTF 0.075, 5 decodes, 16 CPU s" in page.text
    for piece in (
        "a <study> & 'more': decoder sweep",
        "Running or interrupted: trial 5.",
        "--lmweight=2.1 --wordscore=0.5",
        "Without any search: greedy 40.00.",
        "decoded 2 times so far",
        "Why the search stopped: nothing more to gain.",
        "2 utterances have no hypothesis of test<1>.lst",
        "Intervals are by speaker (7): below 10",
        "failed: <script>alert('x')</script> $died$",
        "★ 1",
        "4x <beam>",
        "<try>",
        "<b>anna</b> <i>anna</i> S",
        "3 complete, 1 pruned, 1 failed, 1 running or interrupted",
        "8 utterances, 2 CPU seconds",
        "python -m w2ltune.sweep --test=dev.lst '--lmweight=uniform(0, 5)'",
        "Searched --lmweight=uniform(0, 5)",
        "abc123",
        "c0ffee",
    ):
        assert piece in page.text
    assert "best.cfg" in page.text


def test_it_needs_nothing_but_itself(study):
    add(study, 0, BAD)
    add(study, 1, GOOD)
    curve = surface(target="other.lst", y_name="", y=np.zeros(1), **part(np.s_[:1]))
    surfaces = [surface(), curve]
    page = page_of(study, surfaces=surfaces)
    text = (study / "report.html").read_text(encoding="utf-8")
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(page.tags)
    assert page.tags.count("svg") == 5
    assert page.uses and {use[0] for use in page.uses} == {"#"}
    assert {use[1:] for use in page.uses} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert "http" not in text and "@import" not in text
    assert page.tags.count("style") == 1
    assert "WER %" in page.text  # the letters of plots are text
    build_report(study, surfaces=surfaces)
    assert (study / "report.html").read_text(encoding="utf-8") == text


EARLY = {"Time and decodes spent", "How to reproduce"}


@pytest.mark.parametrize(
    ("trials", "answer", "sections"),
    [
        ([], "No complete trial yet", set()),
        ([(None, "RUNNING")], "Running or interrupted: trial 0.", set()),
        ([(None, "FAIL")], "No complete trial yet", {"Leaderboard", "Convergence"}),
        ([(GOOD, "PRUNED")], "No complete trial yet", {"Leaderboard", "Convergence"}),
        (
            [(GOOD, "COMPLETE")],
            "best so far",
            {"Leaderboard", "Convergence", "Utterances with most errors"},
        ),
    ],
)
def test_a_study_at_its_beginning(study, trials, answer, sections):
    for number, (hypotheses, state) in enumerate(trials):
        add(study, number, hypotheses, state=state)
    page = page_of(study)
    assert answer in page.text
    assert page.sections == sections | EARLY


def test_without_an_error(study):
    add(study, 0, list(REFERENCES.values()))
    add(study, 1, list(REFERENCES.values()))
    page = page_of(study)
    assert "WER 0.00" in page.text
    assert "1 of 1 other complete trials cannot be told" in page.text
    assert "Utterances with most errors" not in page.sections


def test_no_study(tmp_path):
    with pytest.raises(InputError, match=r"no study in '.*': it has no sweep\.json"):
        build_report(tmp_path)


def test_damaged_utterances(study):
    add(study, 0, GOOD)
    TrialDirectory(study / "trials", 0).utterances.write_text(HEADER + "u-1\t1\t0\n")
    with pytest.raises(InputError, match=r"utterances\.tsv: damaged"):
        build_report(study)


@pytest.mark.parametrize(
    ("text", "value", "at_the_edge"),
    [
        ("uniform(0, 5)", 0.1, True),
        ("uniform(0, 5)", 0.11, False),
        ("uniform(0, 5)", 4.95, True),
        ("uniform(0, 5)", 4.8, False),
        ("loguniform(0.01, 100)", 0.02, False),
        ("loguniform(0.01, 100)", 0.011, True),
        ("lograndint(10, 1000)", 950, True),
        ("choice(1, 2)", "1", False),
    ],
)
def test_an_optimum_at_the_edge(study, text, value, at_the_edge):
    request(study, space={"lmweight": text})
    add(study, 0, GOOD, params={"lmweight": value})
    warned = "\n".join(find_warnings(read_content(study)))
    assert (f"at the edge of --lmweight={text}" in warned) == at_the_edge


def test_missing_utterances(study):
    add(study, 0, GOOD, missing=1)
    assert find_warnings(read_content(study)) == [
        "1 utterance has no hypothesis in trial 0; all words count as deletions there."
    ]


def test_rivals_are_compared_on_the_same_utterances(study):
    add(study, 0, BAD)
    add(study, 1, GOOD)
    add(study, 2, GOOD)
    add(study, 3, BAD, state="PRUNED")
    add(study, 4, GOOD)
    TrialDirectory(study / "trials", 4).utterances.unlink()
    equal, worse = rivals_of_best(read_content(study))
    assert (equal.result.number, worse.result.number) == (2, 0)
    assert (equal.difference.difference, equal.distinguishable) == (0.0, False)
    assert worse.difference.difference == pytest.approx((11 - 4) / 13)
    assert worse.difference.interval.low <= worse.difference.difference


def test_rivals_by_the_clusters_of_the_study(study):
    request(study, cluster=r"^u")
    add(study, 0, BAD)
    add(study, 1, GOOD)
    (rival,) = rivals_of_best(read_content(study))
    assert (rival.difference.interval.unit, rival.difference.interval.count) == ("cluster", 1)


def test_settings(study):
    hypotheses = {0: BAD, 1: GOOD, 2: BAD, 3: BAD}
    for number, (beam, weight) in enumerate([(10, 1.0), (100, 1.0), (10, 2.0), (500, 1.0)]):
        params = {"beamsize": beam, "lmweight": weight}
        add(study, number, hypotheses[number], params=params, work_seconds=beam / 10)
    settings = compare_settings(read_content(study))
    assert [setting.label for setting in settings] == [
        "beamsize=10",
        "beamsize=100",
        "beamsize=500",
    ]
    assert [setting.on_front for setting in settings] == [True, True, False]
    assert [setting.result.number for setting in settings] == [0, 1, 3]
    assert settings[0].cost == 1.0
    write_outcome(study, Outcome(audio_seconds=10.0))
    assert compare_settings(read_content(study))[0].cost == 0.1
    assert "real-time factor" in page_of(study).text


def test_weights_alone_are_no_settings(study):
    add(study, 0, BAD)
    add(study, 1, GOOD)
    assert compare_settings(read_content(study)) == []


def test_several_lists(study):
    add(study, 0, BAD)
    add(study, 1, GOOD)
    choices = (
        replace(CHOICE, target="dev-<clean>.lst"),
        replace(CHOICE, target="dev-other.lst", trial=0, why=""),
        replace(CHOICE, target="gone.lst", trial=9),
    )
    write_outcome(study, Outcome(choices=choices))
    text = page_of(study).text
    assert "Best weights by list" in text
    assert "dev-<clean>.lst 23.08 10.00–30.00" in text
    assert "chosen for dev-other.lst" in text


def test_the_worst_utterances(study):
    add(study, 0, BAD)
    content = read_content(study)
    worst = worst_utterances(content, content.chosen)
    assert [(one.id, one.errors) for one in worst] == [
        ("u-2", 4), ("u-4", 3), ("u-1", 2), ("u-3", 2)
    ]  # fmt: skip
    assert [unit.kind for unit in worst[0].units] == ["deletion"] * 4
    assert "dev" not in worst[0].id


def test_characters_and_normalisation(study, tmp_path):
    (tmp_path / "normalize.py").write_text("def normalize(text):\n    return text\n")
    request(study, metric="cer", cer_blanks="false", normalize=str(tmp_path / "normalize.py"))
    add(study, 0, GOOD, metric="cer")
    page = page_of(study)
    assert "CER" in page.text and "Per cent of the reference characters" in page.text
    assert "ref hyp s s w w i i" not in page.text  # without an error it is not among the worst
    assert "t a S h n S e ∗∗∗ D" in page.text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_text("u-1 a 1 x\n"), "'u-2' is no longer in --test=dev.lst"),
        (
            lambda path: path.write_text(path.read_text("utf-8").replace("anna", "eve x"), "utf-8"),
            "the reference of 'u-2', or its normalisation, has changed",
        ),
    ],
)
def test_references_that_are_gone(study, tmp_path, change, reason):
    add(study, 0, BAD)
    change(tmp_path / "dev.lst")
    page = page_of(study)
    assert "cannot be shown any more" in page.text and reason in page.text


def test_a_long_utterance_is_cut(study, tmp_path):
    (tmp_path / "dev.lst").write_text("long a 1 " + "word " * 400 + "\n")
    add(study, 0, GOOD)
    utterances = TrialDirectory(study / "trials", 0).utterances
    files.write_text(utterances, HEADER + "long\t0\t400\t0\t400\t\n")
    assert "… and 100 more" in page_of(study).text


def part(index):
    grids = {name: getattr(surface(), name) for name in ("predicted", "corrected", "known")}
    return {name: grid[index] for name, grid in grids.items()}


FLAT, NOTHING = np.full((9, 11), 0.1), np.full((9, 11), np.nan)


@pytest.mark.parametrize(
    ("changes", "plots"),
    [
        ({"known": np.ones((9, 11), bool)}, 2),
        ({"known": np.zeros((9, 11), bool)}, 2),
        ({"predicted": FLAT, "corrected": FLAT}, 2),
        ({"predicted": NOTHING, "corrected": NOTHING}, 2),
        ({"points": np.zeros((0, 3))}, 2),
        ({"y_name": "", "y": np.zeros(1), **part(np.s_[:1])}, 1),
        ({"x": np.ones(1), **part(np.s_[:, :1])}, 1),
    ],
    ids=["known", "unknown", "flat", "nothing", "no point", "curve", "column"],
)
def test_surfaces(study, changes, plots):
    one = surface(target="日本 $<list>$", setting={"smearing": "max"}, **changes)
    page = page_of(study, surfaces=[one])
    assert page.tags.count("svg") == plots
    assert "日本 $<list>$, smearing=max" in page.text
    if len(one.points):
        assert {"11.23", "12.34"} <= set(page.text.split())


def test_hostile_names_in_plots(study):
    names = ["a$x$ <b>&", 'id="q" 日本']
    for number, name in enumerate(names):
        params = {"lm": name, "lmweight": 1.0}
        add(study, number, [GOOD, BAD][number], params=params, work_seconds=2.0 - number)
    page = page_of(study)
    for name in names:
        assert page.words.count(f"lm={name}") == 2  # in the plot and below it


def test_it_loads_neither_ray_nor_optuna_nor_matplotlib():
    code = (
        "import sys, w2ltune.report.page\n"
        "print({'ray', 'optuna', 'matplotlib', 'pandas', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
