"""The settings of one run: the same frozen dataclasses for both frameworks.

Each field's metadata, beside its default, says which values it takes and what it affects (fields.py); the docstring
below it is its help text. parser.py reads settings, settings_hash.py names an experiment by them, regimes.py turns a
regime into phases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from tandem.protocol.data_sets import resolve_split
from tandem.protocol.fields import setting

NUM_MAGNITUDES = 31
"""Magnitudes per operation of an augmentation policy, as in torchvision."""

Regime = Literal["off_the_shelf", "scratch", "frozen", "two_stage", "finetune", "gradual"]
Trainable = Literal["head", "last", "all"]
Recipe = Literal["best", "fast"]
BatchNorm = Literal["train", "frozen"]
Views = Literal["none", "flip", "flip_and_crops"]

FOLD_SPLITS = ("folds", "publisher_folds")
"""Values of data.split with one run per fold."""

Anything = TypeVar("Anything")


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The images, their split, and their storage."""

    source: str = setting("digits", affects="numbers")
    """A folder with one folder of images per class; a folder that holds train/, val/ and test/ folders of that kind
    (val/ or test/ may be missing); Parquet files, WebDataset tars, or a data set saved by Hugging Face's library
    datasets; `hf:OWNER/NAME`, a data set of the Hugging Face Hub; or the name of a data set: `digits` (1,797 images of
    8 x 8 pixels that come with scikit-learn), or one that is downloaded on first use: `mnist`, `fashion_mnist`,
    `cifar10`, `cifar100`, `caltech101`, `labelme`, `sdss17`, `vegetables`, `birds300`, `birds400`, `birds525`,
    `imagenette`, `flowers`. Write `./name` for a folder that has the name of a data set. docs/data.md lists all
    layouts and kinds of files."""
    parts: dict[str, str] | None = setting(None, affects="numbers")
    """The publisher's parts by their names in the source, such as {train: Training, test: Testing}: folders, splits, or
    values in the table of labels. Names that are not given are not used. When not given, common names are
    recognised."""
    labels: str | None = setting(None, affects="numbers")
    """Table of labels for images that are not in class folders: a .csv, .tsv, .jsonl or .parquet file, in the current
    folder or in the one of the images, with the columns path and label, and perhaps part (train, val, test) or fold.
    The ending of the files' names may be missing."""
    columns: dict[str, str] | None = setting(None, affects="numbers")
    """Names of columns that are not recognised, such as {path: id_code, label: diagnosis}, with the keys path (the
    images), label, part and fold; for data.labels, Parquet files and Hugging Face's data sets."""
    classes: list[str] | None = setting(None, affects="numbers")
    """Use only these classes, in this order (names of the class folders); all classes when not given."""
    image_size: int = setting(224, affects="numbers", at_least=8, at_most=2048, changes_features=True)
    """Height and width, in pixels, of the images that the backbone sees."""
    resize: Literal["squash", "crop"] = setting("squash", affects="numbers")
    """Way of making images square: `squash` changes their proportions, `crop` keeps their centre."""
    split: Literal["auto", "fractions", "publisher", "folds", "publisher_folds"] = setting(
        "auto", affects="numbers", stands_for=lambda settings: resolve_split(settings.data).split
    )
    """Division into training, validation and test images. `auto`: as the named data set defines it
    (tandem/protocol/data_sets.py); otherwise `publisher` if the data has training and test images of its own, and
    `fractions` if not; the run records which. `fractions`: all images are merged, then split per class. `publisher`:
    the publisher's test images are kept; validation images, if the publisher gives none, are taken from the training
    images. `folds`: cross-validation; fold number `fold` of `folds` is the test set. `publisher_folds`:
    cross-validation within the publisher's training images; fold number `fold` of `folds` validates, and the
    publisher's test images are kept."""
    fractions: list[float] | None = setting(
        None,
        affects="numbers",
        at_least=0,
        at_most=1,
        stands_for=lambda settings: resolve_split(settings.data).fractions,
    )
    """Shares of each class for training, validation and test; they add up to 1. When not given: those of the named data
    set, or 0.7, 0.1 and 0.2 for a folder. With `publisher` and `folds`, the images that are not test images are divided
    in the proportion of the first two."""
    folds: int = setting(5, affects="numbers", at_least=2, at_most=100)
    """Number of folds with `split: folds` or `split: publisher_folds`."""
    fold: int | None = setting(None, affects="numbers", at_least=0, at_most=99)
    """The fold that is the test set, or with `split: publisher_folds` the validation set, counted from 0; when not
    given, one run per fold."""
    split_seed: int = setting(0, affects="numbers", at_least=0)
    """Seed of the split and of the two limits below. It is not the run's seed, so runs of different seeds share a
    split."""
    images_per_class: int | None = setting(None, affects="numbers", at_least=1, at_most=2**31 - 1)
    """Use at most this many images per class, drawn before the split; all when not given."""
    train_images_per_class: int | None = setting(None, affects="numbers", at_least=1, at_most=2**31 - 1)
    """Use at most this many training images per class, drawn after the split; all when not given."""
    on_bad_image: Literal["error", "skip"] = setting("error", affects="numbers")
    """Reaction to files that cannot be read as images: `error` lists all of them and stops, `skip` leaves them out."""
    pixel_range: Literal["auto", "full", "per_image"] = setting("auto", affects="numbers")
    """Range of pixels with more than 8 bits that becomes black to white. `auto`: 0 to the largest value of the number
    of bits that the data set uses (8, 10, 12, 14 or 16); the run says which. `full`: 0 to 65535. `per_image`: the
    smallest to the largest value in each image."""
    max_pixels: int = setting(178_956_970, affects="numbers", at_least=1, at_most=2**31 - 1)
    """Most pixels of an image. Larger files are bad images, since a small file can decode to more memory than there
    is."""
    duplicates: Literal["together", "allow"] = setting("together", affects="numbers")
    """`together`: exact copies of an image never end up in different parts of the split. `allow`: they may; the report
    on the data counts them."""
    cache_folder: str = setting("~/.cache/tandem", affects="nothing")
    """Folder for downloaded data sets, decoded images and features of frozen backbones, shared by all runs."""


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """Random changes to training images, the same in both frameworks."""

    horizontal_flip: bool = setting(False, affects="numbers")
    """Mirror each training image with a probability of one half."""
    crop_padding: int = setting(0, affects="numbers", at_least=0, at_most=256)
    """Pad each side with this many black pixels and crop back to the original size at a random place; 0 switches it
    off."""
    random_resized_crop: list[float] | None = setting(None, affects="numbers", at_least=1e-6, at_most=1)
    """Smallest and largest share of a training image's area that a random crop keeps before it is resized to the full
    size, for example [0.08, 1.0]; off when not given. Crops are cut from images stored 8/7 as large (256 pixels for
    224); their width is between 3/4 and 4/3 of their height."""
    brightness: float = setting(0.0, affects="numbers", at_least=0, at_most=1)
    """Multiply each training image's brightness by a random factor between 1 minus this and 1 plus this; 0 switches it
    off."""
    contrast: float = setting(0.0, affects="numbers", at_least=0, at_most=1)
    """The same for contrast."""
    saturation: float = setting(0.0, affects="numbers", at_least=0, at_most=1)
    """The same for saturation."""
    hue: float = setting(0.0, affects="numbers", at_least=0, at_most=0.5)
    """Rotate each training image's hue by a random share of the colour circle, at most this in either direction; 0
    switches it off."""
    vertical_flip: bool = setting(False, affects="numbers")
    """Turn each training image upside down (mirror it from top to bottom) with a probability of one half."""
    rotation: float = setting(0.0, affects="numbers", at_least=0, at_most=180)
    """Rotate each training image by a random angle of at most this many degrees in either direction, with black
    corners; 0 switches it off."""
    policy: Literal["none", "rand_augment", "trivial_augment"] = setting("none", affects="numbers")
    """Random operations on each training image, such as shears, shifts, colours and contrast. `rand_augment`:
    `num_operations` of them in a row, each at `magnitude` (Cubuk et al. 2020). `trivial_augment`: one at a random
    magnitude (TrivialAugment Wide of Müller and Hutter 2021), which shifts by up to 32 pixels whatever the image's
    size. Both as in torchvision."""
    num_operations: int = setting(2, affects="numbers", at_least=1, at_most=14)
    """Number of operations per image (policy rand_augment)."""
    magnitude: int = setting(9, affects="numbers", at_least=0, at_most=NUM_MAGNITUDES - 1)
    """Strength of the operations (policy rand_augment), from 0 to 30."""
    random_erasing: float = setting(0.0, affects="numbers", at_least=0, at_most=1)
    """Fill a random rectangle with noise, with this probability (Zhong et al. 2020). It covers 2 to 33 % of the
    training image, its height is 0.3 to 3.3 times its width; 0 switches it off."""


