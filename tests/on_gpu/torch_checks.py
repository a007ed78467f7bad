"""Checks of the torch side, each in a process of its own; torch is imported within the checks."""

from __future__ import annotations

import functools
import shutil
import statistics
import time
from typing import Any

import numpy as np

from tests.on_gpu.machine import ROOT, STEADY, Machine, last_json, last_line, needs, newest_run, options, run_python

PRECISIONS = ("float32", "bfloat16", "float16")
BACKBONES = ("mobilenet_v2", "resnet50", "vgg16", "torchvision:vit_b_16")


def settings_on(machine: Machine, **changes: Any) -> Any:
    """Settings of a run on the machine's device, on digits of 32 pixels."""
    from tandem.protocol.settings import DataSettings, Settings

    data = {"source": "digits", "image_size": 32, "cache_folder": str(machine.folder / "cache")}
    data |= changes.pop("data", {})
    values = {"weights": "random", "batch_size": 32, "device": machine.device_setting, "data": DataSettings(**data)}
    return Settings(**{**values, **changes})


def random_images(count: int, size: int) -> np.ndarray:
    """uint8 noise."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def build(settings: Any, num_classes: int = 10) -> Any:
    """A classifier on the run's device."""
    import torch

    from tandem.on_torch import build_classifier, to_device

    torch.manual_seed(settings.seed)
    return to_device(build_classifier(settings, num_classes), settings)


def check_devices(machine: Machine) -> None:
    """No tensor stays on the wrong device or in the wrong precision, in training steps of four networks.

    Three steps of both optimizers agree with the CPU's.
    """
    needs("torch", "pytorch_lightning")
    import torch
    from torch.nn import functional

    from tandem.on_torch import autocast, build_optimizer, set_flags
    from tandem.protocol.settings import AccelerationSettings, OptimizerSettings

    set_flags(AccelerationSettings(cudnn_autotune=False, tf32=False))
    size, count = (64, 2) if machine.pretend else (224, 8)
    for backbone in BACKBONES[:1] if machine.pretend else BACKBONES:
        for precision in PRECISIONS[:2] if machine.pretend else PRECISIONS:
            settings = settings_on(machine, backbone=backbone, precision=precision, data={"image_size": size})
            network = build(settings).train()
            optimizer = build_optimizer(OptimizerSettings(), 1e-3, network.head, [[network.backbone]], fused=True)
            scaler = torch.amp.GradScaler(machine.device, enabled=precision == "float16")
            images = torch.from_numpy(random_images(count, size)).to(machine.device)
            with autocast(settings, network.device):
                logits = network(images)
                loss = functional.cross_entropy(logits, torch.arange(count, device=machine.device) % 10)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            case = f"{backbone} in {precision}"
            machine.require(logits.dtype == torch.float32, f"{case}: logits are {logits.dtype}")
            machine.require(bool(torch.isfinite(loss)), f"{case}: the loss is {loss}")
    for name, decay in (("sgd", 1e-2), ("adamw", 1e-2)):
        optimizer_settings = OptimizerSettings(name=name, weight_decay=decay)
        weights = [
            _three_steps(optimizer_settings, device, fused=name == "adamw") for device in ("cpu", machine.device)
        ]
        difference = max(float((one - other).abs().max()) for one, other in zip(*weights, strict=True))
        machine.note(**{f"{name}_difference": difference})
        machine.require(difference < 1e-5, f"{name}: weights differ from the CPU's by {difference:.1e}")


def _three_steps(settings: Any, device: str, *, fused: bool) -> list[Any]:
    import torch
    from torch import nn
    from torch.nn import functional

    from tandem.on_torch import build_optimizer

    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    head = nn.Linear(8, 4)
    images, labels = torch.rand(16, 3, 16, 16), torch.arange(16) % 4
    for module in (backbone, head):
        module.to(device)
    optimizer = build_optimizer(settings, 1e-2, head, [[backbone]], fused=fused)
    for _ in range(3):
        optimizer.zero_grad()
        functional.cross_entropy(head(backbone(images.to(device))), labels.to(device)).backward()
        optimizer.step()
    return [weight.detach().cpu() for module in (backbone, head) for weight in module.parameters()]


