"""Backbone, frozen and then thawed, with Keras alone, as in its guide to transfer learning."""

from __future__ import annotations

import time

import keras
import tensorflow

from benchmarks.peers.work import Work, asked_work, report


def main() -> None:
    work: Work = asked_work()
    train, val = (
        keras.utils.image_dataset_from_directory(
            work.folder / part,
            image_size=(work.image_size, work.image_size),
            batch_size=work.batch_size,
            verbose=False,
        ).prefetch(tensorflow.data.AUTOTUNE)
        for part in ("train", "val")
    )
    num_classes = len(list((work.folder / "train").iterdir()))
    shape = (work.image_size, work.image_size, 3)
    backbone = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=shape, pooling="avg")
    inputs = keras.Input(shape)
    features = backbone(keras.layers.Rescaling(1 / 127.5, -1)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(num_classes)(features))
    seconds = []
    for thawed in (False, True):
        backbone.trainable = thawed
        model.compile(
            optimizer=keras.optimizers.Adam(1e-4),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        start = time.perf_counter()
        model.fit(train, validation_data=val, epochs=work.epochs, verbose=0)
        seconds.append(time.perf_counter() - start)
    report(*seconds)


if __name__ == "__main__":
    main()