@dataclass(frozen=True, kw_only=True)
class MixingSettings:
    """Training images mixed with others of their batch, and their labels in the same shares; the same in both
    frameworks. If both methods are on, one is drawn per batch with equal chance. Training accuracy then counts the
    class with the largest share. Features of a frozen backbone are not cached, since each epoch has other images."""

    mixup_alpha: float = setting(0.0, affects="numbers", at_least=0, at_most=100)
    """mixup: blend each image with another, in shares drawn per batch from Beta(alpha, alpha); 0.2 is usual on
    ImageNet, 0 switches it off."""
    cutmix_alpha: float = setting(0.0, affects="numbers", at_least=0, at_most=100)
    """CutMix: replace a random box of each image by that of another; the box's share of the area is drawn per batch
    from Beta(alpha, alpha). 1 is usual, 0 switches it off."""


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """The loss of training, cross-entropy. The validation loss is neither smoothed nor weighted, so that losses of all
    settings compare."""

    label_smoothing: float = setting(0.0, affects="numbers", at_least=0, at_most=0.99)
    """Part of each training label that is spread evenly over all classes, 0.1 for example; 0 switches it off."""
    class_weights: Literal["none", "balanced"] | dict[str, float] = setting(
        "none", affects="numbers", above=0, at_most=1_000_000
    )
    """Weight of each class in the training loss. `balanced`: the number of training images over the number of classes
    and of the class's training images, as in scikit-learn's compute_class_weight, so that all classes together weigh
    the same. Or weights by class, such as {melanoma: 5}; classes that are not named weigh 1. The loss is the mean over
    the batch of each image's loss times its weight."""


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """The layers after the backbone's pooled features. The last one is always a dense layer with one output per
    class."""

    hidden: list[int] = setting((), affects="numbers", at_least=1, at_most=65536)
    """Units of dense ReLU layers before the last layer, for example [256]; none by default."""
    dropout: float = setting(0.0, affects="numbers", at_least=0, at_most=0.95)
    """Dropout rate before each dense layer of the head; 0 switches it off."""
    batch_norm: bool = setting(False, affects="numbers")
    """Batch norm before each dense layer of the head, ahead of the dropout."""
    initialization: Literal["glorot_uniform", "normal"] = setting("glorot_uniform", affects="numbers")
    """Distribution of the dense layers' initial kernels; their biases start at zero."""
    normal_std: float = setting(0.01, affects="numbers", at_least=1e-12, at_most=1)
    """Standard deviation with `initialization: normal`."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """The optimizer and its constants, whose defaults differ between the frameworks."""

    name: Literal["adam", "adamw", "sgd"] = setting("adam", affects="numbers")
    """Update rule."""
    beta_1: float = setting(0.9, affects="numbers", at_least=0, at_most=0.9999)
    """Decay rate of the first moment (adam, adamw)."""
    beta_2: float = setting(0.999, affects="numbers", at_least=0, at_most=0.99999)
    """Decay rate of the second moment (adam, adamw)."""
    epsilon: float = setting(1e-8, affects="numbers", at_least=1e-30, at_most=1)
    """Added to the denominator (adam, adamw). PyTorch's default is 1e-8, Keras's 1e-7."""
    momentum: float = setting(0.9, affects="numbers", at_least=0, at_most=0.9999)
    """Momentum (sgd)."""
    nesterov: bool = setting(False, affects="numbers")
    """Use Nesterov momentum (sgd)."""
    weight_decay: float = setting(0.0, affects="numbers", at_least=0, at_most=1)
    """Decoupled weight decay (adamw, sgd): each step shrinks every trainable weight, biases and batch norm included, by
    this share times the learning rate."""
    layer_decay: float = setting(1.0, affects="numbers", at_least=1e-6, at_most=1)
    """Layer-wise learning rates: the last block of the backbone learns at this times the head's rate, each earlier
    block at this times the rate of the block after it. 1 gives all blocks the head's rate."""
    clip_norm: float | None = setting(None, affects="numbers", above=0)
    """Largest norm of the gradient of all trained weights together: a longer gradient is shortened to this length
    before the step. No limit when not given."""


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """The learning rate's schedule within a phase."""

    name: Literal["none", "plateau", "cosine", "step", "one_cycle"] = setting("none", affects="numbers")
    """`none` keeps the rate. `plateau` multiplies it by `factor` after `patience` epochs without a lower validation
    loss. `cosine` lowers it at every step, along half a cosine wave, to `min_learning_rate` at the phase's epoch
    limit. `step` multiplies it by `factor` after every `step_epochs` epochs. `one_cycle` raises it at every step from a
    25th of the rate to the rate, over 30 % of the steps up to the epoch limit, and lowers it to a 250,000th, both along
    half a cosine wave; momentum stays constant."""
    warmup_epochs: int = setting(0, affects="numbers", at_least=0)
    """Raise the rate linearly, step by step, over this many epochs at the start of each phase (none, cosine, step)."""
    factor: float = setting(0.5, affects="numbers", at_least=1e-6, at_most=0.99)
    """Factor that reduces the rate (plateau, step)."""
    step_epochs: int = setting(10, affects="numbers", at_least=1, at_most=1_000_000)
    """Epochs between two reductions of the rate, counted from the end of the warm-up (step)."""
    patience: int = setting(2, affects="numbers", at_least=1, at_most=1_000_000)
    """Epochs without improvement before the rate is reduced (plateau)."""
    min_delta: float = setting(0.0, affects="numbers", at_least=0, at_most=10)
    """A validation loss counts as an improvement if it is lower by more than this (plateau)."""
    min_learning_rate: float = setting(0.0, affects="numbers", at_least=0, at_most=10)
    """Lower limit of the rate (plateau, cosine, step)."""


