"""Encode videos and captions once, into caches that training reads.

  vidflow encode --config=experiments/bounce/text_to_video.py --config.autoencoder.run=runs/demo_autoencoder \\
      --out=caches/bounce
  vidflow train --config=experiments/bounce/text_to_video.py --config.autoencoder.run=runs/demo_autoencoder \\
      --config.data.source=cache --config.data.path=caches/bounce --workdir=runs/cached

Training encodes by itself into its run folder; this verb is for a cache that several runs share. An interrupted
encode goes on where it stopped. On several hosts, give each a share of the same folder: --share=1/4, --share=2/4, ...

Captions are encoded by the frozen encoders that config.text.use names, where there are any, once each, into
config.text.cache (default: text/ beside the latents), which other data sets and other subsets may share.
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

    from contextlib import nullcontext
    from pathlib import Path

    from vidflow import config as configs
    from vidflow import limits
    from vidflow.startup import start

    config = configs.override(configs.load(args.config), assignments)
    limits.check(config)
    if "autoencoder" not in config or not config.autoencoder.run:
        raise UsageError("Encoding needs a trained autoencoder: add --config.autoencoder.run=DIR.")
    if config.data.source == "cache":
        raise UsageError(
            "encode makes a cache, and config.data.source=cache reads one: say what goes into it, as by "
            "--config.data.source=folder --config.data.path=DIR."
        )
    start()
    from vidflow import files
    from vidflow.data import latents_cache
    from vidflow.tasks import frozen_autoencoder
    from vidflow.tasks.encoding import check_videos, encode_clips
    from vidflow.tasks.reading import Embeddings

    out, share = Path(args.out), latents_cache.parse_share(args.share)
    tiles = frozen_autoencoder.make_tiles(config.autoencoder.train.tiles)
    autoencoder = frozen_autoencoder.load(Path(config.autoencoder.run) / frozen_autoencoder.NAME, tiles)
    embeddings = None
    if "text" in config and config.text.get("encoders") is not None:
        texts = Path(config.text.cache or out / "text")
        embeddings = Embeddings(config, texts)
        embeddings.begin()  # what cannot be is said before clips are encoded
    own = files.held(out / f"share-{share.index + 1}-of-{share.of}") if share.of > 1 else nullcontext()
    with files.held(out, shared=share.of > 1), own:
        encode_clips(config.data, config.seed, autoencoder, out, share)
        check_videos(config.data, config.seed, out)
    if embeddings:
        embeddings.fill(latents_cache.captions(out, share))
        print(f"Embeddings of the captions: train with --config.text.cache={texts}")


if __name__ == "__main__":
    cli.run(main)
