"""Figures that people judge the results by. Every one states its numbers, its space, and whether weights are random."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.decomposition import PCA

from glomerulearn.masks import MaskStore
from glomerulearn.patches import PatchStore
from glomerulearn.pictures import pictures

# told apart with any colour vision (Okabe, Ito 2008)
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000", "#999999", "#7F3C8D")
NAMES = {
    "segnet": "SegNet", "unet": "U-Net", "deeplabv3plus": "DeepLabV3+", "truth": "Truth (outlines)",
    "autoencoder": "Autoencoder", "denoising": "Denoising autoencoder", "contrastive": "Contrastive",
    "segmenter": "Segmenter's encoder", "vgg19": "VGG19", "resnet50": "ResNet50", "efficientnet": "EfficientNet-Lite",
    "morphology": "Morphology (measured)", "consensus": "Consensus", "variants": "of the better variants",
    "none": "no reduction", "pca": "PCA", "isomap": "Isomap", "tsne": "t-SNE", "umap": "UMAP",
    "silhouette": "Silhouette", "davies_bouldin": "Davies-Bouldin", "calinski_harabasz": "Calinski-Harabasz",
    "gmm": "Gaussian mixture (BIC)", "hdbscan": "HDBSCAN", "leiden": "Leiden", "spectral": "Spectral clustering",
}  # fmt: skip
COLOURS = {"truth": PALETTE[2], "segnet": PALETTE[1], "unet": PALETTE[0], "deeplabv3plus": PALETTE[3]}
_WINDOW_UM = 1600.0  # side of the windows that compare segmenters
_PER_CLUSTER = 8  # crops of each cluster that a gallery shows


def draw_learning_curves(epochs: Mapping[str, Mapping[str, Path]], target: Path) -> None:
    """Loss and validation scores of every epoch, a row of axes for each look. epochs: look -> segmenter -> epochs.csv."""
    figure = Figure((10, 3.6 * len(epochs)), layout="constrained")
    rows = figure.subplots(len(epochs), 2, squeeze=False)
    for (loss, score), (look, files) in zip(rows, epochs.items(), strict=True):
        for name, path in files.items():
            table, colour = pd.read_csv(path), COLOURS[name]
            best = table.loc[table["val_mean_iou"].idxmax()]
            loss.plot(table["epoch"], table["train_loss"], ":", color=colour, label=f"{NAMES[name]}, train")
            loss.plot(table["epoch"], table["val_loss"], color=colour, label=f"{NAMES[name]}, val")
            score.plot(table["epoch"], table["val_mean_iou"], color=colour, label=f"{NAMES[name]}, MeanIoU")
            score.plot(table["epoch"], table["val_dice"], "--", color=colour, label=f"{NAMES[name]}, Dice")
            score.plot(best["epoch"], best["val_mean_iou"], "o", color=colour)
        loss.set(xlabel="epoch", ylabel="loss (cross-entropy + Dice)", title=look)
        score.set(xlabel="epoch", ylabel="on val windows (dot: epoch that is kept)", ylim=(0, 1), title=look)
        for axes in (loss, score):
            _plain(axes)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend(frameon=False, fontsize=8)
    figure.savefig(target, dpi=130)


def draw_segmentations(slides: Sequence[Mapping], target: Path) -> None:
    """One column per slide (its window richest in outlined glomeruli), one row for the truth and for each segmenter.

    slides: mappings with `patches`, `outlines` (paths) and `masks` (segmenter -> path).
    """
    usable = [item for item in slides if PatchStore(item["patches"]).usable][:6]
    rows = ["truth", *(usable[0]["masks"] if usable else [])]
    figure = Figure((2.9 * max(1, len(usable)), 2.9 * len(rows) + 0.4), layout="constrained")
    grid = figure.subplots(len(rows), max(1, len(usable)), squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for column, item in enumerate(usable):
        store = PatchStore(item["patches"], item["outlines"])
        truth = store.truth() > 0
        side = round(_WINDOW_UM / store.mpp)
        x, y = _richest(truth, side)
        image = store.window(x, y, side, side)
        for row, name in enumerate(rows):
            drawn = truth if name == "truth" else MaskStore(item["masks"][name]).instances > 0
            window = np.zeros((side, side), np.uint8)
            part = drawn[y : y + side, x : x + side]
            window[: part.shape[0], : part.shape[1]] = part
            contours = cv2.findContours(window, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]
            axes = grid[row, column]
            axes.imshow(image, interpolation="antialiased")
            for contour in contours:
                axes.fill(*contour[:, 0].T, facecolor=COLOURS[name] + "40", edgecolor=COLOURS[name], linewidth=1.4)
            if row == 0:
                axes.set_title(store.slide, fontsize=9)
            if column == 0:
                axes.text(-0.04, 0.5, NAMES[name], rotation=90, va="center", ha="right", transform=axes.transAxes)
    figure.supxlabel(f"test slides; each window {_WINDOW_UM:.0f} um wide, where the outlines are densest", fontsize=8)
    figure.savefig(target, dpi=130)


def _richest(mask: np.ndarray, side: int) -> tuple[int, int]:
    """Top-left corner (x, y) of the window with the most of `mask`."""
    small = cv2.resize(mask.astype(np.float32), None, fx=1 / 16, fy=1 / 16, interpolation=cv2.INTER_AREA)
    count = cv2.boxFilter(small, -1, (max(1, side // 16),) * 2, normalize=False, borderType=cv2.BORDER_CONSTANT)
    row, column = np.unravel_index(count.argmax(), count.shape)
    corner = int(column * 16 + 8 - side / 2), int(row * 16 + 8 - side / 2)
    return tuple(max(0, min(place, length - side)) for place, length in zip(corner, mask.shape[::-1], strict=True))


def draw_k_scores(tables: Mapping[tuple[str, str], Path], weights: Mapping[str, str], target: Path) -> None:
    """Each metric over k, one row per extractor, one line per reducer. tables: (extractor, reducer) -> scores over k."""
    extractors = list(dict.fromkeys(extractor for extractor, _ in tables))
    reducers = list(dict.fromkeys(reducer for _, reducer in tables))
    metrics = ("silhouette", "davies_bouldin", "calinski_harabasz", "stability")
    figure = Figure((13, 2.7 * len(extractors) + 0.5), layout="constrained")
    grid = figure.subplots(len(extractors), len(metrics), squeeze=False)
    for (extractor, reducer), path in tables.items():
        table = pd.read_csv(path, sep="\t")
        for axes, metric in zip(grid[extractors.index(extractor)], metrics, strict=True):
            colour = PALETTE[reducers.index(reducer)]
            axes.plot(table["k"], table[metric], "o-", color=colour, markersize=3, label=NAMES[reducer])
            axes.set(xlabel="k", title=f"{NAMES.get(metric, metric.capitalize())}, {_titled(extractor, weights)}")
            axes.title.set_size(8)
            _plain(axes)
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(reducers), frameon=False
    )
    figure.suptitle(
        "Each metric in the space that was clustered, so lines of different reducers do not compare", fontsize=9
    )
    figure.savefig(target, dpi=120)


def draw_agreement(variants: pd.DataFrame, target: Path) -> None:
    """ARI with the label against ARI with the site, for all variants: the upper left corner is where to be."""
    figure = Figure((6.4, 5), layout="constrained")
    axes = figure.subplots()
    weights = dict(zip(variants["extractor"], variants["weights"], strict=True))
    shown = variants.dropna(subset=["ari_label"])
    known_site = shown["ari_site"].notna().any()
    taken = shown[shown["chosen"].fillna("").str.contains("without labels")]
    for number, (extractor, part) in enumerate(shown.groupby("extractor", sort=False)):
        x = part["ari_site"] if known_site else part["silhouette_embedding"]
        axes.scatter(
            x, part["ari_label"], color=PALETTE[number % len(PALETTE)], alpha=0.8, label=_titled(extractor, weights)
        )
    axes.scatter(
        taken["ari_site" if known_site else "silhouette_embedding"], taken["ari_label"], s=150, facecolors="none",
        edgecolors="black", label="chosen without labels",
    )  # fmt: skip
    axes.axhline(0, color="#bbbbbb", linewidth=0.8)
    axes.axvline(0, color="#bbbbbb", linewidth=0.8)
    axes.set(
        xlabel="ARI with the site (clusters that follow the laboratory)"
        if known_site
        else "silhouette in the embedding",
        ylabel="ARI with the label (clusters that follow the pathologist)",
        xlim=(-0.15, 1.02) if known_site else None,
        ylim=(-0.15, 1.02),
        title=f"{len(shown)} variants" if len(shown) else "no glomerulus has a label: nothing to agree with",
    )
    if len(shown):
        axes.legend(frameon=False, fontsize=8)
    _plain(axes)
    figure.savefig(target, dpi=130)


class VariantFigures:
    """Draws the variants of one (extractor, reducer): what all metrics share is computed once."""

    def __init__(
        self, extractor: str, reducer: str, coordinates: Path, fits: Path, variants: Path, labels: Mapping[str, str],
        crops: Sequence[Path],
    ):  # fmt: skip
        self.extractor, self.reducer = extractor, reducer
        self.data, self.fit = dict(np.load(coordinates)), dict(np.load(fits))
        self.label = np.array([labels.get(name, "") for name in self.data["glomerulus"].tolist()], dtype=str)
        table = pd.read_csv(variants, sep="\t")
        self.variants = table[(table["extractor"] == extractor) & (table["reducer"] == reducer)].set_index("method")
        self.weights = {extractor: str(self.data["weights"])}
        # fitted without labels and without clusters, so that what it separates is in the embedding
        view = PCA(2, random_state=0).fit(self.data["vectors"])
        self.points, self.explained = view.transform(self.data["vectors"]), view.explained_variance_ratio_.sum()
        self.shown = {method: _to_show(self.fit[f"labels_{method}"]) for method in self.fit["methods"].tolist()}
        names = self.data["glomerulus"].tolist()
        self.images = pictures(
            crops, {names[index] for shown in self.shown.values() for each in shown for index in each}, side_px=96
        )

    def draw(self, method: str, sites: Mapping[str, str], target: Path) -> None:
        """Scatter by cluster, label and site in the first two principal components of the embedding, and a gallery."""
        row = self.variants.loc[method]
        k = int(row["k"])
        clusters = self.fit[f"labels_{method}"]
        site = np.array([sites.get(str(slide), "") for slide in self.data["slide"]], dtype=str)
        figure = Figure((11, 3.9 + 0.85 * k), layout="constrained")
        top, bottom = figure.subfigures(2, 1, height_ratios=(3.6, 0.85 * k + 0.3))
        axes = top.subplots(1, 3)
        self._scatter(axes[0], clusters, [f"cluster {number}" for number in range(k)], "cluster")
        for part, title, values in (
            (axes[1], "label (not used)", self.label),
            (axes[2], "site (not used)", site),
        ):
            names = sorted(set(values.tolist()))
            self._scatter(part, np.searchsorted(names, values), [name or "unknown" for name in names], title)
        self._gallery(bottom, clusters, self.shown[method])
        # of the consensus, the variants that are heard chose k
        how = NAMES[method] + (f", k = {k}" if self.extractor == "consensus" else f" chose k = {k}")
        heading = f"{_titled(self.extractor, self.weights)} | {NAMES[self.reducer]} | {how}"
        figure.suptitle(
            f"{heading}\nsilhouette {row['silhouette']:.2f} in the clustered space, {row['silhouette_embedding']:.2f} in "
            f"the embedding; ARI label {row['ari_label']:.2f}, ARI site {row['ari_site']:.2f}, stability "
            f"{row['stability']:.2f}, n = {int(row['n'])}".replace("nan", "unknown"),
            fontsize=10,
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target, dpi=90)

    def _scatter(self, axes: Axes, groups: np.ndarray, names: Sequence[str], title: str) -> None:
        for number, name in enumerate(names):
            chosen = groups == number
            colour = PALETTE[number % len(PALETTE)]
            axes.scatter(
                *self.points[chosen].T, s=9, color=colour, alpha=0.75, linewidths=0, label=f"{name} ({chosen.sum()})"
            )
        axes.set_title(f"by {title}", fontsize=9)
        axes.set(xticks=[], yticks=[], xlabel=f"PC 1 and 2 of the embedding ({self.explained:.0%} of its variance)")
        axes.xaxis.label.set_size(7)
        if len(names) <= len(PALETTE):
            axes.legend(frameon=False, fontsize=6.5, markerscale=1.6, handletextpad=0.1)
        _plain(axes)

    def _gallery(self, figure, clusters: np.ndarray, shown: Sequence[np.ndarray]) -> None:
        grid = figure.subplots(len(shown), _PER_CLUSTER, squeeze=False)
        for number, own in enumerate(shown):
            for axes, index in zip(grid[number], [*own, *[None] * (_PER_CLUSTER - len(own))], strict=True):
                axes.set_axis_off()
                if index is not None:
                    axes.imshow(self.images[str(self.data["glomerulus"][index])])
            members = (clusters == number).sum()
            grid[number, 0].text(-0.1, 0.5, f"cluster {number}\nn = {members}", fontsize=8, ha="right", va="center",
                                 transform=grid[number, 0].transAxes)  # fmt: skip


def _to_show(clusters: np.ndarray) -> list[np.ndarray]:
    """Which glomeruli stand for each cluster in the gallery."""
    rng = np.random.default_rng(0)
    return [rng.permutation(np.flatnonzero(clusters == number))[:_PER_CLUSTER] for number in range(clusters.max() + 1)]


def _titled(extractor: str, weights: Mapping[str, str]) -> str:
    return NAMES.get(extractor, extractor) + (" (RANDOM weights)" if weights.get(extractor) == "random" else "")


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