@dataclass(frozen=True, kw_only=True)
class EarlyStoppingSettings:
    """The end of a phase before its epoch limit, and the weights that a phase keeps."""

    patience: int | None = setting(3, affects="numbers", at_least=1, at_most=1_000_000)
    """Epochs without a lower validation loss before a phase stops; null trains to the epoch limit."""
    min_delta: float = setting(0.0, affects="numbers", at_least=0, at_most=10)
    """A validation loss counts as an improvement, which restarts the patience, if it is lower by more than this."""
    restore: Literal["best", "last"] = setting("best", affects="numbers")
    """Weights that a phase ends with: those of the epoch with the lowest validation loss, whatever `min_delta` is, or
    those of the last epoch."""


@dataclass(frozen=True, kw_only=True)
class PhaseSettings:
    """One phase of the regime `gradual`."""

    trainable: Trainable = setting(affects="numbers")
    """The trained part: only the head, the head and the last blocks of the backbone, or everything."""
    blocks: int | None = setting(None, affects="numbers", at_least=1, at_most=1000)
    """Number of the backbone's last blocks that are trained (`trainable: last`)."""
    learning_rate: float | None = setting(None, affects="numbers", at_least=1e-12, at_most=10)
    """The phase's learning rate; the run's when not given."""
    max_epochs: int | None = setting(None, affects="numbers", at_least=1, at_most=1_000_000)
    """The phase's epoch limit; the run's when not given."""


