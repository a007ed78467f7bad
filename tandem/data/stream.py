"""Batches of stored images, shuffled and augmented from (seed, epoch, index) alone: the same for any framework."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from tandem.errors import UserError
from tandem.protocol.settings import AugmentationSettings

Batch = tuple[np.ndarray, np.ndarray]

NUM_PREFETCHED = 4  # batches made ahead of the training step


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What the random numbers of one epoch decide."""

    epoch: int
    order: np.ndarray
    """Places in the stream's rows in the order in which they are served, int64 of shape (rows,)."""
    flipped: np.ndarray
    """Which of the stream's rows are mirrored, bool of shape (rows,)."""
    shifts: np.ndarray
    """Pixels by which each of the stream's rows moves down and right, int64 of shape (rows, 2)."""


class Stream:
    """Serves some rows of a store in batches, epoch by epoch.

    The last batch of an epoch may be smaller. In a shuffled stream it is left out if it has a single image, since batch
    normalisation cannot train on one value.

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
        augmentation: AugmentationSettings | None = None,
    ) -> None:
        """
        Args:
            images: The store, uint8 of shape (images, height, width, 3).
            labels: Of the store's images, int64 of shape (images,).
            rows: Which of the store's images are served, int64 of shape (rows,).
            batch_size: Images a batch.
            seed: Numbers from 0 that all randomness follows from.
            shuffle: A new order every epoch, else that of rows.
            augmentation: Random changes; none when None.

        Raises:
            UserError: crop_padding could move an image out of itself.
        """
        assert len(rows) > 1 or (len(rows) == 1 and not shuffle)
        self._images = images
        self._labels = np.asarray(labels, dtype=np.int64)
        self._rows = np.asarray(rows, dtype=np.int64)
        self._batch_size = batch_size
        self._seed = tuple(seed)
        self._shuffle = shuffle
        self._augmentation = augmentation or AugmentationSettings()
        self._plan: _Plan | None = None
        self._first_epoch_digests: dict[int, bytes] = {}
        smallest = min(images.shape[1:3])
        if self._augmentation.crop_padding >= smallest:
            raise UserError(
                f"augmentation.crop_padding: received {self._augmentation.crop_padding}, allowed: less than "
                f"{smallest}, since these images are stored with {images.shape[1]} x {images.shape[2]} pixels"
            )

    @property
    def num_images(self) -> int:
        """Images served an epoch."""
        single_left_over = self._shuffle and len(self._rows) % self._batch_size == 1
        return len(self._rows) - single_left_over

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-self.num_images // self._batch_size)

    def batch(self, epoch: int, index: int) -> Batch:
        """One batch; any order of calls, from any thread, gives the same.

        Args:
            epoch: From 0.
            index: From 0 to len(self) - 1.

        Returns:
            Images, contiguous uint8 of shape (batch, height, width, 3), and labels, int64 of shape (batch,).
        """
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        plan = self._plan_of(epoch)
        places = plan.order[index * self._batch_size : min((index + 1) * self._batch_size, self.num_images)]
        rows = self._rows[places]
        if self._augmentation.horizontal_flip or self._augmentation.crop_padding:
            images = self._augmented(rows, plan.flipped[places], plan.shifts[places])
        else:
            images = np.ascontiguousarray(self._images[rows])
        labels = self._labels[rows]
        if epoch == 0 and index not in self._first_epoch_digests:
            digest = hashlib.sha256(labels.astype("<i8").tobytes())
            digest.update(images.data)
            self._first_epoch_digests[index] = digest.digest()
        return images, labels

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number start on, made ahead of time by a thread that ends with the iteration."""
        indices = iter(range(start, len(self)))
        waiting: deque[Future[Batch]] = deque()
        maker = ThreadPoolExecutor(1, thread_name_prefix="stream")
        try:
            while True:
                while len(waiting) < NUM_PREFETCHED and (index := next(indices, None)) is not None:
                    waiting.append(maker.submit(self.batch, epoch, index))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            maker.shutdown(cancel_futures=True)

    @property
    def first_epoch_hash(self) -> str | None:
        """SHA-256 over the SHA-256 of each batch of epoch 0 (labels, then images); None until all of them were served.

        In the order in which they were first served, so that a framework that changes it has another hash.
        """
        digests = self._first_epoch_digests
        if len(digests) < len(self):
            return None
        return hashlib.sha256(b"".join(digests.values())).hexdigest()

    def _plan_of(self, epoch: int) -> _Plan:
        plan = self._plan
        if plan is None or plan.epoch != epoch:
            plan = self._plan = self._make_plan(epoch)
        return plan

    def _make_plan(self, epoch: int) -> _Plan:
        # Raw numbers of the bit generator, which numpy promises never to change, unlike its permutations and integers.
        num_rows = len(self._rows)
        for_order, for_changes = np.random.SeedSequence([*self._seed, epoch]).spawn(2)
        order = np.arange(num_rows)
        if self._shuffle:
            order = np.argsort(np.random.PCG64(for_order).random_raw(num_rows), kind="stable")
        numbers = np.random.PCG64(for_changes).random_raw((num_rows, 3)) >> np.uint64(32)
        padding = self._augmentation.crop_padding
        return _Plan(
            epoch=epoch,
            order=order,
            flipped=(numbers[:, 0] % 2 == 1) & self._augmentation.horizontal_flip,
            shifts=(numbers[:, 1:] % np.uint64(2 * padding + 1)).astype(np.int64) - padding,
        )

    def _augmented(self, rows: np.ndarray, flipped: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        # An image at a time straight from the store: twice as fast as padding and indexing the whole batch.
        height, width = self._images.shape[1:3]
        batch = np.zeros((len(rows), height, width, 3), np.uint8)
        for target, row, flip, (down, right) in zip(batch, rows, flipped, shifts.tolist(), strict=True):
            image = self._images[row]
            from_top, from_left = max(0, -down), max(0, -right)
            to_top, to_left = max(0, down), max(0, right)
            rows_left, columns_left = height - abs(down), width - abs(right)
            if flip:
                image = image[:, ::-1]
            source = image[from_top : from_top + rows_left, from_left : from_left + columns_left]
            target = target[to_top : to_top + rows_left, to_left : to_left + columns_left]
            if flip:
                for channel in range(3):  # numpy copies mirrored pixels of three bytes five times slower
                    target[:, :, channel] = source[:, :, channel]
            else:
                target[:] = source
        return batch
