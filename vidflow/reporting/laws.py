"""Laws of scaling as text and as figures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from vidflow.scaling import envelope, rates
from vidflow.scaling.isoflop import Points
from vidflow.scaling.laws import Fitted, percentiles
from vidflow.tasks.fitting import QUANTITIES, Found, Held
from vidflow.tasks.nearest import nearest

PUBLISHED = Path(__file__).parents[1] / "assets" / "laws" / "published.json"
FAR = 10.0  # a law used so many times beyond its largest budget is a guess
NEAR = 2.0  # a model of the table within this factor of the best size stands for it


def as_text(found: Found, method: str) -> str:
    """The laws, a line each, and beside them those that were published: not results of ours."""
    lines = [f"laws over the budget of C training FLOPs, by {method}, with 95% intervals"]
    for name, fitted in found.laws.items():
        law, (low, high) = fitted.law, fitted.exponent
        plus = f" + {law.floor:.4g}" if law.floor else ""
        line = f"{law.coefficient:.4g} C^{law.exponent:.4f}{plus}"
        ends = f"exponent in [{low:.4f}, {high:.4f}], coefficient in {_range(fitted.coefficient)}"
        lines.append(f"  {name:<12} {line:<32} {ends}" + (f", floor in {_range(fitted.floor)}" if plus else ""))
    if found.formula is not None:
        f = found.formula
        lines.append(f"  loss(N, D) = {f.floor:.4g} + {f.a:.4g} / N^{f.alpha:.4f} + {f.b:.4g} / D^{f.beta:.4f}")
        lines.append("  with " + ", ".join(f"{name} in {_range(ends)}" for name, ends in _of_formula(found).items()))
    lines.append("published laws (other data, models and counts of FLOPs):")
    for paper in json.loads(PUBLISHED.read_text()):
        said = ", ".join(_published(name, paper[name]) for name in QUANTITIES if name in paper)
        lines.append(f"  {paper['name']}: {said} ({paper['source']}; {paper['provenance']})")
    return "\n".join(lines)


def _range(ends: tuple[float, float]) -> str:
    return f"[{ends[0]:.4g}, {ends[1]:.4g}]"


def _of_formula(found: Found) -> dict[str, tuple[float, float]]:
    """The ends of the interval of each of its constants."""
    columns = zip(*found.resampled, strict=True)
    return {name: percentiles(np.array(column)) for name, column in zip(found.formula._fields, columns, strict=True)}


def _published(name: str, law: Mapping[str, float]) -> str:
    """Some papers are known to us by their exponents alone."""
    coefficient = f"{law['coefficient']:g} " if "coefficient" in law else ""
    return f"{name} {coefficient}C^{law['exponent']:g}"


def floor_text(floor: float, chance: float) -> str:
    """Whether the loss ends at a floor; `chance` is that of such a bend in the data of a law without one."""
    if chance >= 0.05:
        return f"a floor of the loss is not seen, p = {chance:.3f}"
    if floor > 0:
        return f"a floor of the loss of {floor:.4g} is seen, p = {chance:.3f}: the law above foretells too little"
    return f"the loss falls ever faster, p = {chance:.3f}: the law above foretells too much"


def held_text(rows: Sequence[Held]) -> str:
    """How far the laws of the other budgets were off at the largest."""
    lines = [f"held out: the budget of {rows[0].flops:.3g} FLOPs"]
    for row in rows:
        inside = "inside" if row.low <= row.found <= row.high else "outside"
        off = 100 * (row.predicted / row.found - 1)
        lines.append(
            f"  {row.name:<12} predicted {row.predicted:.4g} [{row.low:.4g}, {row.high:.4g}], found {row.found:.4g}: "
            f"{off:+.1f}%, {inside} the interval"
        )
    return "\n".join(lines)


def prediction(found: Found, rules: dict[str, rates.Fitted] | None, flops: float, largest: float) -> list[str]:
    """What the laws say of a budget, which model that is and how to plan it, and how far it is from the runs."""
    lines, best = [f"at {flops:.3g} FLOPs"], {}
    for name, fitted in found.laws.items():
        best[name], low, high = fitted.predict(flops)
        lines.append(f"  {name:<12} {best[name]:.4g} [{low:.4g}, {high:.4g}]")
    for name, rule in (rules or {}).items():
        value, low, high = rule.predict(best["parameters"], best["tokens"])
        lines.append(f"  {name:<12} {value:.4g} [{low:.4g}, {high:.4g}]")
    near = nearest(best["parameters"])
    lines.append(
        f"  the nearest model is {near.size}, of {near.transformer:,} parameters in its transformer and "
        f"{near.parameters:,} in all; what a step of it needs:"
    )
    lines.append(f"    vidflow plan {near.plan}")
    ratio = near.transformer / best["parameters"]
    if not 1 / NEAR <= ratio <= NEAR:
        lines.append(f"  no model of the table is near: {near.size} has {ratio:.3g} times the best's parameters")
    if flops > largest:
        guess = " and a guess" if flops > FAR * largest else ""
        lines.append(f"  this is {flops / largest:.3g} times the largest budget that was fitted{guess}")
    return lines


def as_json(found: Found, method: str, **more: Any) -> dict[str, Any]:
    """laws.json: each law with `coefficient`, `exponent`, `floor`, `low` and `high` of the exponent, and those of the
    other constants, `coefficient_low` and so on; the formula with its constants and theirs."""
    result: dict[str, Any] = {"method": method, **more}
    for name, fitted in found.laws.items():
        low, high = fitted.exponent
        ends = _ends("coefficient", fitted.coefficient) | (_ends("floor", fitted.floor) if fitted.law.floor else {})
        result[name] = fitted.law._asdict() | {"low": low, "high": high} | ends
    if found.formula is not None:
        result["formula"] = found.formula._asdict()
        for name, ends in _of_formula(found).items():
            result["formula"] |= _ends(name, ends)
    return result


def _ends(name: str, ends: tuple[float, float]) -> dict[str, float]:
    return {f"{name}_low": ends[0], f"{name}_high": ends[1]}


def rules_as_json(rules: dict[str, rates.Fitted]) -> dict[str, Any]:
    """The constants of each rule, and the ends of their intervals."""
    return {
        name: {key: [value, *fitted.interval(key)] for key, value in fitted.rule._asdict().items()}
        for name, fitted in rules.items()
    }


def figures(found: Found, points: Points, held: Sequence[Held] = ()) -> dict[str, Figure]:
    """By name: losses over sizes, the laws over budgets and what was held out of them, what the fit leaves of each
    loss. An envelope is fitted to no single loss: of it there are curves over budgets, and nothing left."""
    law = _laws(found.laws, {row.name: row for row in held})
    if found.formula is None and not found.parabolas:
        return {"losses": _curves(found, points), "laws": law}
    return {"losses": _losses(found, points), "laws": law, "residuals": _residuals(found, points)}


def _curves(found: Found, points: Points) -> Figure:
    """Loss over FLOPs, a colour a size, and where the envelope of the curves was taken."""
    figure = Figure((6, 4), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="training FLOPs", ylabel="loss")
    axes.yaxis.set_major_formatter("{x:.3g}")
    axes.yaxis.set_minor_formatter("{x:.3g}")
    colours = ScalarMappable(LogNorm(points.parameters.min(), points.parameters.max()), "viridis")
    for curve in envelope.of_sizes(points):
        axes.plot(curve.flops, curve.loss, color=colours.to_rgba(curve.parameters[0]), lw=1)
    axes.plot(found.laws["loss"].x, found.laws["loss"].y, "k.", ms=3, label="envelope")
    axes.legend()
    figure.colorbar(colours, ax=axes, label="parameters")
    return figure


def _losses(found: Found, points: Points) -> Figure:
    """Loss over parameters, a colour a budget, with parabolas and their minima where there are any."""
    figure = Figure((6, 4), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="parameters", ylabel="loss")
    dots = axes.scatter(points.parameters, points.loss, c=np.log10(points.flops), cmap="viridis", s=14)
    figure.colorbar(dots, label="log10 of training FLOPs")
    for curve in found.parabolas:
        u = np.log(np.geomspace(curve.points.parameters.min(), curve.points.parameters.max(), 50))
        axes.plot(np.exp(u), np.polyval(curve.curve, u), color="grey", lw=0.8)
        axes.plot(curve.best["parameters"], curve.best["loss"], "x", color="black")
    return figure


def _laws(laws: dict[str, Fitted], held: Mapping[str, Held]) -> Figure:
    figure = Figure((3.2 * len(laws), 3), layout="constrained")
    for axes, (name, fitted) in zip(np.atleast_1d(figure.subplots(1, len(laws))), laws.items(), strict=True):
        x = np.geomspace(fitted.x.min() / 2, fitted.x.max() * FAR, 60)
        ends = np.array([fitted.predict(flops)[1:] for flops in x])
        axes.loglog(x, fitted.law(x), color="black", lw=1)
        axes.fill_between(x, *ends.T, alpha=0.2, color="grey", lw=0)
        axes.plot(fitted.x, fitted.y, "o", ms=4)
        if name in held:
            flops, _, low, high, found = held[name][1:]
            axes.vlines(flops, low, high, color="tab:red", lw=1, label="predicted")
            axes.plot(flops, found, "o", ms=4, mfc="white", color="tab:red", label="held out")
            axes.legend(fontsize=7)
        axes.set(xlabel="training FLOPs", title=name)
    return figure


def _residuals(found: Found, points: Points) -> Figure:
    """Loss over what was fitted, in percent: structure here says that the form is wrong."""
    figure = Figure((6, 3), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="parameters", ylabel="loss beyond the fit, %")
    axes.axhline(0, color="grey", lw=0.8)
    if found.formula is not None:
        smooth = found.formula(points.parameters, points.tokens)
        axes.plot(points.parameters, 100 * (points.loss / smooth - 1), "o", ms=4)
    for curve in found.parabolas:
        at, loss = curve.points.parameters, curve.points.loss
        axes.plot(at, 100 * (loss / np.polyval(curve.curve, np.log(at)) - 1), "o", ms=4, label=f"{curve.flops:.2g}")
    if found.parabolas:
        axes.legend(title="FLOPs", fontsize=7)
    return figure
