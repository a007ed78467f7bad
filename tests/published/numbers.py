"""The two tables of eight_datasets, typed from the document by backbone, to recompute what is said of them."""

from __future__ import annotations

import numpy as np

DATA_SETS = (
    *("MNIST", "CIFAR-10", "CIFAR-100", "Fashion MNIST", "LabelMe", "SDSS17"),
    *("Vegetable Image Dataset", "Caltech 101"),
)
SCRATCH = {
    "alexnet": np.array([0.9453, 0.9369, 0.6473, 0.8109, 0.9297, 0.9504, 0.8492, 0.9425]),
    "vgg16": np.array([0.9719, 0.9186, 0.6023, 0.7615, 0.9521, 0.7917, 0.8049, 0.9513]),
    "vgg19": np.array([0.9643, 0.9152, 0.6217, 0.7634, 0.9504, 0.8695, 0.7885, 0.9457]),
}
FROZEN = {
    "alexnet": np.array([0.9465, 0.8391, 0.6138, 0.8619, 0.9013, 0.9124, 0.9215, 0.9425]),
    "vgg16": np.array([0.9303, 0.8398, 0.6253, 0.8650, 0.9538, 0.8237, 0.8214, 0.9605]),
    "vgg19": np.array([0.9204, 0.8515, 0.6321, 0.8632, 0.9535, 0.9287, 0.7893, 0.9786]),
    "resnet50": np.array([0.9221, 0.8183, 0.6181, 0.8469, 0.9409, 0.9632, 0.8450, 0.9962]),
    "resnet101": np.array([0.9156, 0.8031, 0.5913, 0.8485, 0.9379, 0.9636, 0.8446, 0.9837]),
    "resnet152": np.array([0.9169, 0.8034, 0.5894, 0.8503, 0.9512, 0.9479, 0.8427, 0.9936]),
    "densenet121": np.array([0.9379, 0.8263, 0.6119, 0.8513, 0.9612, 0.9697, 0.8106, 0.9701]),
    "densenet161": np.array([0.9458, 0.8841, 0.6719, 0.8734, 0.9639, 0.9818, 0.8803, 0.9916]),
}
FAMILIES = {
    "alexnet": ["alexnet"],
    "vgg": ["vgg16", "vgg19"],
    "resnet": ["resnet50", "resnet101", "resnet152"],
    "densenet": ["densenet121", "densenet161"],
}
