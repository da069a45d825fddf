"""DeepLabV3+ (Chen et al. 2018), from segmentation-models-pytorch: a modern reference beside SegNet and U-Net."""

from torch import nn

from glomerulearn.networks.weights import load_encoder_weights


def deeplabv3plus(classes: int = 2, encoder: str = "resnet34", weights: str = "none") -> nn.Module:
    """DeepLabV3+ on a torchvision encoder (`resnet18`, `resnet34`, `resnet50`, ...) or `efficientnet_lite0` (to 2).

    weights: `none` (from scratch), `torchvision` or, for the latter, `package` (ImageNet), or a path to a local
    state dict.
    Input: float (N, 3, h, w), h and w divisible by `stride`. Output: logits (N, classes, h, w).
    """
    import segmentation_models_pytorch as smp  # slow to import, and only this network needs it

    from_timm = encoder.startswith("efficientnet_lite")
    name = f"tu-tf_{encoder}" if from_timm else encoder
    model = smp.DeepLabV3Plus(name, encoder_weights=None, classes=classes)
    load_encoder_weights(model.encoder.model if from_timm else model.encoder, encoder, weights)
    model.stride = 16
    return model
