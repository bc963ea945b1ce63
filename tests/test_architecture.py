"""The plan of the house, held by walking the tree: who may import whom, and what nobody does."""

import ast
import os
import re
import subprocess
import sys
from functools import cache
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
    ("listcheck", "binaryrules", "idleflags"),
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
    "decodesweep.py": "all that a decode sweep does, in order, from its inputs to its answer",
    "files.py": "how anything is opened and written, with what must hold at each moment",
}
"""Files of more than 450 lines, each with its reason."""

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


def own_name(path):
    return name_of(path).removeprefix("w2ltune.")


def room_of(module):
    """The room of a module of the package; None for the package itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == "w2ltune" and len(parts) > 1 else None


def nodes_of(path):
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


@cache
def imports_of(path):
    """All modules that a file imports, wherever in the file; relative imports are not used."""
    found = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import"
            if node.module == "w2ltune":
                found |= {f"w2ltune.{alias.name}" for alias in node.names}
            else:
                found.add(node.module)
    return found


def rooms_of(path):
    """The rooms that a file imports from; None for the package itself."""
    return {None if room == "__version__" else room for room in map(room_of, imports_of(path))}


def floor_of(room):
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def may_import(room, other):
    return room == other or floor_of(room) < floor_of(other) or other in ALSO.get(room, ())


def test_each_module_has_its_room():
    known = {room for rooms in FLOORS for room in rooms} | {"__init__"}
    assert {room_of(name_of(path)) for path in MODULES} <= known


def test_imports_point_down():
    wrong = []
    for path in MODULES:
        room = room_of(name_of(path))
        if room == "__init__":
            assert imports_of(path) <= {"__future__"}, path
            continue
        others = sorted(rooms_of(path) - {None})
        wrong += [f"{own_name(path)} imports {o}" for o in others if not may_import(room, o)]
    assert wrong == []


def test_commandline_is_for_commands_and_knows_formats_and_errors_only():
    for path in MODULES:
        if room_of(name_of(path)) == "commandline":
            assert rooms_of(path) <= {None, "formats", "errors"}, own_name(path)
        elif "commandline" in rooms_of(path):
            assert own_name(path) in (*COMMANDS, *OPTIONS, *SMALLER_COMMANDS)


PLACES = {
    "ray": r"tuner|cluster\.(session|raystart)|trials\..*",
    "optuna": r"tuner|search\..*",
    "matplotlib": r"report\.(svg|.*plots|trainingcurves)",
    "flashlight": r"embedded\..*",
    "rich": r"report\..*|decodesweep|decoderchoice|trainsweep|collect|forward|rescoring(run)?",
    "rapidfuzz": r"scoring\..*",
    "zstandard": r"formats\.compressed",
    "torch": r"embedded\.causallm",
    "transformers": r"embedded\.causallm",
    "numba": r"scoring\.compiledkernels",
}


def packages_of(path):
    return {module.split(".")[0] for module in imports_of(path)}


def test_each_library_has_its_place():
    for package, allowed in PLACES.items():
        users = {own_name(path) for path in MODULES if package in packages_of(path)}
        assert users, package
        assert {user for user in users if not re.fullmatch(allowed, user)} == set(), package


def test_formats_and_scoring_need_little():
    for path in MODULES:
        if room_of(name_of(path)) in ("formats", "scoring"):
            others = packages_of(path) - sys.stdlib_module_names - {"numpy", "rapidfuzz", "w2ltune"}
            if name_of(path) == "w2ltune.formats.compressed":
                others -= {"zstandard"}  # only once a file in .zst comes
            others -= {"numba"} if path.name == "compiledkernels.py" else set()
            assert others == set(), own_name(path)


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
    seconds = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
        )
        after = os.times()
        used = after.children_user + after.children_system
        seconds.append(used - before.children_user - before.children_system)
        if seconds[-1] < 0.3:
            break
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    loaded = done.stdout.splitlines()[-1].removeprefix("loaded: ").split()
    assert "w2ltune" in loaded
    assert HEAVY & set(loaded) == set()
    # Processor time, of the quickest of three: the machine may be busy with other things.
    assert min(seconds) < 0.3


def test_long_files_have_a_reason():
    long = {
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        if len(path.read_text(encoding="utf-8").splitlines()) > 450
    }
    assert long - LONG_FILES.keys() == set()


def test_nothing_goes_through_a_shell_or_a_pickle():
    found = []
    for path in MODULES:
        for node in nodes_of(path):
            if isinstance(node, ast.keyword) and node.arg == "shell":
                found.append(f"{own_name(path)}:{node.value.lineno}: shell=")
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                called = f"{node.value.id}.{node.attr}"
                if called in ("os.system", "os.popen"):
                    found.append(f"{own_name(path)}:{node.lineno}: {called}")
        pickles = {"pickle", "marshal", "shelve"} & imports_of(path)
        found += [f"{own_name(path)} imports {name}" for name in sorted(pickles)]
    assert found == []


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
