"""The torch side of Tandem: train_torch.py's networks, weights, batches, steps, cost and serving.

Both sides have the functions of tandem.experiment.framework.FrameworkPackage; the scripts use these names too.
"""

from tandem.on_torch.acceleration import (
    PAD_BATCHES,
    autocast,
    check_device,
    device_of,
    forward_of,
    is_out_of_memory,
    set_flags,
    to_device,
    uses_fused_optimizer,
    uses_gpu,
    warm_up,
)
from tandem.on_torch.architecture import layers_of
from tandem.on_torch.average import average_weights
from tandem.on_torch.backbones import blocks_of, check_builder
from tandem.on_torch.checkpoints import KeepCheckpoints
from tandem.on_torch.cost import count_macs, peak_gpu_memory_megabytes, reset_peak_gpu_memory
from tandem.on_torch.distributed import is_first, join_processes, let_others_begin, train_along
from tandem.on_torch.early_stopping import EarlyStoppingWithBestWeights
from tandem.on_torch.features import HeadOnFeatures, find_features
from tandem.on_torch.gradcam import features_and_gradients
from tandem.on_torch.learning_rate_finder import take_steps
from tandem.on_torch.lightning_loop import EpochSums, LeanLightningModule, keyboard_interrupts, trainer_options
from tandem.on_torch.log_epochs import LogEpochs
from tandem.on_torch.loss import mean_loss
from tandem.on_torch.mapped_head import map_head
from tandem.on_torch.networks import (
    Classifier,
    build_classifier,
    build_off_the_shelf,
    fix_batch_norm,
    has_batch_norm,
)
from tandem.on_torch.optimizers import Blocks, build_optimizer, build_schedule
from tandem.on_torch.random_numbers import random_state, restore_random_state
from tandem.on_torch.serving import save_model
from tandem.on_torch.streams import open_streams
from tandem.on_torch.time_limit import TimeLimit
from tandem.on_torch.versions import backend, versions
from tandem.on_torch.weights import (
    BACKBONE_FILE,
    copy_weights,
    count_parameters,
    hash_weights,
    restore_weights,
    save_weights,
)