def check_tf32(machine: Machine) -> None:
    """TF32 is on and off in torch and on Keras's backends, in products and convolutions."""
    needs("torch")
    program = "from tests.on_gpu.tf32 import main; main()"
    found = {}
    for name in ("bare torch", "torch", "jax", "tensorflow"):
        try:
            needs(*([name] if name != "bare torch" else ["torch"]), *(["keras"] if name != "bare torch" else []))
        except Exception:
            continue
        for tf32 in (True, False):
            done = run_python(["-c", program, name, str(tf32)], machine, KERAS_BACKEND=name.removeprefix("bare "))
            found[f"{name}, tf32 {tf32}"] = last_json(done)
    machine.note(errors=found)
    for case, errors in found.items():
        for operation, error in errors.items():
            if case.endswith("False"):
                machine.require(error < 1e-5, f"{case}: {operation} is off by {error:.1e}")
            else:
                machine.require_on_gpu(3e-5 < error < 1e-2, f"{case}: {operation} is off by {error:.1e}")


def check_feed(machine: Machine) -> None:
    """Batches copied ahead are never overwritten before they are used, and copies keep a constant memory."""
    needs("torch")
    import torch

    from tandem.data.stream import Stream
    from tandem.on_torch.feed import StreamLoader

    size, epochs = (16, 3) if machine.pretend else (64, 20)
    images = random_images(40 * 32, size)
    labels = np.arange(len(images))
    stream = Stream(images, labels, labels, batch_size=32, seed=(0,), shuffle=True)
    loader = StreamLoader(stream, pin_memory=not machine.pretend)
    reserved = []
    for epoch in range(epochs):
        for index, (batch, numbers) in enumerate(loader):
            if not machine.pretend:
                torch.cuda._sleep(2_000_000)  # a kernel that ends after the next copies have begun
            received = (batch + 0).cpu().numpy()
            expected, expected_numbers = stream.batch(epoch, index)
            same = np.array_equal(received, expected) and np.array_equal(numbers.cpu().numpy(), expected_numbers)
            machine.require(same, f"epoch {epoch}, batch {index} has other bytes")
        reserved.append(0 if machine.pretend else torch.cuda.memory_reserved())
    machine.note(reserved_megabytes=[reserved[1] / 1e6, reserved[-1] / 1e6])
    machine.require(reserved[1] == reserved[-1], "reserved memory grows from epoch to epoch")


LOAD = """
import json, sys, mlflow.pyfunc, numpy as np
probabilities = mlflow.pyfunc.load_model(sys.argv[1]).predict(np.load(sys.argv[2]))
print(json.dumps(np.asarray(probabilities).tolist()))
"""


def check_saved_model(machine: Machine) -> None:
    """The MLflow model gives the network's probabilities with a GPU, without one, and moved to one."""
    needs("torch", "mlflow")
    import torch
    from torch.export.passes import move_to_device_pass

    from tandem.on_torch import save_model, set_flags
    from tandem.protocol.settings import AccelerationSettings

    set_flags(AccelerationSettings(tf32=False, cudnn_autotune=False))
    network = build(settings_on(machine, batch_norm_momentum=0.0))
    images = random_images(6, 32)
    with torch.no_grad():
        network.train()(torch.from_numpy(images).to(machine.device))  # statistics of these images tell them apart
        expected = torch.softmax(network.eval()(torch.from_numpy(images).to(machine.device)), 1).cpu().numpy()
    spread = float(np.ptp(expected, axis=0).max())
    machine.require(spread > 1e-3, "the network does not tell the images apart")
    folder = machine.folder / "model"
    save_model(network, folder, image_shape=(32, 32, 3), num_classes=10)
    np.save(machine.folder / "images.npy", images)
    differences = {}
    for name, variables in (("with GPU", {}), ("without GPU", {"CUDA_VISIBLE_DEVICES": ""})):
        done = run_python(["-c", LOAD, str(folder), str(machine.folder / "images.npy")], machine, **variables)
        differences[name] = float(np.abs(np.array(last_json(done)) - expected).max())
    program = move_to_device_pass(torch.export.load(folder / "data" / "model.pt2"), machine.device)
    moved = program.module()(torch.from_numpy(images).to(machine.device)).detach().cpu().numpy()
    differences["moved"] = float(np.abs(moved - expected).max())
    machine.note(differences=differences, spread=spread)
    for name, difference in differences.items():
        machine.require(difference < 1e-5, f"{name}: probabilities differ by {difference:.1e}")


