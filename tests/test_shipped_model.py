"""The reference model inside the package: small, whole, and as good as it says."""

import json

import numpy as np

from vidflow import sample
from vidflow.data import video
from vidflow.tasks import evaluation, generation


def test_it_is_small_and_names_its_recipe():
    files = [path for path in generation.REFERENCE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files if path.suffix == ".safetensors") < 10e6
    provenance = json.loads((generation.REFERENCE / "provenance.json").read_text())
    assert provenance["recipe"] == "launch/reference.sh" and provenance["packages"]["jax"]


SENTENCE = "a small red star moves slowly up and to the left"


def test_the_sentence_of_the_readme_gives_a_video(tmp_path):
    out = tmp_path / "star.mp4"
    sample.main([SENTENCE, f"--out={out}"])
    frames = video.read(out, frames=8, height=40, width=40, fps=None)
    assert all(evaluation.score(frames, SENTENCE).values())  # as the file shows it, after lossy compression


def test_nearly_all_samples_of_that_sentence_are_right_in_every_attribute():
    generator = generation.load(generation.REFERENCE)
    samples = evaluation.samples_of(generator, [SENTENCE] * 8, [0], evaluation.score)
    assert sum(all(one.scores.values()) for one in samples) >= 7


def test_its_scores_are_those_of_its_card():
    """16 held-out prompts with one object: means within what so few can tell from the card's."""
    generator = generation.load(generation.REFERENCE)
    prompts = evaluation.held_out_prompts(generator.config.data, generator.config.seed, 16)[1]
    samples = evaluation.samples_of(generator, prompts, [0], evaluation.score)
    card = json.loads((generation.REFERENCE / "evaluation.json").read_text())
    means = evaluation.attribute_means([one.scores for one in samples])
    for name in ("colour", "direction", "shape", "size"):
        expected = card[f"bounce/{name}"]["mean"]
        deviation = np.sqrt(max(expected * (1 - expected), 0.02) / means[name].n)
        assert means[name].mean > expected - 3 * deviation, name
