"""Writes `goldens/lpips_*` with PyTorch and the package lpips: python -m tests.autoencoders.make_lpips_goldens"""

import sys
import types

import torch
from safetensors.numpy import save_file
from torch import nn

from tests.autoencoders import published


def vgg16():
    layers, channels = [], 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2, 2))
    return layers


def alexnet():
    return [
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    ]  # fmt: skip


def network(layers):
    return lambda pretrained=False, **_: types.SimpleNamespace(features=nn.Sequential(*layers()))


def main():
    models = types.ModuleType("torchvision.models")  # lpips takes no more of torchvision than these two
    models.vgg16, models.alexnet = network(vgg16), network(alexnet)
    package = types.ModuleType("torchvision")
    package.models = models
    sys.modules |= {"torchvision": package, "torchvision.models": models}
    import lpips

    for net in ("vgg", "alex"):
        model = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False).eval()
        state = {key: value for key, value in model.state_dict().items() if not key.startswith("lins.")}
        shapes = {key: list(value.shape) for key, value in state.items() if not key.startswith("scaling_layer")}
        folder = published.keep_shapes(f"lpips_{net}", shapes)
        weights = {key: torch.from_numpy(value) for key, value in published.tensors(f"lpips_{net}").items()}
        model.load_state_dict(weights, strict=False)  # the copies "lins.*" are the same modules
        one, other = (torch.from_numpy(published.pictures(seed)).movedim(-1, 1) for seed in (0, 1))
        one.requires_grad_()
        distance = model(one, other)
        distance.sum().backward()
        results = {"distance": distance.flatten(), "gradient": one.grad.movedim(1, -1).contiguous()}
        save_file({key: x.detach().numpy() for key, x in results.items()}, folder / "results.safetensors")


if __name__ == "__main__":
    main()
