"""Keras Tuner's tuners with the learning rate taken care of."""

from __future__ import annotations

from typing import TypeVar, cast

import keras_tuner as kt

from autolr.mixin import AutoLRMixin

TunerClass = TypeVar("TunerClass", bound=type)


def with_auto_lr(tuner_class: TunerClass) -> TunerClass:
    """A tuner class like this one, with AutoLR.

    Args:
        tuner_class: A Keras Tuner tuner class, or any subclass of one.

    Returns:
        A subclass of the same name, with `AutoLRMixin` in front.

    Raises:
        TypeError: If it is no tuner class.

    Example:
    ```python
    tuner = autolr.with_auto_lr(kt.Tuner)(oracle=my_oracle, hypermodel=build_model)
    ```
    """
    if not (isinstance(tuner_class, type) and issubclass(tuner_class, kt.Tuner)):
        raise TypeError(
            "Argument `tuner_class` must be a subclass of `keras_tuner.Tuner`. "
            f"Received: tuner_class={tuner_class!r}. Pass the class, not an instance of it."
        )
    if issubclass(tuner_class, AutoLRMixin):
        return tuner_class
    assisted = type(tuner_class.__name__, (AutoLRMixin, tuner_class), {"__module__": tuner_class.__module__})
    return cast(TunerClass, assisted)


class RandomSearch(AutoLRMixin, kt.RandomSearch):
    """`keras_tuner.RandomSearch` with AutoLR: the same arguments, and those of `AutoLRMixin`.

    Example:
    ```python
    tuner = autolr.RandomSearch(build_model, objective="val_accuracy", max_trials=10)
    tuner.search(x, y, validation_split=0.1, epochs=12, batch_size=128)
    ```
    """


class BayesianOptimization(AutoLRMixin, kt.BayesianOptimization):
    """`keras_tuner.BayesianOptimization` with AutoLR: the same arguments, and those of `AutoLRMixin`.

    Example:
    ```python
    tuner = autolr.BayesianOptimization(build_model, objective="val_accuracy", max_trials=20)
    tuner.search(x, y, validation_split=0.1, epochs=12, batch_size=128)
    ```
    """


class GridSearch(AutoLRMixin, kt.GridSearch):
    """`keras_tuner.GridSearch` with AutoLR: the same arguments, and those of `AutoLRMixin`.

    The three schedule hyperparameters multiply the grid by 45. Hold those you do not want to search:

    Example:
    ```python
    hp = kt.HyperParameters()
    hp.Fixed("mult_factor", 1.5)
    hp.Fixed("lr_decay", 0.9)
    tuner = autolr.GridSearch(build_model, objective="val_accuracy", hyperparameters=hp)
    tuner.search(x, y, validation_split=0.1, epochs=12, batch_size=128)
    ```
    """


class Hyperband(AutoLRMixin, kt.Hyperband):
    """`keras_tuner.Hyperband` with AutoLR: the same arguments, and those of `AutoLRMixin`.

    A trial of a later rung goes on with its parent's weights, so it takes its parent's bounds and goes on with the
    schedule, stretched over all its epochs, where the parent ended.

    Example:
    ```python
    tuner = autolr.Hyperband(build_model, objective="val_accuracy", max_epochs=12)
    tuner.search(x, y, validation_split=0.1, batch_size=128)
    ```
    """
