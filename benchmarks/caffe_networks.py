"""The two small networks of the authors' examples, as Caffe defines and initialises them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class LeNet(nn.Module):
    """Caffe's LeNet: no ReLU after the convolutions, Xavier's initialisation, zero biases."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.pool, self.relu = nn.MaxPool2d(2), nn.ReLU()
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)
        for layer in (self.conv1, self.conv2, self.fc1, self.fc2):
            bound = (3 / layer.weight[0].numel()) ** 0.5
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv2(self.pool(self.conv1(x))))
        return self.fc2(self.relu(self.fc1(x.flatten(1))))


class LocalNorm(nn.Module):
    """Caffe's LRN within channels: x / (1 + α · mean of x² over 3×3)^β."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + 5e-5 * functional.avg_pool2d(x * x, 3, 1, 1)).pow(-0.75)


class ConvNet(nn.Module):
    """Caffe's cifar10_full: three 5×5 convolutions and one linear layer; pools round up."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv2d(inputs, outputs, 5, padding=2) for inputs, outputs in ((3, 32), (32, 32), (32, 64))
        )
        self.relu, self.norm1, self.norm2 = nn.ReLU(), LocalNorm(), LocalNorm()
        self.largest = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.mean = nn.AvgPool2d(3, 2, ceil_mode=True)
        self.fc1 = nn.Linear(1024, 10)
        for layer, std in ((self.conv1, 1e-4), (self.conv2, 0.01), (self.conv3, 0.01), (self.fc1, 0.01)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.relu(self.largest(self.conv1(x))))
        x = self.norm2(self.mean(self.relu(self.conv2(x))))
        x = self.mean(self.relu(self.conv3(x)))
        return self.fc1(torch.flatten(x, 1))
