"""A smaller copy of a published text encoder says the same, and takes no more memory than a file of it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.text import published
from vidflow import export
from vidflow.errors import UsageError
from vidflow.tasks.slimming import slim
from vidflow.text import load_encoder

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["t5_ul2", "clip_both_towers"])
def test_the_copy_says_the_same(tmp_path, name):
    folder = published.folder(name, tmp_path / name)
    export.main([f"--encoder={folder}", f"--out={tmp_path / 'slim'}", "--dtype=float32"])
    ours, theirs = (load_encoder(where).encode(published.TEXTS) for where in (tmp_path / "slim", folder))
    np.testing.assert_array_equal(ours[0], theirs[0])
    files = sorted((tmp_path / "slim").glob("*.safetensors"))
    whole = load_file(folder / "model.safetensors")
    kept = {tensor: value for file in files for tensor, value in load_file(file).items()}
    assert len(files) > 1 and kept.keys() < whole.keys()
    assert not any(tensor.startswith(("decoder.", "vision_model.")) for tensor in kept)


def test_half_precision_is_half_the_size(tmp_path):
    folder = published.folder("umt5", tmp_path / "umt5")
    full, half = (slim(folder, tmp_path / dtype, np.dtype(dtype)) for dtype in ("float32", "float16"))
    assert half < 0.6 * full


def test_an_interrupted_copy_is_no_model_and_goes_again(tmp_path):
    folder = published.folder("umt5", tmp_path / "umt5")
    slim(folder, tmp_path / "slim", np.float32)
    with pytest.raises(UsageError, match="holds a model already"):
        slim(folder, tmp_path / "slim", np.float32)
    (tmp_path / "slim" / "model.safetensors.index.json").unlink()
    with pytest.raises(UsageError, match="holds neither"):
        load_encoder(tmp_path / "slim")
    slim(folder, tmp_path / "slim", np.float32)
    load_encoder(tmp_path / "slim")


def test_what_an_interrupted_copy_left_does_not_stay(tmp_path):
    """One of twice the bytes has files of higher numbers."""
    folder, out = published.folder("umt5", tmp_path / "umt5"), tmp_path / "slim"
    slim(folder, out, np.float32)
    (out / "model.safetensors.index.json").unlink()
    size = slim(folder, out, np.float16)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert {file.name for file in out.glob("*.safetensors")} == set(index["weight_map"].values())
    stored = sum(value.nbytes for file in out.glob("*.safetensors") for value in load_file(file).values())
    assert size == index["metadata"]["total_size"] == stored


def test_a_model_is_not_written_over(tmp_path):
    folder = published.folder("umt5", tmp_path / "umt5")
    with pytest.raises(UsageError, match="holds a model already"):
        slim(folder, folder, np.float32)
    assert len(list(folder.glob("*.safetensors"))) == 1


def test_a_file_is_no_place_for_a_copy(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be a folder"):
        slim(published.folder("umt5", tmp_path / "umt5"), tmp_path / "file", np.float32)


MEASURE = """
import sys
from pathlib import Path
import jax.numpy as jnp
from vidflow.tasks.slimming import slim
kib = lambda name: int(Path("/proc/self/status").read_text().split(name)[1].split()[0])
Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
before = kib("VmRSS:")
slim(Path(sys.argv[1]), Path(sys.argv[2]), jnp.dtype(sys.argv[3]))
print((kib("VmHWM:") - before) * 1024)
"""


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("rows", [[2048] * 12, [21504, 2048, 1024]])
def test_memory_is_that_of_the_largest_file_and_not_of_the_model(tmp_path, dtype, rows):
    """Three files of 96 MiB: of 8 MiB a tensor, or most of it one, as a table of many words."""
    folder = published.folder("t5", tmp_path / "t5")
    (folder / "model.safetensors").unlink()
    place = {}
    for number in range(3):
        file = f"model-{number}.safetensors"
        part = {
            f"encoder.block.{number}.{row}": np.full((count, 1024), row, np.float32) for row, count in enumerate(rows)
        }
        save_file(part, folder / file)
        place |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    largest = max(file.stat().st_size for file in folder.glob("*.safetensors"))
    command = [sys.executable, "-c", MEASURE, folder, tmp_path / "slim", dtype]
    grown = int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert 0.1 * largest < grown < 1.3 * largest
