"""vidflow sample, whose video goes into a file of NumPy instead, before a codec changes it: python -m ... FLAGS."""

import numpy as np

from vidflow import cli, sample
from vidflow.data import video

if __name__ == "__main__":
    video.write = lambda path, clip, fps: np.save(path.with_suffix(".npy"), clip)
    cli.run(sample.main)