@dataclass(frozen=True, kw_only=True)
class AccelerationSettings:
    """Use of the hardware. Only tf32 changes numbers by more than rounding, and only on a GPU."""

    compile: bool | None = setting(None, affects="cost", before=None)
    """Compile the training and validation step before a phase: with torch.compile, which needs a C++ compiler, or with
    XLA in Keras. When not given, train_torch.py does not compile; train_keras.py leaves it to Keras, except with
    TensorFlow on a CPU, where XLA is slower and is off."""
    channels_last: bool | None = setting(None, affects="cost", before=False)
    """Use the memory layout channels_last in PyTorch, which tensor cores prefer; Keras always uses it. When not given,
    it is used except on a GPU in float32, where torch has no fast depthwise convolutions for it."""
    tf32: bool = setting(True, affects="numbers", before=True, changes_features=True)
    """Use TF32 in place of float32 (10 instead of 23 mantissa bits) in matrix products and convolutions, on GPUs that
    have it; set for both frameworks, whose defaults differ."""
    fused_optimizer: bool = setting(True, affects="cost", before=False)
    """Run an optimizer step as one kernel in PyTorch (adam, adamw, and sgd without weight decay); no effect in
    Keras."""
    cudnn_autotune: bool = setting(True, affects="cost", before=False)
    """Time the GPU's convolution algorithms and use the fastest ones; runs with the same seed then differ by
    rounding."""
    deterministic: bool = setting(False, affects="cost", before=False)
    """Use only algorithms whose results are the same to the last bit in each run on the same GPU, as far as the
    framework has them (it warns of those that it lacks); slower, and without cudnn_autotune."""
    keep_memory: bool = setting(True, affects="cost", before=False)
    """Keep main memory that a step frees for the next step instead of returning it to the system: faster in PyTorch on
    a CPU with Linux; no effect in Keras."""