def check_batch_norm(machine: Machine) -> None:
    """Synchronized batch norm equals batch norm in a group of one; two processes on the one GPU train like one."""
    needs("torch", "pytorch_lightning", "timm", "mlflow")
    import torch
    from torch import distributed
    from torch.nn import functional

    from tandem.on_torch.synchronized_batch_norm import batch_norm

    store = distributed.FileStore(str(machine.folder / "store"), 1)
    distributed.init_process_group("gloo" if machine.pretend else "nccl", store=store, rank=0, world_size=1)
    images = torch.randn(8, 6, 5, 5, device=machine.device)
    cases = {
        "4-D": images,
        "channels_last": images.to(memory_format=torch.channels_last),
        "2-D": torch.randn(8, 6, device=machine.device),
        "bfloat16": images.bfloat16(),
    }
    for name, values in cases.items():
        results = []
        for function in (functional.batch_norm, batch_norm):
            statistics_ = [torch.zeros(6, device=machine.device), torch.ones(6, device=machine.device)]
            weight = torch.linspace(0.5, 2, 6, device=machine.device)
            output = function(values, *statistics_, weight, weight - 1, True, 0.1, 1e-5)
            results.append([output.float(), *statistics_])
        for one, other in zip(*results, strict=True):
            difference = float((one - other).abs().max())
            limit = 0.05 if name == "bfloat16" else 1e-5
            machine.require(difference < limit, f"{name}: differs by {difference:.1e}")
    distributed.destroy_process_group()
    words = ("--regime", "finetune", "--acceleration.tf32", "false", *STEADY)
    losses = []
    for number in (1, 2):
        experiment = f"{number} processes"
        driver = [str(ROOT / "tests" / "on_gpu" / "two_on_one.py")]
        script = [*options(machine, experiment, *words), "--num_devices", str(number), "--threads", "1"]
        done = run_python([*driver, *script], machine)
        machine.require(done.returncode == 0, f"{experiment}: {last_line(done.stderr)}")
        history = newest_run(machine, experiment)["history"]
        losses.append([*history["train/loss"], *history["val/loss"]])
    machine.note(losses=losses)
    # without synchronization they differ by 2 % and more
    machine.require(np.allclose(*losses, rtol=1e-3, atol=0), "two processes have other losses than one")


def _train_phase(machine: Machine, settings: Any, **phase: Any) -> tuple[Any, list[dict[str, float]]]:
    """Trains a phase of the script on digits.

    Returns:
        Its outcome, and the rows of its epochs.
    """
    from tandem.data.prepare import prepare
    from tandem.protocol.regimes import Phase
    from tandem.tracking.curves import Curves
    from tests.small_runs import RecordingRun
    from train_torch import set_up_framework, train_phase

    set_up_framework(settings)
    curves = Curves(RecordingRun())  # type: ignore[arg-type]
    values = {"number": 1, "trainable": "all", "learning_rate": 1e-3, "max_epochs": 2}
    data = prepare(settings.data, quiet=True)
    outcome = train_phase(build(settings), Phase(**{**values, **phase}), settings, data, curves)
    return outcome, curves.rows


