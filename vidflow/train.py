"""Train what an experiment file describes, or go on with it: the same command resumes.

  vidflow train --config=experiments/bounce/autoencoder.py --workdir=runs/demo_autoencoder
  vidflow train --config=experiments/bounce/text_to_video.py:smoke --workdir=runs/smoke
  vidflow train --config=experiments/bounce/text_to_video.py --workdir=runs/demo \\
      --config.autoencoder.run=runs/demo_autoencoder --config.steps=5000

On several hosts, give the same command with --distributed on each, and --workdir on storage that all of them share.
TPU pods, GKE and Slurm tell JAX who belongs together. Elsewhere set JAX_COORDINATOR_ADDRESS (host and free port of
process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID, and let config.mesh cover the devices of all.

Any leaf of the config can be set with --config.NAME=VALUE; an unknown name is refused with the nearest known one.
The run folder then holds config.json, provenance.json, metrics.jsonl (one line a step), TensorBoard events,
checkpoints, and at the end the averaged weights (of an autoencoder in autoencoder/). Without config.autoencoder.run a
text-to-video run first trains the autoencoder that config.autoencoder.train describes. More steps train a finished run
on.

A run that is told to stop (SIGTERM, or a pod's notice of preemption) saves, and exits with config.preemption_code; 0
means finished. A killed one goes on from its newest whole checkpoint.
"""

from collections.abc import Sequence

from vidflow import cli
from vidflow.errors import UsageError


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.parser(__doc__, "train")
    cli.add_config_flags(parser)
    parser.add_argument("--workdir", required=True, metavar="DIR", help="run folder; made if absent, resumed if not")
    parser.add_argument("--distributed", action="store_true", help="train together with other hosts, see above")
    args, assignments = cli.parse_with_overrides(parser, argv)

    from pathlib import Path

    from vidflow import config as configs
    from vidflow import settings
    from vidflow.choices import imported
    from vidflow.startup import start

    if not args.workdir:
        raise UsageError("--workdir is empty: name the folder of the run.")
    if "://" in args.workdir:
        raise UsageError(f"--workdir={args.workdir} is not a folder: mount the bucket with gcsfuse and name that.")
    config = configs.override(configs.load(args.config), assignments)
    there = configs.flatten(config)
    if missing := [name for name in ("task", *configs.flatten(settings.of_a_run())) if name not in there]:
        raise UsageError(
            f"{args.config} has no config.{missing[0]}, which every run has: start from settings.of_a_generator() or "
            "settings.of_an_autoencoder() of vidflow/settings.py."
        )
    start(args.distributed)
    from vidflow.training import hosts, loop, preemption, program, run_folder

    build, workdir = imported(f"{config.task}.build", "config.task"), Path(args.workdir)
    program.check(config)
    preemption.stop_at_once(config.preemption_code)
    with hosts.held_by_first(workdir), run_folder.beginning(workdir):
        run_folder.prepare(workdir, config)
        if run_folder.is_finished(workdir, config.steps):
            print(f"{workdir} is finished: {config.steps} steps. Raise --config.steps to go on.")
            return
        loop.train(config, workdir, build(config, workdir))


if __name__ == "__main__":
    cli.run(main)
