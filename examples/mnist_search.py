#!/usr/bin/env python3
"""Search CNN variants on MNIST with autolr: the build function says nothing about learning rates.

    python examples/mnist_search.py                                   # a bundled sample, no network, a few minutes
    python examples/mnist_search.py --data PATH/TO/mnist.npz --trials 6 --epochs 8
    python examples/mnist_search.py --tuner hyperband --data keras
    python examples/mnist_search.py --resume --out runs/mnist-1       # go on with an interrupted search

It prints a table of the trials and the test errors of the winner and of the best trials together, and leaves pictures
in the output folder: a range test for each trial, and the winner's range test, schedule and training.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

import autolr

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow loads: no start-up chatter

SAMPLE = Path(__file__).parent / "data" / "mnist_sample.npz"
KEYS = ("x_train", "y_train", "x_test", "y_test")
TUNERS = ("random", "bayesian", "hyperband", "grid")
SETTINGS_FILE = "settings.json"
VALIDATION_SHARE = 0.1
IN_ENSEMBLE = 3


class UsageError(Exception):
    """Something the user can mend; shown as one line."""


def main(argv: list[str] | None = None) -> int:
    """Run the search; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    options = parse(argv)
    out = None
    try:
        data = load_data(options.data)
        out = prepare_folder(options)
        search(data, out, options)
    except UsageError as error:
        print(f"mnist_search: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = f". To go on: {command_to_resume(argv, options, out)}" if out else ""
        print(f"\nInterrupted{hint}", file=sys.stderr)
        return 130
    return 0


def command_to_resume(argv: list[str], options: argparse.Namespace, out: Path) -> str:
    """The command that was given, with what it takes to go on."""
    more = [*([] if options.out else ["--out", str(out)]), *([] if options.resume else ["--resume"])]
    return shlex.join([sys.executable, sys.argv[0], *argv, *more])


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data",
        default="sample",
        help="'sample' (bundled), 'keras' (downloads MNIST), or a .npz file with x_train, y_train, x_test and y_test: "
        "8-bit pixels, and whole numbers for the classes (default: sample)",
    )
    parser.add_argument("--tuner", choices=TUNERS, default="random", help="(default: random)")
    parser.add_argument(
        "--trials", type=positive, default=5, help="architectures to try; not for hyperband (default: 5)"
    )
    parser.add_argument("--epochs", type=positive, default=8, help="epochs of a trial (default: 8)")
    parser.add_argument("--executions", type=positive, default=1, help="trainings per trial (default: 1)")
    parser.add_argument("--batch-size", type=positive, default=64, help="(default: 64)")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    parser.add_argument("--out", type=Path, help="output folder (default: the next free runs/mnist-N)")
    parser.add_argument("--resume", action="store_true", help="go on with the search in --out")
    return parser.parse_args(argv)


def positive(text: str) -> int:
    """A whole number of 1 or more, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {number}")
    return number


# --- data ------------------------------------------------------------------------------------------------------------


def load_data(source: str) -> dict[str, np.ndarray]:
    """The four arrays: images as floats in 0..1 with a channel axis, labels as integers.

    Raises:
        UsageError: If they cannot be had from there.
    """
    if source == "keras":
        import keras

        try:
            (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
        except Exception as error:  # whatever the download raises
            raise UsageError(f"keras.datasets.mnist could not be loaded ({error}); try --data sample") from None
        arrays = dict(zip(KEYS, (x_train, y_train, x_test, y_test), strict=True))
    else:
        arrays = read_npz(SAMPLE if source == "sample" else Path(source))
    for part in ("train", "test"):
        check_images(arrays[f"x_{part}"], arrays[f"y_{part}"], part)
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        raise UsageError(
            f"x_train and x_test must have images of one shape, not {arrays['x_train'].shape[1:]} "
            f"and {arrays['x_test'].shape[1:]}"
        )
    for name in ("x_train", "x_test"):
        images = arrays[name].astype("float32") / 255.0
        arrays[name] = images[..., None] if images.ndim == 3 else images
    return arrays


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The four arrays of an npz file."""
    if not path.is_file():
        raise UsageError(f"no such file: {path}")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in KEYS if key not in file]
            if missing:
                raise UsageError(f"{path} has no {', '.join(missing)}; it must hold {', '.join(KEYS)}")
            return {key: file[key] for key in KEYS}
    except UsageError:
        raise
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is not a readable npz file ({type(error).__name__})") from None


