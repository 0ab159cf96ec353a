"""Snapshot ensembles: the weights a training had at the ends of its cycles, joined in one model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from autolr.averaging import averaged_variables, give_means
from autolr.batchnorm import all_layers, gather_statistics, normalizers_of
from autolr.compiled import compiled_like
from autolr.cycle_ends import snapshot_paths
from autolr.data import is_array_data, is_endless, num_samples, without_samples
from autolr.errors import check_count, check_optional_count, invalid
from autolr.kept import attributes_kept
from autolr.model_copy import copy_with_weights, inputs_like

Snapshots = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def snapshot_ensemble(model: keras.Model, snapshots: Snapshots, *, last: int | None = None) -> keras.Model:
    """One model that averages the predictions of a model's snapshots.

    Each cycle ends in another minimum, and their errors differ: the average of their predictions is often better than
    the best of them, for the price of one training; predicting costs as many times more as there are snapshots.

    Args:
        model: The model that was trained, or one built alike. It is not changed. Sequential, functional, or of a class
            whose `get_config` is enough to make it again and that has been called.
        snapshots: The folder given to `SGDRScheduler(snapshot_folder=...)`, or paths of weights as
            `model.save_weights` writes them.
        last: Use the last so many only. Defaults to all.

    Returns:
        A plain functional Keras model, not trainable. If `model` is compiled, so is this one, for `evaluate`: with its
        loss, loss weights, metrics and weighted metrics; optimizer and other settings are left aside. Metrics that
        Keras cannot make again from their configs, as functions that are not registered, are left out with a warning.
        Save it with `save("ensemble.keras")`. Its loss has no penalties of weights' regularizers, and those of
        activities and `add_loss` once for each member: compare metrics.

    Raises:
        ValueError: If there are no snapshots, `last` is less than 1, or `model` is no Keras model, has not been built,
            or cannot be made again from its config.

    Example:
    ```python
    schedule = autolr.SGDRScheduler(0.01, 0.5, cycle_length=4, mult_factor=1, snapshot_folder="cycles")
    model.fit(x, y, epochs=20, callbacks=[schedule])
    autolr.snapshot_ensemble(model, "cycles").predict(x)
    ```

    Reference:
        Huang et al., 2017, [Snapshot Ensembles: Train 1, get M for free](https://arxiv.org/abs/1704.00109).
    """
    _check_model(model)
    members = [copy_with_weights(model, path) for path in _resolve(snapshots, last)]
    return compiled_like(model, average(members, name=f"{model.name}_ensemble"))


def average(members: Sequence[keras.Model], *, name: str) -> keras.Model:
    """One model, not to be trained, that averages the predictions of models with like inputs and outputs.

    Args:
        members: The models; each is given a name of its own.
        name: Of the whole.
    """
    for number, member in enumerate(members, start=1):
        member.name = f"{member.name}_{number}"  # a model's layers must have names of their own
    inputs, first = inputs_like(members[0]), members[0]
    each = [member(inputs) for member in members]
    names = getattr(first, "output_names", None) or [None] * len(keras.tree.flatten(each[0]))
    # Two outputs of one layer have one name, and an input that is passed on has its own: no two layers can have one.
    taken = [it.name for it in keras.tree.flatten(inputs)] + names
    names = [name if taken.count(name) == 1 else None for name in names]
    together = zip(*map(keras.tree.flatten, each), strict=True)
    means = [
        keras.layers.Average(name=name, dtype=_precision(outputs[0].dtype))(list(outputs))
        for name, outputs in zip(names, together, strict=True)
    ]
    ensemble = keras.Model(inputs, keras.tree.pack_sequence_as(each[0], means), name=name)
    with attributes_kept(all_layers(ensemble), "trainable"):  # one may be the user's, and in the next model it builds
        ensemble.trainable = False
    return ensemble


def _precision(dtype: str) -> str:
    """To average predictions in: theirs, whatever the global policy, but no half, which rounds, and ends at 65,504."""
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def without_compiled_parts(model: keras.Model) -> keras.Model:
    """The model; those within it are not compiled any more.

    Keras saves what a part is compiled with, and `load_model(compile=False)` makes it again all the same: it would fail
    at the user's functions, which nobody needs to predict.
    """
    for part in all_layers(model):
        if getattr(part, "compiled", False):
            part.compiled = False
    return model


def averaged_weights(
    model: keras.Model, snapshots: Snapshots, x: Any = None, *, batch_size: int = 128, last: int | None = None
) -> keras.Model:
    """One model with the average of a model's snapshots as its weights, which predicts at the price of one.

    That helps where the snapshots lie in one basin, as those of the last short cycles of a training often do; across a
    barrier the average is worse than either. The moving statistics of BatchNormalization, at whatever depth, belong to
    the weights they were gathered with, so they are gathered anew, in one pass over `x`. Other weights that are not
    trained, as counts, are the last snapshot's.

    Args:
        model: The model that was trained, or one built alike, as for `snapshot_ensemble`. It is not changed.
        snapshots: A folder or paths, likewise.
        x: Training data to gather the statistics of BatchNormalization on: arrays or tensors, a `PyDataset` or a
            `tf.data.Dataset` of finite size; targets are left aside. Not needed without such layers.
        batch_size: Samples in a batch of arrays. Defaults to 128; best that of training.
        last: Use the last so many only. Defaults to all.

    Returns:
        A model like `model`, compiled if that is compiled, with the same settings as by `snapshot_ensemble`. If its
        class has a `compile` of its own that fails with these alone, it is not compiled, and a warning says so.

    Raises:
        ValueError: As by `snapshot_ensemble`, or if `batch_size` is no whole number of 1 or more, or `x` is needed and
            not given, empty, or, as far as its cardinality tells, without end, or the model has quantized layers with
            LoRA.

    Example:
    ```python
    averaged = autolr.averaged_weights(model, "cycles", x_train, last=3)
    averaged.evaluate(x_test, y_test)
    ```

    Reference:
        Izmailov et al., 2018, [Averaging Weights Leads to Wider Optima and Better
        Generalization](https://arxiv.org/abs/1803.05407).
    """
    _check_model(model)
    batch_size = check_count("batch_size", batch_size, hint="Best that of training.")
    paths = _resolve(snapshots, last)
    averaged = copy_with_weights(model, paths[-1])
    normalizers = normalizers_of(averaged)
    if normalizers and x is None:
        raise invalid("x", "be data to gather the statistics of BatchNormalization on", x, "Pass the training data.")
    if normalizers and is_endless(x):
        raise invalid("x", "end, since all of it is read once", x, "Leave out `repeat()`, or `take` some batches.")
    layers = [averaged, *all_layers(averaged)]  # outer ones first: theirs is handed on to those within
    with attributes_kept(layers, "trainable"):
        for layer in layers:  # whatever was trained counts, also where it has been frozen since
            layer.trainable = True
        variables = [*averaged_variables(averaged), *_adapted_kernels(averaged)]
        sums = [np.zeros(variable.shape) for variable in variables]
        for path in paths:
            averaged.load_weights(path)
            sums = [sum_ + keras.ops.convert_to_numpy(it) for sum_, it in zip(sums, variables, strict=True)]
        means = [total / len(paths) for total in sums]
        give_means(list(zip(variables, means, strict=True)))
    if normalizers and not gather_statistics(averaged, _batches(x, batch_size)):
        raise without_samples(x)
    return compiled_like(model, averaged)


def _adapted_kernels(model: keras.Model) -> list[Any]:
    """What layers with LoRA do not train, but merge their adapters into when they are saved."""
    adapted = [layer for layer in all_layers(model) if getattr(layer, "lora_enabled", False)]
    quantized = [layer.name for layer in adapted if getattr(layer, "quantization_mode", None)]
    if quantized:
        constraint = "have no quantized layers with LoRA, which are saved in whole numbers of which there is no mean"
        raise invalid("model", constraint, quantized, "`snapshot_ensemble` averages their predictions.")
    return [it for layer in adapted for it in layer.non_trainable_variables if keras.backend.is_float_dtype(it.dtype)]


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise invalid("model", "be the Keras model that was trained", model, "It comes first, then its snapshots.")


def check_last(last: int | None) -> None:
    """Raise `ValueError` unless so many of the last snapshots can be used."""
    check_optional_count("last", last, hint="None takes all.")


def _resolve(snapshots: Snapshots, last: int | None) -> list[Path]:
    check_last(last)
    if isinstance(snapshots, (str, os.PathLike)):
        paths = snapshot_paths(snapshots) if Path(snapshots).is_dir() else []
    else:
        try:
            paths = [Path(path) for path in snapshots or ()]
        except TypeError:
            paths = []
    if not paths:
        hint = "They are written by `SGDRScheduler(snapshot_folder=...)` at the end of each cycle."
        raise invalid("snapshots", "be a folder with snapshots, or paths of them", snapshots, hint)
    return paths[-last:] if last else paths


def _batches(x: Any, batch_size: int) -> Iterator[Any]:
    if is_array_data(x):
        for start in range(0, num_samples(x), batch_size):
            end = start + batch_size
            yield keras.tree.map_structure(
                lambda array, start=start, end=end: None if array is None else array[start:end], x
            )
    else:
        for batch in x if not isinstance(x, keras.utils.PyDataset) else (x[index] for index in range(x.num_batches)):
            yield batch[0] if isinstance(batch, (tuple, list)) else batch  # Keras takes a list for a tuple, too
