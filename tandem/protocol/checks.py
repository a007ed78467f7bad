"""Checks of settings: limits, contradictions between them, and what a framework or a backbone does not support."""

from __future__ import annotations

import itertools
import math
import os
import re
from pathlib import Path
from typing import Any

from tandem.errors import UserError
from tandem.protocol.addresses import resolve_address, strip
from tandem.protocol.backbones import Backbone, find_backbone, num_blocks
from tandem.protocol.data_sets import DATA_SETS
from tandem.protocol.frameworks import KERAS_BACKENDS, WEIGHT_FILES, Framework
from tandem.protocol.label_table import ROLES
from tandem.protocol.part_names import PARTS
from tandem.protocol.processes import check_shares, num_started_processes
from tandem.protocol.refusals import EXAMPLES, describe, refuse
from tandem.protocol.regimes import phases_of
from tandem.protocol.repeats import repeats_of
from tandem.protocol.settings import (
    FOLD_SPLITS,
    AugmentationSettings,
    MixingSettings,
    PhaseSettings,
    Settings,
    flatten,
    walk,
)

LONGEST_NAME = 250
"""Characters of a name that MLflow and Optuna keep in a database."""

_NAMES = ("tracking.experiment", "tracking.run_name", "sweep.study")
_PATHS = ("data.source", "data.cache_folder", "weights", "tracking.folder", "imagenet_classes")


def check_settings(settings: Settings, framework: Framework) -> None:
    """Raises UserError for the first setting that is out of its limits, contradicts another, or is unsupported."""
    _check_texts(settings)
    check_limits(settings)
    check_data(settings)
    _check_regime(settings)
    _check_optimizer(settings)
    _check_features(settings)
    _check_batch_norm(settings)
    if settings.loss.class_weights == {}:
        refuse("loss.class_weights", {}, "none, balanced, or a mapping of one or more classes, like {melanoma: 5}")
    if settings.precision == "float16" and settings.device == "cpu":
        refuse("precision", "float16", "float32 or bfloat16 with device cpu")
    if framework == "keras" and (backend := os.environ.get("KERAS_BACKEND", KERAS_BACKENDS[0])) not in KERAS_BACKENDS:
        raise UserError(f"KERAS_BACKEND: received {backend!r}, allowed: {', '.join(KERAS_BACKENDS)}")
    _check_devices(settings, framework)
    backbone = find_backbone(settings.backbone, framework)
    if settings.data.image_size < backbone.min_image_size:
        least = f"at least {backbone.min_image_size} for backbone {backbone.name}"
        refuse("data.image_size", settings.data.image_size, least)
    for phase in settings.phases or []:
        if phase.blocks is not None and phase.blocks > num_blocks(backbone):
            refuse("phases.blocks", phase.blocks, f"at most {num_blocks(backbone)}, which {backbone.name} has")
    _check_weights(settings.weights, framework, backbone)


def _check_texts(settings: Settings) -> None:
    for name, _, value in walk(settings):
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                _check_text(name, text)
    if settings.tracking.uri is not None:
        resolve_address(settings.tracking.uri, "tracking")
    if settings.sweep.storage is not None:
        resolve_address(settings.sweep.storage, "study")


def _check_text(name: str, text: str) -> None:
    if "\0" in text:
        refuse(name, text, "a text without NUL characters")
    if not strip(text):
        refuse(name, text, "a text that is not empty, or leave it out")
    if found := re.search(r"\$\{\w+\}", text):
        refuse(name, text, f"a text without {found[0]}: variables are not replaced here; write the value itself")
    if name in _NAMES and (len(text) > LONGEST_NAME or not text.isprintable()):
        refuse(name, text, f"at most {LONGEST_NAME} printable characters")
    if name in _PATHS and text.startswith("~"):
        try:
            Path(text).expanduser()
        except RuntimeError:
            allowed = "a path without ~, since this user has no home folder; or set the environment variable HOME"
            refuse(name, text, allowed)


def check_limits(settings: Settings) -> None:
    """Raises UserError for the first setting that is out of its limits."""
    of_phases = (walk(phase, "phases.") for phase in settings.phases or [])
    for name, item, value in itertools.chain(walk(settings), *of_phases):
        numbers = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        for number in numbers:
            if isinstance(number, int | float) and not _within(number, item.metadata):
                refuse(name, value, describe(name))


def _within(number: float, limits: Any) -> bool:
    try:
        number = float(number) if abs(number) > 2**63 else number
    except OverflowError:
        return False
    # NaN is outside of any limit
    return (
        math.isfinite(number)
        and ("above" not in limits or number > limits["above"])
        and ("at_least" not in limits or number >= limits["at_least"])
        and ("at_most" not in limits or number <= limits["at_most"])
    )


