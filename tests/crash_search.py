"""A search that stops and waits to be killed: `python crash_search.py DIRECTORY [PHASE TRIAL]`.

With `TUNER=hyperband` in the environment it is Hyperband's, and has a phase "later rung". `PATIENCE` is the chief's.
With `FAILING=1` every trial fails. `OBJECTIVE` is the search's, the loss otherwise.

It notes in `DIRECTORY/log` what it trains, makes `DIRECTORY/reached` when it waits, and prints its trials at the end.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_tuner
import numpy as np

import autolr
from autolr import chief

DIRECTORY = Path(sys.argv[1])
STOP_AT = tuple(sys.argv[2:4])
HYPERBAND = os.environ.get("TUNER") == "hyperband"
running = [""]  # the trial at work


def note(phase):
    """Write down that a phase of the running trial began; wait there for the end, if this is where to."""
    with (DIRECTORY / "log").open("a") as log:
        log.write(f"{phase} {running[0]}\n")
    if STOP_AT in ((phase, running[0]), (phase, "any")):
        (DIRECTORY / "reached").touch()
        time.sleep(600)


sweep_on = autolr.LRFinder.on_train_batch_end


def sweep_and_note(finder, batch, logs=None):
    sweep_on(finder, batch, logs)
    if batch == 5:
        note("range test")


class Tuner(autolr.Hyperband if HYPERBAND else autolr.RandomSearch):
    def on_trial_begin(self, trial):
        super().on_trial_begin(trial)
        running[0] = trial.trial_id
        note("created")

    def on_epoch_begin(self, trial, model, epoch, logs=None):
        values = trial.hyperparameters.values
        if epoch == max(1, values.get("tuner/initial_epoch", 0)):
            note("later rung" if values.get("tuner/round", 0) else "training")

    def on_trial_end(self, trial):
        end_trial = self.oracle.end_trial

        def end_and_note(trial):
            end_trial(trial)
            note("ended")  # the oracle is written, and still has the trial among the ongoing ones

        self.oracle.end_trial = end_and_note
        try:
            super().on_trial_end(trial)
        finally:
            self.oracle.end_trial = end_trial


def build(hp):
    if "FAILING" in os.environ and running[0]:
        raise ValueError("boom")
    layers = [keras.layers.Dense(hp.Int("units", 3, 20)), keras.layers.Dense(3, "softmax")]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def main():
    autolr.LRFinder.on_train_batch_end = sweep_and_note
    chief.PATIENCE = float(os.environ.get("PATIENCE", chief.PATIENCE))
    y = np.arange(64) % 3
    x = np.eye(6, dtype="float32")[y]
    # No seed: a trial that is run again has its values from the disk, not from a repeated draw.
    length = {"max_epochs": 4, "factor": 2} if HYPERBAND else {"max_trials": int(os.environ.get("TRIALS", "3"))}
    objective = keras_tuner.Objective(os.environ.get("OBJECTIVE", "loss"), "min")
    tuner = Tuner(build, objective, **length, directory=DIRECTORY, project_name="p")
    tuner.search(x, y, epochs=3, batch_size=8, verbose=0)
    if hasattr(tuner.oracle, "trials"):  # not on a worker
        trials = sorted(tuner.oracle.trials.values(), key=lambda trial: trial.trial_id)  # read back in any order
        print(json.dumps([[trial.trial_id, trial.status, trial.hyperparameters.values] for trial in trials]))


if __name__ == "__main__":
    main()
