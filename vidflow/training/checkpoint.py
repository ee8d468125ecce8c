"""Checkpoints on storage: with `local_checkpoints.py`, the only modules that know Orbax.

A checkpoint is one step's `state` and, beside it, a digest of every array of it. Saves are asynchronous and atomic:
what a killed process leaves half-written keeps a temporary name, is never offered as a step, and is removed at start.
A step whose values do not have their digests is damaged: it is set aside and the one before it is taken.
"""

import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

from vidflow.errors import UsageError
from vidflow.training import digests, hosts
from vidflow.training.state import State

METADATA = "_CHECKPOINT_METADATA"  # of Orbax, in each step
DAMAGED = ".damaged"  # the end of the name under which a damaged step is set aside


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, folder: Path, keep: int = 2, keep_every: int = 0, best: str = "") -> None:
        """Keeps the newest `keep` steps, and besides the multiples of `keep_every` and the step with the lowest `best`,
        a metric given to `save`, where these are set."""
        kept: list[Any] = [managers.LatestN(keep)]
        if keep_every:
            kept.append(managers.EveryNSteps(keep_every))
        if best:
            kept.append(_lowest(best))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=managers.AnyPreservationPolicy(kept),
            best_fn=_ranked_by(best) if best else None,  # without it no metric is written
            cleanup_tmp_directories=True,
            create=True,
        )
        self._folder = folder.absolute()
        handlers = {"state": ocp.StandardCheckpointHandler(), "digests": ocp.JsonCheckpointHandler()}
        make = partial(ocp.CheckpointManager, self._folder, options=options, item_handlers=handlers)
        with self._writing():
            try:
                self._manager = make()
            except (ValueError, OverflowError):  # Orbax asks each step when it was saved
                hosts.on_first(_set_aside, self._folder, _undated(self._folder))
                self._manager = make()

    def save(self, state: State, step: int, metrics: dict[str, float] | None = None) -> None:
        """Starts writing `state` as `step`, unless it is there; returns once the arrays are copied from the devices.

        Raises:
          UsageError: this save or the one before it cannot be written.
        """
        if step in self._manager.all_steps():
            return
        digest = ocp.args.JsonSave(digests.of_tree(state))
        with self._writing():
            args = ocp.args.Composite(state=ocp.args.StandardSave(state), digests=digest)
            self._manager.save(step, args=args, metrics=metrics)

    def latest(self) -> int | None:
        """The newest whole step."""
        return self._manager.latest_step()

    def restore(self, like: State) -> State:
        """The newest whole and undamaged step, placed as `like` (abstract arrays with shardings, on any mesh).

        Raises:
          UsageError: the checkpoint is of another model, naming the first difference, or no step is undamaged.
        """

        def restore(step: int) -> tuple[State, dict[str, int]]:
            _check_same(_shapes(_saved(self._manager, step)["params"]), _shapes(like.params), self._folder)
            items = ocp.args.Composite(state=ocp.args.StandardRestore(like), digests=ocp.args.JsonRestore())
            restored = self._manager.restore(step, args=items)
            return restored["state"], restored["digests"]

        state, step, damaged = _newest_undamaged(self._folder, restore, self._manager.all_steps())
        if damaged:
            # Out of the way: the run will come to these steps again and save them.
            hosts.on_first(_set_aside, self._folder, damaged)
            self._manager.reload()
        return state

    def wait(self) -> None:
        """Returns once the last save is whole.

        Raises:
          UsageError: it cannot be written.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and ends the threads that write.

        Raises:
          UsageError: as `wait`.
        """
        self.wait()
        self._manager.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise UsageError(
                f"A checkpoint could not be written to {self._folder} ({_first_line(error)}): make room or mend the "
                "storage, and give the same command again; it goes on from the newest whole checkpoint."
            ) from error


