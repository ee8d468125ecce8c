"""The settings that every run has, whatever it learns: how it is kept, watched, and spread over devices; those of
every text-to-video model, and those of every autoencoder.

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


def of_a_generator() -> ConfigDict:
    """Those of a run that trains a text-to-video model: besides `of_a_run`, its mathematics, as Movie Gen's.

    Names are of functions in vidflow/flow, with arguments after a colon; or dotted names of your own.
    """
    config = of_a_run()
    config.task = "vidflow.tasks.text_to_video"
    config.flow = ConfigDict()
    config.flow.path = "linear"  # from noise to data, of flow/paths.py
    config.flow.target = "velocity"  # what is predicted, of flow/targets.py
    config.flow.times = "logit_normal"  # the density of training times, of flow/times.py
    config.flow.stratified = False  # whether the times of a batch are spread evenly over it
    config.flow.per_frame = False  # whether every frame of patches has a time of its own
    config.flow.coupling = "independent"  # which noise goes with which datum, of flow/couplings.py

    config.sampling = ConfigDict()
    config.sampling.solver = "euler"  # of flow/solvers.py, multistep.py, adaptive.py, stochastic.py
    config.sampling.schedule = "linear_quadratic"  # of flow/schedules.py
    config.sampling.steps = 50
    config.sampling.start = 0.0  # the first time; above 0 for targets that say nothing where all is noise
    config.sampling.end = 1.0
    config.sampling.guidance = 1.0  # the scale of classifier-free guidance; 1: none
    config.sampling.guidance_shape = "constant"  # over time, of flow/guidance.py
    config.sampling.guidance_rescale = 0.0  # the share of its growth in deviation that is taken back
    config.sampling.batch = 64  # videos at a time
    return config


def of_text_encoders() -> ConfigDict:
    """`config.text` of a model that is told its prompt by frozen encoders, whose embeddings a cache holds."""
    text = ConfigDict()
    text.use = ()  # which of the encoders below, and in which order their tokens follow one another
    text.encoders = ConfigDict()  # name -> `text_encoder(...)`
    text.dropout = 0.1  # the share of training rows that are told nothing
    text.prefix = ""  # before every prompt; {fps} stands for the frame rate
    text.cache = ""  # a folder of embeddings that several runs share; empty: each run makes its own before it trains
    text.dtype = "bfloat16"  # in which the encoders compute
    return text


def text_encoder(tower: str, tokens: int, width: int, reads: str = "prompt") -> ConfigDict:
    """One of `config.text.encoders`: at most so many tokens of so many features."""
    encoder = ConfigDict({"tokens": tokens, "width": width})
    encoder.tower = tower  # its shape, of TOWERS in text/published.py, for plans
    encoder.path = ""  # the folder of its weights
    encoder.reads = reads  # "prompt", or "quoted": what the prompt has between quotation marks
    encoder.dropout = 0.0  # the share of training rows that it tells nothing, beside `text.dropout`
    return encoder


def movie_gen_design() -> ConfigDict:
    """The choices of vidflow/models/design.py that make Movie Gen's transformer; each is one field of an ablation."""
    design = ConfigDict()
    design.norm = "rms"  # or "layer"
    design.mlp = "swiglu"  # or "gelu"
    design.bias = False  # of projections
    design.time = "adaln_zero"  # or "adaln", "in_context", "cross_attention": how the time enters
    design.shared = True  # one projection of the time for all layers, or one in each
    design.text = "cross_attention"  # or "in_context"; or "none", which ignores the prompt
    design.positions = "every"  # layer, or the "first"; or "waves", or "rotary"
    design.qk_norm = False  # of queries and keys
    return design


def dit_design() -> ConfigDict:
    """DiT's (Peebles and Xie 2023), with text by cross-attention."""
    design = movie_gen_design()
    design.update({"norm": "layer", "mlp": "gelu", "bias": True, "shared": False, "positions": "waves"})
    return design


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
    # Its weight times the ratio of the other losses' gradients and its own, in each microbatch.
    config.discriminator.adaptive = True
    config.discriminator.r1 = 0.0  # weight of the squared gradient on real videos; 0: not computed
    return config
