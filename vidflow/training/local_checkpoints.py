"""Checkpoints in the memory of the hosts, for pods of several slices: Orbax's emergency checkpointing.

Where every slice holds the whole state (the mesh's `data` axis counts slices, or a multiple of them), a host that is
lost takes nothing with it. So between two checkpoints on storage the state is written into a folder in the memory of
each host; after a restart a slice that still has it sends it to those that do not. With checkpoint.py the
only module that knows Orbax.
"""

import uuid
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from absl import flags
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from orbax.checkpoint.experimental.emergency import checkpoint_manager as emergency

from vidflow import axes, files
from vidflow.errors import UsageError
from vidflow.training import digests, hosts
from vidflow.training.state import State


class LocalCheckpoints:
    """The newest state, in a folder of every host."""

    def __init__(self, folder: Path, shared: Path, mesh: Mesh, like: State) -> None:
        """`folder` lies in the memory of each host (such as /dev/shm), `shared` on storage that all hosts see. What
        other runs left in `folder` is passed over.

        Raises:
          UsageError: the mesh does not hold the state twice, on different hosts.
        """
        replicas = [{device.process_index for device in part.flat} for part in mesh.devices]
        if len(replicas) < 2 or set.intersection(*replicas):
            raise UsageError(
                f"config.checkpoint.local={folder} needs the whole state on different hosts, and config.mesh.data is "
                f"{mesh.shape[axes.DATA]} on {jax.process_count()} of them: make it the number of slices, or leave "
                "config.checkpoint.local empty."
            )
        ocp.multihost.initialize_distributed_to_device_ids()
        if not flags.FLAGS.is_parsed():
            flags.FLAGS(["vidflow"])  # Orbax reads flags of its own here
        hosts.on_first(_name_run, shared)
        folder = folder / (shared / "id").read_text(encoding="utf-8")
        folder.mkdir(parents=True, exist_ok=True)
        place = NamedSharding(mesh, P())
        numbers = jax.tree.map(lambda _: jax.ShapeDtypeStruct((), "uint32", sharding=place), like)
        options = emergency.CheckpointManagerOptions(
            local=emergency.LocalCheckpointOptions(save_interval_steps=1, max_to_keep=1),
            # Storage is the business of checkpoint.py.
            persistent=emergency.PersistentCheckpointOptions(should_save_fn=lambda step, latest: False),
            replica_axis_index=mesh.axis_names.index(axes.DATA),
            cleanup_tmp_directories=True,
        )
        tree = {"state": like, "digests": numbers}
        self._place, self._folder = place, folder
        self._manager = emergency.CheckpointManager(folder.absolute(), shared.absolute(), mesh, tree, options=options)

    def save(self, state: State, step: int) -> None:
        """Starts writing `state` as `step`."""
        tree = {"state": state, "digests": jax.device_put(digests.arrays(state), self._place)}
        with jax.set_mesh(None):  # the manager computes on a mesh of its own
            self._manager.save(step, args=ocp.args.Composite(state=ocp.args.PyTreeSave(tree)))

    def latest(self) -> int | None:
        """The newest step that some slice holds whole."""
        return self._manager.latest_step()

    def restore(self) -> State:
        """That step.

        Raises:
          UsageError: its values are not those that were saved.
        """
        step = self.latest()
        tree = self._manager.restore(step)["state"]
        if jax.device_get(digests.arrays(tree["state"])) != jax.device_get(tree["digests"]):
            raise UsageError(f"The checkpoint of step {step} in {self._folder} is damaged: empty it on all hosts.")
        return tree["state"]

    def close(self) -> None:
        """Waits until the last save is whole."""
        self._manager.close()


def _name_run(shared: Path) -> None:
    """Gives the run a name that no other run has, a deleted one at the same place included."""
    shared.mkdir(parents=True, exist_ok=True)
    if not (shared / "id").exists():
        files.write_whole(shared / "id", uuid.uuid4().hex)