def restore_ema(folder: Path, step: int | None = None, best: str = "") -> tuple[Any, int]:
    """The averaged parameters of a checkpoint in `folder`, in the memory of this host, and its step: of `step`, or of
    the one with the lowest metric `best`, or of the newest undamaged one.

    Raises:
      UsageError: the folder holds no such checkpoint, only damaged ones, or one of a time that cannot be.
    """
    options = ocp.CheckpointManagerOptions(read_only=True)
    handlers = {"state": ocp.PyTreeCheckpointHandler(), "digests": ocp.JsonCheckpointHandler()}
    try:
        opened = ocp.CheckpointManager(folder.absolute(), options=options, item_handlers=handlers)
    except (ValueError, OverflowError):  # Orbax asks each step when it was saved
        if not (undated := _undated(folder)):
            raise
        raise UsageError(
            f"The checkpoint of step {undated[0]} in {folder} was saved at a time that cannot be: move it "
            "away, or train on, which sets it aside."
        ) from None
    with opened as manager:

        def restore(step: int) -> tuple[dict[str, Any], dict[str, int]]:
            here = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
            ema = dict(_saved(manager, step)["ema"])
            item = {"ema": jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), ema)}
            places = ocp.checkpoint_utils.construct_restore_args(item)
            args = ocp.args.PyTreeRestore(item=item, restore_args=places, partial_restore=True)
            restored = manager.restore(step, args=ocp.args.Composite(state=args, digests=ocp.args.JsonRestore()))
            return restored["state"], {name: v for name, v in restored["digests"].items() if name.startswith("ema/")}

        steps = sorted(manager.all_steps())
        if best:
            metrics = {step: manager.metrics(step) or {} for step in steps}
            named = [step for step in steps if best in metrics[step]]
            candidates = sorted(named, key=lambda step: (metrics[step][best], -step))[:1]
        else:
            candidates = steps if step is None else [step]
        if not candidates or not set(candidates) <= set(steps):
            raise UsageError(_no_such(folder, steps, step, best))
        state, found, _ = _newest_undamaged(folder, restore, candidates)
        return jax.tree.map(np.asarray, state["ema"]), found


def _no_such(folder: Path, steps: list[int], step: int | None, best: str) -> str:
    """That the folder, which has these `steps`, has not the one that was asked for."""
    if not steps:
        return f"{folder} holds no whole checkpoint: train first, or name another run."
    asked = f"checkpoint with a metric {best!r}" if best else f"checkpoint of step {step}"
    return f"{folder} holds no {asked}: name another run or one of its steps, {', '.join(map(str, steps))}."


def _lowest(metric: str) -> Any:
    return managers.BestN(
        get_metric_fn=_ranked_by(metric), reverse=True, n=1, keep_checkpoints_without_metrics=False
    )


def _ranked_by(metric: str) -> Callable[[dict[str, float]], float]:
    """A checkpoint of a time when the run kept the best by another metric comes last."""
    return lambda metrics: metrics.get(metric, math.inf)


def _saved(manager: ocp.CheckpointManager, step: int) -> Any:
    """What the checkpoint says that it holds."""
    return manager.item_metadata(step)["state"]


def _newest_undamaged(
    folder: Path,
    restore: Callable[[int], tuple[Any, dict[str, int]]],
    steps: Sequence[int],
) -> tuple[Any, int, list[int]]:
    """What `restore` gives for the newest of `steps` whose values have their digests, that step, and those damaged."""
    damaged: list[int] = []
    reason = ""
    for step in sorted(steps, reverse=True):
        try:
            state, wanted = _twice(restore, step)
            changed = [name for name, value in digests.of_tree(state).items() if wanted.get(name) != value]
            if not changed:
                return state, step, damaged
            reason = f"'{changed[0]}' is not what was saved"
        except UsageError:
            raise
        except Exception as error:  # a damaged file shows itself in whatever read it
            reason = _first_line(error)
            if isinstance(error, MemoryError | PermissionError) or "RESOURCE_EXHAUSTED" in str(error):
                raise UsageError(
                    f"The checkpoint of step {step} in {folder} cannot be read here ({reason}): give it more memory, "
                    "as by a mesh of more devices, or the right to read, and go on."
                ) from None
        damaged.append(step)
        logging.warning("The checkpoint of step %d in %s is damaged (%s).", step, folder, reason)
    raise UsageError(
        f"No checkpoint in {folder} is undamaged (step {damaged[-1]}: {reason}): restore the folder from a copy, or "
        "start again in another one."
    )


def _twice(restore: Callable[[int], Any], step: int) -> Any:
    """Storage that fails for a moment is no damage. Several hosts would have to try again together, and do not."""
    try:
        return restore(step)
    except UsageError:
        raise
    except Exception as error:
        if jax.process_count() > 1:
            raise
        logging.warning("Reading the checkpoint of step %d failed (%s): once more.", step, _first_line(error))
        return restore(step)


def _set_aside(folder: Path, steps: list[int]) -> None:
    for step in steps:
        aside = folder / f"{step}{DAMAGED}"
        shutil.rmtree(aside, ignore_errors=True)  # of the same step when it was damaged before
        (folder / str(step)).rename(aside)


def _undated(folder: Path) -> list[int]:
    """The steps that say to have been saved at a time that cannot be."""

    def is_dated(step: Path) -> bool:
        try:
            saved = json.loads((step / METADATA).read_text())["commit_timestamp_nsecs"]
            return bool(datetime.fromtimestamp(saved / 1e9, tz=UTC))
        except (OSError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError):
            return True  # it says nothing, and then the time of its file counts
        except (ValueError, OverflowError):
            return False

    return [int(path.name) for path in folder.iterdir() if path.name.isdecimal() and not is_dated(path)]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


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
