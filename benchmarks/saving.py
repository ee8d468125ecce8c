"""What saving costs: the same steps with a checkpoint every so many and without, in turns, in one process.

  python benchmarks/saving.py
  python benchmarks/saving.py --config=experiments/bounce/text_to_video.py:reference --every=50 --turns=8

A turn with saving starts a checkpoint, takes its steps while that is written, and ends when the steps are done and the
checkpoint is whole. A turn without takes the same number of steps. Both are what vidflow train runs, on random
examples. The cost is the ratio of their medians, less one; its interval is that of the median of the ratios of
neighbouring turns (95%, by order statistics).
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import arguments
import jax
import machine
import numpy as np
from scipy import stats

from vidflow import cli
from vidflow import config as configs
from vidflow.errors import UsageError
from vidflow.parallel import rules
from vidflow.parallel.mesh import whole_mesh
from vidflow.startup import start
from vidflow.tasks import text_to_video
from vidflow.training.checkpoint import Checkpoints
from vidflow.training.program import make_program


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments.parser(__doc__, "saving.py")
    cli.add_config_flags(parser, required=False)
    parser.add_argument("--every", type=int, default=50, help="steps between two checkpoints (default 50)")
    parser.add_argument("--turns", type=int, default=8, help="of each kind (default 8)")
    parser.add_argument("--json", metavar="FILE", help="write the times and what they were measured on")
    args, overrides = cli.parse_with_overrides(parser, argv)
    start()

    if min(args.every, args.turns) < 1:
        raise UsageError(f"--every={args.every} and --turns={args.turns} must be at least 1.")
    config = configs.override(configs.load(args.config or "experiments/bounce/text_to_video.py"), overrides)
    if config.task != "vidflow.tasks.text_to_video":
        raise UsageError(f"{args.config} is not an experiment of text to video: name one of these with --config.")
    device = machine.look(None)  # by a process of its own, before this one has the device
    times = measure(config, args.every, args.turns)
    result = {"every": args.every, **cost(times), "seconds": times}
    print(
        f"{args.every} steps take {np.median(times['without']):.2f} s without saving and "
        f"{np.median(times['with']):.2f} s with one checkpoint: {result['cost']:+.1%} "
        f"({result['low']:+.1%} to {result['high']:+.1%}), of which the loop waits "
        f"{np.median(times['blocked']) * 1e3:.0f} ms; {args.turns} turns of each"
    )
    machine.write(args.json, {"benchmark": "saving", **device, **result})


def measure(config: Any, every: int, turns: int) -> dict[str, list[float]]:
    """Seconds of every turn `with` and `without` saving, and those that `save` kept the loop from going on."""
    learner, mesh = text_to_video.outline(config), whole_mesh(config.mesh.to_dict())
    times: dict[str, list[float]] = {"with": [], "without": [], "blocked": []}
    with rules.in_force(config.rules), tempfile.TemporaryDirectory() as folder:
        program = make_program(config, learner, mesh)
        state = program.initialise(jax.random.key(0))
        batch = jax.tree.map(_random, program.batch)
        with jax.set_mesh(mesh):
            state = jax.block_until_ready(program.step(state, batch, program.given(0))[0])  # compiles
            checkpoints = Checkpoints(Path(folder), keep=2)
            checkpoints.save(state, 0)
            checkpoints.wait()
            for turn in range(2 * turns):
                saving, start = turn % 2 == 0, time.perf_counter()
                if saving:
                    checkpoints.save(state, turn + 1)
                    times["blocked"].append(time.perf_counter() - start)
                for _ in range(every):
                    state, _ = program.step(state, batch, program.given(0))
                jax.block_until_ready(state)
                checkpoints.wait()
                times["with" if saving else "without"].append(time.perf_counter() - start)
            checkpoints.close()
    return times


def cost(times: dict[str, list[float]]) -> dict[str, float]:
    """The share of time that saving adds, with an interval."""
    ratios = np.sort(np.divide(times["with"], times["without"]))
    below = max(int(stats.binom.ppf(0.025, len(ratios), 0.5)) - 1, 0)  # of the ratios, left out on either side
    median = np.median(times["with"]) / np.median(times["without"])
    return {"cost": median - 1, "low": ratios[below] - 1, "high": ratios[-1 - below] - 1}


def _random(like: jax.ShapeDtypeStruct) -> jax.Array:
    """An array of this shape, type and place."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=like.shape) if np.issubdtype(like.dtype, np.floating) else rng.integers(1, 200, like.shape)
    return jax.device_put(values.astype(like.dtype), like.sharding)


if __name__ == "__main__":
    cli.run(main)
