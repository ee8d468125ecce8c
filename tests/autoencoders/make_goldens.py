"""Writes `goldens/` with PyTorch and diffusers, which no test needs: python -m tests.autoencoders.make_goldens"""


import torch
from diffusers import AutoencoderKL, AutoencoderKLHunyuanVideo, AutoencoderKLWan
from safetensors.numpy import save_file

from tests.autoencoders import published

FRAMES, LATENTS, CHANNELS = 9, 3, 4
DOWN, UP = "DownEncoderBlock2D", "UpDecoderBlock2D"
MODELS = {
    "wan": AutoencoderKLWan(
        base_dim=8,
        z_dim=CHANNELS,
        dim_mult=[1, 2, 2, 4],
        num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3, -0.4],
        latents_std=[1.5, 2.0, 2.5, 3.0],
    ),
    "hunyuan_video": AutoencoderKLHunyuanVideo(
        latent_channels=CHANNELS,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        norm_num_groups=4,
    ),
    "image": AutoencoderKL(
        down_block_types=(DOWN,) * 4,
        up_block_types=(UP,) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=4,
        scaling_factor=0.5,
        shift_factor=0.1,
    ),
    "image_without_quant_conv": AutoencoderKL(
        down_block_types=(DOWN,) * 4,
        up_block_types=(UP,) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ),
}


def channels_first(x):
    return torch.from_numpy(x).movedim(-1, 1)


def main():
    for name, model in MODELS.items():
        shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
        folder = published.keep_shapes(name, shapes)
        model.save_config(folder)
        model.load_state_dict({key: torch.from_numpy(value) for key, value in published.tensors(name).items()})
        images = name.startswith("image")
        video = channels_first(published.video(1 if images else FRAMES))
        z = channels_first(published.latents(1 if images else LATENTS, CHANNELS))
        with torch.no_grad():
            posterior = model.eval().encode(video[:, :, 0] if images else video).latent_dist
            decoded = model.decode(z[:, :, 0] if images else z).sample
        results = {"mean": posterior.mean, "logvar": posterior.logvar, "decoded": decoded}
        results = {key: x[:, :, None] if images else x for key, x in results.items()}
        save_file(
            {key: x.movedim(1, -1).contiguous().numpy() for key, x in results.items()}, folder / "results.safetensors"
        )


if __name__ == "__main__":
    main()
