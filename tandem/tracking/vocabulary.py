"""Names of tags, parameters, metrics and files of a run in MLflow, the same for both scripts.

The MLflow UI groups charts by the part of a metric's name before "/". Names that end in a unit are in that unit.
"""

from __future__ import annotations

import hashlib
import re

# Tags, by which runs are found and grouped.
FRAMEWORK = "tandem.framework"  # torch or keras
BACKEND = "tandem.backend"  # torch, tensorflow or jax
SETTINGS_HASH = "tandem.settings_hash"  # of the settings alone, so equal in both frameworks
SPLIT_HASH = "tandem.split_hash"  # of every image and its part: train, val or test
TEST_HASH = "tandem.test_hash"  # of the test images and their classes; runs with the same hash share a table
TEST_IMAGES_HASH = "tandem.test_images_hash"  # the same, whatever the order of the classes is; not in older runs
BATCHES_HASH = "tandem.batches_hash"  # of the bytes of the first epoch's batches
DATA_NAME = "tandem.data"
ENVIRONMENT = "tandem.environment"  # JSON of the frameworks' environment variables, by name
HARDWARE = "tandem.hardware"
ONNX_HARDWARE = "tandem.onnx_hardware"  # that of ONNX_LATENCY_MILLISECONDS; only on exported runs
DEVICE = "tandem.device"  # cpu or gpu, whichever the framework used
VERSION_PREFIX = "tandem.version."  # followed by tandem, python, torch, keras, ...
PROCESS = "tandem.process"  # host, boot, number and start time of the process that works on the run, as JSON
REQUEST = "tandem.request"  # number of the request that creates a run through a server; removed at once
RESUMED = "tandem.resumed"  # number of times that the run was continued after an interruption
INTERRUPTED = "tandem.interrupted"  # signal, and what is kept; only on interrupted runs
FAILURE = "tandem.failure"  # reason for the status FAILED, one line
OFF_THE_SHELF = "tandem.off_the_shelf"  # why scores over all ImageNet outputs and over the classes differ
TIME_LIMIT = "tandem.time_limit"  # phases that max_minutes ended; only where it did
GRAD_CAM = "tandem.grad_cam"  # number of test images with maps, or why there are none
COMPARISON = "tandem.comparison"  # number of compared runs; only on comparisons
REPEATS = "tandem.repeats"  # the children, such as "torch: 3 seeds"; only on parent runs
SWEEP = "tandem.sweep"  # framework and name of the study; only on the parent run of a sweep's trials
TRIAL = "tandem.trial"  # number in the study, from 0; on trials, in place of the framework
TRIAL_STATE = "tandem.trial_state"  # complete, pruned or failed
RANGE_TEST = "tandem.range_test"  # suggested learning rate; on range tests, in place of the framework
DATA_REPORT = "tandem.data_report"  # split hash of the data; only on reports on a data set
WEIGHTS_ORIGIN = "tandem.weights_origin"  # random, imagenet, the hash of a file, or the earlier run
RANDOM_FOR_IMAGENET = "random (imagenet could not be downloaded)"  # the origin where allow_random_weights applied
NUMBERS = "tandem.numbers"  # JSON of the numbers of the whole run that are no metrics; NUMBERS.phase_1: of a phase
BUDGET = "tandem.budget"  # full or small; tables never mix the two
DESCRIPTION = "mlflow.note.content"  # Markdown, which the MLflow UI shows as the description of a run or experiment
COPIED_FROM = "tandem.copied_from"  # id of the original run; only on copies
COPIED_STATE = "tandem.copied_state"  # hash of the original run when the copy was completed

# Parameters: every setting under its dotted name (data.image_size), and the following.
NUM_CLASSES = "num_classes"
NUM_IMAGES = {"train": "num_train_images", "val": "num_val_images", "test": "num_test_images"}

# Metrics per epoch; the step is the epoch, counted from 0 over all phases of the run.
TRAIN_LOSS, TRAIN_ACCURACY = "train/loss", "train/accuracy"
VAL_LOSS, VAL_ACCURACY = "val/loss", "val/accuracy"
EPOCH_LEARNING_RATE = "epoch/learning_rate"  # of the head, at the epoch's first step
EPOCH_SECONDS = "epoch/seconds"  # training and validation
EPOCH_PHASE = "epoch/phase"  # 1, 2, ...

# Metrics per run. The same names below phase_name(n) hold the numbers of that phase alone.
TRAIN_SECONDS = "cost/train_seconds"  # training and validation of all phases, excluding evaluation and compilation
COMPILE_SECONDS = "cost/compile_seconds"  # tracing, compilation and first use of kernels, before a phase's steps
SECONDS_PER_EPOCH = "cost/seconds_per_epoch"
FEATURE_SECONDS = "cost/feature_seconds"  # part of TRAIN_SECONDS: computing features, in any run
CACHED_FEATURE_SECONDS = "cost/cached_feature_seconds"  # part of FEATURE_SECONDS: in an earlier run
EPOCHS = "cost/epochs"
PARAMETERS = "cost/parameters"
TRAINABLE_PARAMETERS = "cost/trainable_parameters"
MACS = "cost/macs"  # multiply-accumulates per image in convolutions and dense layers
LATENCY_MILLISECONDS = "cost/latency_milliseconds"  # median over single images
IMAGES_PER_SECOND = "cost/inference_images_per_second"  # median over batches of the run's batch size
# Added by python -m tandem.export, on one thread of a CPU, for images of any network in the same engine.
ONNX_LATENCY_MILLISECONDS = "cost/onnx_latency_milliseconds"  # median over single images
ONNX_IMAGES_PER_SECOND = "cost/onnx_images_per_second"  # median over batches of 32
PEAK_MEMORY_MEGABYTES = "cost/peak_memory_megabytes"  # resident memory of the process
# Of the first GPU, 0 without one: in training and validation of the phases; in evaluation and measurement of inference.
PEAK_GPU_MEMORY_MEGABYTES = "cost/peak_gpu_memory_megabytes"
EVALUATION_PEAK_GPU_MEMORY_MEGABYTES = "cost/evaluation_peak_gpu_memory_megabytes"
BEST_EPOCH = "cost/best_epoch"  # per phase, counted from 0 within the phase
START_ACCURACY = "val/start_accuracy"  # per phase: validation accuracy after its first epoch

