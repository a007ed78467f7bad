"""Batches of stored images, the same in every framework: they depend on the seed, the epoch and the index alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import xxhash

from tandem.data.augmentation import NUM_GENERATORS, Changes, Size, change, draw_changes
from tandem.data.console import num_cores
from tandem.data.mixing import SPAWN_KEY as MIXING_KEY
from tandem.data.mixing import Mixes, draw_mixes, mix
from tandem.data.sampling import SPAWN_KEY as SAMPLING_KEY
from tandem.data.sampling import draw_balanced
from tandem.data.targets import Targets
from tandem.errors import UserError
from tandem.protocol.settings import AugmentationSettings, MixingSettings

Batch = tuple[np.ndarray, ...]
"""Images or features; labels or soft targets; and the images' weights in the loss, if classes have weights."""

ShareOf = Callable[[int], slice]
"""From the number of images in a batch to the images that one of several processes trains on."""

NUM_PREFETCHED = 4  # groups of batches made ahead of the training step

# A group has at least this many bytes. Handing over from thread to thread takes a good part of a short training step,
# so small batches are made several at a time.
LEAST_MADE_BYTES = 1_000_000

# Images that are only flipped, shifted or mixed are shared among threads if a batch has this many bytes; smaller ones
# are copied in less time than the hand-over takes.
LEAST_SHARED_BYTES = 200_000


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes to a stream's images."""

    settings: AugmentationSettings = field(default_factory=AugmentationSettings)
    size: Size | None = None
    """Height and width, in pixels, of the served images; None for that of the stored ones. It differs where random
    resized crops are cut from larger stored images."""
    threads: int | None = None
    """Number of threads; None for one per core. The images do not depend on it."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """The random choices of one epoch."""

    epoch: int
    order: np.ndarray
    """The places of the epoch in the order in which they are served, int64 of shape (rows,)."""
    drawn: np.ndarray | None
    """Index into the stream's rows of the image at each place, int64 of shape (rows,); None for the place itself."""
    changes: Changes | None
    """Changes at each place; None leaves images as they are stored."""
    mixes: Mixes | None
    """Mix of each batch; None serves single images."""


