"""Prompts as the batch of a model has them: bytes, or embeddings of frozen encoders.

Embeddings come from a cache (`data.text_cache`), which `prepare` fills: in training no tower runs. A prompt that is not
in it, as one that somebody wants sampled, is encoded when it is asked for.
"""

import logging
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from vidflow import files
from vidflow.data.text_cache import Encode, TextCache
from vidflow.errors import UsageError
from vidflow.parallel import rules
from vidflow.parallel.mesh import make_mesh
from vidflow.tasks.prompts import encoders_in_use
from vidflow.text import byte_tokens, pretrained, tokenizers
from vidflow.text.reads import READS

TEXT = "text"  # the folder of a run's own embeddings of its captions
AT_ONCE = 65536  # captions, of which bytes are looked at and not kept
RECORD = "text_encoders.json"  # of a run: the digest of each encoder whose embeddings it learnt from


@runtime_checkable
class Reader(Protocol):
    """Prompts -> the text of a batch, a tree of arrays with a row for each."""

    def __call__(self, prompts: Sequence[str]) -> Any: ...

    def check(self) -> None:
        """Raises UsageError if captions, whatever they are, could not be read: before anything is made for a run."""

    def prepare(self, captions: Sequence[str]) -> None:
        """Sees to it that these can be read in training, or raises UsageError."""


def make_reader(config: ConfigDict, run: Path) -> Reader:
    """That of a text-to-video run, whose embeddings are in `config.text.cache` or, if that is empty, in its folder."""
    if config.text.get("encoders") is None:
        return Bytes(config)
    return Embeddings(config, Path(config.text.cache or run / TEXT), run / RECORD)


def learnt_from(run: Path) -> dict[str, str]:
    """The digests of the encoders whose embeddings a run learnt from; none of one that reads bytes."""
    record = run / RECORD
    return files.read_record(record)["encoders"] if record.exists() else {}


class Bytes:
    """For an encoder of bytes that is trained along."""

    def __init__(self, config: ConfigDict) -> None:
        self._config = config

    def __call__(self, prompts: Sequence[str]) -> Any:
        return byte_tokens.tokenize([_written(self._config, prompt) for prompt in prompts], self._config.text.length)

    def check(self) -> None:
        pass

    def prepare(self, captions: Sequence[str]) -> None:
        for start in range(0, len(captions), AT_ONCE):
            self(captions[start : start + AT_ONCE])


