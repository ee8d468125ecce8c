"""How good a run is: reconstruction for its autoencoder, read-back attributes for its samples."""

import json
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import UInt8
from ml_collections import ConfigDict
from tqdm import tqdm

from vidflow import autoencoders, files
from vidflow import config as configs
from vidflow.autoencoders.tiling import Tiles
from vidflow.data import video
from vidflow.data.latents_cache import LatentsSource
from vidflow.data.pipeline import Source
from vidflow.data.sources import clips_at_once, is_held_out, make_source, to_bytes, to_float
from vidflow.errors import UsageError
from vidflow.metrics import intervals
from vidflow.metrics.intervals import Interval
from vidflow.tasks import frozen_autoencoder, generation, reconstruction, validation
from vidflow.tasks.frozen_autoencoder import FrozenAutoencoder
from vidflow.tasks.generation import Generator
from vidflow.tasks.reconstruction import NO_JUDGES, Judges, Protocol
from vidflow.training import hosts, run_folder
from vidflow.worlds import bounce
from vidflow.worlds.bounce import grammar, reader, scene, signs

BATCH = 64
PARTS = ("autoencoder", "loss", "samples")
SHOWN = 16  # samples kept as files
SAMPLES, INDEX, SCORES = "samples", "index.json", "scores.json"

Scores = dict[str, Interval]
CHANCE = {
    "colour": 1 / len(scene.COLOURS),
    "shape": 1 / len(scene.SHAPES),
    "size": 1 / len(scene.SIZES),
    "direction": 1 / len(scene.DIRECTIONS),
    "speed": 1 / len(scene.SPEEDS),
    "background": 1 / len(scene.BACKGROUNDS),
}
NUMBERS = {1: "bounce", 2: "bounce/two_objects", 3: "bounce/three_objects"}


class Sample(NamedTuple):
    """One generated video, what was asked for, and what was read back."""

    prompt: str
    seed: int
    video: UInt8[np.ndarray, "T H W 3"]
    scores: dict[str, bool | float]


def named(flag: str, text: str) -> tuple[str, ...]:
    """The parts that a flag names, with commas between them.

    Raises:
      UsageError: another part.
    """
    parts = tuple(text.split(","))
    if unknown := [part for part in parts if part not in PARTS]:
        raise UsageError(f"{flag}={text} names '{unknown[0]}': use {', '.join(PARTS)}.")
    return parts


def check_parts(config: ConfigDict, parts: Sequence[str], who: str) -> None:
    """Raises UsageError: a run of this config lacks one of the parts."""
    if lacking := [part for part in parts if part not in _parts_of(config)]:
        raise UsageError(f"{who} is of an autoencoder and has no {lacking[0]} to score: ask for autoencoder alone.")


def _parts_of(config: ConfigDict) -> Sequence[str]:
    return PARTS if "sampling" in config else ("autoencoder",)


def autoencoder_scores(
    autoencoder: FrozenAutoencoder, source: Source, data: ConfigDict, seed: int, clips: int, judges: Judges
) -> tuple[Protocol, Scores]:
    """`autoencoder/psnr` and so on, and `floor/psnr` and so on (see `tasks.reconstruction`), and what they are of.

    `source` is the test split of `data`. On bounce its clips are held out, and the reader's own accuracy on them and on
    their reconstructions comes along as `reader/ground_truth/*` and `reader/reconstruction/*`. Of a folder without a
    `test_path` the first clips are used.
    """
    codec, tiles = partial(reconstruct, autoencoder), autoencoder.tiles
    said, rows = reconstruction.compare(codec, autoencoder.compression, source, data, seed, clips, judges, tiles)
    scores = {f"{name}/{measure}": value for name, found in rows.items() for measure, value in found.items()}
    if data.source == "bounce" and data.get("max_interval", 1) == 1:  # captions tell the speed of clips not thinned
        shown = [source[index] for index in range(said.clips)]
        originals, captions = np.stack([clip["video"] for clip in shown]), [clip["caption"] for clip in shown]
        for name, videos in (("ground_truth", originals), ("reconstruction", codec(originals))):
            read = [score(clip, caption) for clip, caption in zip(videos, captions, strict=True)]
            scores |= {f"reader/{name}/{key}": value for key, value in attribute_means(read).items()}
    return said, scores


def reconstruct(
    autoencoder: FrozenAutoencoder, videos: UInt8[np.ndarray, "B T H W 3"]
) -> UInt8[np.ndarray, "B T H W 3"]:
    """Encoded and decoded, in batches."""
    frames, size = videos.shape[1], videos.shape[2:4]
    batch = clips_at_once(frames, *size, most=BATCH)
    parts = [videos[low : low + batch] for low in range(0, len(videos), batch)]
    return np.concatenate([autoencoder.decode(autoencoder.encode(part), frames, size) for part in parts])


