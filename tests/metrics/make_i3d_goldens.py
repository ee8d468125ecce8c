"""Writes `tests/autoencoders/goldens/i3d` with PyTorch and a clone of github.com/piergiaj/pytorch-i3d.

python -m tests.metrics.make_i3d_goldens FOLDER_OF_THE_CLONE
"""

import sys

import torch
from safetensors.numpy import save_file
from torch import nn

from tests.autoencoders import published


def main():
    sys.path.insert(0, sys.argv[1])
    from pytorch_i3d import InceptionI3d

    model = InceptionI3d(400, in_channels=3).eval()
    model.avg_pool = nn.AvgPool3d((2, 2, 2), stride=(1, 1, 1))  # as 7 x 7 is of frames of 224 x 224
    shapes = {name: list(value.shape) for name, value in model.state_dict().items() if "num_batches" not in name}
    folder = published.keep_shapes("i3d", shapes)
    weights = {name: torch.from_numpy(value) for name, value in published.tensors("i3d").items()}
    model.load_state_dict(weights, strict=False)  # the counts of batches serve training alone
    with torch.inference_mode():
        logits = model(torch.from_numpy(published.films()).movedim(-1, 1)).mean(dim=2)
    save_file({"logits": logits.numpy()}, folder / "results.safetensors")


if __name__ == "__main__":
    main()
