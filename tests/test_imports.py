"""What is loaded when, and that imports run one way only."""

from __future__ import annotations

import ast
import graphlib
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

import autolr

PACKAGE = Path(autolr.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")

WITHOUT_KERAS = [
    *("errors", "cycles", "sgdr", "bounds", "bursts", "curve", "divergence", "records", "trial_values", "plots"),
    *("record_check", "json_parts", "search_folder", "charts", "training_chart", "report_views", "report", "cli"),
]
WITH_KERAS_TUNER = {"compat_tuner", "mixin", "objective_check", "tuners"}


def is_for_type_checkers(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports_of(module, *, also_in_functions):
    """Names of modules imported by a module of the package, those for type checkers left out."""
    found = set()

    def visit(node):
        for child in ast.iter_child_nodes(node):
            if is_for_type_checkers(child):
                for other in child.orelse:
                    visit(other)
            elif isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, "imports are absolute"
                if child.module == "autolr":
                    found.update(f"autolr.{alias.name}" for alias in child.names)
                else:
                    found.add(child.module)
            elif also_in_functions or not isinstance(child, ast.FunctionDef):
                visit(child)

    visit(ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8")))
    return found


def within_package(module, *, also_in_functions=False):
    imported = imports_of(module, also_in_functions=also_in_functions)
    return {name.split(".")[1] for name in imported if name.startswith("autolr.")} & set(MODULES)


def reached_from(module):
    """The modules that importing a module imports, itself included."""
    reachable, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in reachable:
            reachable.add(name)
            waiting += within_package(name)
    return reachable


def run(code):
    """What a fresh interpreter prints, as JSON."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


HEAVY = "sorted(m for m in ('tensorflow', 'keras', 'keras_tuner', 'torch', 'jax', 'matplotlib') if m in sys.modules)"


def test_the_pure_parts_load_neither_keras_nor_tensorflow():
    loaded = run(
        f"""
import json, sys
loaded = {{}}
import autolr
loaded["import autolr"] = {HEAVY} + [m for m in ("numpy", "scipy") if m in sys.modules]
dir(autolr), autolr.__version__
loaded["dir"] = {HEAVY}
autolr.sgdr_lr(3, min_lr=0.1, max_lr=1.0, steps_per_epoch=2)
loaded["sgdr_lr"] = {HEAVY}
lrs = [10 ** (-7 + 0.1 * n) for n in range(80)]
losses = [2 - 1 / (1 + 10 ** (3 - n / 10)) + 10 ** (n / 10 - 6) for n in range(80)]
autolr.find_bounds(lrs, losses)
loaded["find_bounds"] = {HEAVY}
test = autolr.RangeTest(lrs, losses)
autolr.RangeTest.from_dict(test.to_dict()).bounds()
loaded["RangeTest"] = {HEAVY}
autolr.AutoLRWarning, autolr.LRBounds
import autolr.records, autolr.divergence
loaded["records"] = {HEAVY}
autolr.plot_range_test(test), autolr.plot_schedule([0, 5, 9], min_lr=0.1, max_lr=1.0)
loaded["plots"] = {HEAVY}
print(json.dumps(loaded))
"""
    )
    assert loaded.pop("plots") == ["matplotlib"]
    assert loaded == {name: [] for name in loaded}
    assert "find_bounds" in loaded


def test_public_names_are_the_same_to_type_checkers_and_at_run_time():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if is_for_type_checkers(node))
    for_type_checkers = {alias.asname: statement.module for statement in block.body for alias in statement.names}
    for statement in block.body:
        for alias in statement.names:
            assert alias.name == alias.asname, "a re-export must be written `X as X`"
    assert sorted(for_type_checkers) == sorted(autolr.__all__)
    at_run_time = {name: f"autolr.{module}" for name, module in autolr._WHERE.items()}
    assert for_type_checkers == at_run_time


@pytest.mark.parametrize("name", autolr.__all__)
def test_every_public_name_can_be_imported_and_is_documented(name):
    value = getattr(autolr, name)
    assert value.__name__ == name
    assert value.__doc__
    assert name in dir(autolr)


def test_who_looks_for_the_rest_of_keras_tuner_is_told_where_it_is():
    with pytest.raises(AttributeError, match=r"no attribute 'Objective'\. .*keep `keras_tuner\.Objective`"):
        autolr.Objective  # noqa: B018
    with pytest.raises(AttributeError, match=r"it is `autolr\.with_auto_lr\(keras_tuner\.Tuner\)`"):
        autolr.Tuner  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'Nothing'\.$"):
        autolr.Nothing  # noqa: B018


def test_the_contract_is_public():
    promised = """RandomSearch BayesianOptimization GridSearch Hyperband AutoLRMixin with_auto_lr range_test RangeTest
    find_bounds LRBounds sgdr_lr SGDRScheduler LRFinder plot_range_test plot_schedule AutoLRWarning"""
    assert set(promised.split()) <= set(autolr.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'autolr' has no attribute 'nonsense'"):
        _ = autolr.nonsense


def test_the_version_is_the_distributions():
    assert autolr.__version__ == importlib.metadata.version("keras-autolr")


def test_imports_run_one_way():
    graphlib.TopologicalSorter({module: within_package(module) for module in MODULES}).prepare()  # raises on a circle


def test_only_what_draws_reaches_upwards():
    # Inside a function one may import what would close a circle at the top: the pictures, no more. The command line
    # sits above everything and imports late only to start fast.
    later = {
        (module, imported)
        for module in MODULES
        for imported in within_package(module, also_in_functions=True) - within_package(module)
        if module != "cli"
    }
    upwards = {(module, imported) for module, imported in later if module in reached_from(imported)}
    assert {imported for _, imported in upwards} <= {"plots"}


@pytest.mark.parametrize("module", WITHOUT_KERAS)
def test_pure_modules_import_no_keras_even_later(module):
    reachable, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in reachable:
            reachable.add(name)
            waiting += within_package(name, also_in_functions=True)
    for name in reachable:
        outside = {imported.split(".")[0] for imported in imports_of(name, also_in_functions=True)}
        assert not outside & {"keras", "tensorflow", "keras_tuner", "torch", "jax"}, name


@pytest.mark.parametrize("module", MODULES)
def test_only_the_top_imports_keras_tuner(module):
    outside = {imported.split(".")[0] for imported in imports_of(module, also_in_functions=True)}
    assert "keras_tuner" not in outside or module in WITH_KERAS_TUNER


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith("compat")])
def test_private_parts_of_others_are_touched_in_compat_alone(module):
    for imported in imports_of(module, also_in_functions=True):
        if imported.split(".")[0] in ("keras", "keras_tuner", "tensorflow"):
            assert ".src" not in imported
            assert ".python" not in imported


def test_the_package_says_it_is_typed():
    assert (PACKAGE / "py.typed").exists()


def test_the_package_runs_as_the_command_does():
    done = subprocess.run([sys.executable, "-m", "autolr", "--version"], capture_output=True, text=True, check=True)
    assert autolr.__version__ in done.stdout
