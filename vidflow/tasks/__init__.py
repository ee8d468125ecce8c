"""What can be trained. A task is a module with `build(config, workdir) -> training.loop.Task`."""
