"""No private name of Keras, TensorFlow or Keras Tuner outside the two compat files, and each there still exists."""

from __future__ import annotations

import ast
import copy
import json
import shutil
import warnings
from pathlib import Path

import keras
import keras_tuner as kt
import pytest
from helpers import compiled, plain

import autolr
from autolr import compat
from autolr.optimizers import with_number_as_rate

PACKAGE = Path(autolr.__file__).parent
COMPAT = ("compat", "compat_tuner")
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem not in COMPAT)


def private(owner):
    """Names with one leading underscore that an object has."""
    return {name for name in dir(owner) if name.startswith("_") and not name.startswith("__")}


def model():
    made = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    made.compile("sgd", "mse")
    return made


def owners():
    oracle = kt.oracles.HyperbandOracle("loss", max_epochs=2)
    callback = keras.callbacks.ReduceLROnPlateau()
    return [model(), keras.optimizers.Adam(), oracle, callback, kt.Tuner, kt.Hyperband, kt.HyperParameters()]


def excluding():
    optimizer = keras.optimizers.AdamW(weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


FOREIGN = set().union(*(private(owner) for owner in owners()))


def assigned(tree):
    """Private attributes that a module itself sets, which are its own."""
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}


@pytest.mark.parametrize("module", MODULES)
def test_private_names_of_others_are_neither_used_nor_overridden_outside_compat(module):
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    defined = {method.name for node in classes for method in node.body if isinstance(method, ast.FunctionDef)}
    constants = {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    touched = ((used - assigned(tree)) | defined | constants) & FOREIGN
    assert not touched, f"autolr/{module}.py touches {sorted(touched)}: move it to a compat file and say why there."


@pytest.mark.parametrize("module", MODULES)
def test_private_names_are_asked_of_self_alone(module):
    # Whatever is not `self._name`, `cls._name` or a private name of the same module belongs to somebody else.
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    own = assigned(tree) | {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    strangers = [
        f"{ast.unparse(node)} in line {node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
        and node.attr not in own
    ]
    assert not strangers


@pytest.mark.parametrize("module", COMPAT)
def test_every_private_name_in_compat_is_explained(module):
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


USED = {
    "Model._symbolic_build": (lambda: keras.Model, "create the variables of an unbuilt model"),
    "Model._compile_loss": (model, "know whether a first fit on JAX will draw a batch"),
    "Model._compile_config": (model, "have the optimizer saved that a trial trains with"),
    "Model._compile_metrics": (model, "know whether a first fit on JAX will draw a batch"),
    "Functional._nodes_by_depth": (
        lambda: keras.Model(it := keras.Input((2,)), keras.layers.Dense(1)(it)),
        "know which layers see a batch more than once",
    ),
    "Layer._flatten_layers": (lambda: keras.Layer, "find the layers within a layer"),
    "Sequential._functional": (model, "know which layers see a batch more than once"),
    "Optimizer._learning_rate": (keras.optimizers.SGD, "tell a schedule from a number"),
    "Optimizer._trainable_variables": (keras.optimizers.SGD, "build a copy for the same variables in the same order"),
    "Optimizer._exclude_from_weight_decay": (excluding, "copy what is excluded from weight decay"),
    "Optimizer._exclude_from_weight_decay_pattern": (excluding, "copy what is excluded from weight decay"),
    "Tuner._populate_initial_space": (lambda: kt.Tuner, "add the schedule's hyperparameters"),
    "Tuner._build_and_fit_model": (lambda: kt.Tuner, "know which trial is at work"),
    "Tuner._try_build": (lambda: kt.Tuner, "see a trial's model before its fit"),
    "Tuner._get_tuner_fname": (lambda: kt.Tuner, "open what a chief has left"),
    "Tuner._is_worker": (lambda: kt.Tuner, "leave the oracle of a worker alone"),
    "Tuner._get_checkpoint_fname": (lambda: kt.Tuner, "load the optimizer's state of a Hyperband parent"),
    "Oracle._compute_values_hash": (lambda: kt.Oracle, "keep what a trial found out of its hash"),
    "Oracle._get_oracle_fname": (lambda: kt.Oracle, "write oracle.json whole"),
    "Oracle._save_trial": (lambda: kt.Oracle, "write trial.json whole"),
    "Oracle._retry_queue": (
        lambda: kt.Oracle("loss"),
        "not run trials again that have ended, and those of lost workers once more",
    ),
    "Oracle._check_consecutive_failures": (lambda: kt.Oracle, "judge failures in a row when they are written down"),
    "Oracle._get_trial_dir": (lambda: kt.Oracle, "write trial.json whole"),
    "Oracle._project_dir": (lambda: kt.Oracle, "see whether a worker still writes to its trial's folder"),
}


@pytest.mark.parametrize("name", USED)
def test_a_private_name_in_use_is_still_there(name):
    make, purpose = USED[name]
    attribute = name.split(".")[1]
    assert hasattr(make(), attribute), f"{name} is gone. autolr uses it to {purpose}."


@pytest.mark.parametrize("module", COMPAT)
def test_this_file_names_all_private_names_that_compat_uses(module):
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    elsewhere = {"_optimizer_map", "_rng"}  # below, and in tests/test_compat.py
    assert used & FOREIGN <= {name.split(".")[1] for name in USED} | elsewhere


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="this Keras has none")
def test_a_multi_optimizer_still_knows_where_variables_go():
    first, rest = keras.optimizers.SGD(0.1), keras.optimizers.Adam(0.01)
    multi = keras.optimizers.MultiOptimizer(lambda variable: first if "kernel" in variable.path else rest)
    message = "MultiOptimizer has no `_optimizer_map` any more. autolr/compat.py copies it to set all rates at once."
    assert hasattr(multi, "_optimizer_map"), message


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="this Keras has none")
@pytest.mark.parametrize("scaled", [False, True])
def test_of_several_optimizers_those_are_saved_that_were_compiled(scaled):
    made, first = plain("rmsprop"), keras.optimizers.SGD(0.1)
    several = keras.optimizers.MultiOptimizer(lambda variable: first)
    if scaled:
        several = keras.optimizers.LossScaleOptimizer(several)
    compat.replace_optimizer(made, with_number_as_rate(several))
    assert made.get_compile_config()["optimizer"]["class_name"] == "RMSprop"
    compat.replace_optimizer(made, first)
    assert made.get_compile_config()["optimizer"]["class_name"] == "SGD"


