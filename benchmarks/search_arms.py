"""The ways of choosing a learning rate that `benchmarks/search.py` compares, each a Keras Tuner tuner.

All search the CNN variants and the four optimizers of `examples/mnist_search.py`. The first four are whole answers to
the question; the others take one part of autolr away.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras_tuner as kt

import autolr
import autolr.budget
import autolr.records
import autolr.search_space
import autolr.trial
import autolr.trial_values
import autolr.tuners

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from mnist_search import build_model

ARMS = {
    "autolr": "autolr",
    "cosine": "Keras Tuner, log-uniform rate, plain cosine",
    "constant": "Keras Tuner, log-uniform rate, constant",
    "default": "Keras Tuner, each optimizer's default rate",
    "one_cycle": "autolr, one plain cosine in every trial",
    "held": "autolr, the method's cycles in every trial (3 epochs, then 1.5 times; peaks times 0.9)",
    "unfitted": "autolr's bounds, the method's cycles to the letter, without warm-up, not fitted to the trial",
    "cold": "autolr without warm-up",
    "unaveraged": "autolr without averaging the weights at the ends of cycles",
    "wide": "no range test: SGDR from 1e-1 to 1e-4 for every model",
}
TUNERS = {"random": "RandomSearch", "bayesian": "BayesianOptimization", "hyperband": "Hyperband"}
METHOD = {"cycle_length": 3, "mult_factor": 1.5, "lr_decay": 0.9}
WIDE = (1e-4, 1e-1)
RANGE_OF_RATES = (1e-5, 1.0)


class RateSearched(kt.HyperModel):
    """The example's models, the rate a hyperparameter.

    Args:
        make: The example's build function.
        epochs: Of a trial; Hyperband chooses its own.
        steps_per_epoch: Steps in each.
        decay: Whether the rate falls to zero along a cosine by the end of the trial, or stays.
    """

    def __init__(self, make: Callable[[Any], keras.Model], epochs: int, steps_per_epoch: int, *, decay: bool) -> None:
        super().__init__()
        self.make, self.epochs, self.steps_per_epoch, self.decay = make, epochs, steps_per_epoch, decay

    def build(self, hp: Any) -> keras.Model:
        """Compile with the rate chosen."""
        model = self.make(hp)
        rate: Any = hp.Float("learning_rate", *RANGE_OF_RATES, sampling="log")
        if self.decay:
            epochs = hp.values.get("tuner/epochs", self.epochs) - hp.values.get("tuner/initial_epoch", 0)
            rate = keras.optimizers.schedules.CosineDecay(rate, epochs * self.steps_per_epoch)
        optimizer = type(model.optimizer).from_config({**model.optimizer.get_config(), "learning_rate": rate})
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model


def searched_cycles(hp: Any) -> dict[str, Any]:
    """The choices that autolr's tuners add to a search."""
    return {
        name: hp.Choice(name, values, default=autolr.trial_values.DEFAULTS[name])
        for name, values in autolr.search_space.CHOICES.items()
    }