def check_compile(machine: Machine) -> None:
    """torch.compile compiles nothing after the warm-up, so that the first epoch takes no longer than the second."""
    needs("torch", "pytorch_lightning")
    from torch._dynamo.utils import counters

    from tandem import on_torch
    from tandem.protocol.settings import AccelerationSettings

    real, graphs = on_torch.warm_up, []

    def warm_up(*arguments: Any) -> float:
        seconds = real(*arguments)
        graphs.append(counters["stats"]["unique_graphs"])
        return seconds

    on_torch.warm_up = warm_up
    settings = settings_on(
        machine,
        precision="bfloat16",
        backbone="timm:resnet10t" if machine.pretend else "mobilenet_v2",
        acceleration=AccelerationSettings(compile=True),
        data={"images_per_class": 10 if machine.pretend else 150},
    )
    _, rows = _train_phase(machine, settings)
    graphs.append(counters["stats"]["unique_graphs"])
    seconds = [row["epoch/seconds"] for row in rows]
    machine.note(graphs=graphs, epoch_seconds=seconds)
    machine.require(graphs[0] == graphs[1] > 0, f"{graphs[1] - graphs[0]} graphs were compiled after the warm-up")
    machine.require_on_gpu(seconds[0] <= 1.5 * seconds[1], "the first epoch takes longer than the second")


