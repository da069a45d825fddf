"""Networks: shapes, SegNet's indices and U-Net's skips at work, weights through the libraries' own loading."""

import hashlib

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from glomerulearn.errors import InputError
from glomerulearn.networks.autoencoder import Autoencoder
from glomerulearn.networks.folding import folded
from glomerulearn.networks.segmenters import build_segmenter, encode
from glomerulearn.networks.weights import load_encoder_weights, read_state_dict


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("segnet", {"encoder": "vgg16", "width": 0.125, "stages": 5}),
        ("segnet", {"encoder": "vgg19", "width": 0.125, "stages": 4}),
        ("unet", {"encoder": "plain", "base": 4, "depth": 4}),
        ("unet", {"encoder": "resnet18"}),
        ("unet", {"encoder": "mobilenet_v2"}),
        ("unet", {"encoder": "efficientnet_lite0"}),
        ("unet", {"encoder": "efficientnet_lite2"}),
        ("deeplabv3plus", {"encoder": "resnet18"}),
    ],
)
def test_logits_have_the_size_of_the_image(name, settings):
    model = build_segmenter(name, settings).eval()
    with torch.no_grad():
        images = torch.randn(2, 3, 64, 96)
        assert model(images).shape == (2, 2, 64, 96)
        features = encode(model, images)
    assert features.shape[0] == 2 and 64 / features.shape[2] == 96 / features.shape[3] >= 8


def test_full_size_is_the_papers():
    """Badrinarayanan 2017 reports 29.46 M parameters for SegNet on VGG16."""
    segnet, unet = build_segmenter("segnet", {}), build_segmenter("unet", {})
    assert sum(p.numel() for p in segnet.parameters()) == pytest.approx(29.46e6, rel=0.01)
    assert sum(p.numel() for p in unet.parameters()) == pytest.approx(31.0e6, rel=0.01)


def test_segnet_unpools_where_the_encoder_pooled(monkeypatch):
    seen = []
    unpool = torch.nn.functional.max_unpool2d

    def watch(features, indices, *rest, **more):
        seen.append(indices)
        return unpool(features, indices, *rest, **more)

    monkeypatch.setattr(torch.nn.functional, "max_unpool2d", watch)
    model = build_segmenter("segnet", {"width": 0.125, "stages": 3}).eval()
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        model(image)
        first = torch.nn.functional.max_pool2d(model.encoder[0](image), 2, return_indices=True)[1]
    assert len(seen) == 3 and torch.equal(seen[-1], first)


def test_segnet_is_judged_at_every_stage_in_training():
    model = build_segmenter("segnet", {"width": 0.125, "stages": 3, "deep_supervision": True})
    images = torch.randn(2, 3, 32, 48)
    outputs = model.train()(images)
    assert [tuple(output.shape) for output in outputs] == [(2, 2, 32, 48), (2, 2, 4, 6), (2, 2, 8, 12), (2, 2, 16, 24)]
    assert model.eval()(images).shape == (2, 2, 32, 48)


def test_unet_skips_carry_detail():
    """With the bottom silenced, the output still depends on single pixels: only a skip can bring them."""
    model = build_segmenter("unet", {"base": 4, "depth": 3}).eval()
    torch.nn.init.zeros_(model.ups[-1].weight)
    image = torch.randn(1, 3, 32, 32)
    other = image.clone()
    other[..., 16, 16] += 3
    with torch.no_grad():
        difference = (model(image) - model(other)).abs().sum(1)[0]
    assert difference[16, 16] > 0 and difference[0, 0] == 0


def test_local_weights_are_loaded_and_checked(tmp_path):
    torch.manual_seed(1)
    state = {
        key: value for key, value in torchvision.models.resnet18().state_dict().items() if not key.startswith("fc.")
    }
    save_file(state, tmp_path / "r.safetensors")
    torch.save(state, tmp_path / "r.pth")
    digest = hashlib.sha256((tmp_path / "r.pth").read_bytes()).hexdigest()
    for name, sha256 in (("r.safetensors", None), ("r.pth", digest)):
        model = torchvision.models.resnet18()
        load_encoder_weights(model, "resnet18", str(tmp_path / name), sha256)
        assert torch.equal(model.conv1.weight, state["conv1.weight"])
    with pytest.raises(InputError, match=r"r\.pth: sha256 is .*config says 0000"):
        read_state_dict(tmp_path / "r.pth", "0" * 64)
    with pytest.raises(InputError, match="do not fit|lack"):
        load_encoder_weights(torchvision.models.vgg19(), "vgg19", str(tmp_path / "r.pth"))