def score(clip: UInt8[np.ndarray, "T H W 3"], prompt: str) -> dict[str, bool | float]:
    """The attributes that the prompt names, right or wrong in the clip.

    Raises:
      UsageError: a prompt that is not of bounce's grammar.
    """
    rest, said = signs.apart(prompt)
    description = grammar.parse(rest)
    if description is None:
        raise UsageError(f"The prompt '{prompt[:80]}' names nothing that the bounce reader can check: see its grammar.")
    if said is None:
        return reader.score(reader.read(clip), description)
    world = clip.shape[1] - signs.height_of(clip.shape[1])
    return reader.score(reader.read(clip[:, :world]), description) | signs.score(signs.read(clip[:, world:]), said)


def attribute_means(scores: Sequence[dict[str, bool | float]], independent: int | None = None) -> Scores:
    """The mean of every attribute over those that name it."""
    names = sorted({name for row in scores for name in row})
    columns = {name: [float(row[name]) for row in scores if name in row] for name in names}
    share = 1.0 if independent is None else independent / len(scores)
    return {
        name: intervals.proportion(column, max(round(len(column) * share), 1)) for name, column in columns.items()
    }


def held_out_prompts(data: ConfigDict, seed: int, each: int) -> dict[int, list[str]]:
    """The first `each` captions of held-out clips for every number of objects that the level has."""
    numbers = (1, 2, 3) if data.level == scene.TOP_LEVEL else (1,)
    prompts: dict[int, list[str]] = {number: [] for number in numbers}
    index = 0
    while any(len(some) < each for some in prompts.values()):
        what, caption = bounce.told(
            seed,
            index,
            level=data.level,
            split="test",
            height=data.height,
            width=data.width,
            captions=data.captions,
            with_signs=data.get("signs", False),
        )
        some = prompts[len(what.objects)]
        if len(some) < each:
            some.append(caption)
        index += 1
    return prompts


def samples_of(
    generator: Generator,
    prompts: Sequence[str],
    seeds: Sequence[int],
    grade: Callable[[UInt8[np.ndarray, "T H W 3"], str], dict[str, bool | float]],
) -> list[Sample]:
    """A video for every prompt and seed, with the settings of the run's config, graded against its prompt."""
    data, sampling = generator.config.data, generator.config.sampling
    samples = []
    number, silent = len(prompts) * len(seeds), not hosts.is_first()
    with tqdm(total=number, unit="video", dynamic_ncols=True, desc="sample", disable=silent) as bar:
        for seed in seeds:
            before = bar.n
            videos = generator(
                prompts,
                seed=seed,
                steps=sampling.steps,
                guidance=sampling.guidance,
                frames=data.frames,
                height=data.height,
                width=data.width,
                progress=lambda done, before=before: bar.update(before + done - bar.n),
            )
            samples += [Sample(p, seed, v, grade(v, p)) for p, v in zip(prompts, videos, strict=True)]
    return samples


def generator_scores(
    generator: Generator, data: ConfigDict, prompts: int, seeds: Sequence[int]
) -> tuple[Scores, list[Sample]]:
    """`bounce/<attribute>` on held-out prompts of `data` with one object, `bounce/two_objects/...` and so on, and
    `chance/...`.

    Intervals count prompts, not samples: the samples of one prompt are not independent.
    """
    scores, everything = {}, []
    for number, some in held_out_prompts(data, generator.config.seed, prompts).items():
        samples = samples_of(generator, some, seeds, score)
        means = attribute_means([sample.scores for sample in samples], independent=len(some))
        scores |= {f"{NUMBERS[number]}/{name}": value for name, value in means.items()}
        everything += samples
    chance = {f"chance/{name}": Interval(value, value, value, 0) for name, value in CHANCE.items()}
    return scores | {name: value for name, value in chance.items() if f"bounce/{name[7:]}" in scores}, everything


def write(
    run: Path, scores: Scores, said: Protocol | None, samples: Sequence[Sample] = (), fps: float | None = None
) -> None:
    """`evaluation.json`: name -> mean, low, high, n, null where it is not known; the protocol of those that are of
    clips, if any are; and `samples/`, if there are any. Those of an earlier evaluation do not stay beside them."""
    table = {
        name: {key: part if np.isfinite(part) else None for key, part in value._asdict().items()}
        for name, value in sorted(scores.items())
    }
    (run / "protocol.json").unlink(missing_ok=True)
    if samples:
        (run / SAMPLES / INDEX).unlink(missing_ok=True)  # of earlier ones: it vouches for the files, and comes last
    files.write_whole(run / "evaluation.json", json.dumps(table, indent=1) + "\n")
    if said is not None:
        files.write_whole(run / "protocol.json", json.dumps({**said._asdict(), "card": said.card()}, indent=1) + "\n")
    if samples:
        _write_samples(run / SAMPLES, samples, fps)


