"""How devices share the tokens of one attention. Each runs inside `jax.shard_map`, on what one device holds."""
