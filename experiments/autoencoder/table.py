"""The tables of experiments/autoencoder/RESULTS.md, from the runs of launch/autoencoder_ablation.sh:

    python experiments/autoencoder/table.py runs/autoencoder_ablation

A row is the mean over seeds with Student's 95% interval; the last column, the same of each seed's difference from the
first arm's, is what to judge by, for seeds share their clips and their order.
"""

import json
import sys
from pathlib import Path

from vidflow.metrics import intervals

ARMS = ("2.5d", "3d", "causal", "outliers", "consistency", "channels=4", "channels=16")
MEASURES = ("psnr", "ssim")


def main() -> None:
    for data in sorted(path for path in Path(sys.argv[1]).iterdir() if (path / ARMS[0]).is_dir()):
        print(table(data), end="\n\n")


def table(data: Path) -> str:
    """Markdown, of the arms that have two seeds or more."""
    scores = {arm: read(data / arm) for arm in ARMS}
    base, rows = (
        scores[ARMS[0]],
        [f"| {data.name} | seeds | PSNR, dB | SSIM | floor, dB | PSNR, difference |", "|" + 6 * "---|"],
    )
    for arm, seeds in scores.items():
        shared = sorted(seeds.keys() & base.keys())
        if len(shared) < 2:
            continue
        cells = [cell([seeds[seed][f"autoencoder/{name}"]["mean"] for seed in seeds]) for name in MEASURES]
        floor = next(iter(seeds.values()))["floor/psnr"]["mean"]
        psnr = [[some[seed]["autoencoder/psnr"]["mean"] for seed in shared] for some in (seeds, base)]
        difference = "" if arm == ARMS[0] else cell([a - b for a, b in zip(*psnr, strict=True)], sign="+")
        rows.append(f"| {arm} | {len(seeds)} | {' | '.join(cells)} | {floor:.2f} | {difference} |")
    return "\n".join(rows)


def read(arm: Path) -> dict[str, dict]:
    """evaluation.json of each seed that has one."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(arm.glob("*/evaluation.json"))}


def cell(values: list[float], sign: str = "") -> str:
    mean, low, high, _ = intervals.mean(values)
    return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


if __name__ == "__main__":
    main()
