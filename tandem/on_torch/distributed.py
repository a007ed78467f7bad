"""One run on several devices: one process per device; they share each batch and average their gradients (DDP).

The training is that of one process with the same batches: each batch is cut into parts of consecutive images; the loss
is the mean over the whole batch, however unequal the parts of an epoch's last one; batch norm normalises with the whole
batch; sums are added up over the processes. The first process prepares the data, evaluates and records; the others
train their shares and print nothing.

    settings = join_processes(settings)
    if not is_first():
        train_along(settings, build_network, train_phase)
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, distributed

from tandem import interrupts
from tandem.data.console import num_cores
from tandem.data.prepare import PreparedData, prepare
from tandem.data.stream import Batch, Stream
from tandem.errors import TrainingDiverged, UserError
from tandem.evaluation.out_of_memory import does_not_fit
from tandem.on_torch.acceleration import is_out_of_memory, uses_gpu
from tandem.on_torch.feed import StreamLoader
from tandem.on_torch.synchronized_batch_norm import synchronized_batch_norm
from tandem.protocol.processes import check_shares, num_started_processes
from tandem.protocol.regimes import Phase, phases_of
from tandem.protocol.settings import Settings
from tandem.tracking.curves import Curves

JOINING = timedelta(minutes=10)  # until the last process has joined: imports alone take a minute on a slow disk
EVALUATING = timedelta(days=30)  # the others wait while the first one prepares and evaluates, however long
LEAVING_SECONDS = 3.0  # for the end of processes that were started here and have nothing left to do

_FAILURES = "failures"
_FIRST_PHASE = "first phase"
_NO_PHASE = 1_000_000

# Messages between the processes, outside of the collectives of training: a wait here ends with the first process.
_store: distributed.Store | None = None


# ------------------------------------------------------------------------------------------------------- the processes


def join_processes(settings: Settings) -> Settings:
    """Joins this process with the others of the run: those that torchrun or srun started, or new ones of its own.

    Args:
        settings: `num_devices`, `batch_size`, `device`, `threads`. Processes that are started here get the same words
            of the command line.

    Returns:
        The settings with `num_devices` as a number.

    Raises:
        UserError: There are too few GPUs, or the devices cannot share a batch equally.
    """
    global _store
    num_started = num_started_processes()
    num_gpus = torch.cuda.device_count() if uses_gpu(settings) else 0
    settings = dataclasses.replace(settings, num_devices=_count_devices(settings, num_started, num_gpus))
    num_devices = int(settings.num_devices)
    if num_devices == 1:
        return settings
    if num_started == 1:
        store, others = _open_own_store(num_devices, num_gpus)
    else:
        store, others = _open_shared_store(), []
    # convolutions whose weights have one input channel cause it on a CPU
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    _take_device(settings, num_gpus)
    rank = int(os.environ["RANK"])
    _store = distributed.PrefixStore("tandem", store)
    _store.add("present", 1)
    if rank == 0:
        _wait_for_others(num_devices, others)
    backend, device = ("nccl", torch.device("cuda", int(os.environ["LOCAL_RANK"]))) if num_gpus else ("gloo", None)
    distributed.init_process_group(
        backend, store=_store, rank=rank, world_size=num_devices, timeout=JOINING, device_id=device
    )
    if rank == 0:
        atexit.register(_leave)
    return settings


def _count_devices(settings: Settings, num_started: int, num_gpus: int) -> int:
    if settings.num_devices != "auto":
        num_devices = settings.num_devices
    elif num_started > 1:
        num_devices = num_started
    else:
        num_devices = max(1, num_gpus) if phases_of(settings) else 1
    check_shares(settings.batch_size, num_devices, settings.accumulate)
    return num_devices


def _open_own_store(num_devices: int, num_gpus: int) -> tuple[distributed.Store, list[subprocess.Popen[bytes]]]:
    """The store of a run whose processes are all on this machine, and those processes, which are started here."""
    if num_gpus and num_devices > num_gpus:
        raise UserError(
            f"num_devices: received {num_devices}, allowed: at most {num_gpus}, the GPUs that torch finds here, or "
            "auto; start processes on more machines with torchrun or srun"
        )
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, timeout=JOINING, wait_for_workers=False)
    return store, _start_others(num_devices, store.port)


def _open_shared_store() -> distributed.Store:
    """The store of processes that torchrun or srun has started; torchrun may keep it in a process of its own."""
    if "RANK" not in os.environ:
        _read_slurm()
    is_master = os.environ["RANK"] == "0" and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return distributed.TCPStore(address, port, is_master=is_master, timeout=JOINING, wait_for_workers=False)


def _take_device(settings: Settings, num_gpus: int) -> None:
    """Gives this process its own GPU, or its share of the CPU cores."""
    num_local = int(os.environ["LOCAL_WORLD_SIZE"])
    if num_gpus:
        if num_local > num_gpus:
            raise UserError(
                f"num_devices: {num_local} processes were started on this machine, where torch finds {num_gpus} GPUs; "
                "start one process per GPU, and let each of them see all GPUs"
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    elif settings.threads is None:
        torch.set_num_threads(max(1, num_cores() // num_local))  # more threads than cores are many times slower


def is_first() -> bool:
    """True for the process that prepares, evaluates and records; always true in a run of one process."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


