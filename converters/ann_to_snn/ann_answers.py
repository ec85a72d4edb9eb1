"""Answers of an ANN to images in 0..1: its logits and classes, by which the spiking network is tuned and judged."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bootstrap_core.analysis.evaluation import batches
from bootstrap_core.data.splits import Dataset, Split
from converters.linear.ann import Ann, run_ann
from converters.linear.image_normalization import Normalization

BATCH = 250


@dataclass(frozen=True)
class AnnAnswers:
    """An ANN with the normalization of the images that it takes. It is a `Teacher`: called, it returns logits.

    Attributes:
        ann: the ANN.
        normalization: normalization of images in 0..1.
    """

    ann: Ann
    normalization: Normalization

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits, `[N, classes]`, for images `[N, C, H, W]` in 0..1."""
        return run_ann(self.ann, self.taken(images))[0]

    def taken(self, images: Tensor) -> Tensor:
        """Return the ANN's input, float32 `[N, *shape]`, for images `[N, C, H, W]` in 0..1."""
        return self.normalization(images.reshape(len(images), *self.ann.shape))

    @torch.no_grad()
    def logits(self, split: Split) -> Tensor:
        """Return the logits for all images, `[N, classes]`."""
        return torch.cat([self(images.float() / 255) for images, _ in batches(split, BATCH)])

    def classes(self, split: Split) -> Tensor:
        """Return the class that the ANN gives to each image, int64 `[N]`."""
        return self.logits(split).argmax(1)

    def right(self, split: Split) -> Tensor:
        """Return for each image whether the ANN gives its label, bool `[N]`."""
        return self.classes(split) == split.labels

    def as_labels(self, dataset: Dataset) -> Dataset:
        """Return the dataset with the ANN's classes as labels."""
        train, test = (Split(split.images, self.classes(split)) for split in (dataset.train, dataset.test))
        return replace(dataset, train=train, test=test)
