"""How many steps a schedule saves: the distance of samples from those of 1,000 equal Euler steps from the same noise.

Claim: Movie Gen, section 3.4.2: 50 linear-quadratic steps come near 250 equal ones.
Results: experiments/sampling/RESULTS.md.

    python experiments/sampling/steps.py [--run=runs/demo] [--prompts=32]

The distance of a sample is the root mean square of the difference of its latents, in parts of the deviation of the
reference's. Prompts are held out; each has one noise, the same in every row of the table. Without --run it is the model
that ships with the package. Intervals are Student's at 95% over prompts.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from vidflow import config as configs
from vidflow.metrics import intervals
from vidflow.tasks import evaluation, generation, text_to_video
from vidflow.tasks.generation import Generator

REFERENCE = ("euler", "uniform", 1000)
ROWS = [("euler", "uniform", steps) for steps in (25, 50, 100, 250)]
ROWS += [("euler", "linear_quadratic:reference=250", steps) for steps in (25, 50, 100)]
ROWS += [("euler", schedule, 50) for schedule in ("linear_quadratic:reference=1000", "shifted:factor=3", "cosine")]
ROWS += [("heun", "uniform", 25), ("dpm_solver", "uniform", 25), ("dpm_solver", "uniform", 50)]
ROWS += [("unipc", "uniform", 25), ("unipc", "uniform", 50)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=generation.REFERENCE)
    parser.add_argument("--prompts", type=int, default=32)
    args = parser.parse_args()
    generator = generation.load(args.run)
    config = generator.config
    prompts = evaluation.held_out_prompts(config.data, config.seed, args.prompts)[1]
    print("| guidance | solver | schedule | steps | distance from 1,000 steps |\n|---|---|---|---|---|")
    for guidance in (1.0, config.sampling.guidance):
        truth = latents(generator, prompts, guidance, *REFERENCE)
        for row in tqdm(ROWS, desc=f"guidance {guidance:g}"):
            apart = np.square(latents(generator, prompts, guidance, *row) - truth).mean(axis=(1, 2, 3, 4))
            mean, low, high, _ = intervals.mean((np.sqrt(apart) / truth.std()).tolist())
            solver, schedule, steps = row
            tqdm.write(f"| {guidance:g} | {solver} | {schedule} | {steps} | {mean:.4f} [{low:.4f}, {high:.4f}] |")


def latents(
    generator: Generator, prompts: list[str], guidance: float, solver: str, schedule: str, steps: int
) -> np.ndarray:
    """[prompts, t, h, w, c], normalised; the noise is that of seed 0."""
    config = configs.from_json(configs.to_json(generator.config))
    configs.override(config, [("sampling.solver", solver), ("sampling.schedule", schedule)])
    data = config.data
    shape = generator.autoencoder.compression.latent_shape(data.frames, data.height, data.width)
    model = text_to_video.make_model(config)
    sample = jax.jit(generation.make_sampler(model, config, shape, steps, guidance))
    text, empty = generator.read(prompts), generator.read([""] * len(prompts))
    return np.asarray(sample(generator.params, text, empty, jax.random.key(0), np.arange(len(prompts))))


if __name__ == "__main__":
    main()
