"""When and where a run saves its state: `config.checkpoint`."""

from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from vidflow.training.checkpoint import Checkpoints
from vidflow.training.local_checkpoints import LocalCheckpoints
from vidflow.training.state import State
from vidflow.training.telemetry import Telemetry


class Saving:
    """The checkpoints of a run on storage and, if `local` is set, between those in the memory of its hosts.

    A context: at its end, however that comes, what was begun is whole.
    """

    def __init__(self, config: ConfigDict, workdir: Path, mesh: Mesh, like: State) -> None:
        """`config` is `config.checkpoint`, `like` the state, abstract.

        Raises:
          UsageError: storage that cannot be written, or local checkpoints on a mesh that holds the state once.
        """
        self._config, self._like = config, like
        self._storage = Checkpoints(workdir / "checkpoints", config.keep, config.keep_every, config.best)
        shared = workdir / "checkpoints.local"
        self._local = LocalCheckpoints(Path(config.local), shared, mesh, like) if config.local else None

    def __enter__(self) -> "Saving":
        return self

    def __exit__(self, *_: Any) -> None:
        self._storage.close()
        if self._local:
            self._local.close()

    def newest(self) -> State | None:
        """The state of the newest step that was saved whole; None before the first."""
        on_storage, on_hosts = self._storage.latest() or 0, self._local.latest() or 0 if self._local else 0
        if self._local and on_hosts > on_storage:
            return self._local.restore()
        return self._storage.restore(self._like) if on_storage else None

    def is_due(self, step: int) -> bool:
        """Whether the run saves at this step."""
        return step % self._config.every == 0 or (self._local is not None and step % self._config.local_every == 0)

    def save(self, state: State, step: int, telemetry: Telemetry, surely: bool = False) -> None:
        """Starts saving a step that is due, or that must be saved `surely`. Metrics must have been written out.

        Amid skipped steps only what must be is saved: such a state may be their cause and must not push out an older.
        """
        regular, best = step % self._config.every == 0, self._config.best
        if telemetry.is_skipping and not surely:
            return
        if surely or regular:
            self._storage.save(state, step, {best: telemetry.mean(best)} if best and regular else None)
        else:
            self._local.save(state, step)

    def wait(self) -> None:
        """Returns once the last save on storage is whole."""
        self._storage.wait()
