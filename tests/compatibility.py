"""The cases of `docs/compatibility.md`: real searches, each run with its range test and once more without.

`python tests/compatibility.py` runs all of them and writes the table; `tests/test_dropin_table.py` holds it to them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_tuner as kt
import numpy as np

import autolr
from autolr import trial_bounds
from autolr.sweep import run_range_test

HERE = Path(__file__).resolve().parent
TABLE = HERE.parent / "docs" / "compatibility.md"
HELD = {"cycle_length": 1, "mult_factor": 1.5, "lr_decay": 0.9}
BATCH = 8


def data(samples: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Three separable classes in six dimensions."""
    rng = np.random.default_rng(0)
    y = np.arange(samples) % 3
    return (np.eye(6)[y] + 0.5 * rng.normal(size=(samples, 6))).astype("float32"), y.astype("int32")


def model(optimizer: Any = "sgd", cls: type = keras.Sequential, **arguments: Any) -> keras.Model:
    """Small, but hard to put back: dropout has random seeds, BatchNorm moving statistics."""
    layers = [
        keras.layers.Dense(4, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(3),
    ]
    built = cls([keras.Input((6,)), *layers])
    return compile_(built, optimizer, **arguments)


def compile_(built: keras.Model, optimizer: Any = "sgd", **arguments: Any) -> keras.Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    built.compile(optimizer, **{"loss": loss, **arguments})
    return built


def held() -> kt.HyperParameters:
    hp = kt.HyperParameters()
    for name, value in HELD.items():
        hp.Fixed(name, value)
    return hp


@dataclass
class Setup:
    """One search: the model, what `search` is called with, and how the tuner is made."""

    hypermodel: Any = lambda hp: model()
    fit: dict[str, Any] = field(default_factory=dict)
    tuner: Callable[..., kt.Tuner] = autolr.RandomSearch
    options: dict[str, Any] = field(default_factory=dict)
    positional: tuple[Any, ...] | None = None  # instead of the arrays
    around: Callable[[], Any] = contextlib.nullcontext
    space: Callable[[], kt.HyperParameters] = held


@dataclass(frozen=True)
class Case:
    """A line of the table.

    Attributes:
        area: Which part of the table.
        name: What is searched.
        setup: Makes the search, afresh each time.
        exact: Whether the data's order can be repeated, and so training must be bit for bit that without a test.
        why: A note for the table.
        quick: Whether it is run by default.
        failing: Whether warnings about single trials' curves are the point.
        cpus: How many devices TensorFlow must have.
    """

    area: str
    name: str
    setup: Callable[[], Setup]
    exact: bool = True
    why: str = ""
    quick: bool = False
    failing: bool = False
    cpus: int = 1

    def __str__(self) -> str:
        return f"{self.area}: {self.name}"


class Witness(keras.callbacks.Callback):
    """What training came to, bit for bit; survives Keras Tuner's copying."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __deepcopy__(self, memo: Any) -> Witness:
        return self

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen.append((epoch, {k: repr(float(v)) for k, v in logs.items()}))

    def on_train_end(self, logs: Any = None) -> None:
        self.seen.append([keras.ops.convert_to_numpy(v).tobytes() for v in self.model.variables])
        self.seen.append([keras.ops.convert_to_numpy(v).tobytes() for v in self.model.optimizer.variables])


@dataclass
class Outcome:
    """What became of a case."""

    tuner: kt.Tuner
    warned: list[str]  # by AutoLR
    seen: list[Any]
    warned_by_others: list[str] = field(default_factory=list)

    @property
    def trials(self) -> list[Any]:
        return [self.tuner.oracle.trials[trial_id] for trial_id in self.tuner.oracle.start_order]


def search(setup: Setup, directory: Any, **overrides: Any) -> Outcome:
    """Run a search from the same random state each time."""
    keras.utils.set_random_seed(7)
    witness = Witness()
    options = {"objective": kt.Objective("loss", "min"), "max_trials": 1, "seed": 1, **setup.options, **overrides}
    if options.pop("hyperparameters", True) is True:
        options["hyperparameters"] = setup.space()
    tuner = setup.tuner(setup.hypermodel, directory=str(directory), project_name="search", **options)
    fit = {"epochs": 2, "verbose": 0, **setup.fit}
    positional = setup.positional
    if positional is None:
        positional, fit = data(), {"batch_size": BATCH, **fit}
    fit["callbacks"] = [*fit.get("callbacks", []), witness]
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(io.StringIO()), setup.around():
        warnings.simplefilter("always")
        tuner.search(*positional, **fit)
    own = [str(w.message) for w in caught if issubclass(w.category, autolr.AutoLRWarning)]
    others = [str(w.message) for w in caught if not issubclass(w.category, autolr.AutoLRWarning)]
    return Outcome(tuner, own, witness.seen, others)


def run(case: Case, directory: Path) -> tuple[str, str]:
    """Run a case with its range test and, where that can be compared, without: what happens, and whether it differs."""
    if case.cpus > 1 and not os.environ.get("AUTOLR_ALONE"):
        return run_alone(case)
    found = []

    def range_test(*args: Any, finder: autolr.LRFinder, **kwargs: Any) -> autolr.RangeTest:
        curve = run_range_test(*args, finder=finder, **kwargs)
        found.append((curve, finder.batches_in_epoch))
        return curve

    def remembered(*args: Any, finder: autolr.LRFinder, **kwargs: Any) -> autolr.RangeTest:
        curve, finder.batches_in_epoch = found.pop(0)
        return curve

    with mock.patch.object(trial_bounds, "run_range_test", range_test):
        outcome = search(case.setup(), directory / "with")
    exact = "-"
    if not case.exact:
        exact = "cannot be"
    elif found:
        with mock.patch.object(trial_bounds, "run_range_test", remembered):
            without = search(case.setup(), directory / "without")
        exact = "yes" if outcome.seen == without.seen else "NO"
    return judge(case, outcome), exact


def run_alone(case: Case) -> tuple[str, str]:
    """In a process of its own, since TensorFlow's devices can be chosen only once."""
    environment = {**os.environ, "AUTOLR_ALONE": str(case.cpus)}
    command = [sys.executable, str(HERE / "compatibility.py"), "--only", case.name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    result, exact = json.loads(done.stdout.splitlines()[-1])
    return result, exact


def judge(case: Case, outcome: Outcome) -> str:
    """In the table's words."""
    broken = [trial for trial in outcome.trials if trial.status != "COMPLETED"]
    if broken or not outcome.trials:
        return f"fails: {(broken[0].message or '').strip().splitlines()[-1] if broken else 'no trial'}"
    warned = [text for text in outcome.warned if case.failing or not re.match(r"Trial \S+: ", text)]
    assisted = all("autolr/min_lr" in trial.hyperparameters.values for trial in outcome.trials)
    said = ": “" + re.sub("([Tt]rial) [0-9]+", r"\1 N", warned[0]) + "”" if warned else ""
    if not assisted:
        return f"trains without AutoLR{said}"
    return f"works, with a warning{said}" if warned else "works"


def write_table(rows: list[tuple[Case, str, str]]) -> None:
    """Write `docs/compatibility.md`."""
    from compatibility_cases import FOOT, HEAD

    lines = [HEAD]
    for area in dict.fromkeys(case.area for case, _, _ in rows):
        lines.append(f"\n## {area}\n\n| case | what happens | bit for bit |\n|---|---|---|")
        lines += [row(case, result, exact) for case, result, exact in rows if case.area == area]
    TABLE.write_text("\n".join(lines) + "\n" + FOOT, encoding="utf-8")


def row(case: Case, result: str, exact: str) -> str:
    """A line of the table."""
    note = f" ({case.why})" if case.why else ""
    return f"| {case.name} | {result}{note} | {exact} |"


def main() -> None:
    """Run every case and write the table; with `--only NAME`, run one and print what happened."""
    from compatibility_cases import CASES

    rows = []
    for case in CASES:
        if sys.argv[1:] in ([], ["--only", case.name]):
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)  # for what the user's callbacks write
                rows.append((case, *run(case, Path(folder))))
            print(row(*rows[-1]), flush=True)
    if len(sys.argv) == 1:
        write_table(rows)
    else:
        print(json.dumps(rows[-1][1:]))


if __name__ == "__main__":
    if cpus := int(os.environ.get("AUTOLR_ALONE", "0")):
        import tensorflow as tf

        device = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [device] * cpus)
    sys.modules["compatibility"] = sys.modules["__main__"]  # the cases import this file by its name
    main()
