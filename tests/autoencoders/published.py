"""Small random models in the layout in which others publish theirs.

What diffusers computes with them is in `goldens/`; `make_goldens.py` wrote it. Weights are functions of their names, so
that only names, shapes and results are kept.
"""

import json
import math
import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

GOLDENS = Path(__file__).with_name("goldens")
FILE = "diffusion_pytorch_model.safetensors"


def tensor(name: str, shape: list[int]) -> np.ndarray:
    """Of an order that keeps the size of features."""
    normal = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("gamma") or ("norm" in name and name.endswith("weight")):
        return (1 + 0.2 * normal).astype(np.float32)
    if "running_var" in name or ("bn" in name and name.endswith("weight")):
        return np.abs(1 + 0.2 * normal).astype(np.float32)
    if name.startswith("lin"):
        return np.abs(normal).astype(np.float32)  # of LPIPS: weights of squares
    fan_in = math.prod(shape[1:]) if len(shape) > 1 else 100
    if "conv3d" in name:
        fan_in /= 2  # of I3D: a rectifier after each of many layers halves the energy
    return (normal / fan_in**0.5).astype(np.float32)


def tensors(name: str) -> dict[str, np.ndarray]:
    """All weights of the model `name`."""
    shapes = json.loads((GOLDENS / name / "tensors.json").read_text())
    return {tensor_name: tensor(tensor_name, shape) for tensor_name, shape in shapes.items()}


def keep_shapes(name: str, shapes: dict[str, list[int]]) -> Path:
    """Writes the names and shapes of all weights of a new model, a line for each; returns the folder of its goldens."""
    folder = GOLDENS / name
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{json.dumps(tensor_name)}: {json.dumps(shape)}" for tensor_name, shape in shapes.items()]
    (folder / "tensors.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return folder


def write(name: str, folder: Path) -> Path:
    """The folder that diffusers would have saved."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_bytes((GOLDENS / name / "config.json").read_bytes())
    save_file(tensors(name), folder / FILE)
    return folder


def video(frames: int, seed: int = 0) -> np.ndarray:
    """[1, frames, 16, 24, 3] in [-1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, (1, frames, 16, 24, 3)).astype(np.float32)


def latents(frames: int, channels: int) -> np.ndarray:
    """[1, frames, 2, 3, channels]."""
    return np.random.default_rng(1).standard_normal((1, frames, 2, 3, channels)).astype(np.float32)


def pictures(seed: int) -> np.ndarray:
    """[2, 72, 64, 3] in [-1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, (2, 72, 64, 3)).astype(np.float32)


def films() -> np.ndarray:
    """[2, 19, 50, 64, 3] in [-1, 1]."""
    return np.random.default_rng(3).uniform(-1, 1, (2, 19, 50, 64, 3)).astype(np.float32)


def golden(name: str) -> dict[str, np.ndarray]:
    """What diffusers computes: `mean` and `logvar` of the video, `decoded` latents; frames last but three."""
    return load_file(GOLDENS / name / "results.safetensors")
