"""Backbone, frozen and then thawed, with fastai, as in its documentation."""

from __future__ import annotations

import time

from fastai.vision.all import ImageDataLoaders, Resize, vision_learner
from torch import nn
from torchvision.models import mobilenet_v2

from benchmarks.peers.work import Work, asked_work, report


def main() -> None:
    work: Work = asked_work()
    loaders = ImageDataLoaders.from_folder(
        work.folder,
        train="train",
        valid="val",
        item_tfms=Resize(work.image_size, method="squish"),
        bs=work.batch_size,
        device=work.device,
    )
    learner = vision_learner(loaders, features_and_pooling, pretrained=False)
    seconds = []
    for change in (learner.freeze, learner.unfreeze):
        change()
        start = time.perf_counter()
        with learner.no_bar(), learner.no_logging():
            learner.fit(work.epochs, 1e-4)
        seconds.append(time.perf_counter() - start)
    report(*seconds)


def features_and_pooling(pretrained: bool) -> nn.Module:
    """MobileNetV2 with a pooling layer, at which fastai cuts; torchvision's network pools in a function."""
    assert not pretrained
    return nn.Sequential(mobilenet_v2().features, nn.AdaptiveAvgPool2d(1))


if __name__ == "__main__":
    main()
