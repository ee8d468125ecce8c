"""Encode videos and captions once, into a cache that training reads.

  vidflow encode --config=experiments/bounce/text_to_video.py --config.autoencoder.run=runs/demo_autoencoder \\
      --out=caches/bounce
  vidflow train --config=experiments/bounce/text_to_video.py --config.autoencoder.run=runs/demo_autoencoder \\
      --config.data.source=cache --config.data.path=caches/bounce --workdir=runs/mine

Training encodes by itself into its run folder; this verb is for a cache that several runs share. An interrupted
encode goes on where it stopped. On several hosts, give each a share of the same folder: --share=1/4, --share=2/4, ...
"""

from collections.abc import Sequence

from vidflow import cli
from vidflow.errors import UsageError


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.parser(__doc__, "encode")
    cli.add_config_flags(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the cache; made if absent")
    parser.add_argument("--share", default="1/1", metavar="I/N", help="encode the I-th of N shares (default: all)")
    args, assignments = cli.parse_with_overrides(parser, argv)

    from pathlib import Path

    from vidflow import config as configs
    from vidflow.startup import start

    config = configs.override(configs.load(args.config), assignments)
    if "autoencoder" not in config or not config.autoencoder.run:
        raise UsageError("Encoding needs a trained autoencoder: add --config.autoencoder.run=DIR.")
    start()
    from vidflow import files
    from vidflow.data.latents_cache import parse_share
    from vidflow.tasks import frozen_autoencoder
    from vidflow.tasks.encoding import encode_clips

    out, share = Path(args.out), parse_share(args.share)
    tiles = frozen_autoencoder.make_tiles(config.autoencoder.train.tiles)
    autoencoder = frozen_autoencoder.load(Path(config.autoencoder.run) / frozen_autoencoder.NAME, tiles)
    with files.held(out if share.of == 1 else out / f"share-{share.index + 1}-of-{share.of}"):
        encode_clips(config.data, config.seed, autoencoder, out, share)


if __name__ == "__main__":
    cli.run(main)
