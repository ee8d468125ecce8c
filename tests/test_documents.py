"""What README, docs and results point at is there, and the script of the tour runs."""

import ast
import re
from pathlib import Path

import pytest

from vidflow import config as configs
from vidflow.reporting import ablations
from vidflow.tasks import ablating

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("*/**/RESULTS.md"))]
HERE = [path for path in DOCUMENTS if not {".venv", "runs"} & set(path.relative_to(ROOT).parts)]
PLACES = (ROOT, ROOT / "vidflow")  # what paths in prose start from
ABLATIONS = ("blocks", "captions", "modulation", "patches", "positions", "time")
TABLES = {f"ablations/results/{name}.jsonl": f"ablations/{name}.py" for name in ABLATIONS}
TABLES |= {"moviegen/results/objective.jsonl": "ablations/objective.py"}
TABLES |= {f"text_encoders/results/{name}.jsonl": "text_encoders/signs.py" for name in ("short", "long")}
TABLES |= {f"autoencoder/results/{name}.jsonl": "autoencoder/ablation.py" for name in ("bounce", "real")}


def anchors(document: Path) -> set[str]:
    """Those that a page shows for its headings: in small letters, spaces to hyphens, other signs left out."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def defined(file: Path) -> set[str]:
    """Functions and classes at the top of a module, and methods by their names alone."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, kinds)}


@pytest.mark.parametrize("document", HERE, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_files_that_a_document_names_are_there(document):
    text = document.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = document.parent / path if path else document
        assert file.exists(), f"{document.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{document.name} links to {target}"
    for name, function in re.findall(r"`((?:\w+/)+\w+\.(?:py|sh|md|json|jsonl))(?:::(\w+))?`", text):
        found = [place / name for place in (*PLACES, document.parent) if (place / name).exists()]
        if name.startswith(("runs/", "my_")):
            continue
        assert found, f"{document.name} names {name}"
        assert not function or function in defined(found[0]), f"{document.name} names {name}::{function}"


@pytest.mark.parametrize("rows", TABLES)
def test_the_tables_of_a_document_are_those_of_its_rows(rows):
    file = ROOT / "experiments" / rows
    ablation = configs.function(ROOT / "experiments" / TABLES[rows], "ablation", "def ablation() -> Ablation")()
    table = ablations.as_markdown(ablating.read(file, ablation), ablation)
    document = (file.parents[1] / "RESULTS.md").read_text().splitlines()
    assert [line for line in table.splitlines() if line not in document] == []


def test_every_table_of_an_ablation_is_looked_at():
    there = {file for file in (ROOT / "experiments").glob("*/results/*.jsonl") if file.parents[1].name != "scaling"}
    assert there == {ROOT / "experiments" / rows for rows in TABLES}


def test_the_tour_takes_its_steps(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(re.search(r"```python\n(.*?)```", (ROOT / "docs" / "tour.md").read_text(), re.DOTALL)[1], {})
    steps, losses = zip(*(line.split() for line in capsys.readouterr().out.splitlines()), strict=True)
    assert steps == ("1", "2", "3") and all(0 < float(loss) < 4 for loss in losses)
