"""The order of the house: a module imports from its own room or lower floors, never upwards."""

import ast
from pathlib import Path

import pytest

from vidflow.cli import VERBS

ROOT = Path(__file__).parent.parent
# Low to high. A floor holds rooms that do not know each other; a room is a set of modules or
# packages that may.
FLOORS = (
    ({"errors", "typing", "files", "config", "choices", "limits", "settings", "axes"},),
    ({"flow"}, {"worlds"}, {"attention"}, {"linear"}),
    ({"text"}, {"autoencoders"}),
    ({"models"},),
    ({"metrics"}, {"scaling"}),
    ({"data"}, {"parallel"}),
    ({"training"},),
    ({"tasks"},),
    ({"cli"}, {"startup"}),
    ({"reporting"},),
    ({*VERBS, "__main__"},),
)
PURE = {"flow", "attention", "text", "autoencoders", "models", "metrics", "scaling"}
CHANCE = {"time", "datetime", "random", "secrets", "uuid", "socket", "platform", "locale"}
IMPURE_IMPORTS = {"os", "pathlib", "tqdm", "orbax", "grain"}

FILES = sorted((ROOT / "vidflow").rglob("*.py"))


def unit(path: Path) -> str:
    """The module or package directly under vidflow/ that a file belongs to."""
    return path.relative_to(ROOT / "vidflow").parts[0].removesuffix(".py")


def place(name: str) -> tuple[int, set[str]]:
    for height, rooms in enumerate(FLOORS):
        for room in rooms:
            if name in room:
                return height, room
    raise AssertionError(f"vidflow.{name} has no floor; add it to FLOORS in tests/test_floors.py")


def imported(source: str, package: str) -> set[str]:
    """Dotted names of all that a module of `package` imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def upward(source: str, path: Path) -> list[str]:
    """The imports of a file that break the order."""
    here = unit(path)
    package = ".".join(path.relative_to(ROOT).parent.parts)
    targets = {
        name.split(".")[1] for name in imported(source, package) if name.startswith("vidflow.")
    }
    targets -= {"__version__"}
    if here == "__init__":
        return sorted(targets)
    height, room = place(here)
    return sorted(t for t in targets if t not in room and place(t)[0] >= height)


def impurities(source: str) -> list[str]:
    """What a file of a pure package may not do: touch files, the system, or show progress."""
    found = {name.split(".")[0] for name in imported(source, "vidflow")} & IMPURE_IMPORTS
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", None))
            found |= {"open()"} if name == "open" else set()
    return sorted(found)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    assert upward(path.read_text(), path) == []


@pytest.mark.parametrize(
    "path", [f for f in FILES if unit(f) in PURE], ids=lambda path: str(path.relative_to(ROOT))
)
def test_pure_packages_touch_no_files(path):
    assert impurities(path.read_text()) == []


def test_clock_and_chance_are_asked_where_no_result_depends_on_them():
    asked = {
        (str(path.relative_to(ROOT / "vidflow")), name)
        for path in FILES
        for name in {name.split(".")[0] for name in imported(path.read_text(), "vidflow")} & CHANCE
    }
    assert asked == {
        ("training/telemetry.py", "time"),  # speed
        ("tasks/planning.py", "time"),  # seconds of compilation
        ("files.py", "platform"),  # who holds a folder
        ("training/run_folder.py", "platform"),  # provenance
        ("data/video.py", "uuid"),  # a name that is gone when the file is whole
        ("training/checkpoint.py", "datetime"),  # whether a saved date can be one
        ("training/local_checkpoints.py", "uuid"),  # of the run, among others on the same host
    }


# The checks themselves


@pytest.mark.parametrize(
    "file, source, broken",
    [
        ("flow/paths.py", "from vidflow.models import dit", ["models"]),
        ("flow/paths.py", "from vidflow.attention.mask import Mask", ["attention"]),
        ("flow/paths.py", "def f():\n    import vidflow.cli", ["cli"]),
        ("flow/paths.py", "from vidflow import errors, training", ["training"]),
        ("flow/paths.py", "from .times import a\nfrom ..text import clip", ["text"]),
        ("flow/paths.py", "from .. import data", ["data"]),
        ("flow/deep/a.py", "from ..times import b\nfrom ...data import x", ["data"]),
        ("flow/paths.py", "from vidflow.flow.times import a\nimport vidflow.errors", []),
        ("config.py", "from vidflow.errors import UsageError", []),
        ("errors.py", "from vidflow.flow import paths", ["flow"]),
        ("data/sources.py", "import vidflow.parallel.mesh", ["parallel"]),
        ("tasks/generation.py", "from vidflow import cli", ["cli"]),
        ("train.py", "from vidflow import __version__, cli, tasks", []),
        ("__init__.py", "from vidflow.config import load", ["config"]),
    ],
)
def test_upward_imports_are_found(file, source, broken):
    assert upward(source, ROOT / "vidflow" / file) == broken


@pytest.mark.parametrize(
    "file, source", [("attic.py", "import math"), ("flow/paths.py", "import vidflow.attic")]
)
def test_a_module_without_a_floor_is_reported(file, source):
    with pytest.raises(AssertionError, match="vidflow.attic has no floor; add it to FLOORS"):
        upward(source, ROOT / "vidflow" / file)


@pytest.mark.parametrize(
    "source, found",
    [
        ("import os.path", ["os"]),
        ("from pathlib import Path", ["pathlib"]),
        ("def f():\n    from tqdm.auto import tqdm", ["tqdm"]),
        ("import orbax.checkpoint as ocp\nimport grain", ["grain", "orbax"]),
        ("text = open('a').read()", ["open()"]),
        ("import gzip\ngzip.open('a')", ["open()"]),
        ("import jax\nfrom vidflow.flow import paths\nopened = is_open(3)", []),
    ],
)
def test_impurities_are_found(source, found):
    assert impurities(source) == found
