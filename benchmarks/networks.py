"""AlexNet, VGG-16, ResNet-18 and MobileNetV2 for images of ordinary size, untrained: to measure time on.

AlexNet is Caffe's, as in the paper: two groups in conv2, conv4 and conv5, 227×227 images. Its local response
normalisation is left out: the paper's speedups are of the convolutions, no engine fuses it, and it would add
the same time to every variant. ResNet-50 is in `benchmarks.resnet50`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from benchmarks.resnet50 import ResNet50

VGG_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
MOBILE_STAGES = (
    # expansion, channels, blocks, first stride
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class AlexNet(nn.Module):
    """The paper's network: 61.0 million parameters, 2.3 of them in the five convolutions of `features`."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.features = alexnet_features()
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


def alexnet_features() -> nn.Sequential:
    """Make AlexNet up to its last pooling: what the paper's speedups are of."""
    convs = [
        nn.Conv2d(3, 96, 11, stride=4),
        nn.Conv2d(96, 256, 5, padding=2, groups=2),
        nn.Conv2d(256, 384, 3, padding=1),
        nn.Conv2d(384, 384, 3, padding=1, groups=2),
        nn.Conv2d(384, 256, 3, padding=1, groups=2),
    ]
    network = nn.Sequential()
    for number, conv in enumerate(convs, 1):
        network.add_module(f"conv{number}", conv)
        network.add_module(f"relu{number}", nn.ReLU())
        if number in (1, 2, 5):
            network.add_module(f"pool{number}", nn.MaxPool2d(3, 2))
    return network


def vgg16(classes: int = 1000) -> nn.Sequential:
    """Make VGG-16 without batch norm (Simonyan and Zisserman 2015), configuration D."""
    layers: list[nn.Module] = []
    channels = 3
    for widths in VGG_STAGES:
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    sizes = (512 * 7 * 7, 4096, 4096)
    head = [one for a, b in pairwise(sizes) for one in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Flatten(), *head, nn.Linear(4096, classes))


def conv_norm(
    channels_in: int, channels: int, size: int, stride: int = 1, groups: int = 1, act: type | None = None
) -> nn.Sequential:
    """Make a convolution without bias, its batch norm, and an activation where one is given."""
    conv = nn.Conv2d(channels_in, channels, size, stride, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), *([act()] if act else []))


class Residual(nn.Module):
    """A chain of layers beside a shortcut, and an activation after their sum."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.act = body, shortcut, act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.body(x) + self.shortcut(x))


def resnet18(classes: int = 1000) -> nn.Sequential:
    """Make ResNet-18 (He et al. 2016): 20 convolutions, 11.7 million parameters."""
    layers: list[nn.Module] = [conv_norm(3, 64, 7, 2, act=nn.ReLU), nn.MaxPool2d(3, 2, padding=1)]
    channels = 64
    for stage, width in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage > 0 and block == 0 else 1
            body = nn.Sequential(
                conv_norm(channels, width, 3, stride, act=nn.ReLU), conv_norm(width, width, 3)
            )
            same = stride == 1 and channels == width
            shortcut = nn.Identity() if same else conv_norm(channels, width, 1, stride)
            layers.append(Residual(body, shortcut, nn.ReLU()))
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


def mobilenet_v2(classes: int = 1000) -> nn.Sequential:
    """Make MobileNetV2 of width 1 (Sandler et al. 2018): 1×1 and depthwise convolutions."""
    layers: list[nn.Module] = [conv_norm(3, 32, 3, 2, act=nn.ReLU6)]
    channels = 32
    for expansion, width, blocks, first in MOBILE_STAGES:
        for block in range(blocks):
            stride, inner = (first if block == 0 else 1), channels * expansion
            parts = [] if expansion == 1 else [conv_norm(channels, inner, 1, act=nn.ReLU6)]
            parts += [
                conv_norm(inner, inner, 3, stride, groups=inner, act=nn.ReLU6),
                conv_norm(inner, width, 1),
            ]
            body = nn.Sequential(*parts)
            same = stride == 1 and channels == width
            layers.append(Residual(body, nn.Identity(), nn.Identity()) if same else body)
            channels = width
    layers.append(conv_norm(channels, 1280, 1, act=nn.ReLU6))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, classes))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    # how to make it, and the side of its images
    "alexnet": (AlexNet, 227),
    "vgg16": (vgg16, 224),
    "resnet18": (resnet18, 224),
    "resnet50": (ResNet50, 224),
    "mobilenet_v2": (mobilenet_v2, 224),
}


def make(name: str, seed: int = 0, batch: int = 1) -> tuple[nn.Module, Tensor]:
    """Make a network in eval mode with random weights, and one input."""
    build, side = NETWORKS[name]
    torch.manual_seed(seed)
    network = build().eval()
    return network, torch.randn(batch, 3, side, side)
