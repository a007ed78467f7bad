"""The settings of one run: the same frozen dataclasses for both frameworks.

Each field's limits stand in its metadata, beside its default, and its help text in the docstring below it.
Parsing is in parser.py; what a regime means is in regimes.py.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

Regime = Literal["off_the_shelf", "scratch", "frozen", "two_stage", "finetune", "gradual"]
Trainable = Literal["head", "last", "all"]


def limited(
    default: Any, *, above: float | None = None, at_least: float | None = None, at_most: float | None = None
) -> Any:
    """A dataclass field whose number has to stay within limits (None: no limit on that side)."""
    limits = {"above": above, "at_least": at_least, "at_most": at_most}
    metadata = {name: limit for name, limit in limits.items() if limit is not None}
    if isinstance(default, tuple):
        default = list(default)
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which images, how they are split, and how they are stored."""

    source: str = "digits"
    """A folder of class folders; a folder that holds train/, val/ and test/ folders of class folders (val/ or test/ may
    be missing); or a name: `digits` (1,797 images of 8 x 8 pixels that come with scikit-learn), or, downloaded on first
    use, `mnist`, `fashion_mnist`, `cifar10`, `cifar100`, `caltech101`, `labelme`, `sdss17`, `vegetables`, `birds300`,
    `birds400`, `birds525`, `imagenette`, `flowers`. A folder that is called like one of these is `./name`."""
    classes: list[str] | None = None
    """Keep these classes only, in this order (names of the class folders); all when not given."""
    image_size: int = limited(224, at_least=8, at_most=2048)
    """Height and width in pixels of what the backbone sees."""
    resize: Literal["squash", "crop"] = "squash"
    """How an image that is not square becomes square: squashed, or its centre cropped."""
    split: Literal["auto", "fractions", "publisher", "folds"] = "auto"
    """`auto`: the named data set's own (tandem/protocol/data_sets.py), and `fractions` for a folder; the run records
    which. `fractions`: all images merged, then split per class. `publisher`: the publisher's test images are kept, and
    where there are no validation images they are carved out of train. `folds`: number `fold` of `folds` is test."""
    fractions: list[float] | None = limited(None, at_least=0, at_most=1)
    """Train, validation and test parts of each class, which add up to 1; when not given, the named data set's own, and
    0.7, 0.1 and 0.2 for a folder. With `publisher` and `folds`, validation is the
    second over the sum of the first two of what is not test."""
    folds: int = limited(5, at_least=2, at_most=100)
    """Number of folds of `split: folds`."""
    fold: int | None = limited(None, at_least=0, at_most=99)
    """Which of the folds is test, counted from 0; when not given, each of them in turn, in a run of its own."""
    split_seed: int = limited(0, at_least=0)
    """Seed of the split and of the limits below; not the run's seed, so that runs of different seeds share a split."""
    images_per_class: int | None = limited(None, at_least=1)
    """At most so many images of each class, drawn before the split; all when not given."""
    train_images_per_class: int | None = limited(None, at_least=1)
    """At most so many training images of each class, drawn after the split; all when not given."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do about files that are no readable image: list them all and stop, or go on without them."""
    duplicates: Literal["together", "allow"] = "together"
    """`together`: exact copies of an image never stand on both sides of a split. `allow`: they are only reported."""
    cache_folder: str = "~/.cache/tandem"
    """Where downloaded data sets, decoded images and features of frozen backbones are stored, once for all runs."""


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """Random changes to training images, the same for both frameworks."""

    horizontal_flip: bool = False
    """Mirror each training image with probability one half."""
    crop_padding: int = limited(0, at_least=0, at_most=256)
    """Pad by so many black pixels on each side and crop back at a random place; 0 switches it off."""
    random_resized_crop: list[float] | None = limited(None, above=0, at_most=1)
    """Least and greatest share of a training image's area that a random crop keeps before it is enlarged to the full
    size, for example [0.08, 1.0]; no such crop when not given. It is cut from images stored 8/7 as large (256 pixels
    for 224), with a width between 3/4 and 4/3 of its height."""
    brightness: float = limited(0.0, at_least=0, at_most=1)
    """Each training image's brightness is multiplied by a factor between one minus and one plus this."""
    contrast: float = limited(0.0, at_least=0, at_most=1)
    """The same for its contrast."""
    saturation: float = limited(0.0, at_least=0, at_most=1)
    """The same for its saturation."""
    hue: float = limited(0.0, at_least=0, at_most=0.5)
    """Each training image's hue is turned by at most this part of the colour circle, either way."""


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """What stands behind the backbone's pooled features; a last dense layer with one output a class is always there."""

    hidden: list[int] = limited((), at_least=1, at_most=65536)
    """Units of dense ReLU layers before the last one, for example [256]; none by default."""
    dropout: float = limited(0.0, at_least=0, at_most=0.95)
    """Dropout rate before each dense layer of the head; 0 switches it off."""
    batch_norm: bool = False
    """Batch norm before each dense layer of the head, ahead of the dropout."""
    initialization: Literal["glorot_uniform", "normal"] = "glorot_uniform"
    """Distribution of the dense layers' initial kernels; their biases start at zero."""
    normal_std: float = limited(0.01, above=0, at_most=1)
    """Standard deviation of `initialization: normal`."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """The optimizer and its constants, which differ between the frameworks' own defaults."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """Update rule."""
    beta_1: float = limited(0.9, at_least=0, at_most=0.9999)
    """Decay of the first moment (adam, adamw)."""
    beta_2: float = limited(0.999, at_least=0, at_most=0.99999)
    """Decay of the second moment (adam, adamw)."""
    epsilon: float = limited(1e-8, above=0, at_most=1)
    """Added to the denominator (adam, adamw); torch's default is 1e-8, Keras's 1e-7."""
    momentum: float = limited(0.9, at_least=0, at_most=0.9999)
    """Momentum (sgd)."""
    nesterov: bool = False
    """Nesterov's momentum (sgd)."""
    weight_decay: float = limited(0.0, at_least=0, at_most=1)
    """Decoupled weight decay (adamw, sgd): each step takes this share times the learning rate off every trainable
    weight, biases and batch norm included."""
    layer_decay: float = limited(1.0, above=0, at_most=1)
    """Layer-wise learning rates: each block of the backbone learns at this times the rate of the block after it, the
    last block at this times the head's rate; 1 gives all the same rate."""


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """How the learning rate changes within a phase."""

    name: Literal["none", "plateau", "cosine"] = "none"
    """`plateau` multiplies the rate by `factor` after `patience` epochs without a lower validation loss; `cosine`
    lowers it step by step, along half a cosine wave, to `min_learning_rate` at the phase's epoch limit."""
    warmup_epochs: int = limited(0, at_least=0)
    """The rate rises linearly, step by step, over so many epochs at the start of each phase (none, cosine)."""
    factor: float = limited(0.5, above=0, at_most=0.99)
    """What the learning rate is multiplied by (plateau)."""
    patience: int = limited(2, at_least=1)
    """Epochs without improvement before the rate is reduced (plateau)."""
    min_delta: float = limited(0.0, at_least=0)
    """A validation loss has to be lower by more than this to count as better (plateau)."""
    min_learning_rate: float = limited(0.0, at_least=0)
    """The rate is never reduced below this (plateau, cosine)."""


