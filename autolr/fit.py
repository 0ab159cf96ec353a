"""A model's `fit`, as a range test calls it: quietly, again and again on the same data, and from a later batch on."""

from __future__ import annotations

import gc
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras

from autolr import compat
from autolr.data import count_batches, is_array_data, is_endless, samples_to_train, yields_targets
from autolr.errors import invalid
from autolr.kept import attributes_kept
from autolr.replay import Replay, Unannounced, replayable, source_of

NEVER = 2**31  # epochs between two validations
# Of `fit`: what batches it makes of arrays.
BATCH_ARGUMENTS = ("batch_size", "validation_split", "shuffle", "class_weight", "sample_weight")


def training_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arguments of `fit` that decide what a training step sees."""
    chosen = {name: arguments[name] for name in ("x", "y", *BATCH_ARGUMENTS, "steps_per_epoch") if name in arguments}
    if arguments.get("validation_data") is not None:
        chosen.pop("validation_split", None)  # Keras ignores it then
    return chosen


@dataclass(frozen=True)
class Fit:
    """A model's `fit` on certain data, quietly, as often as it is wanted.

    Attributes:
        model: A compiled model.
        x: What it is trained on, made such that it can be drawn from more than once.
        y: The targets.
        arguments: Further arguments of `fit`.
    """

    model: keras.Model
    x: Any
    y: Any
    arguments: Mapping[str, Any]

    @classmethod
    def on(cls, model: keras.Model, x: Any, y: Any = None, **arguments: Any) -> Fit:
        """With the arguments of `fit`.

        Finite data are repeated as needed, so `steps_per_epoch` is dropped: Keras would end at the end of the data, and
        say that they ran out.
        """
        if arguments.get("validation_data") is not None:
            arguments.pop("validation_split", None)  # Keras ignores it then
        if count_batches(x) is not None:
            steps = arguments.pop("steps_per_epoch", None)
            if steps and is_array_data(x) and not arguments.get("batch_size"):  # then Keras takes as many batches
                arguments["batch_size"] = math.ceil(samples_to_train(x, arguments.get("validation_split")) / steps)
        return cls(model, Unannounced(x) if isinstance(x, keras.utils.PyDataset) else replayable(x), y, arguments)

    def __call__(self, callback: keras.callbacks.Callback, *, epochs: int, skipped: int = 0) -> None:
        """Train for so many epochs, unless the callback ends it.

        Args:
            callback: Its only callback.
            epochs: So many at most.
            skipped: First batches that are drawn and left out, where that can be done (`can_skip`).
        """
        fit = unassisted_fit(self.model)
        quietly = {"verbose": 0, "validation_freq": NEVER}  # Keras must not evaluate in between
        options = {name: value for name, value in quietly.items() if accepts(fit, name)}
        try:
            with _skipping(self.model, skipped):
                data, arguments = self._as_dataset or (self._data(fit), self.arguments)
                fit(
                    *data,
                    epochs=epochs,
                    callbacks=[callback],
                    **options,
                    **arguments,
                )
        except ValueError as error:
            if self.y is not None or "None values not supported" not in str(error):
                raise
            if is_array_data(self.x):
                raise invalid("y", "be given, since the model's loss needs it", None, "Pass the targets.") from error
            if yields_targets(self.x):  # then the None is the user's own, a loss that returns it say
                raise
            given, hint = source_of(self.x), "Let each element be `(inputs, targets)`."
            raise invalid("x", "yield targets, too, since the model's loss needs them", given, hint) from error

    def _data(self, fit: Callable[..., Any]) -> list[Any]:
        """What `fit` takes by position."""
        x = self.x.replay() if isinstance(self.x, Replay) else self.x
        return [x, self.y] if self.y is not None or _takes_two(fit) else [x]

    @cached_property
    def _as_dataset(self) -> tuple[list[Any], Mapping[str, Any]] | None:
        """Arrays as the data set that Keras makes of them, and the arguments left; None of anything else.

        Keras would make one for each training, which takes longer than a burst of a small model. This one gives the
        same batches each time, also where no seed was set.
        """
        own = is_keras_own(unassisted_fit(self.model))
        if not (own and is_array_data(self.x) and compat.trains_in_one_replica(self.model)):
            return None
        deciding = {name: self.arguments[name] for name in BATCH_ARGUMENTS if name in self.arguments}
        left = {name: value for name, value in self.arguments.items() if name not in BATCH_ARGUMENTS}
        return [compat.dataset_of_arrays(self.x, self.y, **deciding)], {**left, "shuffle": False}  # no second time

    def can_skip(self, batches: int) -> bool:
        """Whether its first batches can be left out: by Keras's own `fit`, on TensorFlow, where an epoch goes on after.

        At an epoch's end metrics are asked for their results, and one of the user's own may refuse without a batch.
        """
        kept_step = type(self.model).make_train_function is keras.Model.make_train_function
        if not (kept_step and is_keras_own(unassisted_fit(self.model)) and keras.backend.backend() == "tensorflow"):
            return False
        counting = {name: self.arguments[name] for name in ("batch_size", "validation_split") if name in self.arguments}
        length = count_batches(self.x, **counting)
        if length is not None:
            return length > batches
        # Of finite data an epoch is all of them, and how many that are is not known.
        goes_on = isinstance(self.x, Replay) or is_endless(self.x)
        return goes_on and int(self.arguments.get("steps_per_epoch") or batches + 1) > batches

    def dispose(self) -> None:
        """End what goes on of a training that ended within an epoch.

        Keras's iterators go in circles, and live until garbage is collected: until then a pipeline reads ahead, which
        moves seeds, and holds the lock of the file that it caches in, without which the next one cannot begin.
        """
        if isinstance(self.x, Replay):
            self.x.end()
        if isinstance(self.x, Unannounced):
            compat.end_workers_of(self.x)
        if not is_array_data(self.x):
            gc.collect()


SKIPPED = "skipped"  # what a step that was left out reports


@contextmanager
def _skipping(model: keras.Model, batches: int) -> Iterator[None]:
    """Leave out the first batches of a `fit`, which are drawn as ever."""
    if not batches:
        yield
        return
    model.make_train_function()
    step, left = model.train_function, batches

    def skip_first(iterator: Any) -> Any:
        nonlocal left
        if not left:
            return step(iterator)
        next(iterator)
        left -= 1
        return {SKIPPED: 1.0}

    with attributes_kept([model], "train_function"):
        model.train_function = skip_first
        yield


def unassisted_fit(model: keras.Model) -> Callable[..., Any]:
    """A model's `fit` without the range test and the schedule that AutoLR has added to it for a trial.

    A `HyperModel.fit` may run a range test of its own, whose trainings are none of the trial's.
    """
    fit: Callable[..., Any] = model.fit
    return getattr(fit, "unassisted", fit)


def accepts(function: Callable[..., Any], name: str) -> bool:
    """Whether a function, as a model's own `fit`, has an argument of this name; one that does not tell may."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return True
    return name in parameters or any(it.kind is it.VAR_KEYWORD for it in parameters.values())


