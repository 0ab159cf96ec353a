#!/usr/bin/env python3
"""Draw the pictures of the documents into `docs/img`, with the package itself.

python docs/gallery.py
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot

import autolr
from autolr.bursts import Burst
from autolr.plots import draw_schedule
from autolr.sgdr import Schedule
from autolr.trial_values import WARMUP

IMAGES = Path(__file__).parent / "img"
RATES = np.geomspace(1e-6, 10, 120)


def status_tests() -> dict[str, autolr.RangeTest]:
    """A synthetic range test for each status, by the status it should get."""
    rng = np.random.default_rng(4)
    decades, noise = np.log10(RATES), rng.normal(0, 0.05, len(RATES))
    fall = 2.3 - 1.6 / (1 + np.exp(-3 * (decades + 2.7)))
    rise = np.exp(4 * (decades + 0.6))
    short = slice(0, len(RATES), 20)
    curves = {
        "ok": (RATES, fall + rise + noise),
        "never_diverged": (RATES[:85], (fall + noise)[:85]),
        "never_fell": (RATES, 2.3 + rise + noise),
        "diverged_at_once": (RATES, 2.3 + np.exp(4 * (decades + 5.6)).clip(max=1e3) + noise),
        "too_noisy": (RATES, 2.3 + 6 * noise),
        "flat": (RATES, np.full(len(RATES), 2.3)),
        "non_finite": (RATES, np.where(RATES < 2e-6, 2.3, np.nan)),
        "too_few_points": (RATES[short], (fall + noise)[short]),
    }
    tests = {status: autolr.RangeTest(lrs=lrs, losses=losses) for status, (lrs, losses) in curves.items()}
    bursts = [(2e-2, 0.1), (6e-3, -0.01), (6e-2, 0.7), (2e-3, -0.005)]
    tests["small_fall"] = replace(tests["never_fell"], bursts=tuple(Burst(lr, change, 24) for lr, change in bursts))
    return tests


def draw_statuses() -> None:
    """`statuses.png`: what each verdict looks like."""
    figure, grid = pyplot.subplots(3, 3, figsize=(15, 11), layout="constrained")
    for (expected, test), axes in zip(status_tests().items(), grid.flat, strict=True):
        bounds = test.bounds()
        if bounds.status != expected:
            raise SystemExit(f"the curve for {expected!r} is judged {bounds.status!r}")
        autolr.plot_range_test(test, ax=axes)
        axes.set_title(f"{bounds.status} ({bounds.confidence} confidence)", fontsize=11)
    figure.savefig(IMAGES / "statuses.png", dpi=90)


def draw_curve() -> None:
    """`curve.png`: the parts of a range test's curve, on a synthetic one."""
    axes = autolr.plot_range_test(status_tests()["ok"])
    axes.figure.set_size_inches(9, 4.6)
    for rate, loss, text in (
        (2e-5, 2.62, "1. level: too low to\nchange anything"),
        (1.2e-4, 1.75, "2. fall: the\nmodel learns"),
        (0.6, 2.2, "3. rise: it is\nthrown about"),
    ):
        axes.text(rate, loss, text, fontsize=10, va="center", ha="center" if rate < 1e-4 else "left")
    axes.set_ylim(top=2.9)
    axes.set_title("")
    axes.figure.savefig(IMAGES / "curve.png", dpi=90)


def draw_cycles() -> None:
    """`cycles.png`: three cycles of a schedule, with what decides their shape."""
    length, factor, decay, low, high, per_epoch = 3, 1.5, 0.8, 0.1, 1.0, 100
    schedule = Schedule(min_lr=low, max_lr=high, cycle_length=length, mult_factor=factor, lr_decay=decay)
    edges = schedule.edges(1599, per_epoch)
    figure, axes = pyplot.subplots(figsize=(9, 3.8), layout="constrained")
    draw_schedule(schedule, edges, steps_per_epoch=per_epoch, ax=axes)
    times = "\N{MULTIPLICATION SIGN}"
    names = ("cycle_length", f"ceil(3 {times} mult_factor)", f"ceil(5 {times} mult_factor)")
    peaks = ("max_lr", f"max_lr {times} lr_decay", f"max_lr {times} lr_decay²")
    for number, (begin, end) in enumerate(itertools.pairwise(edges / per_epoch)):
        axes.annotate("", (begin, 1.12), (end, 1.12), arrowprops={"arrowstyle": "<->", "color": "#555555"})
        axes.text((begin + end) / 2, 1.15, f"{names[number]} = {end - begin:.0f}", ha="center", fontsize=9)
        peak = high * decay**number
        axes.text(begin + 0.3, peak + 0.02, peaks[number], fontsize=9)
    axes.axhline(low, color="#8A8A8A", linewidth=0.8, linestyle=":")
    axes.text(0.05, low + 0.02, "min_lr", fontsize=9)
    axes.set(xlim=(0, 16.2), ylim=(0, 1.25))
    axes.set_xticks(edges / per_epoch)
    axes.get_legend().remove()
    figure.savefig(IMAGES / "cycles.png", dpi=90)