def test_a_full_oracle_file_is_left_when_a_write_is_cut_short(tmp_path, monkeypatch):
    tuner = autolr.RandomSearch(lambda hp: model(), "loss", max_trials=1, directory=tmp_path, project_name="p")
    tuner.save()
    before = (tmp_path / "p" / "oracle.json").read_text()
    monkeypatch.setattr(type(tuner.oracle), "get_state", lambda self: {"a": object()})  # JSON stops half-way
    with pytest.raises(TypeError):
        tuner.save()
    assert (tmp_path / "p" / "oracle.json").read_text() == before
    assert not list((tmp_path / "p").glob(".*-*"))


def test_trials_are_mended_after_a_kill_between_two_writes(tmp_path):
    def tuner():
        return autolr.RandomSearch(lambda hp: model(), "loss", max_trials=5, directory=tmp_path, project_name="p")

    first = tuner()
    first.save()
    ended, running = (first.oracle.create_trial(name) for name in ("a", "b"))
    ended.status, ended.score = "COMPLETED", 0.5
    first.oracle._save_trial(ended)  # killed here: the oracle's own file has not heard of it
    unlisted = kt.engine.trial.Trial(kt.HyperParameters(), trial_id="2", status="RUNNING")
    first.oracle._save_trial(unlisted)  # killed here: the oracle's own file does not list it
    again = tuner().oracle
    assert set(again.trials) == {ended.trial_id, running.trial_id}
    assert again.end_order == [ended.trial_id]
    assert again.create_trial("b").trial_id == running.trial_id


def test_trials_that_an_oracle_was_given_to_learn_from_are_kept(tmp_path):
    def build(hp):
        hp.Float("unused", 0, 1)
        return model()

    oracle = kt.oracles.BayesianOptimizationOracle(kt.Objective("loss", "min"), max_trials=5)
    for number in range(3):
        earlier = kt.engine.trial.Trial(kt.HyperParameters(), trial_id=f"earlier{number}", status="COMPLETED")
        earlier.score = 0.5
        oracle.trials[earlier.trial_id] = earlier
    autolr.with_auto_lr(kt.Tuner)(oracle=oracle, hypermodel=build, directory=tmp_path)
    assert set(oracle.trials) == {"earlier0", "earlier1", "earlier2"}
    assert oracle.end_order == []


