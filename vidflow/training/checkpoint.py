"""Checkpoints: the only module that knows Orbax.

A checkpoint is one step's `state` and the config digest it belongs to. Saves are asynchronous and atomic: what a
killed process leaves half-written keeps a temporary name, is never offered as a step, and is removed at start.
"""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from vidflow.errors import UsageError
from vidflow.training.state import State


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True, create=True)
        self._folder = folder
        handlers = {"state": ocp.StandardCheckpointHandler()}
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options, item_handlers=handlers)

    def save(self, state: State, step: int) -> None:
        """Starts writing `state` as `step`; returns once the arrays are copied from the devices."""
        self._manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state)))

    def latest(self) -> int | None:
        """The newest whole step."""
        return self._manager.latest_step()

    def restore(self, like: State) -> State:
        """The newest whole step, placed as `like` (abstract arrays with shardings, on any mesh).

        Raises:
          UsageError: the checkpoint is of another model, naming the first difference.
        """
        step = self._manager.latest_step()
        saved = self._manager.item_metadata(step)["state"]["params"]
        _check_same(_shapes(saved), _shapes(like.params), self._folder)
        return self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like)))["state"]

    def close(self) -> None:
        """Waits until the last save is whole."""
        self._manager.wait_until_finished()
        self._manager.close()


def restore_ema(folder: Path) -> tuple[Any, int]:
    """The averaged parameters of the newest whole checkpoint in `folder`, and its step.

    Raises:
      UsageError: the folder holds no whole checkpoint.
    """
    options = ocp.CheckpointManagerOptions(read_only=True)
    handlers = {"state": ocp.PyTreeCheckpointHandler()}
    with ocp.CheckpointManager(folder.absolute(), options=options, item_handlers=handlers) as manager:
        step = manager.latest_step()
        if step is None:
            raise UsageError(f"{folder} holds no whole checkpoint: train first, or name another --run.")
        ema = manager.item_metadata(step)["state"]["ema"]
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), dict(ema))
        item = {"ema": like}
        places = ocp.checkpoint_utils.construct_restore_args(item)
        args = ocp.args.PyTreeRestore(item=item, restore_args=places, partial_restore=True)
        return manager.restore(step, args=ocp.args.Composite(state=args))["state"]["ema"], step


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}


def _check_same(saved: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]], folder: Path) -> None:
    for name in sorted(saved.keys() | wanted.keys()):
        if saved.get(name) != wanted.get(name):
            raise UsageError(
                f"The checkpoint in {folder} is of another model: '{name}' is {saved.get(name, 'absent')} there and "
                f"{wanted.get(name, 'absent')} in this config; use another --workdir or the config it was made with."
            )
