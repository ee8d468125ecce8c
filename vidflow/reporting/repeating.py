"""How to repeat a run: its commit, versions, commands and config."""

import json
from typing import Any

from vidflow.reporting.inputs import Missing, Run, command
from vidflow.reporting.text import escape, note


def section(run: Run) -> str:
    """The commands, versions and config as HTML, with a sentence for what is not known."""
    if isinstance(run.provenance, Missing):
        parts = [note(run.provenance)]
    else:
        parts = [_commit(run.provenance), _commands(run), _versions(run.provenance)]
    if isinstance(run.config, Missing):
        parts.append(note(run.config))
    else:
        text = json.dumps(run.config, indent=2, sort_keys=True)
        parts.append(f"<details><summary>The whole config</summary><pre>{escape(text)}</pre></details>")
    return "".join(parts)


def _commit(provenance: dict[str, Any]) -> str:
    commit = str(provenance.get("commit") or "unknown")
    if commit == "unknown":
        return '<p class="note">The commit is not known: the code did not run from its git checkout.</p>'
    clean, dirty = commit.removesuffix("-dirty"), commit.endswith("-dirty")
    changes = ", with changes that were not committed, so the commit alone does not give this run" if dirty else ""
    return f"<p>The code was at commit <code>{escape(clean)}</code>{changes}.</p>"


def _commands(run: Run) -> str:
    lines = [_runnable(str(run.provenance.get("command", ""))), command("evaluate", run.folder)]
    text = "\n".join([*filter(None, lines), command("report", run.folder)])
    return f"<pre>{escape(text)}</pre>"


def _runnable(recorded: str) -> str:
    """`train.py ...`, which is what Python leaves of `python -m vidflow.train ...`, as it was typed."""
    program, space, rest = recorded.partition(" ")
    return f"python -m vidflow.{program.removesuffix('.py')}{space}{rest}" if program.endswith(".py") else recorded


def _versions(provenance: dict[str, Any]) -> str:
    packages = provenance.get("packages")
    versions = {"vidflow": provenance.get("vidflow"), "Python": provenance.get("python")}
    versions |= packages if isinstance(packages, dict) else {}
    listed = ", ".join(f"{escape(name)} {escape(version)}" for name, version in versions.items() if version)
    platform = provenance.get("platform")
    where = f" Platform: {escape(platform)}." if platform else ""
    return f'<p class="soft">Versions: {listed}.{where}</p>' if listed else ""