def let_others_begin(settings: Settings, data: PreparedData) -> None:
    """Lets the other processes begin; the first process calls it when the data is prepared.

    Raises:
        UserError: A process would have no image of some batch.
    """
    num_images = {part: len(data.rows(part)) for part in ("train", "val")}
    last = num_images["train"] % (settings.batch_size // settings.accumulate)
    if 1 < last < int(settings.num_devices):  # the stream leaves a single image out
        raise UserError(
            f"num_devices: received {settings.num_devices}, allowed: at most {last}, the images in the last batch of "
            f"the {num_images['train']} training images; another batch_size leaves another number"
        )
    if num_images["val"] < int(settings.num_devices):
        raise UserError(
            f"num_devices: received {settings.num_devices}, allowed: at most {num_images['val']}, the validation "
            "images; take fewer devices, or a larger part for val in data.fractions"
        )
    wait_for_first("data")


def wait_for_first(step: str) -> None:
    """Waits until the first process has reached this step as well.

    A wait outside of the collectives of training, whose time limit is short, so that a dead process is noticed.

    Args:
        step: A name that is used once in a run.
    """
    if _store is None:
        return
    if is_first():
        _store.set(step, "")
    else:
        _store.wait([step], EVALUATING)


def train_along(
    settings: Settings,
    build_network: Callable[[Settings, PreparedData, Path | None], Any],
    train_phase: Callable[..., Any],
) -> None:
    """Trains this process's share of all phases, on the data that the first process has prepared.

    For every process but the first, from which it gets the initial weights at the beginning of each phase. The first
    process reports an error that ends all of them. This process reports an error of its own, unless another one has
    failed before, since its error is then a consequence.

    Args:
        settings: As join_processes has returned them.
        build_network: The script's.
        train_phase: The script's.
    """
    assert _store is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches all, and the first one ends the others
    try:
        wait_for_first("data")
        data = prepare(settings.data, settings.augmentation, quiet=True)
        network = build_network(dataclasses.replace(settings, weights="random"), data, None)
        curves = Curves(_Silence(), quiet=True)  # type: ignore[arg-type]
        for phase in _phases_to_train(settings):
            train_phase(network, phase, settings, data, curves)
        with contextlib.suppress(RuntimeError):  # the first process may have ended already
            wait_for_first("end")  # all processes leave a process group together
            distributed.destroy_process_group()
    except TrainingDiverged:  # all processes raise it
        sys.exit(2)
    except Exception as error:
        if _another_has_failed():
            sys.exit(1)
        if is_out_of_memory(error):
            raise does_not_fit(settings, gpu=uses_gpu(settings)) from error
        raise


def _phases_to_train(settings: Settings) -> list[Phase]:
    """The phases without those that the first process had trained before the run was interrupted."""
    phases = phases_of(settings)
    if not phases:
        return []
    assert _store is not None
    _store.wait([_FIRST_PHASE], EVALUATING)
    first = int(_store.get(_FIRST_PHASE))
    return [phase for phase in phases if phase.number >= first]


class _Silence:
    """The run of a process that records nothing."""

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        pass


def _another_has_failed() -> bool:
    assert _store is not None
    try:
        return _store.add(_FAILURES, 1) > 1
    except RuntimeError:  # the store has ended with the first process
        return True


def _start_others(num_devices: int, port: int) -> list[subprocess.Popen[bytes]]:
    # torchrun's names; this process is the first
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(num_devices),
        "LOCAL_WORLD_SIZE": str(num_devices),
        "GROUP_RANK": "0",
        "RANK": "0",
        "LOCAL_RANK": "0",
    }
    processes = []
    for rank in range(1, num_devices):
        process = subprocess.Popen(
            [sys.executable, *sys.argv],
            env={**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches the first process, which ends this one
            # it has nothing to keep
            preexec_fn=functools.partial(interrupts.end_with_parent, os.getpid(), signal.SIGKILL)
            if sys.platform == "linux"
            else None,
        )
        atexit.register(_end, process)
        processes.append(process)
    return processes


def _wait_for_others(num_devices: int, started_here: list[subprocess.Popen[bytes]]) -> None:
    """Waits until all processes have joined, in short steps between which Ctrl-C is noticed."""
    assert _store is not None
    deadline = time.monotonic() + JOINING.total_seconds()
    while (num_present := _store.add("present", 0)) < num_devices:
        if any(process.poll() is not None for process in started_here):
            raise UserError(f"num_devices: one of {num_devices} processes failed to start; see its message above")
        if time.monotonic() > deadline:
            raise UserError(
                f"num_devices: {num_present} of {num_devices} processes have joined within {JOINING}; all that "
                "torchrun or srun starts must reach MASTER_ADDR and MASTER_PORT"
            )
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    # it holds nothing that needs an orderly end, and on a GPU it may wait for a process that has died
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(LEAVING_SECONDS)
    process.kill()
    process.wait()


def _leave() -> None:
    """Ends the first process's part before the processes that it started: their errors from now on are its fault."""
    assert _store is not None
    with contextlib.suppress(RuntimeError):  # torchrun keeps the store, and may have ended
        _store.add(_FAILURES, 1)
        _store.set(_FIRST_PHASE, str(_NO_PHASE))  # for a run that was interrupted after its training
        wait_for_first("end")
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _read_slurm() -> None:
    """Sets torchrun's environment variables from srun's."""
    slurm = SLURMEnvironment(auto_requeue=False)
    per_node = os.environ.get("SLURM_STEP_TASKS_PER_NODE") or os.environ["SLURM_TASKS_PER_NODE"]
    found = re.fullmatch(r"(\d+)(\(x\d+\))?", per_node)  # such as 4(x2); 4,3 if machines differ
    if found is None:
        raise UserError(
            f"num_devices: srun has started {per_node} processes on its machines, allowed: the same number on each; "
            "give --ntasks-per-node"
        )
    os.environ |= {
        "MASTER_ADDR": slurm.main_address,
        "MASTER_PORT": str(slurm.main_port),
        "WORLD_SIZE": str(num_started_processes()),
        "LOCAL_WORLD_SIZE": found[1],
        "GROUP_RANK": os.environ["SLURM_NODEID"],
        "RANK": os.environ["SLURM_PROCID"],
        "LOCAL_RANK": os.environ["SLURM_LOCALID"],
    }


# -------------------------------------------------------------------------------------------------------------- shares


class Share(StreamLoader):
    """One process's part of each of a stream's batches, of consecutive images.

    The parts of a batch differ by one image at most. If a batch has fewer images than there are processes, some of them
    have no part of it.
    """

    def __init__(self, stream: Stream, *, pin_memory: bool, rank: int, num_processes: int) -> None:
        super().__init__(stream, pin_memory=pin_memory, share_of=self._part_of)
        stream.needs_hash = rank == 0  # which records
        self._rank = rank
        self._num_processes = num_processes
        self.quiet = self.quiet or rank > 0

    def __len__(self) -> int:
        """Number of batches that this process has a part of."""
        num_batches = len(self.stream)
        last = self._part_of(self._num_images(num_batches - 1))
        return num_batches - (last.start == last.stop)

    def batch_of_each_size(self) -> list[Batch]:
        batches = [(batch, self._part_of(len(batch[0]))) for batch in self.stream.batch_of_each_size()]
        return [tuple(part[own] for part in batch) for batch, own in batches if own.start < own.stop]

    def weight(self, index: int) -> float:
        """Factor of the mean loss of this process's part, by which averaged gradients become those of the whole batch.

        The part's share of the batch times the number of processes.
        """
        num_images = self._num_images(index)
        part = self._part_of(num_images)
        return (part.stop - part.start) * self._num_processes / num_images

    def _num_images(self, index: int) -> int:
        return min(self.stream.batch_size, self.stream.num_images - index * self.stream.batch_size)

    def _part_of(self, num_images: int) -> slice:
        ends = [num_images * rank // self._num_processes for rank in (self._rank, self._rank + 1)]
        return slice(*ends)


def share_out(stream: Stream, *, pin_memory: bool) -> StreamLoader:
    """This process's part of the stream's batches; whole batches in a run of one process."""
    if not distributed.is_initialized():
        return StreamLoader(stream, pin_memory=pin_memory)
    rank, num_processes = distributed.get_rank(), distributed.get_world_size()
    return Share(stream, pin_memory=pin_memory, rank=rank, num_processes=num_processes)


def of_first_process(value: Any) -> Any:
    """The first process's value, of Python and numpy, in all of them."""
    if not distributed.is_initialized():
        return value
    values = [value if is_first() else None]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def of_all_processes(value: Any) -> list[Any]:
    """The values of all processes, of Python and numpy, in the order of their ranks."""
    if not distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def rank() -> int:
    """This process's number among those of the run; 0 in a run of one process."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def sum_over_processes(values: Tensor) -> Tensor:
    """Sums over the processes, in place, identical in all of them to the last bit."""
    if distributed.is_initialized():
        distributed.all_reduce(values)
    return values


# ------------------------------------------------------------------------------------------------------------ Lightning


def device_options(settings: Settings, phase: Phase) -> dict[str, Any]:
    """The arguments of Lightning's Trainer that describe the run's devices."""
    if not distributed.is_initialized():
        return {"devices": 1}
    num_local = int(os.environ["LOCAL_WORLD_SIZE"])
    return {
        "devices": num_local,
        "num_nodes": distributed.get_world_size() // num_local,
        "strategy": SharedBatches(settings, phase),
        "use_distributed_sampler": False,
    }


class SharedBatches(DDPStrategy):
    """DDP in processes that have joined already, each of which has its share of every batch."""

    def __init__(self, settings: Settings, phase: Phase) -> None:
        # No broadcast of buffers at each forward pass: they are equal anyway, and processes whose share of the
        # validation images has fewer batches would wait forever. DDP then broadcasts none at the beginning either:
        # setup does. DDP sees by itself that a frozen backbone's weights have no gradients.
        super().__init__(cluster_environment=TorchElasticEnvironment(), broadcast_buffers=False)
        self._phase = phase
        self._dropout = np.random.SeedSequence([settings.seed, phase.number, distributed.get_rank()]).generate_state(1)
        self._on_sigterm = signal.getsignal(signal.SIGTERM)
        if is_first():
            assert _store is not None
            _store.set(_FIRST_PHASE, str(phase.number))  # which the others read once

    def setup_environment(self) -> None:
        wait_for_first(f"phase {self._phase.number}")  # which evaluates between phases
        super().setup_environment()

    def setup(self, trainer: lightning.Trainer) -> None:
        super().setup(trainer)
        assert self.lightning_module is not None
        for buffer in self.lightning_module.buffers():  # batch norm's statistics, which came with the first's weights
            distributed.broadcast(buffer, src=0)
        # Lightning has given all processes one seed; the same dropout mask in each would be for different images
        torch.manual_seed(int(self._dropout[0]))

    def on_train_start(self) -> None:
        super().on_train_start()
        # Lightning's handler takes part in a collective whenever the signal comes, and hangs
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def training_step(self, batch: Any, index: int) -> Any:
        with synchronized_batch_norm():
            loss: Any = super().training_step(batch, index)
        assert self.lightning_module is not None
        return weigh_by_share(loss, self.lightning_module.trainer.train_dataloader, index)


def weigh_by_share(loss: Tensor, loader: Any, index: int) -> Tensor:
    """The loss whose gradients DDP averages, from the mean over the images of this process's part of a batch.

    Args:
        loss: The mean, of shape ().
        loader: The training batches.
        index: Number of the batch in its epoch.
    """
    return loss * loader.weight(index) if isinstance(loader, Share) else loss
