"""Small random text encoders as Hugging Face saves them, and what `transformers` says with them.

`make_goldens.py` wrote `goldens/`. Weights are functions of their names, so that only names and shapes are kept.
"""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.autoencoders.published import tensor

GOLDENS = Path(__file__).with_name("goldens")
MODELS = ("clip", "clip_projection", "clip_both_towers", "t5", "t5_ul2", "byt5", "umt5", "umt5_few_buckets")
TEXTS = ("A red circle moves up.", "", "今天 naïve 😀 it's", "a longer text of several words: the others are padded")
TOKENIZERS = {"clip": "clip", "t5": "t5", "umt5": "umt5", "byt5": "byt5"}


def tensors(name: str) -> dict[str, np.ndarray]:
    """All weights of the model `name`, by the names that are published."""
    shapes = json.loads((GOLDENS / name / "tensors.json").read_text())
    return {key: np.asarray(tensor(key, shape) * _scale(name, key)) for key, shape in shapes.items()}


def _scale(name: str, key: str) -> np.float32:
    """T5's logits are not divided by anything: its initialisation divides the queries' weights by sqrt(d_kv)."""
    if not key.endswith("SelfAttention.q.weight"):
        return np.float32(1)
    return np.float32(json.loads((GOLDENS / name / "config.json").read_text())["d_kv"] ** -0.5)


def folder(name: str, where: Path) -> Path:
    """The model as it would be published, with its tokenizer."""
    where.mkdir(parents=True)
    shutil.copy(GOLDENS / name / "config.json", where)
    values = tensors(name)
    if name.startswith("clip"):  # as transformers before 4.31 saved it, OpenAI's folders among them
        values["text_model.embeddings.position_ids"] = np.arange(20)[None]
    save_file(values, where / "model.safetensors")
    for file in (GOLDENS / "tokenizers" / name.split("_")[0]).iterdir():
        shutil.copy(file, where)
    return where


def golden(name: str) -> dict[str, np.ndarray]:
    """`embeddings`, `mask`, and of CLIP `pooled`, of the texts that `make_goldens.py` names."""
    return load_file(GOLDENS / name / "golden.safetensors")
