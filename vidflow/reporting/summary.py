"""The first paragraph of a report: what was trained, for how long, on what, and how well it does."""

from vidflow.reporting import scores
from vidflow.reporting.inputs import Missing, Run, number, series
from vidflow.reporting.text import count, duration, escape, plain


def section(run: Run) -> str:
    """The paragraph as HTML."""
    sentences = [_what(run), _progress(run)]
    if run.parameters:
        sizes = [f"the {name} has {count(size)} parameters" for name, size in run.parameters.items()]
        sentences.append(f"{' and '.join(sizes).capitalize()}.")
    sentences.append(scores.headline(run.evaluation))
    return f'<p class="lead">{" ".join(filter(None, sentences))}</p>'


def _what(run: Run) -> str:
    if isinstance(run.config, Missing):
        return f"{escape(run.config.sentence)} So what was trained is not known."
    task = str(run.setting("task") or "training").rpartition(".")[2].replace("_", " ")
    article = "An" if task[:1] in tuple("aeiou") else "A"
    names = ("source", "frames", "height", "width")
    source, frames, height, width = (run.setting(f"data.{name}") for name in names)
    if None in (source, frames, height, width):
        return f"{article} {escape(task)} run."
    fps = number(run.setting("data.fps"))
    rate = "" if fps is None else f" at {plain(fps)} frames a second"
    size = f"{escape(frames)} frames of {escape(height)}×{escape(width)} pixels{rate}"
    return f"{article} {escape(task)} run on “{escape(source)}” clips of {size}."


def _progress(run: Run) -> str:
    if not run.metrics:
        return "No step is recorded yet."
    done, steps, batch = int(run.metrics[-1]["step"]) + 1, number(run.setting("steps")), run.setting("batch_size")
    so_far = f"{done} steps" if steps is None else f"{done} of {steps:.0f} steps"
    batches = "" if batch is None else f" with batches of {escape(batch)}"
    time = duration(float(series(run.metrics, "seconds_per_step")[:, 1].sum()))
    known = run.provenance if isinstance(run.provenance, dict) else {}
    device = known.get("device") or known.get("platform")
    where = f", on {escape(device)}" if device else ""
    skipped = number(run.metrics[-1].get("skipped")) or 0
    and_skipped = f" {skipped:.0f} of them were skipped, for a loss or gradient out of bounds." if skipped else ""
    return f"It took {so_far}{batches} in {time}, compilation included{where}.{and_skipped}"