class Embeddings:
    """For the encoders `config.text.use`, each of which reads its part of a prompt.

    `record` is a file of the run: once it is written, embeddings of other encoders are refused.
    """

    def __init__(self, config: ConfigDict, folder: Path, record: Path | None = None) -> None:
        self._config, self._folder, self._encoders = config, folder, encoders_in_use(config.text)
        self._record = record
        self._known = learnt_from(record.parent) if record else {}
        self._caches: dict[str, TextCache] = {}
        self._digests: dict[str, str] = {}
        self._new: dict[str, dict[str, np.ndarray]] = {name: {} for name in self._encoders}

    def __call__(self, prompts: Sequence[str]) -> Any:
        return {name: self._read(name, prompts) for name in self._encoders}

    def check(self) -> None:
        """Raises UsageError: the run's own cache is to be made, and an encoder is not where the config says."""
        for name in () if self._config.text.cache else self._encoders:
            if not TextCache.exists(self._folder / name):
                self._path(name)

    def prepare(self, captions: Sequence[str]) -> None:
        """Encodes those that the run's own cache lacks.

        Raises:
          UsageError: one that several runs share (`config.text.cache`) lacks some: `vidflow encode` fills it.
        """
        for name in self._encoders if self._config.text.cache else ():
            if missing := self._missing(name, captions):
                raise UsageError(
                    f"{self._folder} lacks the embeddings by '{name}' of {len(missing)} captions, '{missing[0][:60]}' "
                    "the first: run vidflow encode with this config."
                )
        if not self._config.text.cache:
            self._complete(captions)
        if self._record and not self._known:
            self._known = {name: cache.digest for name, cache in self._caches.items()}
            files.write_record(self._record, {"encoders": self._known})

    def begin(self) -> None:
        """Opens the caches to `fill` them, before other long work.

        Raises:
          UsageError: an encoder that is not there or reads what there is not, or embeddings of other encoders.
        """
        for name in self._encoders:
            self._part(name, "a")
            self._caches[name] = TextCache(self._folder / name, self._how(name), self._digest(name))

    def fill(self, captions: Sequence[str]) -> None:
        """Encodes those that the caches, which were begun, lack."""
        self._complete(captions)

    def _complete(self, captions: Sequence[str]) -> None:
        for name in self._encoders:
            missing = self._missing(name, captions)
            if not missing:
                continue
            encoder, cache = self._encoders[name], self._open(name, self._digest(name))
            size = encoder.tokens * encoder.width * np.dtype(np.float32).itemsize
            with tqdm(total=len(missing), unit="text", dynamic_ncols=True, desc=f"encode by {name}") as bar:
                for done in cache.add(missing, self._tower(name), size):
                    bar.update(done)
            if full := sum(cache.tokens(text) == encoder.tokens for text in missing):
                setting = f"config.text.encoders.{name}.tokens={encoder.tokens}"
                logging.warning("%s: %d of %d texts have so many, or more and are cut.", setting, full, len(missing))
            self._caches[name] = cache

    def _missing(self, name: str, captions: Sequence[str]) -> list[str]:
        """What the encoder would read of them and has not, each once."""
        parts = dict.fromkeys(self._part(name, caption) for caption in captions)
        return [part for part in parts if part and not self._has(name, part)]

    def _has(self, name: str, part: str) -> bool:
        if name not in self._caches and TextCache.exists(self._folder / name):
            self._caches[name] = self._open(name)
        return name in self._caches and part in self._caches[name]

    def _open(self, name: str, digest: str = "") -> TextCache:
        cache = TextCache(self._folder / name, self._how(name), digest)
        self._check(name, cache.digest)
        return cache

    def _check(self, name: str, digest: str) -> None:
        if self._known.get(name, digest) != digest:
            raise UsageError(
                f"{self._record.parent} learnt from embeddings by '{name}' that another encoder made, or the same with "
                "other settings: give config.text.cache, and the encoder's path, tokens and dtype, as they were."
            )

    def _read(self, name: str, prompts: Sequence[str]) -> dict[str, np.ndarray]:
        encoder, parts = self._encoders[name], [self._part(name, prompt) for prompt in prompts]
        new = self._new[name]
        unknown = [part for part in dict.fromkeys(parts) if part and not self._has(name, part) and part not in new]
        if unknown:
            embeddings, mask = self._tower(name)(unknown)
            new |= {part: values[own] for part, values, own in zip(unknown, embeddings, mask, strict=True)}
        table = np.zeros((len(parts), encoder.tokens, encoder.width), jnp.bfloat16)
        real = np.zeros(table.shape[:2], bool)
        for row, part in enumerate(parts):
            if part:
                found = new[part] if part in new else self._caches[name][part]
                self._check_width(name, found.shape[1])
                table[row, : len(found)], real[row, : len(found)] = found, True
        return {"embeddings": table, "mask": real}

    def _check_width(self, name: str, width: int) -> None:
        if width != self._encoders[name].width:
            raise UsageError(f"Embeddings by '{name}' are {width} wide: set config.text.encoders.{name}.width={width}.")

    def _how(self, name: str) -> dict[str, Any]:
        return {"dtype": self._config.text.dtype, "tokens": self._encoders[name].tokens}

    def _path(self, name: str) -> str:
        path = self._encoders[name].path
        if not path:
            raise UsageError(
                f"There are texts to encode and config.text.encoders.{name}.path is empty: name the folder of the "
                f"encoder's weights, or with config.text.cache one where vidflow encode has put embeddings."
            )
        if not files.is_file(f"{path}/config.json"):
            raise UsageError(
                f"There are texts to encode and no encoder is in config.text.encoders.{name}.path={path}: correct it, "
                "for a run by its own vidflow train command with the new path, which trains no more than is left."
            )
        return path

    def _digest(self, name: str) -> str:
        if name not in self._digests:  # of gigabytes
            self._digests[name] = pretrained.digest(self._path(name), **self._how(name))
        return self._digests[name]

    def _tower(self, name: str) -> Encode:
        """The encoder, spread over the devices of this process; not kept, for others may want its memory."""
        if name in self._known:
            self._check(name, self._digest(name))
        # As many as divide an embedding, along which the rules spread the parameters.
        count = math.gcd(jax.local_device_count(), self._encoders[name].width)
        mesh = make_mesh(fsdp=count, devices=jax.local_devices()[:count])
        rows = math.lcm(pretrained.ROWS, mesh.size)
        place = partial(rules.shardings, mesh=mesh) if mesh.size > 1 else None
        with rules.in_force():
            tower = pretrained.load_encoder(self._path(name), **self._how(name), rows=rows, place=place)
        return partial(_encode, tower, mesh)

    def _part(self, name: str, prompt: str) -> str:
        """What an encoder reads of a prompt; of the empty one nothing."""
        reads = self._encoders[name].reads
        if reads not in READS:
            raise UsageError(f"config.text.encoders.{name}.reads='{reads}': use one of {', '.join(READS)}.")
        written = _written(self._config, prompt)
        for text in (prompt, written):
            tokenizers.check(text)  # what the encoder does not read of it, too
        return READS[reads](written)


def _encode(tower: pretrained.TextEncoder, mesh: Mesh, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    with rules.in_force(), jax.set_mesh(mesh):
        return tower.encode(texts)


def _written(config: ConfigDict, prompt: str) -> str:
    """The prompt with the frame rate before it, where the config says so (Movie Gen, section 3.1.3)."""
    prefix = config.text.get("prefix", "")
    if not prefix or not prompt:
        return prompt
    if config.data.fps is None and "{fps" in prefix:
        raise UsageError(f"config.text.prefix='{prefix}' tells the frame rate: set config.data.fps.")
    try:
        return prefix.format(fps=f"{config.data.fps or 0:g}") + prompt
    except (AttributeError, IndexError, KeyError, ValueError):
        raise UsageError(f"config.text.prefix='{prefix}': the only name in braces is {{fps}}.") from None
