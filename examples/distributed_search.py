#!/usr/bin/env python3
"""One process of a distributed search, chief or worker: `examples/distributed_search.sh` starts three of them.

It is an ordinary search. What makes it distributed are Keras Tuner's environment variables alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow loads: no start-up chatter

import keras
import keras_tuner as kt
import numpy as np

import autolr

SAMPLE = Path(__file__).parent / "data" / "mnist_sample.npz"


def build(hp: kt.HyperParameters) -> keras.Model:
    """A small dense network; no learning rate."""
    layers = [keras.layers.Dense(hp.Choice("units", [16, 32, 64]), "relu"), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), *layers])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main() -> None:
    """Search; the chief hands out trials and prints the results when the workers are done."""
    with np.load(SAMPLE) as data:
        x, y = data["x_train"][:1000] / np.float32(255), data["y_train"][:1000]
    tuner = autolr.RandomSearch(build, "val_accuracy", max_trials=4, directory=sys.argv[1], project_name="distributed")
    tuner.search(x, y, validation_split=0.2, epochs=5, batch_size=16, verbose=0)
    if os.environ.get("KERASTUNER_TUNER_ID") == "chief":
        tuner.results_summary()


if __name__ == "__main__":
    main()
