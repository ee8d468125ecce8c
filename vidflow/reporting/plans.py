"""A plan as a page of text."""

from typing import Any

GIB = 2**30


def as_text(plan: dict[str, Any]) -> str:
    """What `tasks.planning.plan` and `tasks.searching.search` give."""
    lines = _one(plan)
    if "tried" in plan:
        lines += ["", "tried:", *(f"  {_line(tried)}" for tried in plan["tried"])]
        smallest = plan["smallest"]
        lines += ["smallest slice:", f"  {_line(smallest)}" if smallest else "  none of this generation"]
    return "\n".join(lines)


def _one(plan: dict[str, Any]) -> list[str]:
    slices = "" if plan["slices"] == 1 else f"{plan['slices']} x "
    devices = "" if plan["devices"] == 1 else f", {plan['devices']} devices"  # the layout says "one device"
    lines = [
        f"{plan['step']} step on {slices}{plan['topology']}{devices}: {_layout(plan)}",
        f"  parameters        {plan['parameters']:,}",
    ]
    if plan["tokens"]:
        lines.append(f"  tokens            {plan['tokens']:,}")
    memory = plan["hbm_gib"]
    lines.append(f"  fits              {'yes' if plan['fits'] else 'no'}: {_memory(memory)}")
    if not plan["fits"]:
        return [*lines, f"  {plan.get('advice', '')}"]
    if plan["model_flops"]:
        ratio = plan["hardware_flops"] / plan["model_flops"]
        lines.append(f"  FLOPs             {plan['model_flops']:.3e} of the model, {ratio:.2f} times that in hardware")
        lines.append(f"    of the model    {_parts(plan['flops'])}")
    seconds = plan["seconds"]
    times = ", ".join(f"{name} {_seconds(value)}" for name, value in seconds.items())
    lines.append(f"  seconds at least  {times}")
    share = plan["exposed_seconds"] / seconds["compute"]
    lines.append(f"  bound by          {plan['bound']}; communication that compute cannot hide: {share:.1%} of compute")
    if plan["mfu_bound"]:
        lines.append(
            f"  MFU at most       {plan['mfu_bound']:.1%} if everything overlaps, {plan['mfu_without_overlap']:.1%} if "
            "nothing does"
        )
    lines.append("  a device sends")
    lines += [f"    {_collective(row)}" for row in plan["collectives"] if row["bytes"] >= 0.005 * GIB]
    total = sum(row["bytes"] for row in plan["collectives"]) / GIB
    return [*lines, f"    {total:9.2f} GiB in all", f"  compiled in       {plan['compile_seconds']:.0f} s"]


def _parts(flops: dict[str, float]) -> str:
    """The share of each, the largest first, but for what rounds to nothing."""
    total = sum(flops.values())
    shares = sorted(((value / total, part.replace("_", " ")) for part, value in flops.items()), reverse=True)
    return ", ".join(f"{part} {share:.1%}" for share, part in shares if share >= 5e-4)


def _line(plan: dict[str, Any]) -> str:
    """One plan in a line."""
    text = f"{plan['topology']:<12} {_layout(plan):<48} {plan['hbm_gib']['total']:6.1f} GiB"
    if not plan["fits"]:
        return f"{text}  does not fit"
    return f"{text}  MFU {plan['mfu_without_overlap']:.1%} to {plan['mfu_bound']:.1%}"


def _layout(plan: dict[str, Any]) -> str:
    mesh = " ".join(f"{axis}={size}" for axis, size in plan["mesh"].items() if size > 1) or "one device"
    extras = [f"remat={plan['remat']}"] if plan["remat"] else []
    extras += [f"microbatches={plan['microbatches']}"] if plan["microbatches"] > 1 else []
    return ", ".join([mesh, *extras])


def _memory(memory: dict[str, float | None]) -> str:
    parts = ""
    if memory["arguments"] is not None:
        parts = f" ({memory['arguments']:.1f} arguments + {memory['temporaries']:.1f} temporaries)"
    return f"{memory['total']:.1f} of {memory['limit']:.1f} GiB{parts}"


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _collective(row: dict[str, Any]) -> str:
    overlapped = "overlap unknown" if row["overlapped"] is None else f"{row['overlapped']} overlapped"
    sent = f"{row['bytes'] / GIB:9.2f} GiB"
    return f"{sent}  {row['operation']} over {', '.join(row['axes'])}, {row['runs']} runs, {overlapped}"
