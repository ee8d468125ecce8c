"""What turns an objective into a run: state, step, optimizer, checkpoints, telemetry, the loop."""