def draw_range_test() -> None:
    """`range_test.png`: a real range test, on the digits of scikit-learn."""
    import keras
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    axes = autolr.plot_range_test(autolr.range_test(model, x / 16, y, batch_size=32))
    axes.figure.set_size_inches(9, 5)
    axes.figure.savefig(IMAGES / "range_test.png", dpi=90)


def draw_schedules() -> None:
    """`schedules.png`: the method's cycles, and the same fitted to a budget of 12 epochs."""
    figure, (plain, fitted) = pyplot.subplots(1, 2, figsize=(11, 3.6), layout="constrained", sharey=True)
    method = Schedule(min_lr=0.05, max_lr=1.0, cycle_length=3, mult_factor=1.5, lr_decay=0.9)
    in_a_tuner = replace(method, fit_budget=True, warmup=WARMUP)
    for schedule, axes in ((method, plain), (in_a_tuner, fitted)):
        draw_schedule(schedule, schedule.edges(1200, 100), steps_per_epoch=100, total_steps=1200, ax=axes)
    plain.set_title("SGDRScheduler: 3, 5, 8 ... epochs, cut off")
    fitted.set_title("in a tuner: warm-up, whole cycles, stretched")
    figure.savefig(IMAGES / "schedules.png", dpi=90)


def draw_keras_restarts() -> None:
    """`keras_restarts.png`: our cycles and those of Keras's `CosineDecayRestarts`, from the same arguments."""
    import keras

    per_epoch, epochs, decay = 40, 17, 0.6
    bounds = {"min_lr": 0.2, "max_lr": 1.0}
    steps = np.arange(epochs * per_epoch)
    ours = autolr.sgdr_lr(steps, **bounds, cycle_length=3, mult_factor=1.5, lr_decay=decay, steps_per_epoch=per_epoch)
    restarts = keras.optimizers.schedules.CosineDecayRestarts(
        bounds["max_lr"], 3 * per_epoch, t_mul=1.5, m_mul=decay, alpha=bounds["min_lr"] / bounds["max_lr"]
    )
    theirs = [float(keras.ops.convert_to_numpy(restarts(int(step)))) for step in steps]
    figure, axes = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
    axes.plot(steps / per_epoch, ours, color="#0072B2", linewidth=2, label="autolr: cycles of 3, 5, 8 ... whole epochs")
    axes.plot(steps / per_epoch, theirs, color="#D55E00", linestyle="--", label="CosineDecayRestarts: 3, 4.5, 6.75 ...")
    axes.set(xlabel="epoch", ylabel="learning rate", xlim=(0, epochs), ylim=(0, 1.05))
    axes.set_xticks(range(epochs + 1))
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(IMAGES / "keras_restarts.png", dpi=90)


def draw_shapes() -> None:
    """`shapes.png`: the four shapes, each with two epochs of warm-up."""
    figure, grid = pyplot.subplots(2, 2, figsize=(11, 5), layout="constrained", sharex=True, sharey=True)
    steps = np.arange(22 * 50)
    for shape, axes in zip(("cosine", "triangular", "triangular2", "one_cycle"), grid.flat, strict=True):
        length, factor = (20, 1) if shape == "one_cycle" else (4, 1.5)
        rates = autolr.sgdr_lr(
            steps,
            min_lr=0.1,
            max_lr=1.0,
            cycle_length=length,
            mult_factor=factor,
            lr_decay=0.9,
            steps_per_epoch=50,
            shape=shape,
            warmup=2,
        )
        axes.plot(steps / 50, rates, color="#0072B2", linewidth=2)
        axes.set_title(f'shape="{shape}", warmup=2', fontsize=11)
        axes.set(xlim=(0, 22), ylim=(0, 1.05))
    figure.supxlabel("epoch")
    figure.supylabel("learning rate")
    figure.savefig(IMAGES / "shapes.png", dpi=90)


def main() -> None:
    """Draw them all."""
    IMAGES.mkdir(exist_ok=True)
    draw_statuses()
    draw_curve()
    draw_cycles()
    draw_range_test()
    draw_schedules()
    draw_keras_restarts()
    draw_shapes()
    print(f"{len(list(IMAGES.glob('*.png')))} pictures in {IMAGES.relative_to(Path(__file__).parent.parent)}")


if __name__ == "__main__":
    main()
