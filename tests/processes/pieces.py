"""Prints, for some meshes, which rows of a batch this process reads, which examples its devices then hold, and whether
an array spread over all devices is gathered whole."""

import itertools
import json
import sys

from vidflow.startup import start

MESHES = [(4, 1, 1, 1), (1, 2, 2, 1), (2, 1, 1, 2), (1, 1, 2, 2)]
BATCH, BATCHES = 8, 3


class Counting:
    """Example i is the number i; it remembers which were read."""

    def __init__(self) -> None:
        self.read: set[int] = set()

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> dict[str, int]:
        self.read.add(int(index))
        return {"x": index}


def main() -> None:
    start(distributed="--distributed" in sys.argv)
    import grain
    import jax
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    from vidflow.data import pipeline
    from vidflow.parallel.mesh import batch_sharding, make_mesh
    from vidflow.training import hosts

    whole = np.arange(32).reshape(8, 4)
    for shape in MESHES:
        source = Counting()
        mesh = make_mesh(*shape)
        sharding = batch_sharding(mesh)
        batches = pipeline.batches(grain.MapDataset.source(source), batch_size=BATCH, start=0, sharding=sharding)
        held = set()
        for batch in itertools.islice(batches, BATCHES):
            held.update(int(x) for shard in batch["x"].addressable_shards for x in np.asarray(shard.data))
        parts = jax.device_put(whole, NamedSharding(mesh, PartitionSpec(("fsdp", "sequence"), ("data", "tensor"))))
        gathered = hosts.gather({"a": parts})["a"]
        found = {
            "read": sorted({index % BATCH for index in source.read}),  # of which step says nothing: reading is ahead
            "held": sorted(held),
            "gathered": None if gathered is None else gathered.tolist() == whole.tolist(),
        }
        print("found", json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
