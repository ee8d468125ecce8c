"""A grid of videos that play in the page, each with its prompt and what was seen of it."""

import base64
from typing import Any

from vidflow.reporting.inputs import Missing, Sample, Samples, number
from vidflow.reporting.text import escape, note, percent

SIGNS = {"yes": "✓", "no": "✗", "partly": "◐", "unknown": "–"}
GRADES = {"yes": "right", "no": "wrong", "partly": "right for some objects", "unknown": "not scored"}


def section(found: Samples | Missing) -> str:
    """The videos as HTML, or how to make them."""
    if isinstance(found, Missing):
        return note(found)
    cards = "".join(_card(sample) for sample in found.shown)
    return f'<p class="soft">{" ".join(_words(found))}</p><div class="grid">{cards}</div>'


def _words(found: Samples) -> list[str]:
    total, shown = len(found.grades), len(found.shown)
    words = [f"{shown} of {total} samples." if shown < total else f"{total} samples."]
    scored = [scores for scores in found.grades if scores]
    if scored:
        whole = sum(all(_grade(value) == "yes" for value in scores.values()) for scores in scored)
        words.append(f"Every attribute is right in {whole} of {len(scored)}.")
    return words


def _card(sample: Sample) -> str:
    if sample.mp4 is None:
        picture = f'<p class="absent">{escape(sample.file or "The video")} is missing or cannot be played.</p>'
    else:
        data = base64.b64encode(sample.mp4).decode("ascii")
        picture = (
            f'<video autoplay loop muted playsinline tabindex="0" width="{sample.width}" height="{sample.height}"'
            f' aria-label="{escape(sample.prompt)}" src="data:video/mp4;base64,{data}"></video>'
        )
    marks = "".join(_mark(name, value) for name, value in sample.scores.items())
    seed = f'<p class="seed">seed {escape(sample.seed)}</p>' if sample.seed else ""
    prompt = f'<p class="prompt">{escape(sample.prompt)}</p>'
    return f'<article>{picture}{prompt}<ul class="marks">{marks}</ul>{seed}</article>'


def _mark(name: str, value: Any) -> str:
    grade = _grade(value)
    share = f" {percent(number(value))}" if grade == "partly" else ""
    return f'<li class="{grade}" title="{GRADES[grade]}"><b>{SIGNS[grade]}</b> {escape(name)}{share}</li>'


def _grade(value: Any) -> str:
    """"yes" for true or 1, "no" for false or 0, "partly" between them, "unknown" for what is no number."""
    share = float(value) if isinstance(value, bool) else number(value)
    if share is None:
        return "unknown"
    return "yes" if share >= 1 else "no" if share <= 0 else "partly"
