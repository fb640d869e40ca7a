"""VGG-16 in plain torch, since torchvision is no dependency of ours."""

from __future__ import annotations

from torch import nn

WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)  # 0: max-pooling


def vgg16(classes: int = 1000) -> nn.Sequential:
    """Build the network of Simonyan and Zisserman 2015: 13 convolutions and 3 linear layers."""
    layers: list[nn.Module] = []
    channels = 3
    for width in WIDTHS:
        if width:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2))
    head = [nn.Flatten(), nn.Linear(512 * 7 * 7, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU()]
    return nn.Sequential(*layers, *head, nn.Linear(4096, classes))
