"""The Keras side of Tandem: train_keras.py's networks, weights, batches, steps, cost and serving.

Both sides have the functions of tandem.experiment.framework.FrameworkPackage; the scripts use these names too.
"""

from tandem.on_keras.acceleration import (
    PAD_BATCHES,
    check_device,
    is_out_of_memory,
    jit_compile,
    set_flags,
    warm_up,
)
from tandem.on_keras.architecture import layers_of
from tandem.on_keras.average import average_weights
from tandem.on_keras.backbones import blocks_of, check_builder, fix_batch_norm, has_batch_norm, set_trainable
from tandem.on_keras.backends import (
    backend,
    limit_threads,
    peak_gpu_memory_megabytes,
    random_state,
    reset_peak_gpu_memory,
    restore_random_state,
    trials_per_process,
    uses_gpu,
    versions,
)
from tandem.on_keras.checkpoints import KeepCheckpoints
from tandem.on_keras.cost import count_macs
from tandem.on_keras.distributed import join_devices
from tandem.on_keras.early_stopping import EarlyStoppingWithBestWeights
from tandem.on_keras.features import find_features, head_on_features, steps_per_execution
from tandem.on_keras.feed import CountEpochs
from tandem.on_keras.gradcam import features_and_gradients
from tandem.on_keras.learning_rate_finder import take_steps
from tandem.on_keras.log_epochs import LogEpochs
from tandem.on_keras.loss import build_accuracy, build_loss
from tandem.on_keras.mapped_head import map_head
from tandem.on_keras.networks import Classifier, build_classifier, build_off_the_shelf
from tandem.on_keras.optimizers import Blocks, build_optimizer, build_schedule
from tandem.on_keras.serving import save_model
from tandem.on_keras.streams import open_streams
from tandem.on_keras.time_limit import TimeLimit
from tandem.on_keras.weights import (
    BACKBONE_FILE,
    copy_weights,
    count_parameters,
    hash_weights,
    restore_weights,
    save_weights,
)