@dataclass(frozen=True, kw_only=True)
class TrackingSettings:
    """The record of the run."""

    uri: str | None = setting(None, affects="nothing")
    """MLflow tracking URI; when not given, MLFLOW_TRACKING_URI, or else the sqlite file mlflow.db in the current
    folder."""
    experiment: str = setting("tandem", affects="nothing")
    """MLflow experiment; runs are compared within one experiment."""
    run_name: str | None = setting(None, affects="nothing")
    """Name of the run; when not given, framework, regime and backbone, and the seed and fold if there is one."""
    folder: str = setting("runs", affects="nothing")
    """Folder in which each run gets a folder of its own, with its journal and its files."""
    log_model: bool = setting(True, affects="nothing")
    """Log the trained network as an MLflow model that can be served; grids switch it off."""
    log_weights: bool = setting(True, affects="nothing")
    """Log the trained weights, from which later runs can start; grids switch it off."""
    parent_run: str | None = setting(None, affects="nothing")
    """Id of the MLflow run that this run is shown under, as one of its folds or seeds."""
    budget: Literal["full", "small"] = setting("full", affects="nothing")
    """Tag of the run: runs with a small budget are never compared with full ones."""
    data_report: bool = setting(True, affects="nothing")
    """Log a report on the data set as a run of its own, once per split in each experiment."""
    grad_cam_images: int = setting(12, affects="nothing", at_least=0, at_most=1000)
    """Number of test images with a Grad-CAM map, which shows where the trained network looks. They are spread over the
    classes and the same in all runs on the same test images; 0 switches the maps off."""
    system_interval: float = setting(5.0, affects="nothing", at_least=0.01, at_most=86400)
    """Seconds between two samples of CPU, memory and GPU use."""


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """A search for good settings with Optuna: many short runs, the trials."""

    num_trials: int | None = setting(None, affects="nothing", at_least=1, at_most=100_000)
    """Search with this many trials instead of training once, counted over all processes that share the study. Trials
    are judged by the validation images, never by the test images, and save no network."""
    space: dict[str, Any] | None = setting(None, affects="nothing")
    """The settings that trials vary, by their dotted names: each with a range {low: 1.0e-4, high: 1.0e-2, log: true} or
    a list of values. When not given, `learning_rate` from 1e-5 to 0.1, log-uniform."""
    objective: Literal["val_loss", "val_accuracy"] = setting("val_loss", affects="nothing")
    """Score that a trial is judged by: validation loss or accuracy of the network that it ends with."""
    pruner: Literal["median", "hyperband", "none"] = setting("median", affects="nothing")
    """Rule that ends hopeless trials early, by the objective after each epoch. `median` ends a trial whose best value
    is worse than the median of earlier trials at the same epoch (from the sixth trial on); `hyperband`; or `none`."""
    study: str | None = setting(None, affects="nothing")
    """Name of the Optuna study. Processes and machines that give the same name share one search, and a search can be
    continued by its name. When not given, the name is made from the settings, so the same command continues its
    search."""
    storage: str | None = setting(None, affects="nothing")
    """Place of the study: a URL such as sqlite:///FILE.db or postgresql://...; when not given, a journal file in the
    sweep's folder, which several machines can use if they share the folder."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one run."""

    recipe: Recipe | None = setting(None, affects="nothing")
    """Settings to start from, read before --config and the command line, which override them. `best`: a linear probe,
    then everything with layer-wise rates and fixed batch-norm statistics, AdamW, cosine with warm-up, label smoothing,
    flips and random crops. `fast`: only the head, on features that are computed once. The files are
    tandem/protocol/recipe_NAME.yaml."""
    regime: Regime = setting("finetune", affects="numbers")
    """Way of training: `off_the_shelf` (pretrained network with its ImageNet head, no training), `scratch` (random
    weights), `frozen` (pretrained backbone, only a new head is trained), `two_stage` (like frozen, then everything at a
    lower rate), `finetune` (pretrained, everything is trained at once), `gradual` (pretrained, the phases listed in
    `phases`)."""
    phases: list[PhaseSettings] | None = setting(None, affects="numbers")
    """Phases of the regime `gradual`, for example [{trainable: head}, {trainable: last, blocks: 2}]. Keys of a phase:
    trainable (head, last or all), blocks (number of blocks, with last), learning_rate and max_epochs (the run's when
    not given)."""
    backbone: str = setting("mobilenet_v2", affects="numbers", changes_features=True)
    """The network before the head: a name from tandem/protocol/backbones.py, or any other network of a library,
    `torchvision:NAME` or `timm:NAME` in train_torch.py, `keras:NAME` in train_keras.py."""
    weights: str = setting("imagenet", affects="numbers")
    """Initial weights of the backbone: `imagenet` (pretrained, downloaded by the framework), a file, `runs:/<run id>`
    (those of an earlier run of the same framework), or `random`. The regime `scratch` always uses random ones."""
    allow_random_weights: bool = setting(False, affects="numbers")
    """Train from random weights if `weights: imagenet` cannot be downloaded; the run's tags then say so."""
    pixel_scaling: Literal["auto", "torch", "tf", "caffe", "unit"] = setting(
        "auto", affects="numbers", changes_features=True
    )
    """Scaling of pixels, 0..255, to the backbone's input. `auto`: what the backbone's published weights expect.
    `torch`: mean 0 and standard deviation 1 of each channel over ImageNet. `tf`: -1 to 1. `unit`: 0 to 1. `caffe`: 0 to
    255 minus the channels' means, in the order blue, green, red."""
    batch_norm_momentum: float | None = setting(0.9, affects="numbers", at_least=0, at_most=0.9999)
    """Share of its running statistics that batch norm keeps at each step (Keras's convention; torch's momentum is 1
    minus this). null keeps each network's own value: 0.9 in torchvision, up to 0.999 in Keras."""
    backbone_batch_norm: BatchNorm = setting("train", affects="numbers")
    """Batch norm of a thawed backbone. `train`: it normalises with each batch's own mean and variance and moves its
    running statistics towards them. `frozen`: it keeps the pretrained running statistics and normalises with them, in
    training as in prediction; its scale and offset are trained. A frozen backbone's is always frozen, and a head's
    trains. Without effect on networks without batch norm, such as vgg16."""
    learning_rate: float = setting(1e-3, affects="numbers", at_least=1e-12, at_most=10)
    """Learning rate of all phases, except the second one of `two_stage` (see `thawed_rate_factor`) and those of
    `phases` with a rate of their own."""
    thawed_rate_factor: float = setting(0.1, affects="numbers", at_least=1e-6, at_most=1)
    """Factor on the learning rate in the second phase of `two_stage`."""
    batch_size: int = setting(32, affects="numbers", at_least=2, at_most=65536)
    """Global batch size: training images per step, over all devices."""
    accumulate: int = setting(1, affects="numbers", at_least=1, at_most=32768)
    """Gradient accumulation: each batch passes through the network in this many equal parts, of at least two images,
    whose gradients are averaged for one optimizer step. It needs less memory, and trains as without it, except that
    batch norm normalises with the images of a part. The last step of an epoch has the parts that are left."""
    eval_batch_size: int | None = setting(None, affects="nothing", at_least=1, at_most=65536)
    """Test images per batch; halved as often as the GPU's memory requires. When not given, four times batch_size on a
    GPU, and batch_size on a CPU."""
    test_time_augmentation: Views = setting("none", affects="nothing")
    """Test the trained network a second time, by its mean probabilities over several views of each test image. `flip`:
    the image and its mirror image (2 views). `flip_and_crops`: also five crops of 7/8 of each side (corners and centre)
    and their mirror images (12 views). The scores are recorded as tta/test/..., with predictions of their own in the
    folder tta; all other scores remain those of the plain image. A prediction takes as many times longer as there are
    views."""
    max_epochs: int = setting(100, affects="numbers", at_least=1, at_most=1_000_000)
    """Epoch limit of each phase."""
    ema_decay: float | None = setting(None, affects="numbers", above=0, at_most=0.999999)
    """Exponential moving average of the weights: after each optimizer step of a phase, the average keeps this share of
    itself and takes the rest from the weights, less in the first steps (Kingma and Ba 2015, section 7.2). Statistics of
    batch norm are averaged alike. Validation, early stopping, the next phase, evaluation and the saved model use the
    averages. 0.999 is common for thousands of steps. Off when not given."""
    max_minutes: float | None = setting(None, affects="numbers", above=0)
    """Time limit of a run's training, in minutes of training and validation over all phases, computing cached features
    included; data preparation, compilation and evaluation are extra. Each phase gets an equal part of the time that is
    left for it and the later ones, so the backbone is thawed in time; a phase that does not need its part leaves it to
    them. When its time is up, a phase ends after the step under way, as by early stopping: it is validated, and
    the best weights are restored. The schedule still counts on the epoch limit. Each phase takes at least one step. The
    run is complete but marked, since a faster machine trains for longer: its numbers cannot be reproduced. No limit
    when not given."""
    seed: int = setting(0, affects="numbers", at_least=0, at_most=2**31 - 1)
    """Seed of initial weights, dropout, and the order and augmentation of training images."""
    sampling: Literal["shuffled", "balanced"] = setting("shuffled", affects="numbers")
    """Training images of an epoch. `shuffled`: each one once. `balanced`: as many images, equally many of each class;
    those of small classes several times, each time augmented anew, and of large classes others in each epoch."""
    seeds: list[int] | None = setting(None, affects="numbers", at_least=0, at_most=2**31 - 1)
    """Train one run per seed, under a parent run that records mean and standard deviation."""
    imagenet_classes: str | None = setting(None, affects="numbers")
    """YAML file that gives each class its ImageNet class or classes, by WordNet id or name, such as `ants: [ant]`
    (off_the_shelf). Without it, classes are matched by their own names."""
    precision: Literal["float32", "bfloat16", "float16"] = setting("float32", affects="numbers", changes_features=True)
    """Arithmetic of the forward and backward pass; the weights stay in float32. float16 needs a GPU."""
    device: Literal["auto", "cpu", "gpu"] = setting("auto", affects="cost")
    """Device to train on; `auto` uses a GPU if there is one."""
    threads: int | None = setting(None, affects="cost", at_least=1, at_most=4096)
    """CPU threads for the framework's arithmetic, and as many for augmentation. When not given, the framework chooses,
    and augmentation uses one thread per core. Give it when several processes share a machine: with more threads than
    cores, torch runs many times slower. KERAS_BACKEND=jax cannot be limited like this; limit the process itself
    (taskset)."""
    cache_features: bool = setting(True, affects="cost", before=False)
    """If only the head is trained, compute the backbone's features of each image once and keep them in
    data.cache_folder for this run and later ones, instead of computing them in every epoch (on one device only). For
    augmented images see `cache_views`."""
    cache_views: int | None = setting(None, affects="numbers", at_least=1, before=None)
    """With augmentation, keep the features of this many augmented views of each training image; epoch e trains on view
    e modulo this number. Fewer views than epochs mean weaker augmentation. When not given, augmented images pass
    through the backbone in every epoch, augmented differently each time."""
    num_devices: int | Literal["auto"] = setting(1, affects="cost", at_least=1, at_most=4096, before=1)
    """Number of GPUs (on a CPU: of processes, or of virtual devices in Keras); each batch is split across them.
    `batch_size` is the global batch size, so nothing else about the training changes. `auto` uses all GPUs. On one
    machine train_torch.py starts its processes itself, on several torchrun or srun starts them; train_keras.py needs
    KERAS_BACKEND=jax."""
    resume: str = setting("auto", affects="nothing")
    """Reaction to a run that was interrupted: `auto` continues the run of the same settings in the same folder whose
    process is gone, or else starts a new run; `never` always starts a new one; or the folder or id of a run to
    continue. With several seeds or folds, that is their parent run, whose finished runs are kept."""
    checkpoint_minutes: float | None = setting(10.0, affects="nothing", above=0)
    """Minutes between two checkpoints within an epoch; null for none. There is one at the end of each epoch, too."""
    requeue: bool = setting(False, affects="nothing")
    """In a job of Slurm: after SIGUSR1, which announces the end of the job's time (`sbatch --signal=B:USR1@120`), write
    a checkpoint and put the job back into the queue, where it continues."""
    find_learning_rate: bool = setting(False, affects="nothing")
    """Run the learning-rate range test instead of training: raise the rate step by step in the first phase, record the
    loss, and suggest a rate."""
    data: DataSettings = field(default_factory=DataSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    mixing: MixingSettings = field(default_factory=MixingSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    head: HeadSettings = field(default_factory=HeadSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    early_stopping: EarlyStoppingSettings = field(default_factory=EarlyStoppingSettings)
    sweep: SweepSettings = field(default_factory=SweepSettings)
    acceleration: AccelerationSettings = field(default_factory=AccelerationSettings)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)


def walk(settings: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """Dotted name, field and value of each setting, in the order of declaration; `phases` is a single setting."""
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if dataclasses.is_dataclass(value):
            yield from walk(value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, item, value


def flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    """The settings as one level of dotted names, such as `data.image_size`, in the order of declaration.

    Values are plain: numbers, texts, booleans, None, and lists of these; each of the `phases` is a dictionary.
    """
    return {
        name: [dataclasses.asdict(part) if isinstance(part, PhaseSettings) else part for part in value]
        if isinstance(value, list)
        else value
        for name, _, value in walk(settings, prefix)
    }


def with_values(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """The settings with other values, by their dotted names. Nothing is checked."""
    for name, value in values.items():
        settings = _replace(settings, name.split("."), value)
    return settings


def _replace(settings: Anything, path: list[str], value: Any) -> Anything:
    first, *rest = path
    return dataclasses.replace(settings, **{first: _replace(getattr(settings, first), rest, value) if rest else value})  # type: ignore[type-var]


def resolve(settings: Settings) -> Settings:
    """The settings with each value that stands for another one, such as `data.split: auto`, replaced by that."""
    meant = {
        name: item.metadata["stands_for"](settings) for name, item, _ in walk(settings) if "stands_for" in item.metadata
    }
    return with_values(settings, meant)


FIELDS: Mapping[str, dataclasses.Field[Any]] = {name: item for name, item, _ in walk(Settings())}
"""The field of each setting, by its dotted name."""