class Stream:
    """Rows of a store in batches, epoch by epoch.

    The last batch of an epoch may be smaller. A shuffled stream leaves it out if it has a single image, since batch
    norm cannot train on one value.

        stream = Stream(images, labels, rows, batch_size=32, seed=(0,), shuffle=True)
        for images, labels in stream.epoch(0):
            ...
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        rows: np.ndarray,
        *,
        batch_size: int,
        seed: tuple[int, ...],
        shuffle: bool,
        augmentation: Augmentation | None = None,
        balanced: bool = False,
        mixing: MixingSettings | None = None,
        targets: Targets | None = None,
        features: Sequence[np.ndarray] = (),
    ) -> None:
        """
        Args:
            images: The store, uint8 of shape (images, height, width, 3).
            labels: Labels of the store's images, int64 of shape (images,).
            rows: Rows of the store that are served, int64 of shape (rows,).
            batch_size: Images per batch.
            seed: Numbers, at least 0, that determine all random choices.
            shuffle: Serves the rows in a new order in every epoch, otherwise in their own.
            augmentation: Random changes to the images; none when None.
            balanced: Serves equally many images of each class in an epoch, as many in total as there are rows.
            mixing: Mixes each image with another one of its batch, and their labels; not when None.
            targets: Form of the targets; plain labels when None.
            features: Served in place of the images, each float32 of shape (images, features). Epoch e serves features
                number e modulo their count, which were computed from the images of the epoch with that number.

        Raises:
            UserError: crop_padding is so large that it could shift an image out of the frame.
        """
        augmentation = augmentation or Augmentation()
        assert len(rows) > 1 or (len(rows) == 1 and not shuffle)
        self._images = np.asarray(images)  # indexing an np.memmap takes several times as long
        self._labels = np.asarray(labels, dtype=np.int64)
        self._rows = np.asarray(rows, dtype=np.int64)
        self.batch_size = batch_size
        self._seed = tuple(seed)
        self._shuffle = shuffle
        self._augmentation = augmentation.settings
        self._stored_size: Size = images.shape[1], images.shape[2]
        self._size = augmentation.size or self._stored_size
        assert self._size == self._stored_size or self._augmentation.random_resized_crop is not None
        self._balanced = balanced
        self._mixing = mixing or MixingSettings()
        self._targets = targets
        self._features = tuple(features)
        assert not self._features or self._mixing == MixingSettings()
        assert self._mixing == MixingSettings() or (targets is not None and targets.soft)
        self._num_threads = augmentation.threads or num_cores()
        # its threads start when they are needed
        self._changers = ThreadPoolExecutor(self._num_threads, thread_name_prefix="augmentation")
        self._plan: _Plan | None = None
        self._first_epoch_digests: dict[int, bytes] = {}
        self.needs_hash = True
        """False if nothing reads first_epoch_hash: in the first epoch too, only shares of batches are made then."""
        smallest = min(self._size)
        if self._augmentation.crop_padding >= smallest:
            raise UserError(
                f"augmentation.crop_padding: received {self._augmentation.crop_padding}, allowed: less than "
                f"{smallest}, since these images are served with {self._size[0]} x {self._size[1]} pixels"
            )

    @property
    def shuffles(self) -> bool:
        """True for training images, which come in another order in each epoch."""
        return self._shuffle

    @property
    def num_images(self) -> int:
        """Images served per epoch."""
        single_left_over = self._shuffle and len(self._rows) % self.batch_size == 1
        return len(self._rows) - single_left_over

    def __len__(self) -> int:
        """Batches per epoch."""
        return -(-self.num_images // self.batch_size)

    def batch(self, epoch: int, index: int, share_of: ShareOf | None = None) -> Batch:
        """One batch; the same in any order of calls and from any thread.

        Args:
            epoch: Counted from 0.
            index: 0 to len(self) - 1.
            share_of: Returns only this share of the batch. The other images are made in epoch 0 alone, for its hash,
                if that is needed.

        Returns:
            Images, contiguous uint8 of shape (batch, height, width, 3), or their features, contiguous float32 of shape
            (batch, features); and labels, int64 of shape (batch,), or what the stream's targets are in their place.
        """
        if share_of is None:
            return self.batches(epoch, index, index + 1)
        own = share_of(min(self.batch_size, self.num_images - index * self.batch_size))
        if epoch == 0 and self.needs_hash:
            return tuple(part[own] for part in self.batches(epoch, index, index + 1))
        first = index * self.batch_size
        return self._served(epoch, np.arange(first + own.start, first + own.stop))

    def batches(self, epoch: int, start: int, end: int) -> Batch:
        """The batches from index `start` up to but excluding index `end`, joined into one array."""
        if not 0 <= start < end <= len(self):
            raise IndexError(f"batches {start} to {end} of {len(self)}")
        numbers = np.arange(start * self.batch_size, min(end * self.batch_size, self.num_images))
        order = self._plan_of(epoch).order
        images, *targets = self._served(epoch, numbers)
        for index in range(start, end):
            if epoch == 0 and index not in self._first_epoch_digests:
                batch = slice((index - start) * self.batch_size, (index - start + 1) * self.batch_size)
                digest = xxhash.xxh3_128()
                for part in targets:
                    digest.update(part[batch].astype(part.dtype.newbyteorder("<")).tobytes())
                digest.update((self.images_at(epoch, order[numbers[batch]]) if self._features else images[batch]).data)
                self._first_epoch_digests[index] = digest.digest()
        return images, *targets

    def _served(self, epoch: int, numbers: np.ndarray) -> Batch:
        """Images or features, and targets, by their numbers in the order of the epoch."""
        plan = self._plan_of(epoch)
        if plan.mixes is not None:
            return self._mixed(plan, plan.mixes, numbers)
        places = plan.order[numbers]
        rows = self._rows_at(plan, places)
        images = self._features[epoch % len(self._features)][rows] if self._features else self.images_at(epoch, places)
        labels = self._labels[rows]
        targets = (labels,) if self._targets is None else self._targets.of(labels)
        return np.ascontiguousarray(images), *targets

    def _mixed(self, plan: _Plan, mixes: Mixes, numbers: np.ndarray) -> Batch:
        assert self._targets is not None
        batches = numbers // self.batch_size
        partners = self._partners(numbers)
        # a partner may be in another process's share of the batch
        needed, positions = np.unique(np.concatenate([numbers, partners]), return_inverse=True)
        single = self.images_at(plan.epoch, plan.order[needed])
        mixed = np.empty((len(numbers), *single.shape[1:]), np.uint8)
        own, others = positions[: len(numbers)], positions[len(numbers) :]

        def mix_one(index: int) -> None:
            mix(single[own[index]], single[others[index]], mixes, int(batches[index]), mixed[index])

        self._for_each(len(numbers), mix_one, in_threads=self._batch_bytes >= LEAST_SHARED_BYTES)
        labels = self._labels[self._rows_at(plan, plan.order[needed])]
        return mixed, *self._targets.of(labels[own], labels[others], mixes.shares[batches])

    def _partners(self, numbers: np.ndarray) -> np.ndarray:
        """The number of the image before each one in its batch, the last one for the first."""
        first = numbers // self.batch_size * self.batch_size
        size = np.minimum(self.batch_size, self.num_images - first)
        return first + (numbers - first - 1) % size

    def _rows_at(self, plan: _Plan, places: np.ndarray) -> np.ndarray:
        return self._rows[places if plan.drawn is None else plan.drawn[places]]

    def images_at(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Images of an epoch before they are mixed, by their places: without `balanced`, indices in the stream's rows.

        Args:
            epoch: Counted from 0.
            places: int64 of shape (n,), each from 0 to the number of rows minus 1.

        Returns:
            Contiguous uint8 of shape (n, height, width, 3).
        """
        plan = self._plan_of(epoch)
        rows = self._rows_at(plan, places)
        if plan.changes is None:
            return np.ascontiguousarray(self._images[rows])
        # features are of one view per row, however often it is drawn
        indices = places if plan.drawn is None or not self._features else plan.drawn[places]
        return self._changed(rows, indices, plan.changes)

    def epoch(self, epoch: int, start: int = 0, share_of: ShareOf | None = None) -> Iterator[Batch]:
        """The batches of an epoch, or a share of each, from index `start` on.

        A thread makes them ahead of time, and ends with the iteration.
        """
        groups = iter(range(start, len(self), group := max(1, LEAST_MADE_BYTES // self._batch_bytes)))
        waiting: deque[Future[list[Batch]]] = deque()
        maker = ThreadPoolExecutor(1, thread_name_prefix="stream")
        try:
            while True:
                while len(waiting) < NUM_PREFETCHED and (first := next(groups, None)) is not None:
                    waiting.append(maker.submit(self._group, epoch, first, min(first + group, len(self)), share_of))
                if not waiting:
                    return
                yield from waiting.popleft().result()
        finally:
            # Without waiting: if the iteration ended early, this runs in a finalizer, where Python ignores a Ctrl-C.
            maker.shutdown(wait=False, cancel_futures=True)

    def _group(self, epoch: int, start: int, end: int, share_of: ShareOf | None) -> list[Batch]:
        if share_of is not None or end - start == 1:
            return [self.batch(epoch, index, share_of) for index in range(start, end)]
        joined = self.batches(epoch, start, end)
        places = [slice(first, first + self.batch_size) for first in range(0, len(joined[0]), self.batch_size)]
        return [tuple(part[batch] for part in joined) for batch in places]

    def batch_of_each_size(self) -> list[Batch]:
        """One batch of each size that occurs in an epoch, the largest first.

        They are of the second epoch, since those of the first are hashed in the order in which they are served.
        """
        batches = [self.batch(1, index) for index in sorted({0, len(self) - 1})]
        return list({len(batch[0]): batch for batch in batches}.values())

    @property
    def first_epoch_hash(self) -> str | None:
        """XXH3 (128 bits) over the hashes of epoch 0's batches (targets, then images); None until all were served.

        The batches count in the order in which they were first served, so a framework that serves them in another order
        has another hash. XXH3 detects accidents, not forgeries, in a thirtieth of the time of SHA-256, which would slow
        down the first epoch.
        """
        digests = self._first_epoch_digests
        if len(digests) < len(self):
            return None
        return xxhash.xxh3_128_hexdigest(b"".join(digests.values()))

    def digests(self, count: int | None = None) -> list[str]:
        """Hashes, in hex, of the first `count` of epoch 0's batches that were served; of all by default."""
        return [digest.hex() for digest in list(self._first_epoch_digests.values())[:count]]

    def restore_digests(self, digests: Sequence[str]) -> None:
        """Sets the hashes of the batches that a continued run served in epoch 0 before it was interrupted."""
        self._first_epoch_digests = {index: bytes.fromhex(digest) for index, digest in enumerate(digests)}

    @property
    def _batch_bytes(self) -> int:
        return self.batch_size * self._size[0] * self._size[1] * 3

    def _plan_of(self, epoch: int) -> _Plan:
        plan = self._plan
        if plan is None or plan.epoch != epoch:
            plan = self._plan = self._make_plan(epoch)
        return plan

    def _make_plan(self, epoch: int) -> _Plan:
        # numpy promises never to change the bit generator's raw numbers, unlike its permutations and integers.
        num_rows = len(self._rows)
        for_order, *for_changes = np.random.SeedSequence([*self._seed, epoch]).spawn(1 + NUM_GENERATORS)
        order = np.arange(num_rows)
        if self._shuffle:
            order = np.argsort(np.random.PCG64(for_order).random_raw(num_rows), kind="stable")
        changes = None
        # where features are served, images are needed in the first epoch alone, for its hash
        if self._augmentation != AugmentationSettings() and not (self._features and epoch > 0):
            changes = draw_changes(for_changes, num_rows, self._stored_size, self._size, self._augmentation)
        drawn = mixes = None
        if self._balanced:
            drawn = draw_balanced(self._seed_of(epoch, SAMPLING_KEY), self._labels[self._rows])
        if self._mixing != MixingSettings():
            mixes = draw_mixes(self._seed_of(epoch, MIXING_KEY), len(self), self._size, self._mixing)
        return _Plan(epoch=epoch, order=order, drawn=drawn, changes=changes, mixes=mixes)

    def _seed_of(self, epoch: int, spawn_key: int) -> np.random.SeedSequence:
        return np.random.SeedSequence([*self._seed, epoch], spawn_key=(spawn_key,))

    def _changed(self, rows: np.ndarray, places: np.ndarray, changes: Changes) -> np.ndarray:
        # Image by image, straight from the store: twice as fast as padding and indexing the whole batch.
        batch = np.zeros((len(rows), *self._size, 3), np.uint8)

        def change_one(index: int) -> None:
            change(self._images[rows[index]], changes, int(places[index]), batch[index])

        in_threads = not changes.only_move or self._batch_bytes >= LEAST_SHARED_BYTES
        self._for_each(len(rows), change_one, in_threads=in_threads)
        return batch

    def _for_each(self, count: int, work: Callable[[int], None], *, in_threads: bool) -> None:
        """Calls a function with each index from 0 to below `count`."""

        def work_on(indices: range) -> None:
            for index in indices:
                work(index)

        if not in_threads:
            work_on(range(count))
            return
        share = max(1, -(-count // self._num_threads))
        tasks = [
            self._changers.submit(work_on, range(start, min(start + share, count))) for start in range(0, count, share)
        ]
        for task in tasks:
            task.result()