def check_data(settings: Settings) -> None:
    """Raises UserError for the first setting of the data that contradicts another."""
    data, augmentation = settings.data, settings.augmentation
    fractions = data.fractions
    if fractions is not None and (len(fractions) != 3 or abs(sum(fractions) - 1) > 1e-6 or min(fractions) <= 0):
        refuse("data.fractions", fractions, "three numbers above 0 (train, val, test) that add up to 1")
    if data.fold is not None and data.split not in FOLD_SPLITS:
        with_it = " and ".join(FOLD_SPLITS)
        refuse("data.fold", data.fold, f"null with data.split {data.split}; data.split {with_it} take it")
    if data.fold is not None and data.fold >= data.folds:
        refuse("data.fold", data.fold, f"0 to {data.folds - 1}, since data.folds is {data.folds}")
    if data.classes is not None and (len(data.classes) < 2 or len(set(data.classes)) < len(data.classes)):
        refuse("data.classes", data.classes, "two or more different class names")
    if data.parts is not None and not ("train" in data.parts and set(data.parts) <= set(PARTS)):
        refuse("data.parts", data.parts, "a mapping with the key train, and perhaps val and test")
    if data.parts is not None and len(set(data.parts.values())) < len(data.parts):
        refuse("data.parts", data.parts, "a different name for each part")
    if data.columns is not None and not set(data.columns) <= set(ROLES):
        refuse("data.columns", data.columns, f"a mapping with some of the keys {', '.join(ROLES)}")
    for name in ("parts", "labels", "columns"):
        if getattr(data, name) is not None and data.source in DATA_SETS:
            refuse(f"data.{name}", getattr(data, name), f"null with data.source {data.source}, which has its own")
    if augmentation.crop_padding >= data.image_size:
        refuse("augmentation.crop_padding", augmentation.crop_padding, f"less than {data.image_size}")
    shares = augmentation.random_resized_crop
    if shares is not None and (len(shares) != 2 or shares[0] > shares[1]):
        refuse("augmentation.random_resized_crop", shares, "two numbers, the smallest and the largest share")
    defaults = AugmentationSettings()
    for name in ("num_operations", "magnitude"):
        value, default = getattr(augmentation, name), getattr(defaults, name)
        if augmentation.policy != "rand_augment" and value != default:
            allowed = f"{default} with augmentation.policy {augmentation.policy}; rand_augment takes it"
            refuse(f"augmentation.{name}", value, allowed)


def _check_regime(settings: Settings) -> None:
    regime = settings.regime
    if regime == "gradual" and not settings.phases:
        refuse("phases", settings.phases, f"with regime gradual one or more, like [{EXAMPLES[PhaseSettings]}]")
    if regime != "gradual" and settings.phases is not None:
        refuse("phases", flatten(settings)["phases"], f"null with regime {regime}; regime gradual takes phases")
    for phase in settings.phases or []:
        if phase.trainable == "last" and phase.blocks is None:
            refuse("phases.blocks", None, "with trainable last a whole number, at least 1")
        if phase.trainable != "last" and phase.blocks is not None:
            refuse("phases.blocks", phase.blocks, f"null with trainable {phase.trainable}; trainable last takes it")
    if settings.seeds is not None and (not settings.seeds or len(set(settings.seeds)) < len(settings.seeds)):
        refuse("seeds", settings.seeds, "one or more different whole numbers")
    if regime == "off_the_shelf":
        if settings.weights == "random" or settings.weights.startswith("runs:"):
            refuse("weights", settings.weights, "imagenet or a file, with regime off_the_shelf, which needs their head")
    elif settings.imagenet_classes is not None:
        refuse("imagenet_classes", settings.imagenet_classes, f"null with regime {regime}; off_the_shelf takes it")


def _check_optimizer(settings: Settings) -> None:
    optimizer, schedule, phases = settings.optimizer, settings.schedule, phases_of(settings)
    if optimizer.weight_decay and optimizer.name == "adam":
        allowed = "0 with optimizer.name adam; optimizer.name adamw takes it"
        refuse("optimizer.weight_decay", optimizer.weight_decay, allowed)
    if optimizer.nesterov and optimizer.name != "sgd":
        refuse("optimizer.nesterov", True, f"false with optimizer.name {optimizer.name}; optimizer.name sgd takes it")
    if optimizer.nesterov and optimizer.momentum == 0:
        refuse("optimizer.nesterov", True, "false with optimizer.momentum 0")
    if optimizer.layer_decay != 1 and all(phase.trainable == "head" for phase in phases):
        allowed = f"1 with regime {settings.regime}, which does not train the backbone"
        refuse("optimizer.layer_decay", optimizer.layer_decay, allowed)
    if schedule.warmup_epochs and schedule.name in ("plateau", "one_cycle"):
        allowed = f"0 with schedule.name {schedule.name}; schedule.name none, cosine or step takes it"
        refuse("schedule.warmup_epochs", schedule.warmup_epochs, allowed)
    if schedule.min_learning_rate and schedule.name == "one_cycle":
        allowed = "0 with schedule.name one_cycle, which ends at a 250,000th of the rate"
        refuse("schedule.min_learning_rate", schedule.min_learning_rate, allowed)
    _check_accumulation(settings)
    for phase in phases:
        where = f"phase {phase.number} of regime {settings.regime}"
        if schedule.warmup_epochs >= phase.max_epochs:
            allowed = f"less than the {phase.max_epochs} epochs of {where}"
            refuse("schedule.warmup_epochs", schedule.warmup_epochs, allowed)
        if schedule.name != "none" and schedule.min_learning_rate > phase.learning_rate:
            allowed = f"at most {phase.learning_rate:g}, the learning rate of {where}"
            refuse("schedule.min_learning_rate", schedule.min_learning_rate, allowed)