def check_images(images: np.ndarray, labels: np.ndarray, part: str) -> None:
    """Raise `UsageError` unless these are images of bytes with a label each."""
    if images.ndim not in (3, 4) or images.dtype != np.uint8 or min(images.shape[1:3], default=0) < 12:
        raise UsageError(
            f"x_{part} must be uint8 images (n, height, width[, channels]) of 12 x 12 or more, "
            f"not {images.dtype} of shape {images.shape}"
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer) or not len(labels):
        raise UsageError(
            f"y_{part} must be {len(images)} integers, one for each image, not {labels.dtype} of shape {labels.shape}"
        )


def prepare_folder(options: argparse.Namespace) -> Path:
    """The output folder, made if need be; refuses one that holds anything but this very search.

    Raises:
        UsageError: If going on there would mix or overwrite.
    """
    settings = {name: getattr(options, name) for name in ("data", "tuner", "trials", "epochs", "executions", "seed")}
    settings["batch_size"] = options.batch_size
    if options.resume:
        if options.out is None:
            raise UsageError("--resume needs --out, the folder of the search to go on with")
        try:
            earlier = json.loads((options.out / SETTINGS_FILE).read_text(encoding="utf-8"))
            changed = [f"--{k.replace('_', '-')} {earlier[k]}" for k in settings if earlier[k] != settings[k]]
        except FileNotFoundError:
            raise UsageError(f"{options.out} holds no search to resume") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UsageError(
                f"{options.out / SETTINGS_FILE} cannot be read; it was not written by this script"
            ) from None
        if changed:
            raise UsageError(f"{options.out} holds another search; it was started with {' '.join(changed)}")
        return options.out
    out = options.out or next(p for n in range(1, sys.maxsize) if not (p := Path("runs", f"mnist-{n}")).exists())
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not empty; choose another --out, or add --resume to go on with the search in it")
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / SETTINGS_FILE).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write to {out} ({error.strerror})") from None
    return out


# --- the search ------------------------------------------------------------------------------------------------------


def build_model(hp: Any, image_shape: tuple[int, ...], num_classes: int) -> Any:
    """A CNN variant. There is no learning rate here, whatever the optimizer."""
    import keras
    from keras import layers

    model = keras.Sequential([keras.Input(image_shape)])
    filters, kernel = hp.Choice("filters", [16, 32]), hp.Choice("kernel", [3, 5])
    batch_norm, dropout = hp.Boolean("batch_norm"), hp.Float("dropout", 0.1, 0.5, step=0.1)
    for block in range(hp.Int("blocks", 2, 3)):
        model.add(layers.Conv2D(filters * 2**block, kernel, padding="same", kernel_initializer="he_uniform"))
        if batch_norm:
            model.add(layers.BatchNormalization())
        model.add(layers.ReLU())
        model.add(layers.MaxPooling2D(2))
    model.add(layers.Flatten())
    model.add(layers.Dropout(dropout / 2))
    model.add(layers.Dense(hp.Choice("dense", [64, 128]), activation="relu", kernel_initializer="he_uniform"))
    model.add(layers.Dropout(dropout))
    model.add(layers.Dense(num_classes, activation="softmax"))
    optimizers = {
        "adadelta": keras.optimizers.Adadelta,
        "sgd": lambda: keras.optimizers.SGD(momentum=0.9),
        "adam": keras.optimizers.Adam,
        "rmsprop": keras.optimizers.RMSprop,
    }
    optimizer = optimizers[hp.Choice("optimizer", list(optimizers))]()
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def make_tuner(data: dict[str, np.ndarray], out: Path, options: argparse.Namespace) -> Any:
    """The tuner asked for."""
    shape, classes = data["x_train"].shape[1:], int(data["y_train"].max()) + 1
    kind = {
        "random": autolr.RandomSearch,
        "bayesian": autolr.BayesianOptimization,
        "hyperband": autolr.Hyperband,
        "grid": autolr.GridSearch,
    }[options.tuner]
    size = {"max_epochs": options.epochs} if options.tuner == "hyperband" else {"max_trials": options.trials}
    return kind(
        lambda hp: build_model(hp, shape, classes),
        objective="val_accuracy",
        executions_per_trial=options.executions,
        seed=options.seed,  # 0 is none to Keras Tuner, which then draws one from Python's generator, seeded as well
        directory=str(out),
        project_name="search",
        **size,
    )


