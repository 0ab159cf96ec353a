"""The only file that touches names Keras or TensorFlow do not promise to keep, each with why.

`tests/test_compat.py` and `tests/test_dropin_compat.py` fail with a clear message when one of them is gone.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import keras


def symbolic_build(model: Any, data_batch: Any) -> None:
    """Create all variables of an unbuilt model, and of its metrics and loss, without running it.

    On the TensorFlow backend Keras builds such a model only inside the first training step, when it is too late to
    note what its weights were. `Model.build(shape)` is public but cannot be told dictionaries or several inputs of
    different types.
    """
    model._symbolic_build(data_batch=data_batch)


def first_fit_draws_a_batch(model: Any) -> bool:
    """Whether the model's first `fit`, and no later one, takes a batch from the data before training begins."""
    if keras.backend.backend() != "jax":
        return False
    parts = (model._compile_loss, model._compile_metrics)
    return not model.built or any(part is not None and not part.built for part in parts)


def trains_in_one_replica(model: Any) -> bool:
    """Whether a model is one of the TensorFlow backend that no strategy trains in several replicas."""
    strategy = getattr(model, "distribute_strategy", None)  # other backends have none
    return strategy is not None and strategy.num_replicas_in_sync == 1


def dataset_of_arrays(
    x: Any, y: Any, sample_weight: Any = None, *, validation_split: float | None = None, **arguments: Any
) -> Any:
    """The `tf.data.Dataset` that Keras makes of arrays, each time that `fit` is called, and no public name does.

    Args:
        x: Arrays, as `fit` takes them.
        y: Targets.
        sample_weight: Weights.
        validation_split: Share of the samples that is left out, those at the end.
        **arguments: Those of `fit` that decide on the batches: `batch_size`, `shuffle`, `class_weight`.
    """
    import tensorflow as tf
    from keras.src.trainers.data_adapters.array_slicing import train_validation_split
    from keras.src.trainers.epoch_iterator import EpochIterator  # which heeds `keras.config.set_max_steps_per_epoch`

    if validation_split:
        (x, y, sample_weight), _ = train_validation_split((x, y, sample_weight), validation_split=validation_split)
    adapter = EpochIterator(x=x, y=y, sample_weight=sample_weight, **{"shuffle": True, **arguments}).data_adapter
    with _seeded():
        made = adapter.get_tf_dataset()
    # How many there are would be forgotten on the way.
    return made.apply(tf.data.experimental.assert_cardinality(adapter.num_batches))


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Where data sets shuffle alike each time that they are read, also if the user has set no seed for TensorFlow.

    Not by `tf.random.set_seed`, which begins the user's own random numbers anew.
    """
    from tensorflow.python.eager import context

    eager = context.context()
    given = eager._seed
    eager._seed = 1 if given is None else given
    try:
        yield
    finally:
        eager._seed = given


def optimizer_is_scaled(optimizer: Any) -> bool:
    """Whether the optimizer is a wrapper (loss scaling) around another one that holds the learning rate."""
    return hasattr(optimizer, "inner_optimizer")


def loss_scale(optimizer: Any) -> float:
    """What an optimizer multiplies the loss by to keep gradients from vanishing in half precision; 1 for most."""
    if not hasattr(optimizer, "initial_scale"):
        return 1.0
    return float(keras.ops.convert_to_numpy(optimizer.dynamic_scale if optimizer.built else optimizer.initial_scale))


def variables_trained_by(optimizer: Any) -> list[Any]:
    """The variables that an optimizer was built for, in their order; none if it is not built, or is several."""
    return [] if is_multi_optimizer(optimizer) else list(optimizer._trainable_variables)


def is_multi_optimizer(optimizer: Any) -> bool:
    """Whether the optimizer hands variables to several others; older Keras has no such one."""
    return isinstance(optimizer, getattr(keras.optimizers, "MultiOptimizer", ()))


def learning_rate_source(optimizer: Any) -> Any:
    """What the optimizer was given as its rate: a variable, a schedule or a callable; a list of these for several.

    The public property `learning_rate` evaluates a schedule or callable, and so cannot tell them from a number.
    """
    inner = optimizer.inner_optimizer if optimizer_is_scaled(optimizer) else optimizer
    if is_multi_optimizer(inner) and not isinstance(inner, _in_step_class()):
        return [part._learning_rate for part in inner.optimizers]
    return inner._learning_rate


def config_without_rate(optimizer: Any) -> dict[str, Any]:
    """An optimizer's config, with any number as its rate where that cannot be written down.

    A schedule of the user's own may have no config.
    """
    rate = learning_rate_source(optimizer)
    if not callable(rate):  # a number, or those of several
        return dict(optimizer.get_config())
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):  # of a function Keras would warn
        with contextlib.suppress(Exception):  # whatever the user's classes raise
            return dict(optimizer.get_config())
    inner = optimizer.inner_optimizer if optimizer_is_scaled(optimizer) else optimizer
    vars(inner)["_learning_rate"] = 0.001
    try:
        return dict(optimizer.get_config())
    finally:
        vars(inner)["_learning_rate"] = rate


def compile_arguments(model: Any) -> dict[str, Any]:
    """What a model's `compile` was given, as it was given; nothing if it was not compiled.

    The public `get_compile_config` writes all of it down, and fails where one thing cannot be.
    """
    compiled = getattr(model, "_compile_config", None)
    return dict(compiled.config) if model.compiled and compiled is not None else {}


def replace_optimizer(model: Any, optimizer: Any) -> None:
    """Give a compiled model another optimizer, also in what is saved of how it was compiled.

    Keras writes down what `compile` was given, and what an optimizer of another kind has saved finds no place in that.
    Of several optimizers what was given stays there, and their state is lost: `multi_optimizer_in_step` makes one that
    can't be loaded.
    """
    model.optimizer = optimizer
    model.train_function = None  # should it have been traced with the other one
    compiled = getattr(model, "_compile_config", None)
    inner = optimizer.inner_optimizer if optimizer_is_scaled(optimizer) else optimizer
    if compiled is not None and not is_multi_optimizer(inner):
        compiled.config["optimizer"] = optimizer


def multi_optimizer_in_step(optimizer: Any, with_number: Callable[[Any, float], Any]) -> Any:
    """A `MultiOptimizer` like this one, unbuilt, that takes one number as its rate.

    Keras's own refuses to be asked for a rate or given one. Which optimizer a variable goes to is known to the
    private `_optimizer_map` alone: a mapping or the user's function.

    Args:
        optimizer: Keras's `MultiOptimizer`.
        with_number: Makes a copy of an optimizer with a number as its rate.
    """
    return _in_step_class()(optimizer._optimizer_map, optimizer.loss_scale_factor, with_number)


@functools.cache
def _in_step_class() -> type:
    class MultiOptimizerInStep(keras.optimizers.MultiOptimizer):
        """A `MultiOptimizer` whose optimizers keep the ratios of their rates to that of the first."""

        def __init__(self, choose: Any, loss_scale_factor: Any, with_number: Callable[[Any, float], Any]) -> None:
            # No attributes: Keras would track them, and save the originals, too. The originals are kept, so that no
            # other object can come to have their id.
            copies: dict[int, tuple[Any, Any]] = {}

            def copy_of(original: Any) -> Any:
                if id(original) not in copies:
                    rate = float(keras.ops.convert_to_numpy(original.learning_rate))
                    copies[id(original)] = original, with_number(original, rate)
                return copies[id(original)][1]

            @functools.cache
            def ratios() -> list[float]:
                rates = [float(keras.ops.convert_to_numpy(original.learning_rate)) for original, _ in copies.values()]
                return [rate / rates[0] if rates[0] else 1.0 for rate in rates]

            super().__init__(lambda variable: copy_of(choose(variable)), loss_scale_factor)
            self.ratios = ratios

        @property
        def learning_rate(self) -> Any:
            return self.optimizers[0].learning_rate

        @learning_rate.setter
        def learning_rate(self, rate: float) -> None:  # once it is built, and all its optimizers are known
            for part, ratio in zip(self.optimizers, self.ratios(), strict=True):
                part.learning_rate = rate * ratio

    return MultiOptimizerInStep


def copy_weight_decay_exclusions(optimizer: Any, other: Any) -> None:
    """Let another optimizer, not built yet, exclude the same variables from weight decay.

    What `exclude_from_weight_decay` is told is in no config, and nothing public gives it back.
    """
    for name in ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"):
        if hasattr(optimizer, name):
            setattr(other, name, getattr(optimizer, name))


def global_seed_variables() -> list[Any]:
    """The variables of the generators that unseeded random operations draw from, as far as there are any.

    Keras has one of its own, TensorFlow another. Asking TensorFlow's public `get_global_generator` would make it.
    """
    from keras.src.backend.common import global_state

    stateful = sys.modules.get("tensorflow.python.ops.stateful_random_ops")
    kerass = global_state.get_global_attribute("global_seed_generator")
    generators = kerass, getattr(stateful, "global_generator", None)
    return [generator.state for generator in generators if generator is not None]


def closure_of(function: Any) -> dict[str, Any]:
    """What a Python function refers to of the functions around it, by name; nothing for any other callable.

    Cells that are still empty are left out.
    """
    cells: dict[str, Any] = {}
    if not isinstance(function, FunctionType):
        return cells
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # empty
            cells[name] = cell.cell_contents
    return cells


def variables_of_dataset(data: Any) -> list[Any]:
    """Variables that the functions within a `tf.data.Dataset` use; none of anything else.

    A layer that augments images inside of `Dataset.map` has a seed that moves with each batch. The functions that a
    data set is made of are known to methods for its subclasses alone.
    """
    found, waiting = [], [getattr(data, "_original_dataset", data)]  # within one that is distributed
    while waiting:
        part = waiting.pop()
        if hasattr(part, "_functions") and hasattr(part, "_inputs"):
            waiting += part._inputs()
            found += [variable for function in part._functions() for variable in function.function.graph.variables]
    return found


def end_workers_of(data: Any) -> None:
    """End the threads and processes that read a `PyDataset` ahead for trainings that have ended within an epoch.

    Keras ends them with an epoch, and so never where `stop_training` or an error has ended it before: they wait with
    the batches they have read as long as the program runs.
    """
    for thread in threading.enumerate():
        reader = getattr(getattr(thread, "_target", None), "__self__", None)
        if reader is not None and getattr(reader, "py_dataset", None) is data:
            with contextlib.suppress(Exception):  # the user's own, in a batch that nobody has asked for
                reader.stop()


def input_options(tensor: Any) -> dict[str, bool]:
    """What of an input of a functional model is not in its shape and type: whether it may be None, or is sparse."""
    layer = getattr(getattr(tensor, "_keras_history", None), "operation", None)
    return {name: True for name in ("optional", "sparse") if getattr(layer, name, False)}


def tracer_of_training(model: Any) -> Callable[[Any], Any] | None:
    """What traces a model's training step for an iterator of its data, without running it; None if nothing can.

    Keras hides the traced function in a plain one, which the public `make_train_function` makes. Tracing creates all
    that the first training step would: an unbuilt model's variables, and the slots of the optimizer for what a
    `train_step` of the user's gives it.
    """
    if keras.backend.backend() != "tensorflow" or model.run_eagerly:
        return None
    model.make_train_function()
    step = closure_of(model.train_function).get("multi_step_on_iterator")
    trace: Callable[[Any], Any] | None = getattr(step, "get_concrete_function", None)
    return trace


def draws_in_kernels(traced: Any) -> bool:
    """Whether a traced function has operations of TensorFlow's own that draw random numbers, as `tf.random.normal`.

    Where these are in their sequence, only their kernels know. Keras's layers and `keras.random` have seeds that are
    variables. Operations with such a kernel, and no others, have an attribute `seed2`.
    """
    graph = traced.graph.as_graph_def()
    # TensorFlow keeps the functions that a graph calls, the step itself among them, in the graph's field `library`.
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return any("seed2" in node.attr for node in nodes)


def layers_of(layer: Any) -> list[Any]:
    """The layers directly within a model or a layer.

    Only a model tells by a public property; a layer of the user's own, or a wrapper as `TimeDistributed`, does not.
    """
    if isinstance(layer, keras.Model):
        return list(layer.layers)
    return list(layer._flatten_layers(include_self=False, recursive=False))


def calls_of_layers(model: Any) -> Counter[int]:
    """How often each layer is called for one batch, by `id`, where the model's graph tells; others are left out.

    Those are the layers within a layer, or within a model that has a `call` or a `train_step` of its own. `get_config`
    tells of the graph, too, but not of every model, and only after all of its layers have been written out.
    """
    from keras.src.models.functional import Functional  # what `keras.Model(inputs, outputs)` makes

    calls: Counter[int] = Counter()
    if getattr(type(model), "call", None) not in (Functional.call, keras.Sequential.call):
        return calls
    if type(model).train_step is not keras.Model.train_step:
        return calls
    graph = getattr(model, "_functional", None) or model  # a `Sequential` keeps its graph apart
    for node in (node for nodes in getattr(graph, "_nodes_by_depth", {}).values() for node in nodes):
        calls[id(node.operation)] += 1
        calls.update(calls_of_layers(node.operation))
    return calls


def tensorflow_seed_state() -> Any:
    """State of TensorFlow's eager seed counter, which each `fit` advances; None without one.

    After `keras.utils.set_random_seed` the order of shuffled NumPy data and every unseeded `tf.random` call depend on
    it. Without a global seed there is no counter and nothing to repeat.
    """
    rng = _tensorflow_rng()
    return None if rng is None else rng.getstate()


def set_tensorflow_seed_state(state: Any, *, kernels: bool = True) -> None:
    """Put back what `tensorflow_seed_state` returned.

    Args:
        state: What it returned.
        kernels: Whether operations that draw random numbers begin anew even if no seed was drawn since: those within a
            traced function have theirs.
    """
    rng = _tensorflow_rng()
    if rng is not None and state is not None and (kernels or rng.getstate() != state):
        rng.setstate(state)
        from tensorflow.python.eager import context

        # A kernel is kept by its seed and counts on: the same seed drawn again would not give the same numbers. Making
        # them all again takes longer than a burst of a small model.
        context.context().clear_kernel_cache()


def _tensorflow_rng() -> Any:
    # On the JAX backend as well: there, too, Keras shuffles arrays with `tf.data`.
    from tensorflow.python.eager import context

    return getattr(context.context(), "_rng", None)


def train_writer(board: Any) -> Any:
    """The writer Keras's TensorBoard callback has for training; only its folder is public."""
    return board._train_writer


def add_hparams(callback: Any, values: dict[str, Any]) -> None:
    """Have TensorBoard's hparams callback log further values; any other callback is left alone.

    Keras Tuner makes one for each trial, before it is known what the trial will find. A name that is there is kept:
    two of the same are an error to TensorBoard.
    """
    if type(callback).__module__.startswith("tensorboard.") and isinstance(getattr(callback, "_hparams", None), dict):
        known = {getattr(key, "name", key) for key in callback._hparams}
        callback._hparams.update({name: value for name, value in values.items() if name not in known})


@contextlib.contextmanager
def optimizer_may_be_left_out() -> Iterator[None]:
    """Silence Keras's warning that an optimizer's saved state could not be loaded, while weights are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
        yield
