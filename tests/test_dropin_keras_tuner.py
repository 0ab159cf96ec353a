"""Keras Tuner's own idea of its tuners, asked of ours: its tuner tests are not in its wheel.

The three schedule hyperparameters are held, as the first thing these tests hold is that nothing joins the space then.
"""

from __future__ import annotations

import warnings

import keras
import keras_tuner as kt
import pytest
from helpers import compiled

import autolr

TUNERS = {
    "RandomSearch": {"max_trials": 3},
    "BayesianOptimization": {"max_trials": 3, "num_initial_points": 2},
    "GridSearch": {},
    "Hyperband": {"max_epochs": 2, "factor": 2},
}
SCHEDULE = {"cycle_length": 1, "mult_factor": 1.0, "lr_decay": 1.0}
FIT = {"epochs": 1, "batch_size": 16, "verbose": 0}


def dense(units=4):
    layers = [keras.layers.Dense(units, "relu"), keras.layers.Dense(3, "softmax")]
    return compiled(keras.Sequential([keras.Input((6,)), *layers]), "sgd", metrics=[])


def held(**fixed):
    hp = kt.HyperParameters()
    for name, value in {**SCHEDULE, **fixed}.items():
        hp.Fixed(name, value)
    return hp


def ours_and_theirs(name, tmp_path, build, **options):
    """The same tuner from both packages."""
    arguments = {"objective": "loss", **TUNERS[name], "seed": 3, "project_name": "p", **options}
    make = arguments.pop("hyperparameters", held)
    return [
        getattr(package, name)(build, **arguments, hyperparameters=make(), directory=tmp_path / package.__name__)
        for package in (autolr, kt)
    ]


def space_of(tuner):
    return [parameter.get_config() for parameter in tuner.oracle.get_space().space]


def chosen(tuner):
    """Values of the trials, without what they found."""
    return [
        {k: v for k, v in tuner.oracle.trials[i].hyperparameters.values.items() if not k.startswith("autolr/")}
        for i in tuner.oracle.start_order
    ]


def conditional(hp):
    kind = hp.Choice("kind", ["small", "large"])
    units = {}
    with hp.conditional_scope("kind", ["small"]):
        if kind == "small":
            units[kind] = hp.Int("small_units", 2, 3)
    with hp.conditional_scope("kind", ["large"]):
        if kind == "large":
            units[kind] = hp.Int("large_units", 8, 9)
    return dense(units[kind])


@pytest.mark.parametrize("name", TUNERS)
def test_attributes_are_keras_tuners(name, tmp_path):
    ours, theirs = ours_and_theirs(name, tmp_path, lambda hp: dense(hp.Choice("units", [2, 4])))
    assert set(vars(theirs)) <= set(vars(ours))
    assert set(vars(theirs.oracle)) <= set(vars(ours.oracle))
    assert type(ours.oracle) is type(theirs.oracle)
    assert ours.oracle.objective == theirs.oracle.objective
    for attribute in ("max_trials", "seed", "allow_new_entries", "tune_new_entries", "max_retries_per_trial"):
        assert getattr(ours.oracle, attribute) == getattr(theirs.oracle, attribute)
    assert (ours.remaining_trials, ours.executions_per_trial) == (theirs.remaining_trials, theirs.executions_per_trial)
    assert isinstance(ours, getattr(kt, name))


@pytest.mark.parametrize("name", TUNERS)
def test_nothing_joins_a_conditional_space_when_the_schedule_is_held(name, tmp_path):
    ours, theirs = ours_and_theirs(name, tmp_path, conditional)
    assert space_of(ours) == space_of(theirs)
    assert {"small_units", "large_units"} <= {config["name"] for config in space_of(ours)}


@pytest.mark.parametrize("option", ["allow_new_entries", "tune_new_entries"])
@pytest.mark.parametrize("name", TUNERS)
def test_a_space_that_may_not_grow_stays_as_it_is(name, option, tmp_path):
    def only_units():
        hp = kt.HyperParameters()
        hp.Choice("units", [2, 4])
        return hp

    ours, theirs = ours_and_theirs(
        name, tmp_path, lambda hp: dense(hp.Choice("units", [2, 4])), hyperparameters=only_units, **{option: False}
    )
    assert space_of(ours) == space_of(theirs)
    assert [config["name"] for config in space_of(ours)] == ["units"]


