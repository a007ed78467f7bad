"""Mutations of the product, each with the tests that should notice it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """A fault to be put into one file."""

    file: str
    """Path from the root of the repository."""
    old: str
    """Text that occurs exactly once in the file."""
    new: str
    """Text in its place."""
    tests: str
    """Test file or folder that should fail, from tests/."""


MUTATIONS = (
    # the training scripts
    Mutation(
        file="train_torch.py",
        old="        freeze_or_thaw(module.network, self.phase, self.blocks)",
        new="        pass",
        tests="on_torch/test_phases.py",
    ),
    Mutation(
        file="train_torch.py",
        old="on_torch.mean_loss(logits, targets), logits, targets)",
        new="2 * on_torch.mean_loss(logits, targets), logits, targets)",
        tests="on_torch",
    ),
    Mutation(
        file="train_keras.py",
        old='phase.batch_norm == "frozen")',
        new="False)",
        tests="on_keras/test_fixed_batch_norm.py",
    ),
    # protocol
    Mutation(
        file="tandem/protocol/regimes.py",
        old="max(len(blocks) - phase.blocks, 0)",
        new="min(len(blocks), phase.blocks)",
        tests="protocol/test_regimes.py",
    ),
    Mutation(
        file="tandem/protocol/schedule.py",
        old="np.arange(1, warmup_steps + 1) / warmup_steps",
        new="np.arange(warmup_steps) / warmup_steps",
        tests="protocol/test_schedule.py",
    ),
    Mutation(
        file="tandem/protocol/schedule.py",
        old="layer_decay ** (num_blocks - block)",
        new="layer_decay ** block",
        tests="protocol/test_schedule.py",
    ),
    # data
    Mutation(
        file="tandem/data/stream.py",
        old="np.random.SeedSequence([*self._seed, epoch])",
        new="np.random.SeedSequence([*self._seed, 0])",
        tests="data/test_stream.py",
    ),
    Mutation(
        file="tandem/data/stream.py",
        old="digest.update(part[batch]",
        new="digest.update(part",
        tests="data/test_stream.py",
    ),
    Mutation(
        file="tandem/data/split.py",
        old='self._drop_copies(of="val", among=("train",))',
        new="pass",
        tests="data/test_split.py",
    ),
    Mutation(
        file="tandem/data/split.py",
        old="[train / (train + val), val / (train + val)]",
        new="[val / (train + val), train / (train + val)]",
        tests="data/test_split.py",
    ),
    Mutation(
        file="tandem/data/augmentation.py",
        old="rotate(degrees, Image",
        new="rotate(-degrees, Image",
        tests="data/test_augmentation.py",
    ),
    Mutation(
        file="tandem/data/augmentation.py",
        old="-1 if flip and upside_down else int(flip)",
        new="-1 if flip and upside_down else int(upside_down)",
        tests="data/test_augmentation.py",
    ),
    Mutation(
        file="tandem/data/augmentation.py",
        old="numbers[:, -3:-1] * (np.array(size) - sizes + 1)",
        new="numbers[:, -3:-1] * np.array(size)",
        tests="data/test_augmentation.py",
    ),
    Mutation(
        file="tandem/data/policies.py",
        old="0.99, 135.0, 0.99, 6",
        new="0.3, 30.0, 0.9, 4",
        tests="data/test_policies.py",
    ),
    Mutation(
        file="tandem/data/views.py",
        old="return cv2.flip(image, 1)",
        new="return cv2.flip(image, 0)",
        tests="data/test_views.py",
    ),
    # evaluation
    Mutation(
        file="tandem/evaluation/cost.py",
        old="return latency * 1000, batch_size",
        new="return latency, batch_size",
        tests="evaluation/test_cost.py",
    ),
    Mutation(
        file="tandem/evaluation/cost.py",
        old="statistics.median(seconds)",
        new="min(seconds)",
        tests="evaluation/test_cost.py",
    ),
    Mutation(
        file="tandem/evaluation/batching.py",
        old="            yield results[: len(part)]",
        new="            yield results",
        tests="evaluation/test_batching.py",
    ),
    Mutation(
        file="tandem/evaluation/ensemble.py",
        old="aligned = align(members)",
        new="aligned = list(members)",
        tests="evaluation/test_ensemble.py",
    ),
    # tracking
    Mutation(
        file="tandem/tracking/journal.py",
        old='sent.update(range(content["first"], content["last"] + 1))',
        new='sent.update(range(content["first"], content["last"]))',
        tests="tracking/test_journal.py",
    ),
    Mutation(
        file="tandem/tracking/journal.py",
        old='    whole = text.rfind(b"\\n") + 1\n    if whole < size:',
        new='    whole = text.rfind(b"\\n") + 1\n    if whole > size:',
        tests="tracking/test_journal.py",
    ),
    # on_torch
    Mutation(
        file="tandem/on_torch/serving.py",
        old="self.classifier(images)",
        new="self.classifier(images.flip(-1))",
        tests="on_torch/test_serving.py",
    ),
    Mutation(
        file="tandem/on_torch/networks.py",
        old="return pixels.flip(1) if self.to_bgr else pixels",
        new="return pixels",
        tests="on_torch/test_pixels.py",
    ),
    Mutation(
        file="tandem/on_torch/networks.py",
        old="align_corners=False",
        new="align_corners=True",
        tests="on_torch/test_pixels.py",
    ),
    Mutation(
        file="tandem/on_torch/optimizers.py",
        old="patience=settings.patience - 1,",
        new="patience=settings.patience,",
        tests="on_torch/test_optimizers.py",
    ),
    Mutation(
        file="tandem/on_torch/features.py",
        old="return network.backbone(network.pixels(images)).float()",
        new="return network.backbone(network.pixels(images.flip(2))).float()",
        tests="on_torch/test_features.py",
    ),
    Mutation(
        file="tandem/on_torch/architecture.py",
        old=" or list(module.parameters(recurse=False))",
        new="",
        tests="on_torch/test_architecture.py",
    ),
    # on_keras
    Mutation(
        file="tandem/on_keras/serving.py",
        old="classifier.pixels(images)",
        new='classifier.pixels.resizing(keras.ops.cast(images, "float32"))',
        tests="on_keras/test_serving.py",
    ),
    Mutation(
        file="tandem/on_keras/features.py",
        old="self.network.backbone(self.network.pixels(images), training=False)",
        new="self.network.backbone(self.network.pixels(images), training=True)",
        tests="on_keras/test_features.py",
    ),
    # experiment
    Mutation(
        file="tandem/experiment/phase_meter.py",
        old="train_seconds=features.seconds + self._seconds,",
        new="train_seconds=self._seconds,",
        tests="experiment",
    ),
    Mutation(
        file="tandem/experiment/evaluation.py",
        old="(settings.seed,), shuffle=False",
        new="(settings.seed,), shuffle=True",
        tests="experiment",
    ),
    # recording
    Mutation(
        file="tandem/recording/figures.py",
        old='title="predicted class"',
        new='title="true class"',
        tests="recording/test_figures.py",
    ),
    Mutation(
        file="tandem/recording/figures.py",
        old='between = float(history["epoch"].iloc[index] + history["epoch"].iloc[index + 1]) / 2',
        new='between = float(history["epoch"].iloc[index])',
        tests="recording/test_figures.py",
    ),
    Mutation(
        file="tandem/evaluation/significance.py",
        old="p_equivalence, holm(p_equivalence), strict=True",
        new="p_equivalence, p_equivalence, strict=True",
        tests="evaluation/test_significance.py",
    ),
    Mutation(
        file="tandem/evaluation/crossed.py",
        old="np.maximum(self.images - self.noise, 0.0)",
        new="self.images",
        tests="evaluation/test_crossed.py",
    ),
    # comparison and published
    Mutation(
        file="tandem/comparison/analysis.py",
        old="detectable=PairPower(scored, best, second, num_tests)",
        new="detectable=PairPower(scored, best, second, 1)",
        tests="comparison/test_analysis.py",
    ),
    Mutation(
        file="tandem/comparison/analysis.py",
        old='chosen_interval(scored, "accuracy", best, num_candidates)',
        new='chosen_interval(scored, "accuracy", best, 1)',
        tests="comparison/test_analysis.py",
    ),
    Mutation(
        file="tandem/comparison/analysis.py",
        old="test.verdict if test.first == place else reversed_verdict(test.verdict)",
        new="test.verdict",
        tests="comparison/test_analysis.py",
    ),
    Mutation(
        file="tandem/comparison/rows.py",
        old='{"better": self.first, "worse": self.second}.get(self.verdict or "")',
        new='{"better": self.first, "equivalent": self.first, "worse": self.second}.get(self.verdict or "")',
        tests="comparison/test_rows.py",
    ),
    Mutation(
        file="tandem/comparison/recommendation.py",
        old='[*analysis.against_best("equivalent"), ',
        new='[*analysis.against_best("undecided"), ',
        tests="comparison/test_recommendation.py",
    ),
    Mutation(
        file="tandem/comparison/recommendation.py",
        old="_about(max(needed))",
        new="_about(min(needed))",
        tests="comparison/test_recommendation.py",
    ),
    Mutation(
        file="tandem/comparison/pair_tables.py",
        old="one.num_images < needed",
        new="one.num_images <= needed",
        tests="comparison/test_pair_tables.py",
    ),
    Mutation(
        file="tandem/comparison/pairing.py",
        old='("scratch", "off_the_shelf")',
        new='("scratch",)',
        tests="comparison",
    ),
    Mutation(
        file="tandem/comparison/pairing.py",
        old="if _num_equal_settings(other, row) == most_equal]",
        new="]",
        tests="comparison",
    ),
    Mutation(
        file="tandem/published/entries.py",
        old="or (one.cost_only and not about_time)",
        new="or one.cost_only",
        tests="published",
    ),
    Mutation(
        file="tandem/comparison/pairing.py",
        old="        same_weights = same_kind",
        new="        same_weights = []",
        tests="comparison/test_pairing.py",
    ),
    # rendering
    Mutation(
        file="tandem/rendering/tables.py",
        old='best = max(numbers.values()) if column.better == "higher" else min(numbers.values())',
        new="best = max(numbers.values())",
        tests="rendering/test_tables.py",
    ),
    Mutation(
        file="tandem/rendering/theme.py",
        old="return html.escape(name, quote=False)",
        new="return name",
        tests="rendering",
    ),
    # data_report
    Mutation(
        file="tandem/data_report/statistics.py",
        old='used & (table["part_a"] != table["part_b"])',
        new="used",
        tests="data_report",
    ),
    Mutation(
        file="tandem/data_report/statistics.py",
        old='across = copies["hash"].isin(num_parts.index[num_parts > 1])',
        new='across = copies["hash"].isin(num_parts.index)',
        tests="data_report",
    ),
    # search
    Mutation(
        file="tandem/search/study.py",
        old='"minimize" if sweep.objective == "val_loss" else "maximize"',
        new='"minimize"',
        tests="search",
    ),
    Mutation(
        file="tandem/search/learning_rate_finder.py",
        old='figure.update_yaxes(title="loss of the batch"',
        new='figure.update_yaxes(title="learning rate"',
        tests="search",
    ),
    # launch
    Mutation(
        file="tandem/launch/parent.py",
        old="statistics.stdev(values) if",
        new="statistics.pstdev(values) if",
        tests="launch",
    ),
    Mutation(
        file="tandem/launch/repeats.py",
        old="lost = num_repeats - len(failed) - num_recorded",
        new="lost = num_repeats - num_recorded",
        tests="launch",
    ),
    # grid
    Mutation(
        file="tandem/grid/finished.py",
        old='            if run.status == "FINISHED":',
        new="            if run.status:",
        tests="grid/test_finished.py",
    ),
    Mutation(
        file="tandem/grid/processes.py",
        old="if share.threads is None else threads_option(cell, share.threads)",
        new="if share.threads is None else []",
        tests="grid/test_processes.py",
    ),
    # GPUs, simulated
    Mutation(
        file="tandem/on_torch/serving.py",
        old='= {"device": "cpu"}',
        new='= {"device": None}',
        tests="on_torch/test_serving.py",
    ),
    Mutation(
        file="tandem/on_torch/serving.py",
        old="copy.deepcopy(classifier, copies)",
        new="copy.deepcopy(classifier).cpu()",
        tests="on_torch/test_serving.py",
    ),
    Mutation(
        file="tandem/protocol/environment.py",
        old="gpus[: settings.num_devices]",
        new="gpus",
        tests="protocol/test_environment.py",
    ),
    Mutation(
        file="tandem/protocol/environment.py",
        old="        os.environ.setdefault(name, value)",
        new="        os.environ.get(name, value)",
        tests="protocol/test_environment.py",
    ),
    Mutation(
        file="tandem/protocol/gpus.py",
        old="for instance in _mig_instances(card)] or",
        new="for instance in ()] or",
        tests="protocol/test_gpus.py",
    ),
    Mutation(
        file="tandem/tracking/system.py",
        old="self._gpus = gpu_handles()",
        new="self._gpus = []",
        tests="tracking/test_system.py",
    ),
    Mutation(
        file="tandem/protocol/devices.py",
        old="    if not names:",
        new="    if names:",
        tests="protocol/test_devices.py",
    ),
    Mutation(
        file="tandem/data/features.py",
        old="self.first_use_seconds += time.perf_counter() - start\n                    start = time.perf_counter()",
        new="self.first_use_seconds += time.perf_counter() - start",
        tests="data/test_features.py",
    ),
    Mutation(
        file="tandem/on_torch/acceleration.py",
        old="cache_enabled=False)",
        new="cache_enabled=True)",
        tests="on_torch/test_acceleration.py::test_warm_up_compiles_everything_that_the_epochs_need",
    ),
    Mutation(
        file="tandem/on_torch/acceleration.py",
        old='return not (uses_gpu(settings) and settings.precision == "float32")',
        new="return True",
        tests="on_torch/test_acceleration.py::test_channels_last_is_left_out_for_float32_on_a_gpu",
    ),
    Mutation(
        file="tandem/on_torch/acceleration.py",
        old="torch.use_deterministic_algorithms(settings.deterministic, warn_only=True)",
        new="pass",
        tests="on_torch/test_acceleration.py::test_deterministic_algorithms_are_set",
    ),
    Mutation(
        file="tandem/on_keras/acceleration.py",
        old="        if settings.deterministic:\n",
        new="        if False:\n",
        tests="on_keras/test_acceleration.py::test_deterministic_operations_are_chosen_if_set",
    ),
    Mutation(
        file="tandem/experiment/phase_meter.py",
        old="        self._package.reset_peak_gpu_memory()\n",
        new="",
        tests="experiment/test_phase_meter.py",
    ),
    Mutation(
        file="tandem/experiment/evaluation.py",
        old="    framework.package.reset_peak_gpu_memory()  # measure_inference_cost reads it\n",
        new="",
        tests="experiment/test_evaluation.py",
    ),
    Mutation(
        file="tandem/on_torch/early_stopping.py",
        old='value.detach().to("cpu", copy=True)',
        new="value.detach().clone()",
        tests="on_torch/test_early_stopping.py::test_best_weights_are_kept_in_main_memory",
    ),
    Mutation(
        file="tandem/experiment/run.py",
        old="        if not framework.package.is_out_of_memory(error):\n",
        new="        if error:\n",
        tests="experiment/test_run.py",
    ),
    Mutation(
        file="tandem/errors.py",
        old='    "canUse32BitIndexMath",\n',
        new="",
        tests="evaluation/test_out_of_memory.py",
    ),
    Mutation(
        file="tandem/on_torch/feed.py",
        old="copying = _stream_for_copies(device)",
        new="copying = torch.cuda.Stream(device)",
        tests="on_torch/test_feed.py",
    ),
    Mutation(
        file="tandem/on_torch/distributed.py",
        old="stream.needs_hash = rank == 0",
        new="stream.needs_hash = True",
        tests="on_torch/test_distributed.py::test_only_the_first_process_makes_whole_batches_for_the_hash",
    ),
    Mutation(
        file="tandem/data/phase_streams.py",
        old="num_cores() // num_local_processes()",
        new="num_cores()",
        tests="data/test_phase_streams.py",
    ),
    Mutation(
        file="tandem/on_torch/lightning_loop.py",
        old="return self._loss_scale < before",
        new="return False",
        tests="on_torch/test_lightning_loop.py",
    ),
    Mutation(
        file="tandem/on_torch/mapped_head.py",
        old="outputs).to(classifier.device)",
        new="outputs)",
        tests="on_torch/test_mapped_head.py",
    ),
    Mutation(
        file="tandem/on_keras/backends.py",
        old="(module.devices()[0].memory_stats() or {})",
        new="module.devices()[0].memory_stats()",
        tests="on_keras/test_backends.py::test_peak_memory_is_measured_from_the_last_reset",
    ),
    Mutation(
        file="tandem/on_keras/mapped_head.py",
        old="keras.ops.convert_to_tensor(filled)",
        new="filled",
        tests="on_keras/test_mapped_head.py::test_call_copies_nothing_to_the_device_on_torch",
    ),
    Mutation(
        file="tandem/on_keras/mapped_head.py",
        old="np.where(missing, -np.inf, 0)",
        new="np.where(missing, 0, 0)",
        tests="on_keras/test_mapped_head.py::test_mapped_network_gives_the_mapped_logits",
    ),
    Mutation(
        file="tandem/on_keras/pooling.py",
        old="keras.ops.convert_to_tensor(windows)",
        new="windows",
        tests="on_keras/test_mapped_head.py::test_call_copies_nothing_to_the_device_on_torch",
    ),
    Mutation(
        file="tandem/on_keras/networks.py",
        old="map(keras.ops.convert_to_tensor, np.array(scale_and_offset(scaling), np.float32))",
        new="np.array(scale_and_offset(scaling), np.float32)",
        tests="on_keras/test_mapped_head.py::test_call_copies_nothing_to_the_device_on_torch",
    ),
    Mutation(
        file="tandem/protocol/environment.py",
        old='os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")',
        new="pass",
        tests="protocol/test_environment.py",
    ),
    Mutation(
        file="tandem/protocol/environment.py",
        old='xla_flags.append("--xla_gpu_deterministic_ops=true")',
        new="pass",
        tests="protocol/test_environment.py",
    ),
    Mutation(
        file="tandem/on_torch/acceleration.py",
        old="major == capability[0])",
        new="major <= capability[0])",
        tests="on_torch/test_acceleration.py",
    ),
    Mutation(
        file="tandem/on_torch/acceleration.py",
        old="value.copy_(statistics[name])",
        new="pass",
        tests="on_torch/test_acceleration.py",
    ),
    Mutation(
        file="tandem/on_torch/acceleration.py",
        old="    network.zero_grad(set_to_none=True)\n",
        new="",
        tests="on_torch/test_acceleration.py",
    ),
    # targets and mixing
    Mutation(
        file="tandem/data/stream.py",
        old="first + (numbers - first - 1) % size",
        new="first + (numbers - first + 1) % size",
        tests="data/test_mixing.py",
    ),
    Mutation(
        file="tandem/data/stream.py",
        old="labels[own], labels[others], mixes.shares[batches]",
        new="labels[own], labels[others], 1 - mixes.shares[batches]",
        tests="data/test_mixing.py",
    ),
    Mutation(
        file="tandem/data/stream.py",
        old="indices = places if plan.drawn is None or not self._features else plan.drawn[places]",
        new="indices = places",
        tests="data/test_mixing.py",
    ),
    Mutation(
        file="tandem/data/mixing.py",
        old="choices < chance_of_mixup",
        new="choices > chance_of_mixup",
        tests="data/test_mixing.py",
    ),
    Mutation(
        file="tandem/data/sampling.py",
        old="draw_of_class % np.repeat(counts, quotas)",
        new="0 * draw_of_class",
        tests="data/test_sampling.py",
    ),
    Mutation(
        file="tandem/data/targets.py",
        old="(1 - self.smoothing) * (1 - shares)",
        new="1 - shares",
        tests="data/test_targets.py",
    ),
    Mutation(
        file="tandem/data/targets.py",
        old="shares * self.class_weights[labels] + (1 - shares) * self.class_weights[partners]",
        new="self.class_weights[labels] * np.ones_like(shares)",
        tests="data/test_targets.py",
    ),
    Mutation(
        file="tandem/data/phase_streams.py",
        old="    return Targets(num_classes=len(data.classes), soft=serves_soft_targets(settings))",
        new="    return training_targets(settings, data)",
        tests="on_torch/test_phases.py",
    ),
    Mutation(
        file="tandem/on_torch/loss.py",
        old=" * weights).mean()",
        new=" * weights).sum() / weights.sum()",
        tests="on_torch/test_loss.py",
    ),
    Mutation(
        file="tandem/on_torch/learning_rate_finder.py",
        old="mean_loss(network(images), *targets)",
        new="mean_loss(network(images), targets[0])",
        tests="on_torch/test_learning_rate_finder.py",
    ),
    Mutation(
        file="tandem/on_keras/loss.py",
        old="    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)",
        new="    return keras.losses.SparseCategoricalCrossentropy()",
        tests="on_keras/test_loss.py",
    ),
)