def test_a_deep_copy_of_a_tuner_saves_and_asks_its_own_oracle(tmp_path):
    def build(hp):
        hp.Float("unused", 0, 1)
        return model()

    tuner = autolr.RandomSearch(build, "loss", max_trials=3, directory=tmp_path, project_name="p")
    tuner.oracle.create_trial("a")
    copied = copy.deepcopy(tuner)
    copied.oracle.create_trial("b")
    started = json.loads((tmp_path / "p" / "oracle.json").read_text())["start_order"]
    assert started == copied.oracle.start_order == ["0", "1"]
    assert tuner.oracle.start_order == ["0"]


def test_a_search_begun_without_autolr_is_taken_up_and_says_what_it_lacks(tmp_path):
    arguments = {"objective": "loss", "max_trials": 1, "directory": tmp_path, "project_name": "p"}
    kt.RandomSearch(lambda hp: model(), **arguments).save()
    with pytest.warns(autolr.AutoLRWarning, match="begun without AutoLR.*not trained again.*`lr_decay`"):
        autolr.RandomSearch(lambda hp: model(), **arguments)
    autolr.RandomSearch(lambda hp: model(), **arguments, overwrite=True).save()
    with warnings.catch_warnings():
        warnings.simplefilter("error", autolr.AutoLRWarning)
        autolr.RandomSearch(lambda hp: model(), **arguments)


def test_a_search_that_goes_on_with_another_objective_is_told_of(tmp_path, data):
    def build(hp):
        return compiled(keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")]), "sgd")

    def search(objective):
        return autolr.RandomSearch(build, objective, max_trials=1, directory=tmp_path, range_test_min_steps=2)

    search("val_accuracy").search(*data, validation_split=0.25, epochs=1, verbose=0)
    with pytest.warns(autolr.AutoLRWarning, match=r"objective val_accuracy \(max\), and goes on with val_loss \(min\)"):
        search("val_loss")
    with warnings.catch_warnings():
        warnings.simplefilter("error", autolr.AutoLRWarning)
        search("val_accuracy")


@pytest.mark.parametrize(
    ("kind", "gone"),
    [
        ("RandomSearch", "1"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [("RandomSearch", "0"), ("BayesianOptimization", "0"), ("BayesianOptimization", "1")]
        ),
    ],
)
def test_a_search_goes_on_without_a_folder_that_was_deleted(tmp_path, data, kind, gone):
    """Keras Tuner names a trial by how many there are: it would give the last one's name again, and again."""

    def build(hp):
        top = keras.layers.Dense(3, activation="softmax", use_bias=hp.Boolean("bias"))
        return compiled(keras.Sequential([keras.Input((6,)), top]), "sgd")

    def search(max_trials):
        options = {"max_trials": max_trials, "directory": tmp_path, "project_name": "p", "range_test_min_steps": 2}
        tuner = getattr(autolr, kind)(build, "val_loss", seed=1, **options)
        tuner.search(*data, validation_split=0.25, epochs=1, verbose=0)
        return tuner.oracle

    before = search(2)
    kept = next(trial for trial in before.trials.values() if trial.trial_id != gone)
    shutil.rmtree(tmp_path / "p" / f"trial_{gone}")
    with pytest.warns(autolr.AutoLRWarning, match=f"the folders of trials {gone} are gone. They count among"):
        after = search(3)
    assert {name: trial.status for name, trial in after.trials.items()} == {
        gone: "FAILED",
        kept.trial_id: "COMPLETED",
        "2": "COMPLETED",
    }
    assert after.trials[kept.trial_id].score == kept.score
    assert sorted(path.name for path in (tmp_path / "p").glob("trial_*")) == sorted(
        f"trial_{name}" for name in (kept.trial_id, "2")
    )


@pytest.mark.parametrize("how", ["interrupted", "extended"])
def test_a_grid_goes_on_where_it_was(tmp_path, data, how):
    """Keras Tuner does not save where in the grid it was: a `KeyError`, or an end without a word."""

    class Interrupt(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            if how == "interrupted" and (tmp_path / "p" / "trial_1").exists():
                raise KeyboardInterrupt

    def search(max_trials, *callbacks):
        hp = kt.HyperParameters()
        for name in ("cycle_length", "mult_factor", "lr_decay"):
            hp.Fixed(name, 1)
        options = {"max_trials": max_trials, "hyperparameters": hp, "directory": tmp_path, "project_name": "p"}
        tuner = autolr.GridSearch(
            lambda hp: plain() if hp.Choice("units", [2, 3, 4, 5]) else None,
            "loss",
            range_test_min_steps=2,
            **options,
        )
        tuner.search(*data, epochs=1, batch_size=16, verbose=0, callbacks=list(callbacks))
        return tuner.oracle

    if how == "interrupted":
        with pytest.raises(KeyboardInterrupt):
            search(4, Interrupt())
    else:
        search(2)
    trials = search(4).trials
    assert [trials[str(n)].status for n in range(4)] == ["COMPLETED"] * 4
    assert [trials[str(n)].hyperparameters.get("units") for n in range(4)] == [2, 3, 4, 5]


def test_a_trial_that_is_trained_again_has_the_score_of_that_training(tmp_path, data):
    class CutOffAtItsEnd(autolr.RandomSearch):
        cut = True

        def on_trial_end(self, trial):
            if self.cut:
                raise KeyboardInterrupt
            super().on_trial_end(trial)

    def tuner():
        options = {"max_trials": 1, "directory": tmp_path, "range_test_min_steps": 2}
        return CutOffAtItsEnd(lambda hp: plain(), "loss", **options)

    with pytest.raises(KeyboardInterrupt):
        tuner().search(*data, epochs=1, verbose=0)
    again, losses = tuner(), []
    CutOffAtItsEnd.cut = False
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: losses.append(logs["loss"]))
    again.search(*data, epochs=1, verbose=0, callbacks=[note])
    assert again.oracle.get_best_trials()[0].score == losses[-1]


@pytest.mark.parametrize(("worker", "kept"), [("worker1", True), ("chief", False)])
def test_a_worker_leaves_the_folder_that_the_chief_has_emptied_alone(tmp_path, monkeypatch, worker, kept):
    """Keras Tuner deletes it in each process that says `overwrite=True`: the search under way."""
    (tmp_path / "p" / "trial_0").mkdir(parents=True)
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "8123")
    monkeypatch.setenv("KERASTUNER_TUNER_ID", worker)
    monkeypatch.setattr("keras_tuner.src.distribute.oracle_chief.start_server", lambda oracle: None)
    autolr.RandomSearch(lambda hp: plain(), "loss", max_trials=1, directory=tmp_path, project_name="p", overwrite=True)
    assert (tmp_path / "p" / "trial_0").exists() == kept