DATA_PREFIX = "data/"  # followed by num_images and the like; only on reports on a data set

SWEEP_PREFIX = "sweep/"  # followed by best and num_trials; only on the parent run of a sweep's trials
OBJECTIVE = "sweep/objective"  # value of sweep.objective; only on trials
RANGE_LOSS, RANGE_SMOOTHED_LOSS = "range_test/loss", "range_test/smoothed_loss"  # one value per step
RANGE_LEARNING_RATE = "range_test/learning_rate"  # one value per step
RANGE_SUGGESTION = "range_test/suggestion"  # suggested learning rate

COST_PREFIX = "cost/"
# Followed by a score's name from tandem.evaluation.metrics: accuracy, f1_macro, balanced_accuracy, cohen_kappa,
# matthews_correlation and others; roc_auc_macro and average_precision_macro only if several classes have test images.
TEST_PREFIX = "test/"
TTA = "tta"  # prefix of the scores, and folder of the predictions, with test-time augmentation; see TEST_PREFIX
TTA_VIEWS = "tta/views"  # views per test image, and so passes through the network, the plain image included

STATISTICS = ("mean", "std")  # prefixes of scores and costs on parent runs: over their children

# Numbers of a whole run that people chart, sort or filter by. MLflow draws a chart of each metric, so all others are in
# the tags NUMBERS (tandem.tracking.numbers); runs of version 0.2.0 and earlier have them as metrics.
CHARTED = frozenset(
    (
        TRAIN_SECONDS,
        LATENCY_MILLISECONDS,
        PARAMETERS,
        *(
            TEST_PREFIX + score
            for score in ("accuracy", "balanced_accuracy", "f1_macro", "f1_min", "log_loss", "roc_auc_macro")
        ),
        f"{TTA}/{TEST_PREFIX}accuracy",
    )
)

DEFAULT_URI = "sqlite:///mlflow.db"  # used if no tracking URI is configured

# Artifacts
SETTINGS_FILE = "settings.yaml"
DATA_FOLDER = "data"  # split, report, unreadable images and copies; tandem/data/prepare.py names the files
PREDICTIONS_FILE = "predictions.parquet"
PER_CLASS_FILE = "per_class.csv"  # class, precision, recall, f1, support; newer runs also roc_auc, average_precision
CONFUSION_MATRIX_FILE = "confusion_matrix.csv"
CLASSIFICATION_REPORT_FILE = "classification_report.txt"
FINAL_FOLDER = "final"  # the four files above for the trained network; phase_name(n) has those after a phase
IMAGENET_ANSWERS_FILE = "final/imagenet_answers.csv"  # the highest of all 1000 outputs per test image
GRAD_CAM_FILE = "final/grad_cam.npz"  # images and maps, read by tandem.recording.grad_cam
GRAD_CAM_SHEET_FILE = "final/grad_cam.png"
RUN_PAGE_FILE = "run.html"
MODEL_CARD_FILE = "model_card.md"
NUMBERS_FILE = "numbers.csv"  # all numbers of the whole run: one line per number, one column per phase
ARCHITECTURE_FILE = "architecture.csv"  # one line per layer
BEST_SETTINGS_FILE = "best.yaml"
TRIALS_FILE = "trials.csv"
SWEEP_PAGE_FILE = "sweep.html"
RANGE_TEST_FILE = "range_test.csv"
RANGE_TEST_PAGE_FILE = "range_test.html"
WEIGHTS_FOLDER = "weights"
GOOD_WEIGHTS_FOLDER = "good_weights"  # in a run's folder, after a divergence; not among the artifacts
TRACEBACK_FILE = "traceback.txt"
PROCESS_FILE = "process.json"
CHECKPOINT_FOLDER = "checkpoint"
JOURNAL_FILE = "journal.jsonl"

LONGEST_FILE_NAME = 120  # bytes of the part of a file's name that a text decides


def hash_tag(number: int, part: str, when: str) -> str:
    """Name of the tag with the hash of frozen weights and statistics before or after a phase.

    Args:
        number: The phase, from 1.
        part: `backbone`, or `frozen` for the first blocks of a backbone whose last blocks are trained.
        when: `before` or `after`.
    """
    return f"tandem.{phase_name(number)}.{part}_{when}"


def file_name(text: str) -> str:
    """Name of a file or folder for a text, which cannot lead out of the folder that it is in.

    Characters that not every file system accepts become `_`, and so do dots at the beginning. Of a long text, the
    beginning and a hash are kept: file systems accept 255 bytes, of which ending and number of a file need some.
    """
    name = re.sub(r"^\.+", lambda dots: "_" * len(dots[0]), re.sub(r"[^\w.-]", "_", text)) or "_"
    if len(name.encode()) <= LONGEST_FILE_NAME:
        return name
    start = name.encode()[: LONGEST_FILE_NAME - 13].decode(errors="ignore")
    return f"{start}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def phase_name(number: int) -> str:
    """Prefix of a phase's metrics and name of its folder; phases are counted from 1."""
    return f"phase_{number}"
