"""The settings that every run has, whatever it learns: how it is kept, watched, and spread over devices; and those of
every autoencoder.

An experiment starts from them, sets what it wants otherwise, and adds its science:

    config = settings.of_a_run()
    config.task, config.steps, config.batch_size = "vidflow.tasks.autoencoder", 50_000, 64
    config.checkpoint.every = 300
"""

from ml_collections import ConfigDict


def of_a_run() -> ConfigDict:
    """A new config with the settings and their defaults, open to changes."""
    config = ConfigDict()
    config.seed = 0
    config.init_from = ""  # a run folder or a safetensors file, whose averaged weights the run starts from
    config.microbatches = 1  # parts of a batch whose gradients are added up one after another
    config.gradient_dtype = "float32"  # "bfloat16" halves the memory of the matrices' gradients
    config.host_memory = ()  # parts of the state that rest in the memory of the hosts: ema, mu, nu
    config.log_every = 10  # steps between two looks at the metrics, for which the loop waits
    config.preemption_code = 75  # the exit status of a run that was told to stop
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "sequence": 1, "tensor": 1})  # -1: what the others leave
    config.rules = "everywhere"  # where parameters lie: a table of vidflow/parallel/rules.py

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 1000  # steps between two of them
    config.checkpoint.keep = 2  # the newest so many
    config.checkpoint.keep_every = 0  # and those whose step is a multiple of it; 0: none
    config.checkpoint.best = ""  # and the one where the mean of this metric over the last `every` steps is lowest
    config.checkpoint.local = ""  # a folder in the memory of each host, for more of them on many slices,
    config.checkpoint.local_every = 100  # so many steps apart

    config.stability = ConfigDict()
    config.stability.max_skips = 10  # so many skipped steps in a row stop the run
    config.stability.window = 100  # steps over which the statistics below run
    config.stability.loss_spike = 0.0  # standard deviations above the mean loss at which a step is skipped; 0: never
    config.stability.norm_spike = 0.0  # times the usual norm to which a gradient is scaled down; 0: never
    return config


def of_an_autoencoder() -> ConfigDict:
    """Those of a run that trains an autoencoder: besides `of_a_run`, its losses, all of them off."""
    config = of_a_run()
    config.task = "vidflow.tasks.autoencoder"
    config.losses = ConfigDict()  # weights; 0: not computed
    for name in ("l1", "l2", "kl", "wavelet", "outliers", "consistency", "adversarial"):
        config.losses[name] = 0.0
    config.losses.perceptual = 0.0  # LPIPS, of the weights that `lpips` names
    config.losses.random_features = 0.0  # the same sum over a random network: needs no weights, and is not LPIPS
    config.hint_share = 0.0  # of the clips whose first frame the decoder is shown (H3AE's omni objective); model.hinted
    # Tiles in which it works once trained, and their overlap: latents along (time, height, width); (): none.
    config.tiles = ConfigDict({"size": (), "overlap": ()})
    config.tile_share = 0.0  # of the steps, which learn in these tiles: for finetuning, so that seams are seen
    config.lpips = ""  # FILE of the weights of LPIPS, for the loss "perceptual"
    config.discriminator = ConfigDict({"width": 64, "layers": 3})
    config.discriminator.time = 1  # frames that it looks at together: 1 or 3
    config.discriminator.start = 0  # the step from which the two learn from one another
    config.discriminator.adaptive = True  # its weight times the ratio of the other losses' gradients and its own
    config.discriminator.r1 = 0.0  # weight of the squared gradient on real videos; 0: not computed
    return config