@dataclass(frozen=True, kw_only=True)
class EarlyStoppingSettings:
    """When a phase ends before its epoch limit, and which weights it leaves behind."""

    patience: int | None = limited(3, at_least=1)
    """Epochs without a lower validation loss before a phase stops; null trains to the epoch limit."""
    min_delta: float = limited(0.0, at_least=0)
    """A validation loss has to be lower by more than this to count as better."""
    restore: Literal["best", "last"] = "best"
    """Which weights a phase leaves: those of the epoch with the lowest validation loss, or the last epoch's."""


@dataclass(frozen=True, kw_only=True)
class PhaseSettings:
    """One phase of the regime `gradual`."""

    trainable: Trainable
    """What is trained: the head alone, the head and the last blocks of the backbone, or everything."""
    blocks: int | None = limited(None, at_least=1)
    """How many of the backbone's last blocks are trained (`trainable: last`)."""
    learning_rate: float | None = limited(None, above=0, at_most=10)
    """The phase's learning rate; the run's when not given."""
    max_epochs: int | None = limited(None, at_least=1)
    """The phase's epoch limit; the run's when not given."""


@dataclass(frozen=True, kw_only=True)
class AccelerationSettings:
    """What is used of the hardware; of these only tf32 changes numbers by more than rounding, and that on a GPU."""

    compile: bool | None = None
    """Compile the training and validation step before a phase: torch.compile, which needs a C++ compiler, or XLA in
    Keras. When not given, train_torch.py does not, and train_keras.py does as Keras decides, but on a CPU with
    TensorFlow, where XLA is slower."""
    channels_last: bool = True
    """Keep torch's convolution weights in the order of channels that tensor cores take; Keras's always are."""
    tf32: bool = True
    """TF32 in place of float32 within matrix products and convolutions of a GPU that has it, in both frameworks, which
    do not agree by themselves: 10 bits of mantissa rather than 23."""
    fused_optimizer: bool = True
    """One kernel for an optimizer's step in torch (adam, adamw, and sgd without weight decay); Keras has none."""
    cudnn_autotune: bool = True
    """Try the convolution algorithms of a GPU and take the fastest: runs of one seed then differ by rounding."""
    keep_memory: bool = True
    """Keep main memory that a step has freed for the next one: faster on a CPU, with torch on Linux; nothing in
    Keras."""