@pytest.mark.parametrize("name", TUNERS)
def test_a_build_function_may_not_ask_for_what_is_not_allowed(name, tmp_path):
    def only_units():
        return held(units=2)

    with pytest.raises(RuntimeError, match="`allow_new_entries` is `False`"):
        ours_and_theirs(
            name, tmp_path, lambda hp: dense(hp.Int("other", 2, 4)), hyperparameters=only_units, allow_new_entries=False
        )


@pytest.mark.slow
def test_values_not_tuned_keep_their_defaults(tmp_path, data):
    def build(hp):
        return dense(hp.Choice("units", [2, 4]) + hp.Int("more", 1, 5, default=3))

    def only_units():
        hp = held()
        hp.Choice("units", [2, 4])
        return hp

    for tuner in ours_and_theirs("GridSearch", tmp_path, build, hyperparameters=only_units, tune_new_entries=False):
        tuner.search(*data, **FIT)
        assert {values["more"] for values in chosen(tuner)} == {3}
        assert sorted(values["units"] for values in chosen(tuner)) == [2, 4]


@pytest.mark.parametrize(
    ("declared", "multiplied"), [((), 45), (("mult_factor",), 15), (("cycle_length", "mult_factor", "lr_decay"), 1)]
)
def test_a_grid_that_the_schedule_multiplies_is_warned_of(tmp_path, declared, multiplied):
    def build(hp):
        for name in declared:
            hp.Fixed(name, 1)
        return dense(hp.Choice("units", [2, 4]))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        autolr.GridSearch(build, objective="val_loss", directory=str(tmp_path))
    told = [str(it.message) for it in caught if "The grid gets" in str(it.message)]
    assert len(told) == (multiplied > 1)
    for text in told:
        assert f"all {multiplied} of theirs" in text
        assert "hp.Fixed('lr_decay', 1.0)" in text
        assert ("hp.Fixed('mult_factor'" in text) == ("mult_factor" not in declared)


class ChoosesInFit(kt.HyperModel):
    def build(self, hp):
        return dense()

    def fit(self, hp, model, *args, **kwargs):
        return model.fit(*args, **{**kwargs, "batch_size": hp.Choice("batch_size", [16, 32])})


def test_a_hyperparameter_first_asked_for_in_fit_is_searched(tmp_path, data):
    fit = {name: value for name, value in FIT.items() if name != "batch_size"}
    tuners = ours_and_theirs("RandomSearch", tmp_path, ChoosesInFit())
    for tuner in tuners:
        tuner.search(*data, **fit)
    ours, theirs = tuners
    assert space_of(ours) == space_of(theirs)
    assert chosen(ours) == chosen(theirs)
    assert {values["batch_size"] for values in chosen(ours)} == {16, 32}


@pytest.mark.parametrize("name", [pytest.param("RandomSearch", marks=pytest.mark.slow), "GridSearch"])
def test_an_exhausted_space_ends_the_search_as_ever(name, tmp_path, data):
    tuners = ours_and_theirs(name, tmp_path, lambda hp: dense(hp.Choice("units", [2, 4])), max_trials=9)
    for tuner in tuners:
        tuner.search(*data, **FIT)
    ours, theirs = tuners
    assert sorted(v["units"] for v in chosen(ours)) == sorted(v["units"] for v in chosen(theirs)) == [2, 4]
    assert all(trial.status == "COMPLETED" for trial in ours.oracle.trials.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["RandomSearch", "BayesianOptimization", "Hyperband"])
def test_the_first_trials_are_those_keras_tuner_would_choose(name, tmp_path, data):
    fit = {key: value for key, value in FIT.items() if key != "epochs" or name != "Hyperband"}
    ours, theirs = ours_and_theirs(name, tmp_path, conditional)
    for tuner in (ours, theirs):
        tuner.search(*data, **fit)
    assert chosen(ours)[:2] == chosen(theirs)[:2]
