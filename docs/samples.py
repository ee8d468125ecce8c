"""Draws docs/samples.png: the sentence of the README and the first held-out prompts, nothing selected.

    python docs/samples.py
"""

import textwrap
from pathlib import Path

from vidflow.startup import start

start()

import matplotlib  # noqa: E402

from vidflow.tasks import evaluation, generation  # noqa: E402

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

FRAMES = (0, 1, 3, 5, 7)

generator = generation.load(generation.REFERENCE)
data, sampling = generator.config.data, generator.config.sampling
held_out = evaluation.held_out_prompts(data, generator.config.seed, 4)
prompts = ["a small red star moves slowly up and to the left", *held_out[1][:3], *held_out[2][:2], held_out[3][0]]
videos = generator(
    prompts,
    seed=0,
    steps=sampling.steps,
    guidance=sampling.guidance,
    frames=data.frames,
    height=data.height,
    width=data.width,
)
figure, axes = plt.subplots(len(prompts), len(FRAMES), figsize=(1.4 * len(FRAMES), 1.75 * len(prompts)))
for row, prompt, video in zip(axes, prompts, videos, strict=True):
    row[0].set_title("\n".join(textwrap.wrap(prompt, 95)), fontsize=8, loc="left", pad=3)
    for axis, frame in zip(row, FRAMES, strict=True):
        axis.imshow(video[frame], interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        plt.setp(axis.spines.values(), color="0.8")
figure.subplots_adjust(0.01, 0.01, 0.99, 0.98, wspace=0.04, hspace=0.22)
figure.savefig(Path(__file__).with_name("samples.png"), dpi=100)
