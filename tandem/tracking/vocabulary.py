"""The names under which a run is recorded: one vocabulary, the same from both scripts.

A "/" in a metric's name makes a section of charts in the MLflow UI. Names that end in a unit are in that unit.
"""

from __future__ import annotations

import re

# Tags. What a run's row can be found and grouped by.
FRAMEWORK = "tandem.framework"  # torch or keras
BACKEND = "tandem.backend"  # what computes: torch, tensorflow or jax
SETTINGS_HASH = "tandem.settings_hash"  # of the settings alone: equal for both frameworks
SPLIT_HASH = "tandem.split_hash"  # of every image and the part it is in
TEST_HASH = "tandem.test_hash"  # of the test images and their classes: runs with equal ones are compared row by row
BATCHES_HASH = "tandem.batches_hash"  # of the first epoch's batches, byte for byte
DATA_NAME = "tandem.data"
HARDWARE = "tandem.hardware"
DEVICE = "tandem.device"  # cpu or gpu: what the framework has computed on
VERSION_PREFIX = "tandem.version."  # followed by tandem, python, torch, keras, ...
FAILURE = "tandem.failure"  # why the run ended FAILED, in one line
OFF_THE_SHELF = "tandem.off_the_shelf"  # why the scores over all ImageNet outputs and over the classes differ
GRAD_CAM = "tandem.grad_cam"  # of how many test images there are maps, or why there are none
COMPARISON = "tandem.comparison"  # of how many runs; only on runs that hold a comparison's page
REPEATS = "tandem.repeats"  # of what it holds a run each: seeds, folds; only on runs that hold others
SWEEP = "tandem.sweep"  # name of the study; only on runs that hold a sweep's trials
TRIAL = "tandem.trial"  # its number in the study, from 0; on a sweep's trials in place of the framework
TRIAL_STATE = "tandem.trial_state"  # complete, pruned or failed
RANGE_TEST = "tandem.range_test"  # of the learning rate: what it suggests; on such runs in place of the framework
DATA_REPORT = "tandem.data_report"  # split hash of the data; only on runs that hold a data set's report
WEIGHTS_ORIGIN = "tandem.weights_origin"  # random, imagenet, the file's hash, or the earlier run
RANDOM_FOR_IMAGENET = "random (imagenet could not be downloaded)"  # its value where a run was allowed to do without
BUDGET = "tandem.budget"  # full or small: runs of different ones never stand in one table
COPIED_FROM = "tandem.copied_from"  # id of the run that this is a copy of; only on copies
COPIED_STATE = "tandem.copied_state"  # hash of what that run held when the copy was complete

# Parameters: every setting under its dotted name (data.image_size), and these.
NUM_CLASSES = "num_classes"
NUM_IMAGES = {"train": "num_train_images", "val": "num_val_images", "test": "num_test_images"}

# Metrics of each epoch; the step counts epochs from 0 over all phases of the run.
TRAIN_LOSS, TRAIN_ACCURACY = "train/loss", "train/accuracy"
VAL_LOSS, VAL_ACCURACY = "val/loss", "val/accuracy"
EPOCH_LEARNING_RATE = "epoch/learning_rate"  # the head's, in the epoch's first step
EPOCH_SECONDS = "epoch/seconds"  # training and validation of one epoch
EPOCH_PHASE = "epoch/phase"  # 1, 2, ...: where it changes, something else is trained

# Metrics of a run; the same stand under phase_name(n) for each phase, where `phase` is what it cost alone.
TRAIN_SECONDS = "cost/train_seconds"  # training and validation of all phases, evaluation and compiling apart
COMPILE_SECONDS = "cost/compile_seconds"  # tracing, compiling and first use of the kernels, before the phases' steps
SECONDS_PER_EPOCH = "cost/seconds_per_epoch"
FEATURE_SECONDS = "cost/feature_seconds"  # of those, the pass that computed cached features, whichever run made it
CACHED_FEATURE_SECONDS = "cost/cached_feature_seconds"  # of these, what an earlier run spent: this one had the result
EPOCHS = "cost/epochs"
PARAMETERS = "cost/parameters"
TRAINABLE_PARAMETERS = "cost/trainable_parameters"
MACS = "cost/macs"  # multiply-accumulates of convolutions and dense layers, one image
LATENCY_MILLISECONDS = "cost/latency_milliseconds"  # one image, median
IMAGES_PER_SECOND = "cost/inference_images_per_second"  # batches of the run's batch size, median
PEAK_MEMORY_MEGABYTES = "cost/peak_memory_megabytes"  # resident memory of the process
PEAK_GPU_MEMORY_MEGABYTES = "cost/peak_gpu_memory_megabytes"  # of the first GPU; 0 without one
BEST_EPOCH = "cost/best_epoch"  # of a phase, counted from 0 within it

DATA_PREFIX = "data/"  # followed by num_images and the like: only on runs that hold a data set's report

SWEEP_PREFIX = "sweep/"  # followed by best and num_trials: only on runs that hold a sweep's trials
OBJECTIVE = "sweep/objective"  # of a trial: what the sweep judges it by
RANGE_LOSS, RANGE_SMOOTHED_LOSS = "range_test/loss", "range_test/smoothed_loss"  # one value a step
RANGE_LEARNING_RATE = "range_test/learning_rate"  # of each step
RANGE_SUGGESTION = "range_test/suggestion"  # the learning rate to take

COST_PREFIX = "cost/"
TEST_PREFIX = "test/"  # followed by a score's name from tandem.evaluation.metrics

DEFAULT_URI = "sqlite:///mlflow.db"  # where runs are recorded when nothing is configured

# Artifacts
SETTINGS_FILE = "settings.yaml"
DATA_FOLDER = "data"  # holds the files of tandem.data.prepare: split, report, bad images, copies
PREDICTIONS_FILE = "predictions.parquet"
PER_CLASS_FILE = "per_class.csv"
CONFUSION_MATRIX_FILE = "confusion_matrix.csv"
CLASSIFICATION_REPORT_FILE = "classification_report.txt"
FINAL_FOLDER = "final"  # holds the four files above for the trained network; phase_name(n) for those after a phase
IMAGENET_ANSWERS_FILE = "final/imagenet_answers.csv"  # the highest of all 1000 outputs for each test image
GRAD_CAM_FILE = "final/grad_cam.npz"  # images and maps, read by tandem.recording.grad_cam
GRAD_CAM_SHEET_FILE = "final/grad_cam.png"
RUN_PAGE_FILE = "run.html"
BEST_SETTINGS_FILE = "best.yaml"
TRIALS_FILE = "trials.csv"
SWEEP_PAGE_FILE = "sweep.html"
RANGE_TEST_FILE = "range_test.csv"
RANGE_TEST_PAGE_FILE = "range_test.html"
WEIGHTS_FOLDER = "weights"
TRACEBACK_FILE = "traceback.txt"
JOURNAL_FILE = "journal.jsonl"


def hash_tag(number: int, part: str, when: str) -> str:
    """The tag with the hash of a part's weights and statistics `before` or `after` a phase.

    Args:
        number: The phase's, from 1.
        part: `backbone`, or `frozen`: the first blocks of a backbone whose last ones are trained.
        when: `before` or `after`.
    """
    return f"tandem.{phase_name(number)}.{part}_{when}"


def file_name(text: str) -> str:
    """A name, such as an experiment's, as that of a file or folder: what not every file system takes becomes `_`."""
    return re.sub(r"[^\w.-]", "_", text)


def phase_name(number: int) -> str:
    """The prefix of a phase's metrics and the folder of its files; phases are counted from 1."""
    return f"phase_{number}"