def _write_samples(folder: Path, samples: Sequence[Sample], fps: float | None) -> None:
    """Some videos as files named in index.json, evenly over all prompts and seeds, for the first are the easiest; and
    scores.json with a row for every sample."""
    files.make_folder(folder)
    rows: list[dict[str, Any]] = [{"prompt": s.prompt, "seed": s.seed, "scores": s.scores} for s in samples]
    count, shown = min(SHOWN, len(samples)), []
    for number in range(count):
        place, name = number * len(samples) // count, f"{number:03d}.mp4"
        video.write(folder / name, samples[place].video, fps)
        shown.append({"file": name, **rows[place]})
    files.write_whole(folder / SCORES, json.dumps(rows, indent=0) + "\n")
    files.write_whole(folder / INDEX, json.dumps(shown, indent=1) + "\n")


def data_of(config: ConfigDict) -> ConfigDict:
    """The `data` that the clips of a run come from: for a run on a cache, that of the encode that made it."""
    if config.data.source != "cache":
        return config.data
    recipe = LatentsSource(Path(config.data.path)).recipe
    return configs.from_json(json.dumps({**json.loads(configs.to_json(config.data)), **recipe["data"]}))


def _seed_of_split(config: ConfigDict, data: ConfigDict) -> int:
    """The seed by which a source tells test clips from those of training: of a cache, that of the encode that made it.
    Bounce keeps them apart whatever the seed, and each run is scored on clips of its own."""
    if config.data.source != "cache" or data.source == "bounce":
        return config.seed
    return LatentsSource(Path(config.data.path)).recipe["seed"]


def evaluate(
    run: Path,
    prompts: int,
    seeds: Sequence[int],
    clips: int,
    judges: Judges = NO_JUDGES,
    parts: Sequence[str] = (),
    mesh: Mesh | None = None,
) -> tuple[Protocol | None, Scores]:
    """Evaluates `parts` of what the run holds, or without any all of it: evaluation.json, protocol.json (of the clips
    behind reconstruction and loss) and samples/. A text-to-video model is spread over the mesh.

    Samples of a model trained on a folder show its first captions and carry no scores: nobody knows what is in them.

    Raises:
      UsageError: a folder that holds nothing trained, or whose data are gone.
    """
    config = run_folder.read_config(run)
    check_parts(config, parts, str(run))
    parts = parts or _parts_of(config)
    data = data_of(config)
    own = config.autoencoder.train if "autoencoder" in config else config
    autoencoder = frozen_autoencoder.load(run / frozen_autoencoder.NAME, frozen_autoencoder.make_tiles(own.tiles))
    seed = _seed_of_split(config, data)
    held_out = cache(lambda: make_source(data, seed=seed, split="test"))  # a folder is looked through once
    said, scores, samples = None, {}, []
    if "autoencoder" in parts:
        said, scores = autoencoder_scores(autoencoder, held_out(), data, seed, clips, judges)
    generator = generation.load(run, mesh) if {"loss", "samples"} & set(parts) else None
    if generator and "loss" in parts:
        count, compression = min(clips, len(held_out())), autoencoder.compression
        said = reconstruction.protocol(data, seed, count, compression, autoencoder.tiles)
        scores |= validation.flow_loss(generator, held_out(), clips)
    if generator and "samples" in parts:
        if data.source == "bounce":
            generated, samples = generator_scores(generator, data, prompts, seeds)
            scores |= generated
        else:
            source = make_source(data, seed=seed) if is_held_out(data) else held_out()
            captions = [source[index]["caption"] for index in range(min(len(source), SHOWN))]
            samples = samples_of(generator, captions, seeds[:1], lambda clip, prompt: {})
    hosts.on_first(write, run, scores, said, samples, data.fps)
    return said, scores


def evaluate_published(
    folder: str, data: ConfigDict, seed: int, clips: int, judges: Judges = NO_JUDGES, tiles: Tiles | None = None
) -> tuple[Protocol, dict[str, Scores]]:
    """The protocol and the scores of an autoencoder that others trained (see `vidflow.autoencoders.load`) and of
    the floor.

    Raises:
      UsageError: another kind of folder, or data that are refused.
    """
    model = autoencoders.load(folder, tiles)

    def codec(videos: UInt8[np.ndarray, "B T H W 3"]) -> UInt8[np.ndarray, "B T H W 3"]:
        with jax.default_matmul_precision("highest"):  # float32, on whatever it runs
            z = model.encode(to_float(videos)).mean
            return to_bytes(np.asarray(model.decode(z, videos.shape[1], videos.shape[2:4])))

    source = make_source(data, seed=seed, split="test")
    return reconstruction.compare(codec, model.compression, source, data, seed, clips, judges, tiles)
