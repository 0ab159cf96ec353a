"""Where variables are looked for that Keras does not list."""

from __future__ import annotations

import keras
import pytest

from autolr.held import held_variables


def keyword(variable):
    def step(*, moved=variable):
        moved.assign_add(1.0)

    return step


counter = keras.Variable(0.0)


def within():
    return lambda: counter.assign_add(1.0)


def setting(variable):
    class Model:
        def _set(self, value):
            variable.assign(value)

        rate = property(None, _set)

    return Model()


def in_slot(variable):
    class Slotted:
        __slots__ = "kept"  # noqa: PLC0205 a single one may be written so

    made = Slotted()
    made.kept = variable
    return made


def of_base(variable):
    class Base:
        count = variable

    return type("Derived", (Base,), {})


@pytest.mark.parametrize("hold", [keyword, setting, in_slot, of_base])
def test_variables_are_found_wherever_they_are_held(hold):
    variable = keras.Variable(0.0)
    assert [id(it) for it in held_variables(hold(variable))] == [id(variable)]


def test_what_a_function_within_a_function_names_is_found():
    assert any(it is counter for it in held_variables(within))
