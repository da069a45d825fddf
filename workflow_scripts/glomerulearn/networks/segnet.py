"""SegNet (Badrinarayanan, Kendall, Cipolla 2017): a VGG encoder whose pooling indices drive the decoder's unpooling."""

import torch
from torch import nn

from glomerulearn.networks.blocks import conv_block, initialise
from glomerulearn.networks.weights import load_encoder_weights

# convolutions per stage and channels per stage (Simonyan, Zisserman 2015)
_STAGES = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
_CHANNELS = (64, 128, 256, 512, 512)


class SegNet(nn.Module):
    """SegNet on VGG16 or VGG19 with batch norm.

    encoder: `vgg16` or `vgg19`; width: factor on the channels (1 = the paper's); stages: how many of VGG's five.
    weights: `none`, `torchvision` (ImageNet VGG with batch norm, needs width 1) or a path to a local state dict.
    deep_supervision: also judge what goes into every stage of the decoder (Lee et al. 2015). Without the paper's pretrained
    encoder nothing short leads from the loss to the deep layers, and training stays at `all background` for long.
    Input: float (N, 3, h, w), h and w divisible by `stride`. Output: logits (N, classes, h, w); in training with
    deep_supervision a list of them, the full size first, then from the coarsest on.
    """

    def __init__(
        self, classes: int = 2, encoder: str = "vgg16", width: float = 1.0, stages: int = 5, weights: str = "none",
        deep_supervision: bool = False,
    ):  # fmt: skip
        super().__init__()
        counts = _STAGES[encoder][:stages]
        channels = [max(8, int(channel * width)) for channel in _CHANNELS[:stages]]
        self.stride = 2**stages
        self.encoder = nn.ModuleList(
            conv_block(source, target, count)
            for source, target, count in zip([3, *channels[:-1]], channels, counts, strict=True)
        )
        # the mirror image: as many convolutions, the last of a stage narrows to the next stage's channels
        self.decoder = nn.ModuleList(
            conv_block(channel, channel, count, last=shallower)
            for channel, shallower, count in zip(
                channels[::-1], [*channels[-2::-1], channels[0]], counts[::-1], strict=True
            )
        )
        self.head = nn.Conv2d(channels[0], classes, 3, padding=1)
        sides = channels[::-1] if deep_supervision else []
        self.side_heads = nn.ModuleList(nn.Conv2d(channel, classes, 1) for channel in sides)
        initialise(self)
        if weights != "none":
            self._load_vgg(encoder, weights)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Features of the encoder's last stage, before its pooling: (N, c, 2 * h / stride, 2 * w / stride)."""
        for index, stage in enumerate(self.encoder):
            images = stage(images if index == 0 else nn.functional.max_pool2d(images, 2))
        return images

    def forward(self, images: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        indices, sizes, stages = [], [], []
        for stage in self.encoder:
            images = stage(images)
            sizes.append(images.shape[-2:])
            images, where = nn.functional.max_pool2d(images, 2, return_indices=True)
            indices.append(where)
        for stage in self.decoder:
            stages.append(images)
            images = stage(nn.functional.max_unpool2d(images, indices.pop(), 2, output_size=sizes.pop()))
        if not (self.training and self.side_heads):
            return self.head(images)
        return [self.head(images), *(head(stage) for head, stage in zip(self.side_heads, stages, strict=True))]

    def _load_vgg(self, encoder: str, weights: str) -> None:
        import torchvision  # slow to import, and only pretrained encoders need it

        vgg = getattr(torchvision.models, f"{encoder}_bn")(weights=None)
        load_encoder_weights(vgg, f"{encoder}_bn", weights)
        parts = (nn.Conv2d, nn.BatchNorm2d)
        theirs = [layer for layer in vgg.features if isinstance(layer, parts)]
        ours = [layer for layer in self.encoder.modules() if isinstance(layer, parts)]
        for own, pretrained in zip(ours, theirs, strict=False):
            # VGG's convolutions have a bias, which the batch norm behind ours takes away again
            state = {name: value for name, value in pretrained.state_dict().items() if name in own.state_dict()}
            own.load_state_dict(state)
            if isinstance(own, nn.BatchNorm2d):
                continue
            following = theirs[theirs.index(pretrained) + 1]
            following.running_mean -= pretrained.bias.detach()