def search(data: dict[str, np.ndarray], out: Path, options: argparse.Namespace) -> None:
    """Search, show what was found, train the winner once more, and test it."""
    import keras

    began = time.monotonic()
    keras.utils.set_random_seed(options.seed)
    print(f"{len(data['x_train'])} training and {len(data['x_test'])} test images; results in {out}\n", flush=True)
    tuner = make_tuner(data, out, options)
    tuner.search(
        data["x_train"],
        data["y_train"],
        validation_split=VALIDATION_SHARE,
        epochs=options.epochs,
        batch_size=options.batch_size,
        verbose=2,
    )
    trials = tuner.oracle.get_best_trials(len(tuner.oracle.trials))
    done = [trial for trial in trials if trial.status == "COMPLETED"]
    if not done:
        raise UsageError(f"no trial of the search in {out} completed; see the messages above")
    print_table(trials, out)
    for trial in done:
        draw_range_test(trial, out)

    print(f"\nTraining the winner (trial {done[0].trial_id}) once more, on all training images")
    hp = tuner.get_best_hyperparameters()[0]
    model = tuner.hypermodel.build(hp)
    schedule = autolr.SGDRScheduler.from_hyperparameters(hp)
    history = model.fit(
        data["x_train"],
        data["y_train"],
        epochs=options.epochs,
        batch_size=options.batch_size,
        callbacks=[schedule],
        verbose=2,
    ).history
    model.save(out / "winner.keras")
    draw_winner(done[0], schedule, history, out)
    _, accuracy = model.evaluate(data["x_test"], data["y_test"], verbose=0)
    print(f"\nTest error of the winner, so trained: {100 * (1 - accuracy):.2f} %")
    if len(done) > 1:
        several = min(IN_ENSEMBLE, len(done))
        ensemble = tuner.get_best_ensemble(num_trials=several)
        ensemble.save(out / "ensemble.keras")
        _, accuracy = ensemble.evaluate(data["x_test"], data["y_test"], verbose=0)
        print(
            f"Test error of the best {several} trials' ensemble, as the search left them: {100 * (1 - accuracy):.2f} %"
        )
    print(
        f"Took {time.monotonic() - began:.0f} s. Pictures, the winner and the whole search are in {out}; a page of it:"
    )
    print(f"  {os.path.relpath(sys.executable)} -m autolr report {out / 'search'}")