@pytest.mark.parametrize("name", ["unet", "deeplabv3plus"])
def test_segmenters_start_from_a_resnet_of_a_file(name, tmp_path):
    torch.manual_seed(5)
    resnet = torchvision.models.resnet18().eval()
    torch.save(resnet.state_dict(), tmp_path / "r.pth")
    model = build_segmenter(name, {"encoder": "resnet18", "weights": str(tmp_path / "r.pth")})
    assert torch.equal(model.encoder.get_submodule("layer1.0").conv1.weight, resnet.layer1[0].conv1.weight)
    other = {key: value for key, value in resnet.state_dict().items() if not key.startswith("layer4")}
    torch.save(other, tmp_path / "less.pth")
    with pytest.raises(InputError, match=r"lack \d+ tensors of resnet18"):
        build_segmenter(name, {"encoder": "resnet18", "weights": str(tmp_path / "less.pth")})


def test_segnet_starts_from_vgg(tmp_path):
    torch.manual_seed(2)
    vgg = torchvision.models.vgg16_bn().eval()
    torch.save(vgg.state_dict(), tmp_path / "vgg.pth")
    model = build_segmenter("segnet", {"weights": str(tmp_path / "vgg.pth")}).eval()
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(model.encoder[0](image), vgg.features[:6](image), atol=1e-5)


def test_imagenet_weights_of_a_package_know_edges():
    """They are real ones: filters of the first layer are smooth, and a picture's features differ from noise's alone."""
    torch.manual_seed(0)
    trained = build_segmenter("unet", {"encoder": "efficientnet_lite0", "weights": "package"}).eval()
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    assert not torch.equal(trained.encoder.conv_stem.weight, state["conv_stem.weight"])
    filters = trained.encoder.conv_stem.weight.detach()
    # neighbouring weights of a learned filter go together, those of a random one do not
    left, right = filters[..., :-1].flatten(), filters[..., 1:].flatten()
    assert torch.corrcoef(torch.stack([left, right]))[0, 1] > 0.2
    with pytest.raises(InputError, match="no package brings weights of resnet18"):
        build_segmenter("unet", {"encoder": "resnet18", "weights": "package"})


def test_weights_of_timm_from_a_file(tmp_path):
    torch.manual_seed(4)
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    save_file(state, tmp_path / "lite0.safetensors")
    model = build_segmenter("unet", {"encoder": "efficientnet_lite0", "weights": str(tmp_path / "lite0.safetensors")})
    assert torch.equal(model.encoder.conv_stem.weight, state["conv_stem.weight"])


@pytest.mark.parametrize("training", [True, False])
def test_depthwise_in_float32_is_the_same_convolution(training):
    model = build_segmenter("unet", {"encoder": "efficientnet_lite0"}).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.set_grad_enabled(training):  # without gradients they are computed in bfloat16, too
        exact = model(image)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(image)
    assert mixed.dtype == torch.bfloat16 and (mixed.float() - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("segnet", {"encoder": "vgg16", "width": 0.125, "stages": 4, "deep_supervision": True}),
        ("unet", {"encoder": "plain", "base": 4, "depth": 4}),
        ("unet", {"encoder": "resnet18"}),
        ("unet", {"encoder": "efficientnet_lite0"}),
        ("deeplabv3plus", {"encoder": "resnet18"}),
    ],
)
def test_without_batch_norms_a_segmenter_says_the_same(name, settings):
    torch.manual_seed(0)
    model = build_segmenter(name, settings).eval()
    norms = [layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for norm in norms:  # as after a training: else they do nothing
        torch.nn.init.normal_(norm.running_mean, std=0.3)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    lean = folded(model, torch.device("cpu"))
    left = [layer for layer in lean.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert norms and len(left) < len(norms) / 4
    with torch.no_grad():
        images = torch.randn(2, 3, 64, 96)
        torch.testing.assert_close(lean(images), model(images), rtol=1e-3, atol=1e-3)


def test_a_batch_norm_applied_elsewhere_is_not_folded():
    class Crossed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3)
            torch.nn.init.constant_(self.norm.running_mean, 2)

        def forward(self, images):
            return self.convolution(self.norm(images))

    model = Crossed()
    assert folded(model, torch.device("cpu")) is model


def test_pickled_code_is_never_run(tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    (tmp_path / "bomb.pth").write_bytes(pickle.dumps({"a": Bomb()}))
    with pytest.raises(InputError, match="not a plain state dict"):
        read_state_dict(tmp_path / "bomb.pth")
    assert not (tmp_path / "ran").exists()


def test_download_that_fails_says_what_to_do(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(InputError, match="cannot be downloaded.*give its path.*random"):
        load_encoder_weights(torchvision.models.resnet18(), "resnet18", "torchvision")


def test_autoencoder_shapes():
    model = Autoencoder(64, (8, 16, 32), 24)
    images = torch.randn(2, 3, 64, 64)
    assert model.encode(images).shape == (2, 24) and model(images).shape == images.shape
