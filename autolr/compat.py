"""The only file that touches names Keras, TensorFlow or Keras Tuner do not promise to keep, each with why.

`tests/test_compat.py` fails with a clear message when one of them is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

TRIAL_PREFIX = "autolr/"


def symbolic_build(model: Any, data_batch: Any) -> None:
    """Create all variables of an unbuilt model, and of its metrics and loss, without running it.

    On the TensorFlow backend Keras builds such a model only inside the first training step, when it is too late to
    note what its weights were. `Model.build(shape)` is public but cannot be told dictionaries or several inputs of
    different types.
    """
    model._symbolic_build(data_batch=data_batch)


def optimizer_is_scaled(optimizer: Any) -> bool:
    """Whether the optimizer is a wrapper (loss scaling) around another one that holds the learning rate."""
    return hasattr(optimizer, "inner_optimizer")


def learning_rate_source(optimizer: Any) -> Any:
    """What the optimizer was given as its rate: a variable, a schedule or a callable.

    The public property `learning_rate` evaluates a schedule or callable, and so cannot tell them from a number.
    """
    inner = optimizer.inner_optimizer if optimizer_is_scaled(optimizer) else optimizer
    return inner._learning_rate


def global_seed_variables() -> list[Any]:
    """The variable of Keras's global seed generator, which unseeded random operations draw from, if there is one."""
    from keras.src.backend.common import global_state
    from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR

    generator = global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)
    return [] if generator is None else [generator.state]


def tensorflow_seed_state() -> Any:
    """State of TensorFlow's eager seed counter, which each `fit` advances; None without one.

    After `keras.utils.set_random_seed` the order of shuffled NumPy data and every unseeded `tf.random` call depend on
    it. Without a global seed there is no counter and nothing to repeat.
    """
    rng = _tensorflow_rng()
    return None if rng is None else rng.getstate()


def set_tensorflow_seed_state(state: Any) -> None:
    """Put back what `tensorflow_seed_state` returned."""
    rng = _tensorflow_rng()
    if rng is not None and state is not None:
        rng.setstate(state)


def _tensorflow_rng() -> Any:
    import keras

    if keras.backend.backend() != "tensorflow":
        return None
    from tensorflow.python.eager import context

    return getattr(context.context(), "_rng", None)


def ignore_found_values(oracle: Any) -> None:
    """Teach an oracle that what a trial found is no choice of the search.

    `autolr/…` values must neither make two equal trials look different (`_compute_values_hash`, which Hyperband's
    oracle overrides for its own `tuner/…` values in the same way) nor be copied by grid search into the next
    combination (`populate_space`). A later Hyperband rung, which names its parent, does keep its parent's bounds.
    """
    hash_values: Callable[[dict[str, Any]], str] = oracle._compute_values_hash
    populate_space: Callable[[str], dict[str, Any]] = oracle.populate_space

    def without_found(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if not name.startswith(TRIAL_PREFIX)}

    def _compute_values_hash(values: dict[str, Any]) -> str:
        return hash_values(without_found(values))

    def _populate_space(trial_id: str) -> dict[str, Any]:
        response = populate_space(trial_id)
        values = response.get("values")
        if values and "tuner/trial_id" not in values:
            response["values"] = without_found(values)
        return response

    oracle._compute_values_hash = _compute_values_hash
    oracle.populate_space = _populate_space
