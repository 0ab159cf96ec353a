"""Which callbacks a trial is trained with."""

from __future__ import annotations

import keras

from autolr import CycleEarlyStopping, LRFinder, SGDRScheduler
from autolr.trial_callbacks import callbacks_of, without_cycles_to_judge, without_rate_callbacks


def test_which_callbacks_set_the_rate():
    other = keras.callbacks.TerminateOnNaN()
    setting = [
        LRFinder(),
        SGDRScheduler(0.1, 1.0),
        keras.callbacks.ReduceLROnPlateau(),
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.1),
    ]
    assert without_rate_callbacks([*setting, other]) == [other]


def test_who_judges_the_cycles_of_a_schedule_that_is_there_stays():
    schedule = SGDRScheduler(0.1, 1.0)
    stop = CycleEarlyStopping(schedule)
    assert without_cycles_to_judge([schedule, stop]) == [schedule, stop]
    assert without_cycles_to_judge([stop]) == []


def test_callbacks_may_be_one_or_nested():
    one, other = keras.callbacks.TerminateOnNaN(), keras.callbacks.TerminateOnNaN()
    assert callbacks_of({"callbacks": one}) == [one]
    assert callbacks_of({"callbacks": [one, [other]]}) == [one, other]
