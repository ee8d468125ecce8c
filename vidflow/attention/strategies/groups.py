"""Devices along the sequence axis as a table: `outer` rows of `inner` neighbours."""

from typing import NamedTuple

import jax

from vidflow.axes import SEQUENCE


class Groups(NamedTuple):
    """The sequence axis of size outer * inner; a device's place along it is row * inner + column."""

    outer: int
    inner: int

    @property
    def rows(self) -> list[list[int]]:
        """The neighbours that exchange heads for tokens."""
        return [[row * self.inner + column for column in range(self.inner)] for row in range(self.outer)]

    @property
    def columns(self) -> list[list[int]]:
        """The devices that hold the same heads of different tokens."""
        return [[row * self.inner + column for row in range(self.outer)] for column in range(self.inner)]

    def to_next_row(self, x: jax.Array) -> jax.Array:
        """What the device of the previous row held: after `outer` calls everything is home again."""
        size = self.outer * self.inner
        return jax.lax.ppermute(x, SEQUENCE, [(place, (place + self.inner) % size) for place in range(size)])

    def gather_rows(self, x: jax.Array) -> jax.Array:
        """The tokens of all rows, in order of rows; the backward pass adds and scatters."""
        return jax.lax.all_gather(x, SEQUENCE, axis=1, tiled=True, axis_index_groups=self.columns)

    def gather_columns(self, x: jax.Array) -> jax.Array:
        """The tokens of a row's neighbours, in their order."""
        return jax.lax.all_gather(x, SEQUENCE, axis=1, tiled=True, axis_index_groups=self.rows)

    def exchange(self, x: jax.Array, split: int, concatenate: int) -> jax.Array:
        """All-to-all between a row's neighbours: gives up part of axis `split`, gains the others' along the other."""
        return jax.lax.all_to_all(x, SEQUENCE, split, concatenate, tiled=True, axis_index_groups=self.rows)
