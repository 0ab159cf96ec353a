"""What is judged at the ends of cycles, and which weights are kept; trainings whose validation loss is prescribed."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers import one_weight

from autolr import CycleEarlyStopping, SGDRScheduler

# Cycles of 1, 2, 3 and 5 epochs: they end with epochs 1, 3, 6 and 11.
SCHEDULE = {"min_lr": 0.01, "max_lr": 0.4, "cycle_length": 1, "mult_factor": 1.5}
X = np.ones((20, 1), "float32")


class Prescribed(keras.callbacks.Callback):
    """Reports a validation loss of ours for each epoch, and notes the weight."""

    def __init__(self, losses):
        super().__init__()
        self.losses, self.weights = losses, []

    def on_epoch_end(self, epoch, logs=None):
        if self.losses[epoch] is not None:
            logs["val_loss"] = self.losses[epoch]
        self.weights.append(weight_of(self.model))


def weight_of(model):
    return float(model.get_weights()[0][0, 0])


def train(losses, *, order=lambda schedule, stop: [schedule, stop], restore_weights=True, **options):
    """The number, from 1, of the epoch whose weights are there in the end, and how many epochs were trained."""
    model, schedule, given = (
        one_weight(),
        SGDRScheduler(**SCHEDULE, restore_weights=restore_weights),
        Prescribed(losses),
    )
    callbacks = [given, *order(schedule, CycleEarlyStopping(schedule, **options))]
    model.fit(X, X, epochs=len(losses), batch_size=4, verbose=0, callbacks=callbacks)
    return given.weights.index(weight_of(model)) + 1, len(given.weights)


ORDERS = {"schedule first": lambda a, b: [a, b], "stop first": lambda a, b: [b, a]}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize(
    ("losses", "kept", "trained"),
    [
        # The best epochs are inside cycles, which nobody looks at.
        ([5, 0, 4, 0, 0, 3, 0, 0, 0, 0, 2], 11, 11),
        # The third cycle ends worse than the second: patience is over.
        ([5, 9, 3, 9, 9, 4, 9, 9, 9, 9, 1], 3, 6),
        # Cut off inside the third cycle, worse than the best end of a cycle, which is not the latest.
        ([2, 9, 2.5, 9, 4], 1, 3),
        # Cut off inside the third, and better than any end of a cycle: kept.
        ([5, 9, 4, 9, 3], 5, 5),
        # Worse than both.
        ([5, 9, 4, 9, 4.5], 3, 5),
    ],
)
def test_the_best_end_is_kept(losses, kept, trained, order):
    assert train(losses, order=order) == (kept, trained)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_a_truncated_end_is_compared_with_the_best_cycle_not_with_the_latest(order):
    # Better than the latest end of a cycle, worse than the best.
    assert train([2, 9, 4, 9, 3], order=order, patience=3) == (1, 5)


@pytest.mark.parametrize("behind", [True, False])
@pytest.mark.parametrize("better", [True, False])
def test_an_end_within_a_cycle_that_another_callback_makes_is_judged_too(better, behind):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch + 1 == 5  # the third cycle ends with epoch 6

    def order(schedule, stop):
        return [schedule, stop, Stop()] if behind else [Stop(), schedule, stop]

    kept, trained = train([9.0, 9.0, 5.0, 4.0, 3.0 if better else 6.0, 1.0], order=order)
    assert (kept, trained) == (5 if better else 3, 5)


def test_patience_counts_cycles():
    losses = [1, 9, 2, 9, 9, 2, 9, 9, 9, 9, 2]
    assert [train(losses, patience=patience) for patience in (1, 2, 3)] == [(1, 3), (1, 6), (1, 11)]


@pytest.mark.filterwarnings("ignore:Early stopping conditioned on metric")
def test_where_its_metric_is_missing_the_schedulers_own_rule_holds():
    """Keras says that it is missing; the end of a cycle is put back all the same."""
    assert train([5, 9, 4, 9, 4.5], monitor="val_accuracy", mode="max") == train(
        [5, 9, 4, 9, 4.5], restore_best_weights=False
    )


def test_without_restoring_the_schedulers_own_rule_holds():
    assert train([5, 9, 4, 9, 4.5], restore_best_weights=False) == (3, 5)
    assert train([5, 9, 4, 9, 4.5], restore_best_weights=False, restore_weights=False) == (5, 5)


def test_the_largest_is_best_when_asked():
    assert train([1, 9, 3, 9, 9, 2], mode="max") == (3, 6)


def test_one_pair_serves_two_fits():
    schedule = SGDRScheduler(**SCHEDULE)
    stop = CycleEarlyStopping(schedule, patience=1)
    for losses, kept in (([1, 9, 2], 1), ([9, 9, 8, 9, 9, 7], 6)):
        model, given = one_weight(), Prescribed(losses)
        model.fit(X, X, epochs=len(losses), batch_size=4, verbose=0, callbacks=[given, schedule, stop])
        assert given.weights.index(weight_of(model)) + 1 == kept


@pytest.mark.parametrize("others", [[], [SGDRScheduler(**SCHEDULE)]], ids=["none", "another"])
def test_the_schedule_of_an_earlier_training_of_the_model_is_refused(others):
    model, schedule = one_weight(), SGDRScheduler(**SCHEDULE)
    stop = CycleEarlyStopping(schedule, monitor="loss")
    model.fit(X, X, batch_size=4, verbose=0, callbacks=[schedule, stop])
    before = weight_of(model)
    with pytest.raises(ValueError, match="must be the `SGDRScheduler` of this training"):
        model.fit(X, X, batch_size=4, verbose=0, callbacks=[*others, stop])
    assert weight_of(model) == before


def test_a_schedule_of_no_training_is_refused_before_it():
    stop = CycleEarlyStopping(SGDRScheduler(**SCHEDULE))
    with pytest.raises(ValueError, match=r"^Argument `scheduler` must .*Received: scheduler=.*Pass it to both"):
        one_weight().fit(X, X, epochs=2, verbose=0, callbacks=[stop])
    with pytest.raises(RuntimeError, match="No training with this schedule has begun"):
        SGDRScheduler(**SCHEDULE).ends_cycle(3)


@pytest.mark.parametrize("patience", [-1, 1.5, "2", None])
def test_a_patience_that_counts_nothing_is_refused(patience):
    with pytest.raises(
        ValueError, match=r"^Argument `patience` must be a whole number, 0 or more. Received: patience="
    ):
        CycleEarlyStopping(patience=patience)