def _takes_two(function: Callable[..., Any]) -> bool:
    """Whether a function takes two arguments by position, as a model's own `fit` may not: inputs and targets."""
    try:
        inspect.signature(function).bind_partial(None, None)
    except TypeError:
        return False
    except ValueError:  # it does not tell
        pass
    return True


def is_keras_own(fit: Callable[..., Any]) -> bool:
    """Whether a model's `fit` is Keras's, neither of the model's class nor of the model alone."""
    return getattr(fit, "__func__", None) is keras.Model.fit


def arguments_by_name(
    model: keras.Model, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Any] | None, str]:
    """The arguments of a call of a model's `fit` by name; None where AutoLR can't add its own to them, and why."""
    customised = not is_keras_own(model.fit)  # Keras's says itself what is wrong with a call
    try:
        arguments = dict(inspect.signature(keras.Model.fit).bind(model, *args, **kwargs).arguments)
    except TypeError as error:
        return None, f"The model's `fit` takes other arguments than Keras's ({error})." if customised else ""
    if not accepts(model.fit, "callbacks"):
        return None, "The model's own `fit` takes no `callbacks`, by which AutoLR sets the learning rate."
    if "x" not in arguments:
        return None, "The model's own `fit` was given no `x`, which a range test needs." if customised else ""
    del arguments["self"]
    return arguments, ""


@contextmanager
def quick_collection(fit: Fit) -> Iterator[None]:
    """Let `fit.dispose` collect garbage of the present alone: all there was before need not be looked at each time."""
    if is_array_data(fit.x):  # nothing is collected
        yield
        return
    gc.collect()
    ours = not gc.get_freeze_count()
    if ours:
        gc.freeze()
    try:
        yield
    finally:
        if ours:
            gc.unfreeze()