@dataclass(frozen=True, kw_only=True)
class TrackingSettings:
    """Where the run is recorded."""

    uri: str | None = None
    """MLflow tracking URI; when not given, MLFLOW_TRACKING_URI, else a sqlite file mlflow.db in this folder."""
    experiment: str = "tandem"
    """MLflow experiment; comparisons are made within one."""
    run_name: str | None = None
    """Name of the run; made from backbone, regime and framework when not given."""
    folder: str = "runs"
    """Each run gets a folder in here with its journal and its files."""
    log_model: bool = True
    """Log the trained network as an MLflow model that can be served; grids switch it off."""
    log_weights: bool = True
    """Log the trained weights, from which later runs can start; grids switch it off."""
    parent_run: str | None = None
    """Id of the MLflow run under which this one is shown, as one fold, seed or cell of it."""
    budget: Literal["full", "small"] = "full"
    """What the run is tagged with: runs of a small budget never stand in one table with full ones."""
    data_report: bool = True
    """Log a report on the data set, once for each split of it in an experiment, as a run of its own."""
    grad_cam_images: int = limited(12, at_least=0, at_most=1000)
    """Test images of which is shown where the trained network looks (Grad-CAM), the same ones in all runs on the same
    test images, spread over the classes; 0 switches it off."""
    system_interval: float = limited(5.0, above=0)
    """Seconds between two samples of CPU, memory and GPU use."""


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """A search for good settings: many short runs, the trials, that Optuna chooses the settings of."""

    num_trials: int | None = limited(None, at_least=1, at_most=100_000)
    """Search in so many trials instead of training once; of all processes that share a study together. A trial is
    judged by the validation images, never by the test images, and leaves no network behind."""
    space: dict[str, Any] | None = None
    """What is varied, by the settings' dotted names: a range {low: 1.0e-4, high: 1.0e-2, log: true}, or a list of
    values. When not given, `learning_rate` between 1e-5 and 0.1, uniform in its logarithm."""
    objective: Literal["val_loss", "val_accuracy"] = "val_loss"
    """What a trial is judged by: the validation loss or accuracy of the network that it ends with."""
    pruner: Literal["median", "hyperband", "none"] = "median"
    """What ends a hopeless trial early, by the objective after each epoch: `median`, where its best so far is worse
    than the median of the earlier trials at the same epoch (from the sixth trial on); `hyperband`; or nothing."""
    study: str | None = None
    """Name of the Optuna study, by which several processes and machines work on one search and a search goes on; made
    from the settings when not given, so that the same command goes on."""
    storage: str | None = None
    """Where the study is kept: a URL such as sqlite:///FILE.db or postgresql://...; a journal file in the sweep's
    folder when not given, which several machines can share if they share the folder."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one run."""

    regime: Regime = "finetune"
    """Way of training: `off_the_shelf` (the pretrained network with its ImageNet head, no training), `scratch` (random
    weights), `frozen` (pretrained backbone, new head), `two_stage` (frozen, then everything at a lower rate),
    `finetune` (pretrained, everything at once), `gradual` (pretrained, the phases that `phases` lists)."""
    phases: list[PhaseSettings] | None = None
    """The phases of the regime `gradual`, for example [{trainable: head}, {trainable: last, blocks: 2}]. Of each:
    trainable (head, last or all), blocks (of last: how many), learning_rate, max_epochs (the run's when not given)."""
    backbone: str = "mobilenet_v2"
    """The network before the head: a name of tandem/protocol/backbones.py, or any other by its library,
    `torchvision:NAME` or `timm:NAME` in train_torch.py, `keras:NAME` in train_keras.py."""
    weights: str = "imagenet"
    """Pretrained weights: `imagenet` (downloaded by the framework), a file, `runs:/<run id>` (an earlier run of the
    same framework), or `random` (untrained). The regime `scratch` always starts from random ones."""
    allow_random_weights: bool = False
    """Where `weights: imagenet` cannot be downloaded, train from random ones; the run's tags say so."""
    pixel_scaling: Literal["auto", "torch", "tf", "caffe", "unit"] = "auto"
    """How pixels of 0..255 become the backbone's input; `auto` is what the backbone's published weights expect.
    `torch`: mean 0 and deviation 1 of each channel over ImageNet; `tf`: -1 to 1; `unit`: 0 to 1; `caffe`: 0 to 255 less
    the channels' means, blue first."""
    batch_norm_momentum: float | None = limited(0.9, at_least=0, at_most=0.9999)
    """Share of its running statistics that batch norm keeps at each step (Keras's convention; torch's momentum is one
    minus this); null leaves each network its own, which is 0.9 in torchvision and up to 0.999 in Keras."""
    learning_rate: float = limited(1e-3, above=0, at_most=10)
    """Learning rate of every phase but the thawed second one of `two_stage`, and those of `phases` that have their
    own."""
    thawed_rate_factor: float = limited(0.1, above=0, at_most=1)
    """The second phase of `two_stage` trains at the learning rate times this."""
    batch_size: int = limited(32, at_least=2, at_most=65536)
    """Images a training step."""
    eval_batch_size: int | None = limited(None, at_least=1, at_most=65536)
    """Test images that are predicted at once, halved as often as the GPU's memory needs it; when not given, four times
    batch_size on a GPU, and batch_size on a CPU."""
    max_epochs: int = limited(100, at_least=1)
    """Epoch limit of each phase."""
    seed: int = limited(0, at_least=0, at_most=2**31 - 1)
    """Seed of initial weights, dropout, and the order and augmentation of training images."""
    seeds: list[int] | None = limited(None, at_least=0, at_most=2**31 - 1)
    """Train once with each of these seeds, in runs of their own under a parent run with mean and deviation."""
    imagenet_classes: str | None = None
    """YAML file that gives each class its ImageNet class or classes, by WordNet id or name, such as `ants: [ant]`
    (off_the_shelf); without it classes are matched by their own names."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic of the forward and backward pass; the weights stay in float32. float16 needs a GPU."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to train: a GPU if there is one, or as told."""
    threads: int | None = limited(None, at_least=1)
    """CPU threads for the framework's arithmetic, its own choice when not given, and as many for augmentation, one for
    each core when not given; two processes on one machine need it (with more threads than cores torch runs many times
    slower). Not with KERAS_BACKEND=jax, which cannot be bound: limit the process itself (taskset)."""
    cache_features: bool = True
    """Where the head alone is trained, compute the backbone's features of each image once and keep them in
    data.cache_folder, for this run and later ones, instead of anew in every epoch (on one device). With augmentation
    see `cache_views`."""
    cache_views: int | None = limited(None, at_least=1)
    """With augmentation, keep the features of so many augmented views of each training image and serve them in turn:
    epoch e trains on view e modulo this. Fewer views than epochs are weaker augmentation. When not given, augmented
    images go through the backbone in every epoch, each differently."""
    num_devices: int | Literal["auto"] = limited(1, at_least=1, at_most=4096)
    """GPUs (on a CPU: processes, or parts of it in Keras) that share out each batch: `batch_size` stays the images of a
    step, so nothing else of the training changes; `auto` takes all GPUs. train_torch.py starts its processes itself on
    one machine, torchrun or srun on several; train_keras.py needs KERAS_BACKEND=jax."""
    find_learning_rate: bool = False
    """Instead of training, raise the learning rate step by step in the first phase, record the loss and suggest a rate
    (the learning-rate range test)."""
    data: DataSettings = field(default_factory=DataSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    head: HeadSettings = field(default_factory=HeadSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    early_stopping: EarlyStoppingSettings = field(default_factory=EarlyStoppingSettings)
    sweep: SweepSettings = field(default_factory=SweepSettings)
    acceleration: AccelerationSettings = field(default_factory=AccelerationSettings)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)


def flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    """The settings as one level of dotted names, `data.image_size` for example, in the order of declaration.

    Values are plain ones: numbers, texts, truth values, None, and lists of them; each of the `phases` is a dictionary.
    """
    flat: dict[str, Any] = {}
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if dataclasses.is_dataclass(value):
            flat.update(flatten(value, f"{prefix}{item.name}."))
        elif isinstance(value, list):
            flat[prefix + item.name] = [
                dataclasses.asdict(part) if isinstance(part, PhaseSettings) else part for part in value
            ]
        else:
            flat[prefix + item.name] = value
    return flat


def settings_hash(settings: Settings) -> str:
    """SHA-256 (hexadecimal) of the settings that describe the experiment: not where it is computed or recorded, nor
    how good settings are looked for."""
    content = dataclasses.asdict(settings)
    not_described = ("tracking", "device", "threads", "num_devices", "eval_batch_size", "cache_features")
    for name in (*not_described, "sweep", "find_learning_rate"):
        del content[name]
    content["acceleration"] = {"tf32": settings.acceleration.tf32}  # the others change no numbers beyond rounding
    del content["data"]["cache_folder"]
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