class Scheduled(kt.HyperModel):
    """The example's models, trained with autolr's schedule but without its tuners.

    Args:
        make: The example's build function.
        fitted: With a fixed wide range and the searched cycles of autolr, fitted to the trial; otherwise with bounds
            from a range test and the method's cycles.
        note: Is told the steps of each range test.
    """

    def __init__(self, make: Callable[[Any], keras.Model], *, fitted: bool, note: Callable[[int], None]) -> None:
        super().__init__()
        self.make, self.fitted, self.note = make, fitted, note

    def build(self, hp: Any) -> keras.Model:
        """The model, and with `fitted` autolr's own choices of cycles."""
        if self.fitted:
            searched_cycles(hp)
        return self.make(hp)

    def fit(self, hp: Any, model: keras.Model, x: Any, y: Any, *, callbacks: list[Any], **arguments: Any) -> Any:
        """Train on the schedule."""
        if self.fitted:
            cycles = searched_cycles(hp)
            low, high = WIDE
        else:
            cycles = METHOD
            sweep, bursts = autolr.budget.range_test_budget(
                math.ceil(len(x) / arguments["batch_size"]) * autolr.budget.epochs_of(arguments),
                share=autolr.budget.RANGE_TEST_SHARE,
                most=autolr.budget.RANGE_TEST_STEPS,
            )
            test = autolr.range_test(
                model, x, y, batch_size=arguments["batch_size"], num_steps=sweep, burst_steps=bursts
            )
            self.note(test.steps_spent)
            low, high = test.bounds()
        warmup = autolr.budget.WARMUP if self.fitted else 0
        schedule = autolr.SGDRScheduler(
            low,
            high,
            fit_budget=self.fitted,
            warmup=warmup,
            tail_average=autolr.trial_values.TAIL_AVERAGE,
            restore_weights=False,
            **cycles,
        )
        return model.fit(x, y, callbacks=[schedule, *callbacks], **arguments)


def make_tuner(
    arm: str, tuner: str, *, trials: int, epochs: int, steps_per_epoch: int, pixels: int, seed: int, folder: Path
) -> tuple[kt.Tuner, dict[str, int]]:
    """The tuner of an arm, and where it counts the optimizer steps of each trial, range tests included."""
    spent: dict[str, int] = {}
    now = {"trial": ""}

    def count(steps: int) -> None:
        spent[now["trial"]] = spent.get(now["trial"], 0) + steps

    class CountSteps(keras.callbacks.Callback):
        """Counts training; Keras Tuner copies it for each trial, and the copies count here."""

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            count(1)

    assisted = arm in ("autolr", "one_cycle", "held", "cold", "unaveraged")
    if arm == "cold":  # in this process, which is this search's own
        autolr.trial_values.WARMUP = autolr.budget.WARMUP = 0
    base: Any = getattr(autolr if assisted else kt, TUNERS[tuner])

    class Counting(base):
        """The tuner, counting."""

        def run_trial(self, trial: Any, *args: Any, callbacks: Any = (), **kwargs: Any) -> Any:
            now["trial"] = trial.trial_id
            results = super().run_trial(trial, *args, callbacks=[*callbacks, CountSteps()], **kwargs)
            if assisted:
                record = autolr.records.TrialRecord.read(self.get_trial_dir(trial.trial_id))
                count(record.steps_tested or 0)
                if arm == "cold":  # what is meant to be taken away is
                    assert record.training is not None
                    assert math.isclose(record.training["rates"]["lr"][0], record.bounds["max_lr"], rel_tol=1e-4)
            return results

    def build(hp: Any) -> keras.Model:
        return build_model(hp, (pixels, pixels, 1), 10)

    hypermodel: Any = build
    if arm in ("cosine", "constant"):
        hypermodel = RateSearched(build, epochs, steps_per_epoch, decay=arm == "cosine")
    elif arm in ("wide", "unfitted"):
        hypermodel = Scheduled(build, fitted=arm == "wide", note=count)
    hp = kt.HyperParameters()
    if arm in ("one_cycle", "held"):
        for name, value in (METHOD if arm == "held" else autolr.trial_values.DEFAULTS).items():
            hp.Fixed(name, value)
    size: dict[str, Any] = {"max_trials": trials}
    if tuner == "bayesian":
        size["num_initial_points"] = max(2, trials // 2)  # Keras Tuner's own default would be random throughout
    elif tuner == "hyperband":
        size = {"max_epochs": epochs, "factor": 3}
    if arm == "unaveraged":
        size["tail_average"] = 0
    made = Counting(
        hypermodel,
        objective="val_accuracy",
        seed=seed,
        hyperparameters=hp,
        directory=str(folder),
        project_name="search",
        **size,
    )
    return made, spent