def print_table(trials: list[Any], out: Path) -> None:
    """The trials from best to worst."""
    print("\ntrial  val. error  optimizer  blocks  filters  kernel  norm  dropout  dense  ", end="")
    print("learning rates        cycles  bounds")
    for trial in trials:
        hp = trial.hyperparameters.values
        error = "-" if trial.score is None else f"{100 * (1 - trial.score):.2f} %"
        found = f"{hp['autolr/min_lr']:.1e} to {hp['autolr/max_lr']:.1e}" if "autolr/min_lr" in hp else "-"
        record = read_record(trial.trial_id, out)
        cycles = str(len(record["schedule"]["edges"]) - 1) if record else "-"
        status = f"{record['bounds']['status']} ({record['bounds']['confidence']})" if record else trial.status
        print(
            f"{trial.trial_id:>5}  {error:>10}  {hp['optimizer']:9}  {hp['blocks']:6}  {hp['filters']:7}  "
            f"{hp['kernel']:6}  {'yes' if hp['batch_norm'] else 'no':4}  {hp['dropout']:7.1f}  {hp['dense']:5}  "
            f"{found:20}  {cycles:>6}  {status}"
        )


# --- pictures --------------------------------------------------------------------------------------------------------


def read_record(trial_id: str, out: Path) -> dict[str, Any] | None:
    """What a trial recorded, a plain JSON file in its folder."""
    path = out / "search" / f"trial_{trial_id}" / "autolr.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def tested_record(trial_id: str, out: Path) -> dict[str, Any] | None:
    """The record with the trial's range test; a later rung of Hyperband has that of the trial it goes on from."""
    record = read_record(trial_id, out)
    while record and record["range_test"] is None and (parent := record["values"].get("tuner/trial_id")):
        record = read_record(parent, out)
    return record


def draw_range_test(trial: Any, out: Path) -> None:
    """`range_test_TRIAL.png`: the trial's curve and bounds."""
    record = read_record(trial.trial_id, out)
    if record is None or record["range_test"] is None:
        return  # a later rung of Hyperband took its parent's bounds
    pyplot = headless_pyplot()
    curve, bounds = autolr.RangeTest.from_dict(record["range_test"]), autolr.LRBounds.from_dict(record["bounds"])
    axes = autolr.plot_range_test(curve, bounds=bounds)
    axes.figure.suptitle(f"Trial {trial.trial_id}: {trial.hyperparameters.values['optimizer']}", fontsize=11)
    axes.figure.savefig(out / f"range_test_{trial.trial_id}.png", dpi=130)
    pyplot.close(axes.figure)


def draw_winner(trial: Any, schedule: Any, history: dict[str, list[float]], out: Path) -> None:
    """`winner.png`: the winner's range test, the schedule it trained on, and its loss."""
    pyplot = headless_pyplot()
    record = tested_record(trial.trial_id, out)
    figure, (test_axes, rate_axes, loss_axes) = pyplot.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    if record and record["range_test"]:
        curve, bounds = autolr.RangeTest.from_dict(record["range_test"]), autolr.LRBounds.from_dict(record["bounds"])
        autolr.plot_range_test(curve, bounds=bounds, ax=test_axes)
    test_axes.set_title("1. Range test: where the model learns")
    steps_per_epoch = len(schedule.history["lr"]) / len(history["loss"])
    epochs = (np.array(schedule.history["step"]) + 1) / steps_per_epoch
    rate_axes.plot(epochs, schedule.history["lr"], color="#D55E00")
    rate_axes.set(xlabel="epoch", ylabel="learning rate", ylim=(0, None))
    rate_axes.set_title("2. SGDR between the bounds found")
    ends = np.arange(1, len(history["loss"]) + 1)
    loss_axes.plot(ends, history["loss"], "o-", color="#0072B2", label="training loss")
    loss_axes.plot(ends, 1 - np.array(history["accuracy"]), "s--", color="#009E73", label="training error")
    loss_axes.set(xlabel="epoch", ylabel="loss, share of errors (log scale)", yscale="log")
    loss_axes.set_title("3. Training")
    loss_axes.legend(frameon=False)
    for axes in (rate_axes, loss_axes):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out / "winner.png", dpi=130)
    pyplot.close(figure)


def headless_pyplot() -> Any:
    """Matplotlib's pyplot, drawing to files: this script must work where there is no screen."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


if __name__ == "__main__":
    sys.exit(main())