def _check_accumulation(settings: Settings) -> None:
    parts = settings.accumulate
    if parts == 1:
        return
    if settings.batch_size % parts or settings.batch_size // parts < 2:
        allowed = f"a divisor of batch_size {settings.batch_size}, with parts of at least 2 images"
        refuse("accumulate", parts, allowed)
    if settings.precision == "float16":
        refuse("accumulate", parts, "1 with precision float16; precision bfloat16 takes it")
    if settings.find_learning_rate:
        refuse("accumulate", parts, "1 with find_learning_rate, whose steps are single passes")


def _check_features(settings: Settings) -> None:
    views = settings.cache_views
    if views is None:
        return
    if settings.augmentation == AugmentationSettings():
        refuse("cache_views", views, "null without augmentation, since each image has one view")
    if settings.mixing != MixingSettings():
        allowed = "null with mixing.mixup_alpha or mixing.cutmix_alpha, which mix other images in each epoch"
        refuse("cache_views", views, allowed)
    if not settings.cache_features:
        refuse("cache_views", views, "null with cache_features false")
    if settings.num_devices != 1:
        refuse("cache_views", views, "null unless num_devices is 1, since features are cached on one device only")
    if all(phase.trainable != "head" for phase in phases_of(settings)):
        refuse("cache_views", views, f"null with regime {settings.regime}, in which no phase trains only the head")


def _check_batch_norm(settings: Settings) -> None:
    if settings.backbone_batch_norm == "train":
        return
    if all(phase.trainable == "head" for phase in phases_of(settings)):
        allowed = f"train with regime {settings.regime}, which does not train the backbone"
    elif settings.regime == "scratch":
        allowed = "train with regime scratch, whose backbone has no statistics to keep"
    elif settings.weights == "random":
        allowed = "train with weights random, since a random backbone has no statistics to keep"
    else:
        return
    refuse("backbone_batch_norm", settings.backbone_batch_norm, allowed)


def _check_devices(settings: Settings, framework: Framework) -> None:
    num_devices = settings.num_devices
    # processes of torchrun or srun share a sweep, each with its own trials
    num_started = num_started_processes() if settings.sweep.num_trials is None else 1
    backend = os.environ.get("KERAS_BACKEND", KERAS_BACKENDS[0])
    if framework == "keras" and num_started > 1:
        allowed = f"one process of train_keras.py, which uses all devices; torchrun or srun started {num_started}"
        refuse("num_devices", num_devices, allowed)
    if framework == "keras" and num_devices != 1 and backend != "jax":
        refuse("num_devices", num_devices, f"1 with KERAS_BACKEND {backend}; KERAS_BACKEND=jax takes more")
    if num_started > 1 and num_devices not in ("auto", num_started):
        refuse("num_devices", num_devices, f"{num_started}, the number that torchrun or srun started, or auto")
    if num_started > 1 and repeats_of(settings):
        name, value = ("data.fold", None) if settings.seeds is None else ("seeds", settings.seeds)
        refuse(name, value, "a single seed and fold if torchrun or srun starts the processes of one run")
    if framework == "torch" and num_devices != 1 and settings.acceleration.compile:
        refuse("acceleration.compile", True, "null or false unless num_devices is 1")
    if settings.regime == "off_the_shelf" and num_devices != "auto" and num_devices > 1:
        refuse("num_devices", num_devices, "1 with regime off_the_shelf, which trains nothing")
    if num_devices != "auto":
        check_shares(settings.batch_size, num_devices, settings.accumulate)


def _check_weights(weights: str, framework: Framework, backbone: Backbone) -> None:
    if weights in ("imagenet", "random") or re.fullmatch(r"runs:/[0-9a-f]{32}", weights):
        return
    endings = WEIGHT_FILES[framework]
    if backbone.builds[framework].package == "tandem":
        endings += (".safetensors",)  # of torch, converted to Keras
    allowed = f"imagenet, random, runs:/<run id of 32 hex digits>, or a file that ends in {', '.join(endings)}"
    if weights.startswith("runs:"):
        refuse("weights", weights, allowed)
    path = Path(weights).expanduser()
    if not os.path.isfile(path):
        refuse("weights", weights, f"{allowed}; there is no such file")
    if path.suffix not in endings:
        refuse("weights", weights, f"{allowed} for train_{framework}.py")