def check_features(machine: Machine) -> None:
    """Seconds of features exclude first uses of a GPU; a warm cache changes neither seconds nor peak memory."""
    needs("torch", "pytorch_lightning")
    ratios, peaks = {}, {}
    for num_images in (50, 130) if machine.pretend else (505, 1300):
        size = 32 if machine.pretend else 224
        data = {"image_size": size, "images_per_class": num_images // 10, "fractions": [0.7, 0.2, 0.1]}
        settings = settings_on(machine, regime="frozen", data=data)
        outcomes = []
        for _ in range(3):
            outcome, _ = _train_phase(machine, settings, trainable="head")
            outcomes.append(outcome)
            if len(outcomes) == 1:
                shutil.rmtree(machine.folder / "cache" / "features")  # the second computes again, in a warm process
        cold, again, warm = outcomes
        ratios[num_images] = cold.feature_seconds / again.feature_seconds
        peaks[num_images] = [cold.peak_gpu_memory_megabytes, warm.peak_gpu_memory_megabytes]
        machine.require(warm.cached_feature_seconds == again.feature_seconds > 0, "the cache has other seconds")
    machine.note(ratios=ratios, peak_megabytes=peaks)
    for num_images, ratio in ratios.items():
        machine.require_on_gpu(ratio < 1.3, f"{num_images} images: the first pass records {ratio:.2f} times the second")
        cold_peak, warm_peak = peaks[num_images]
        machine.require_on_gpu(abs(cold_peak - warm_peak) < 1, "the peak depends on the cache")


def check_out_of_memory(machine: Machine) -> None:
    """With 8 GB of memory, features and evaluation are computed in smaller batches, and training ends in one line."""
    needs("torch", "pytorch_lightning")
    import torch

    from tandem.evaluation.batching import in_batches, predict_as_fits
    from tandem.on_torch import is_out_of_memory, set_flags
    from tandem.on_torch.features import backbone_pass
    from tandem.protocol.settings import AccelerationSettings
    from train_torch import predict_batch

    set_flags(AccelerationSettings())
    size, largest = (32, 20) if machine.pretend else (224, 4096)
    settings = settings_on(machine, backbone="vgg16", data={"image_size": size})
    network = build(settings).eval()
    fraction = 1.0
    if machine.pretend:
        # stands for the memory: more than 20 images do not fit
        def refuse(module: Any, inputs: tuple[Any, ...]) -> None:
            if len(inputs[0]) > 20:
                raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")

        network.backbone.register_forward_pre_hook(refuse)
    else:
        fraction = min(1.0, 8e9 / torch.cuda.get_device_properties(0).total_memory)
        torch.cuda.set_per_process_memory_fraction(fraction)
    images = random_images(50 if machine.pretend else 600, size)
    compute = backbone_pass(network, lambda rows: images[rows], settings)
    features = [len(part) for part in compute(np.arange(len(images)))]
    many = np.resize(images, (4 * largest if machine.pretend else largest, *images.shape[1:]))
    logits = predict_as_fits(
        functools.partial(predict_batch, network, settings),
        in_batches(many, len(many)),
        is_out_of_memory=is_out_of_memory,
        pad=False,
    )
    machine.require(len(logits) == len(many) and sum(features) == len(images), "results are missing")
    machine.note(feature_batches=features[:3], memory_fraction=fraction)
    del network
    if not machine.pretend:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
        for pixels in (256, 299):  # 512 images have 2^31 and more elements in VGG's first layers
            settings = settings_on(machine, backbone="vgg16", data={"image_size": pixels})
            compute = backbone_pass(
                build(settings).eval(), lambda rows: np.resize(images, (len(rows), 64, 64, 3)), settings
            )
            machine.require(sum(len(part) for part in compute(np.arange(512))) == 512, f"{pixels} pixels: no features")
            torch.cuda.empty_cache()
    needs("mlflow")
    words = ["--backbone", "vgg16", "--batch_size", "1024", "--regime", "scratch", "--data.image_size", "224"]
    done = run_python(
        [str(ROOT / "tests" / "on_gpu" / "with_little_memory.py"), *options(machine, "memory", *words)], machine
    )
    line = last_line(done.stderr)
    machine.note(line=line)
    machine.require(done.returncode == 2 and "Traceback" not in done.stderr, f"status {done.returncode}: {line}")
    machine.require("does not fit" in line, line)


def check_latency(machine: Machine) -> None:
    """Measured latency agrees with CUDA's own clock; a head mapped to 1000 classes costs no more than the plain one."""
    needs("torch")
    import torch

    from tandem.evaluation.cost import measure_inference, median_seconds
    from tandem.on_torch import map_head, set_flags
    from tandem.protocol.settings import AccelerationSettings
    from train_torch import predict_batch

    set_flags(AccelerationSettings())
    size = 64 if machine.pretend else 224
    settings = settings_on(machine, data={"image_size": size})
    network = build(settings, 1000).eval()
    images = random_images(8, size)
    predict = functools.partial(predict_batch, network, settings)
    latency, _ = measure_inference(predict, images, 8)
    mapped = functools.partial(predict_batch, map_head(network, [[number] for number in range(1000)]), settings)
    of_mapped = median_seconds(lambda: mapped(images[:1])) * 1000
    by_events = _milliseconds_by_events(lambda: predict(images[:1]), pretend=machine.pretend)
    machine.note(latency=latency, by_events=by_events, of_mapped=of_mapped, cuda=torch.version.cuda)
    machine.require_on_gpu(abs(latency - by_events) < 0.1 * by_events, "latency differs from CUDA's clock")
    machine.require_on_gpu(of_mapped < 1.1 * latency, "the mapped head is slower than the plain one")


def _milliseconds_by_events(call: Any, *, pretend: bool) -> float:
    import torch

    times = []
    for _ in range(23):
        if pretend:
            start = time.perf_counter()
            call()
            times.append((time.perf_counter() - start) * 1000)
            continue
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times[3:])


def check_grad_cam(machine: Machine) -> None:
    """Grad-CAM maps are those of the CPU."""
    needs("torch")
    from tandem.on_torch import features_and_gradients, set_flags
    from tandem.protocol.settings import AccelerationSettings
    from tandem.recording.grad_cam import class_activation_maps

    set_flags(AccelerationSettings(tf32=False, cudnn_autotune=False))
    settings = settings_on(machine, backbone="resnet50", data={"image_size": 96})
    network = build(settings).eval()
    images, classes = random_images(4, 96), np.arange(4)
    maps = []
    for device in (machine.device, "cpu"):
        features, gradients = features_and_gradients(network.to(device), images, classes)
        maps.append(class_activation_maps(features, gradients, 96, 96))
    correlation = float(np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1])
    machine.note(correlation=correlation)
    machine.require(correlation > 0.999, f"maps correlate by {correlation:.4f}")
