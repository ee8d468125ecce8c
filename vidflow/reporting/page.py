"""The page itself: one HTML file that loads nothing, from disk or from anywhere."""

import base64
import hashlib

from vidflow.reporting import comparison, repeating, samples, scores, summary, training
from vidflow.reporting.inputs import Missing, Run, Samples
from vidflow.reporting.text import escape

STYLE = """
:root { color-scheme: light dark;
  --ground: #f6f6f4; --card: #ffffff; --ink: #1d2126; --ink-soft: #626a73; --line: #dfe2e5;
  --accent: #2f66d0; --good: #1d7a4f; --bad: #bb3a2f; --middle: #8f6a00; }
@media (prefers-color-scheme: dark) { :root {
  --ground: #14171a; --card: #1c2024; --ink: #e6e8ea; --ink-soft: #9aa3ac; --line: #353b42;
  --accent: #7ba7ff; --good: #5cc48f; --bad: #f0857a; --middle: #d9b44a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); overflow-wrap: break-word;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 20px 72px; }
.over { margin: 0; color: var(--ink-soft); font-size: 13px; }
h1 { margin: 0 0 12px; font-size: 32px; line-height: 1.2; font-weight: 650; overflow-wrap: anywhere; }
h2 { margin: 48px 0 12px; font-size: 20px; font-weight: 650; }
h3 { margin: 28px 0 10px; font-size: 16px; font-weight: 650; }
p { margin: 0 0 12px; }
.lead { max-width: 70ch; font-size: 17px; }
.soft { color: var(--ink-soft); font-weight: 400; }
.note { max-width: 70ch; margin: 0 0 12px; padding: 2px 14px; border-left: 3px solid var(--line);
  color: var(--ink-soft); overflow-wrap: anywhere; }
.grid { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(148px, 1fr)); }
article, figure, table, pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
article { overflow: hidden; display: flex; flex-direction: column; padding-bottom: 10px; }
video { display: block; width: 100%; height: auto; background: #000; image-rendering: pixelated; }
.absent { margin: 0; padding: 20px 12px; color: var(--ink-soft); background: var(--ground); font-size: 14px;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
.prompt { margin: 10px 12px 8px; font-size: 14px; line-height: 1.4; overflow-wrap: anywhere; }
.marks { margin: auto 12px 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: 2px 12px;
  font-size: 13px; color: var(--ink-soft); }
.marks b { font-weight: 650; }
.yes b { color: var(--good); } .no b { color: var(--bad); } .partly b { color: var(--middle); }
.no { color: var(--bad); }
.seed { margin: 4px 12px 0; font-size: 12px; color: var(--ink-soft); }
.scroll { overflow-x: auto; margin-bottom: 16px; }
table { border-collapse: separate; border-spacing: 0; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 14px; text-align: right; vertical-align: top; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--ink-soft); font-weight: 500; line-height: 1.3; vertical-align: bottom; }
tr > :first-child { text-align: left; }
tbody th { font-weight: 500; }
td { white-space: nowrap; }
.interval { display: inline-block; min-width: 9.5em; margin-left: 4px; font-size: 12px; color: var(--ink-soft); }
.panels { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); }
figure { margin: 0; padding: 14px 14px 8px; min-width: 0; }
figure table { border: 0; }
.panels > figure:has(table) { align-self: start; }
figcaption { font-size: 15px; font-weight: 600; margin-bottom: 6px; }
figcaption .soft { font-size: 13px; margin-left: 4px; }
figure { display: flex; flex-direction: column; }
figure > .keys { margin-top: auto; padding-top: 6px; }
figure svg { display: block; width: 100%; height: auto; }
figure svg text { font-family: inherit !important; }
.keys { display: flex; flex-wrap: wrap; gap: 2px 14px; margin: 6px 0 4px; font-size: 12px; color: var(--ink-soft); }
.key::before { content: ""; display: inline-block; width: 14px; height: 3px; margin-right: 6px; border-radius: 2px;
  vertical-align: middle; background: var(--key); }
.key.sign::before { display: none; }
pre { margin: 0 0 12px; padding: 12px 14px; white-space: pre-wrap; overflow-wrap: anywhere; }
pre, code { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
summary { cursor: pointer; margin-bottom: 10px; }
@media (max-width: 560px) { main { padding: 24px 14px 48px; } h1 { font-size: 26px; } .lead { font-size: 16px; }
  .grid { gap: 10px; }
  table { font-size: 13px; } th, td { padding: 6px 7px; }
  .interval { display: block; min-width: 0; margin: 0; font-size: 11px; } }
"""

# Controls appear under the pointer or the focus. Who asked the system for less motion gets still pictures.
SCRIPT = """
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
for (const video of document.querySelectorAll("video")) {
  const show = (on) => () => { video.controls = on || still; };
  for (const name of ["mouseenter", "focus"]) video.addEventListener(name, show(true));
  for (const name of ["mouseleave", "blur"]) video.addEventListener(name, show(false));
  if (still) { video.autoplay = false; video.pause(); }
  show(false)();
}
"""


def render(run: Run, compared: list[Run], reference: Samples | Missing | None) -> str:
    """The page of a run; the same inputs give the same text. `reference` is None where nobody asked for it."""
    sections = [
        ("Samples", samples.section(run.samples)),
        ("Scores", scores.section(run)),
        ("Curves", training.section(run)),
        ("How to repeat it", repeating.section(run)),
    ]
    if compared:
        sections.insert(3, ("Comparison", comparison.section(run, compared)))
    if reference is not None:
        sections.insert(0, ("Reference model", samples.section(reference)))
    body = "".join(f"<section><h2>{title}</h2>{content}</section>\n" for title, content in sections)
    name = escape(run.name)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name} – vidflow</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<p class="over">Report of a vidflow run</p>\n<h1>{name}</h1>\n{summary.section(run)}\n{body}'
        f"</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _policy() -> str:
    """Nothing is loaded, and no script runs but ours, should some text of a run escape its place after all."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return f"default-src 'none'; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