def test_a_finished_search_is_opened_where_nothing_can_be_written(tmp_path, data, monkeypatch):
    def tuner():
        return autolr.RandomSearch(
            lambda hp: plain(), "loss", max_trials=1, directory=tmp_path, project_name="p", range_test_min_steps=2
        )

    tuner().search(*data, epochs=1, verbose=0)
    again = tuner()

    def refuse(*args):
        raise PermissionError("read only")

    monkeypatch.setattr("keras_tuner.src.engine.stateful.utils.save_json", refuse)
    again.search(*data, epochs=1, verbose=0)
    assert [trial.status for trial in again.oracle.trials.values()] == ["COMPLETED"]


def test_a_folder_whose_name_is_a_pattern_is_refused_before_trials_are_written_over(tmp_path, data):
    """Keras Tuner finds no trials in it, and would begin again with the first one's name."""

    def tuner(folder):
        options = {"directory": tmp_path / folder, "project_name": "p", "range_test_min_steps": 2}
        return autolr.RandomSearch(lambda hp: plain(), "loss", max_trials=1, **options)

    with pytest.warns(autolr.AutoLRWarning, match=r"cannot be taken up again.*\[v2\]"):
        begun = tuner("runs [v2]")
    begun.search(*data, epochs=1, verbose=0)
    with pytest.raises(ValueError, match=r"^Argument `directory` must hold none of .*\[v2\].* another name"):
        tuner("runs [v2]")
    (tmp_path / "runs [v2]").rename(tmp_path / "runs v2")
    assert [trial.status for trial in tuner("runs v2").oracle.trials.values()] == ["COMPLETED"]
