"""The plan of the house, held by walking the tree: who may import whom, and what nobody does."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "w2ltune"
MODULES = sorted(PACKAGE.rglob("*.py"))

COMMANDS = ("train", "sweep", "collect", "forward", "rescore")
OPTIONS = ("sweepoptions", "trainoptions", "forwardoptions", "rescoreoptions")
SMALLER_COMMANDS = (
    *("cluster.slurmoptions", "cluster.workers", "embedded.emissions", "embedded.lexicon"),
)
"""Commands in the room that does their work, and options that commands share."""

FLOORS = (
    ("__main__",),
    COMMANDS,
    ("decodesweep", "trainsweep", "rescoringrun"),
    ("rescoring", "decoderchoice"),
    ("decodeinput", "traininput", "forwardinput", "rescoreinput"),
    ("decodeprogram", "samplerchoice"),
    ("trainflags",),
    ("traincheck",),
    ("listcheck",),
    ("sweepoptions", "trainoptions", "forwardoptions", "rescoreoptions"),
    ("tuner",),
    ("report",),
    ("search",),
    ("trials",),
    ("cluster",),
    ("embedded",),
    ("scoring",),
    ("runs",),
    ("formats",),
    ("commandline",),
    ("files",),
    ("errors",),
)
"""The rooms from top to bottom; imports point down, or stay within a room."""

ALSO = {"commandline": {"formats"}}
"""Imports that point up, and why it does no harm: options are flags, read as flags are."""

LONG_FILES = {
    "trials/supervisor.py": "what may happen to one training, in order: start, watch, again, end",
    "decodesweep.py": "all that a decode sweep does, in order, from its inputs to its answer",
    "rescoring.py": "all that a rescoring does, in order, from its inputs to its answer",
    "search/boxkernels.py": "numba looks for changes in one file: what is compiled stays together",
    "search/nbest.py": "one search method: what is asked of it, how it decides, what it tells",
    "embedded/beamsearch.py": "the guards against garbage belong to the call that they guard",
}
"""Files of more than 300 lines, each with its reason."""

HEAVY = {
    "numpy",
    "matplotlib",
    "ray",
    "optuna",
    "pandas",
    "rich",
    "scipy",
    "rapidfuzz",
    "flashlight",
    "zstandard",
    "torch",
    "numba",
}


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def room_of(module):
    """The room of a module of the package; None for the package itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == "w2ltune" and len(parts) > 1 else None


def imports_of(path):
    """All modules that a file imports, wherever in the file; relative imports are not used."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import"
            if node.module == "w2ltune":
                yield from (f"w2ltune.{alias.name}" for alias in node.names)
            else:
                yield node.module


def floor_of(room):
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def may_import(room, other):
    return room == other or floor_of(room) < floor_of(other) or other in ALSO.get(room, ())


def test_each_module_has_its_room():
    known = {room for rooms in FLOORS for room in rooms} | {"__init__"}
    assert {room_of(name_of(path)) for path in MODULES} <= known


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path):
    room = room_of(name_of(path))
    if room == "__init__":
        assert list(imports_of(path)) in ([], ["__future__"])
        return
    own = {found for found in map(room_of, imports_of(path)) if found not in (None, "__version__")}
    assert {other for other in own if not may_import(room, other)} == set()


def test_commandline_is_for_commands_and_knows_formats_and_errors_only():
    for path in MODULES:
        room = room_of(name_of(path))
        rooms = {room_of(module) for module in imports_of(path)}
        if room == "commandline":
            assert rooms <= {None, "__version__", "formats", "errors"}
        elif "commandline" in rooms:
            own = name_of(path).removeprefix("w2ltune.")
            assert own in (*COMMANDS, *OPTIONS, *SMALLER_COMMANDS), own


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("ray", r"tuner|cluster\.session|trials\..*"),
        ("optuna", r"tuner|search\..*"),
        ("matplotlib", r"report\.(svg|.*plots|trainingcurves)"),
        ("flashlight", r"embedded\..*"),
        (
            "rich",
            r"report\..*|decodesweep|decoderchoice|trainsweep|collect|forward|rescoring(run)?",
        ),
        ("rapidfuzz", r"scoring\..*"),
        ("zstandard", r"formats\.compressed"),
        ("torch", r"embedded\.causallm"),
        ("transformers", r"embedded\.causallm"),
        ("numba", r"scoring\.compiledkernels"),
    ],
)
def test_each_library_has_its_place(package, allowed):
    users = {
        name_of(path).removeprefix("w2ltune.")
        for path in MODULES
        if any(module.split(".")[0] == package for module in imports_of(path))
    }
    assert users
    assert {user for user in users if not re.fullmatch(allowed, user)} == set()


def test_formats_and_scoring_need_little():
    for path in MODULES:
        if room_of(name_of(path)) in ("formats", "scoring"):
            needed = {module.split(".")[0] for module in imports_of(path)}
            others = needed - sys.stdlib_module_names - {"numpy", "rapidfuzz", "w2ltune"}
            if name_of(path) == "w2ltune.formats.compressed":
                others -= {"zstandard"}  # only once a file in .zst comes
            others -= {"numba"} if path.name == "compiledkernels.py" else set()
            assert others == set(), name_of(path)


@pytest.mark.parametrize("module", ["", ".sweep", ".collect", ".forward", ".rescore"])
def test_help_comes_at_once(module):
    arguments = [f"w2ltune{module}"]
    code = (
        "import runpy, sys\n"
        f"sys.argv = {[*arguments, '--help']!r}\n"
        "try:\n"
        f"    runpy.run_module({arguments[0]!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
        "print('loaded:', *{name.partition('.')[0] for name in sys.modules})\n"
    )
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    after = os.times()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    loaded = done.stdout.splitlines()[-1].removeprefix("loaded: ").split()
    assert "w2ltune" in loaded
    assert HEAVY & set(loaded) == set()
    # Processor time: the machine may be busy with other things.
    seconds = after.children_user + after.children_system
    assert seconds - before.children_user - before.children_system < 0.3


def test_long_files_have_a_reason():
    long = {
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        if len(path.read_text(encoding="utf-8").splitlines()) > 300
    }
    assert long - LONG_FILES.keys() == set()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_goes_through_a_shell_or_a_pickle(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword):
            assert node.arg != "shell", f"line {node.value.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            called = f"{node.value.id}.{node.attr}"
            assert called not in ("os.system", "os.popen"), f"line {node.lineno}"
    assert {"pickle", "marshal", "shelve"} & set(imports_of(path)) == set()


def test_no_file_names_a_folder_of_someones_machine():
    # Addresses on the web and paths below a variable or a placeholder are fine.
    machine = re.compile(
        r"""(?<![\w.:/}>*)'"-])/(?:home|root|work|data|mnt|scratch|Users|private)/\w"""
        r"""|['"]/(?:home|root|work|mnt|Users)/\w"""
    )
    suffixes = {".py", ".md", ".cfg", ".toml", ".sh", ".sbatch", ".yml", ".yaml", ".tsv"}
    found = []
    for path in ROOT.rglob("*"):
        inside = path.relative_to(ROOT)
        if path.suffix in suffixes and not any(part.startswith(".") for part in inside.parts):
            text = path.read_text(encoding="utf-8", errors="replace")
            found += [
                f"{inside}:{number}"
                for number, line in enumerate(text.splitlines(), start=1)
                if machine.search(line)
            ]
    assert found == []
