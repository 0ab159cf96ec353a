"""What only a model's first training does, done before its state is noted, and what stands in a range test's way."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import keras

from autolr import compat
from autolr.data import first_batch, is_array_data, without_samples
from autolr.fit import Fit, is_keras_own, unassisted_fit
from autolr.kept import attributes_kept
from autolr.model_state import ModelState, variables_of_data
from autolr.optimizers import begin_anew, copy_with_number_as_rate, iterations_of, scope_of, takes_a_number
from autolr.random_state import random_state_kept
from autolr.replay import Replay


def prepare(fit: Fit) -> bool:
    """Create what a model's first training would create, without training.

    Args:
        fit: Of the model, built or not.

    Returns:
        Whether the training step or the data may draw from random operations of TensorFlow's own, which only their
        kernels count.

    Raises:
        ValueError: If the data hold no sample.
    """
    if isinstance(fit.x, Replay):
        _look_at_first(fit.x)
    if compat.first_fit_draws_a_batch(fit.model) and not isinstance(fit.x, Replay):
        _begin(fit)
    traced = _trace(fit)
    if traced is None:
        build(fit)
    made_in_python = not (is_array_data(fit.x) or hasattr(fit.x, "cardinality"))  # by whatever operations
    return made_in_python or traced is None or compat.draws_in_kernels(traced)


def _look_at_first(x: Replay) -> None:
    """Some versions of Keras fail at a generator without a batch in ways that nobody understands."""
    try:
        with random_state_kept():
            x.first()
    except StopIteration:
        raise without_samples(x) from None


class _BegunError(Exception):
    """A `fit` has begun, which is all that was wanted of it."""


class _EndAtOnce(keras.callbacks.Callback):
    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        raise _BegunError


class _EndAtFirstStep(keras.callbacks.Callback):
    """Ends a `fit` of the user's own that takes a step itself, without Keras's training step; tells if it did."""

    taken = False

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.taken = True
        raise _BegunError


def _begin(fit: Fit) -> None:
    """Let a `fit` do what only the first one does, and nothing more.

    On the JAX backend the first `fit` builds the model from a batch that it draws from the shuffled data. If the range
    test's were the first, training afterwards would not draw it, and would see another order of batches than without
    a test.
    """
    with attributes_kept([fit.model], "history"), suppress(_BegunError):
        fit(_EndAtOnce(), epochs=1)


def _trace(fit: Fit) -> Any:
    """Trace the training step, which creates all that is missing; None where that can't be done.

    Training uses the same trace afterwards, so this costs nothing. What is drawn from Python's random generator in
    tracing, as the seed of Keras's global generator, will not be drawn again and stays drawn.

    A `fit` of the user's own may have a loop of its own, in which nothing is traced: it is ended after a step. What it
    has trained by then is undone.
    """
    model = fit.model
    trace = compat.tracer_of_training(model)
    if trace is None:
        return None
    may_loop, end = not is_keras_own(unassisted_fit(model)), _EndAtFirstStep()
    whole = model.built and all(layer.built for layer in model.layers)
    # The optimizer is built by a step, for what that trains: a `train_step` or a `fit` of the user's own decides it.
    untrained = ModelState.of(model, fit.x, build_optimizer=False) if may_loop and whole else None
    steps, was_built = iterations_of(model.optimizer), model.optimizer.built
    before = random.getstate()
    traced: Any = None
    after: Any = None

    def only_trace(iterator: Any) -> None:
        nonlocal traced, after
        random.setstate(before)  # the data may have drawn from it
        if hasattr(iterator, "get_next"):  # not that of `train_on_batch`, which a loop of the user's own may call
            traced = trace(iterator)
        after = random.getstate()
        raise _BegunError

    # Metrics: a `fit` begins by resetting them.
    changed = random_state_kept([*model.metrics_variables, *variables_of_data(fit.x)])
    with changed, attributes_kept([model], "train_function", "history", "stop_training"):
        model.train_function = only_trace
        try:
            with suppress(_BegunError):
                fit(end, epochs=1)
        finally:
            fit.dispose()
            trained = iterations_of(model.optimizer) > steps
            if untrained is not None:
                untrained.restore()
                if trained and not was_built:
                    begin_anew(model.optimizer)
    if trained and untrained is None:
        raise RuntimeError(
            "A model whose own `fit` trains it before or without Keras's training step must be built before, as what "
            "that changes cannot be noted otherwise. It has been trained now: make it anew, and call it on a batch."
        )
    if end.taken:
        return None
    if after is None and may_loop:
        raise RuntimeError(
            "The model's own `fit` calls neither Keras's training step nor `on_train_batch_end` of the callbacks it is "
            "given, so no rate can be set, and no loss be seen; or else its data hold no sample."
        )
    if after is None:
        raise without_samples(fit.x)
    random.setstate(after)
    if traced is None:
        return None
    model.built = True  # also one without a `call`, whose `train_step` calls the layers
    return traced


def build(fit: Fit) -> None:
    """Create the variables that a model and its optimizer have not got yet, from the shapes of a batch alone."""
    model = fit.model
    with scope_of(model):
        layers_built = all(layer.built for layer in model.layers)
        if layers_built and type(model).call is keras.Model.call:
            model.built = True  # a `train_step` that calls the layers is all it has
        elif not (model.built and layers_built):
            with random_state_kept(variables_of_data(fit.x)):
                shaped_by = {name: fit.arguments.get(name) for name in ("sample_weight", "batch_size")}
                batch = first_batch(fit.x, fit.y, **shaped_by)
            compat.symbolic_build(model, batch)
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)


@contextmanager
def step_by_step(model: keras.Model) -> Iterator[bool]:
    """Let callbacks set the rate of each single step, whatever the model is compiled with.

    An optimizer with a schedule, a callable or several rates refuses to be assigned a number: a copy that differs in
    that alone takes its place meanwhile (of several optimizers it has not their slots). Of several steps in one
    execution Keras shows one loss, too coarse for a sweep: they are executed one by one. The training step is traced
    once more for either.

    Yields:
        Whether anything was changed.
    """
    several = int(model.steps_per_execution or 1) > 1
    if takes_a_number(model.optimizer) and not several:
        yield False
        return
    with attributes_kept([model], "optimizer", "steps_per_execution", "train_function"):
        if not takes_a_number(model.optimizer):
            with scope_of(model):
                model.optimizer = copy_with_number_as_rate(model.optimizer)
                # While a step is traced, what a slot or a rate begins with can't be read from what there is.
                if not model.optimizer.built:
                    model.optimizer.build(model.trainable_variables)
        model.steps_per_execution = 1
        model.train_function = None
        yield True
