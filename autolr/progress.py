"""What a search shows while it runs: one screen on a terminal, plain lines elsewhere, nothing if it is to be quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras

from autolr import compat_tuner
from autolr.terminal import is_terminal

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

REFRESH_SECONDS = 0.25


def progress_for(verbose: Any, name: str = "") -> Lines:
    """What fits the `verbose` of a search and where its output goes.

    Only the default, `"auto"`, makes room for the screen: it takes the place of Keras Tuner's tables and Keras's bars.
    Who asks for those by `verbose=1` or `2` gets them, with AutoLR's lines between.

    Args:
        verbose: As for `fit`.
        name: Of the search.
    """
    if verbose == 0:
        return Silence()
    # A notebook's output is no terminal, and workers share one.
    if verbose != "auto" or not is_terminal(sys.stdout) or compat_tuner.has_chief():
        return Lines()
    from rich.console import Console

    console = Console(file=sys.stdout)
    return Lines() if console.is_dumb_terminal or not console.is_terminal else Screen(console, name)


class Lines:
    """A line for each phase of a trial."""

    takes_over = False  # whether Keras and Keras Tuner should print nothing themselves

    def say(self, trial_id: str, text: str) -> None:
        """Tell of a phase: its name, a colon, and what there is to know."""
        self._print(f"AutoLR trial_{trial_id} | {text}")

    def _print(self, text: str) -> None:
        print(text, flush=True)

    @contextmanager
    def shown(self, oracle: Any) -> Iterator[None]:
        """While a search runs."""
        yield

    def begin(self, trial: Any, oracle: Any) -> None:
        """A trial begins."""

    def end(self, trial: Any, oracle: Any) -> None:
        """A trial has ended."""

    def step(self, done: float, total: float | None, text: str) -> None:
        """So much of a trial's training is done, in steps."""

    def sum_up(self, text: str) -> None:
        """The search has ended, and this is to be said of it."""
        self._print(f"AutoLR | {text}")

    def interrupted(self, folder: str, *, overwrites: bool) -> None:
        """The search was interrupted by Ctrl-C; what has ended of it is in this folder, which its tuner may empty."""
        how = "make the tuner again, with `overwrite=False`," if overwrites else "make the tuner again"
        self._print(f"\nAutoLR | interrupted. To go on, {how} and call `search`: {folder}")


class Silence(Lines):
    """Nothing at all."""

    @contextmanager
    def shown(self, oracle: Any) -> Iterator[None]:
        """Have the times noted all the same, for a report."""
        with compat_tuner.silent_display(oracle):
            yield

    def _print(self, text: str) -> None:
        pass


class Screen(Lines):
    """A few lines that are drawn again and again: the trial, its phase, a bar, the best so far, and how long it takes.

    Drawn at every change, so that each phase is seen however short it is, and in between, for the times. What others
    print meanwhile goes above it.
    """

    takes_over = True

    def __init__(self, console: Console, name: str) -> None:
        self._console, self._name = console, name
        self._trial = self._best = ""
        self._phase, self._facts = "", {"bounds": "", "schedule": ""}
        # Replaced whole: Rich's thread reads it meanwhile.
        self._bar: tuple[float, float | None] = 0.0, None
        self._training_since = self._trial_since = time.monotonic()
        self._ended: dict[str, float] = {}  # seconds that each trial took, retries included
        self._before = 0  # trials that had ended when a search was taken up again
        self._left: int | None = None  # trials that have not begun
        self._refresh: Callable[[], None] = lambda: None  # draws at once, while the screen is shown

    @contextmanager
    def shown(self, oracle: Any) -> Iterator[None]:
        """Draw until the search ends, however it does."""
        from rich.live import Live

        keras.ops.zeros(())  # what the backend prints when it begins would push the first picture up, to stay there
        self._note_best(oracle)
        self._before = len(oracle.end_order)
        live = Live(
            get_renderable=self._draw,
            console=self._console,
            refresh_per_second=1 / REFRESH_SECONDS,
            redirect_stderr=is_terminal(sys.stderr),  # errors sent to a file belong there
        )
        with compat_tuner.silent_display(oracle), live:
            self._refresh = live.refresh
            try:
                yield
            finally:
                self._refresh = lambda: None
                live.transient = not self._trial  # of a search that had ended already, nothing stays

    def begin(self, trial: Any, oracle: Any) -> None:
        """Name the trial."""
        order, most = oracle.start_order, oracle.max_trials
        number = order.index(trial.trial_id) + 1 if trial.trial_id in order else None  # a user's oracle may not note it
        self._left = most - number if most and number else None
        # Keras Tuner's own name of a trial, which is that of its folder, counts from 0.
        place = f"Trial {number}" + (f" of {most}" if most else "") if number else "Trial"
        self._trial = f"{place} (trial_{trial.trial_id})"
        self._phase, self._facts = "building the model", {"bounds": "", "schedule": ""}
        self._bar = 0.0, None
        self._trial_since = time.monotonic()
        self._refresh()

    def end(self, trial: Any, oracle: Any) -> None:
        """Count the trial; see whether it is the best."""
        spent = time.monotonic() - self._trial_since
        self._ended[trial.trial_id] = self._ended.get(trial.trial_id, 0.0) + spent
        self._phase, self._bar = "ended", (1.0, 1.0)
        if trial.status != "COMPLETED":  # its error, if it was one, was printed without a name
            why = "see the error above" if trial.message else "its objective is not a number"
            self._console.print(f"AutoLR trial_{trial.trial_id} | no score: {why}", highlight=False)
        self._note_best(oracle)
        self._refresh()

    def _note_best(self, oracle: Any) -> None:
        for trial in compat_tuner.best_completed_trials(oracle, 1):
            self._best = f"{trial.score:.5g} (trial_{trial.trial_id})"
        self._objective = str(getattr(oracle.objective, "name", "score"))

    def say(self, trial_id: str, text: str) -> None:
        """Keep bounds and schedule; anything else is a phase."""
        kind, _, rest = text.partition(": ")
        if kind in self._facts:
            self._facts[kind] = rest
        else:
            self._phase, self._bar = text.removesuffix(" ..."), (0.0, None)
        self._refresh()

    def step(self, done: float, total: float | None, text: str) -> None:
        """Move the bar."""
        if not done:
            self._training_since = time.monotonic()
        self._phase, self._bar = text, (done, total)
        self._refresh()

    def _trial_seconds_left(self) -> float | None:
        done, total = self._bar
        if not total or not done or self._phase == "ended":
            return None
        spent = time.monotonic() - self._training_since
        return max(0.0, spent / done * (total - done))

    def _search_seconds_left(self) -> float | None:
        here = self._trial_seconds_left()
        if self._left is None or not (self._ended or here is not None):
            return None
        this = time.monotonic() - self._trial_since + (here or 0.0)
        mean = sum(self._ended.values()) / len(self._ended) if self._ended else this
        if self._phase == "ended":
            return mean * self._left if self._left else None
        return mean * self._left + (here if here is not None else mean)

    def _draw(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        head = Text.assemble((self._trial or "Search", "bold"), "  ", self._phase, no_wrap=True, overflow="ellipsis")
        bar = Table.grid(padding=(0, 1))
        done, total = self._bar
        share = done / total if total else None
        left = self._trial_seconds_left()
        bar.add_row(
            ProgressBar(total=1.0, completed=share or 0.0, width=30, pulse=share is None),
            f"{share:4.0%}" if share is not None and self._phase != "ended" else "",
            f"{duration(left)} left" if left is not None else "",
        )
        facts = Table.grid(padding=(0, 2))
        facts.add_column(style="dim", no_wrap=True)
        facts.add_column(no_wrap=True, overflow="ellipsis")
        for name, fact in self._facts.items():
            facts.add_row(name, Text(fact))
        facts.add_row("best so far", Text(f"{self._objective} {self._best}" if self._best else "none yet"))
        whole = self._search_seconds_left()
        count = self._before + len(self._ended)
        said = f"{self._name}, {count} trial{'s' * (count != 1)} ended"
        facts.add_row("search", Text(said + (f", about {duration(whole)} left" if whole is not None else "")))
        return Group(head, bar, facts)


class StepReporter(keras.callbacks.Callback):
    """Tells the screen how far a training is, a few times a second.

    Args:
        progress: The screen.
        number: Of the training in its trial, which may have several executions.
    """

    def __init__(self, progress: Lines, *, number: int = 1) -> None:
        super().__init__()
        self._progress, self._next, self._began = progress, 0.0, False
        self._what = f"training {number}" if number > 1 else "training"

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Tell of the epoch."""
        if not self._began:
            self._first, self._began = epoch, True
            self._tell(epoch, 0)
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Tell, if the last time was a while ago."""
        if time.monotonic() >= self._next:
            self._tell(self._epoch, batch + 1)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Tell of the whole epoch."""
        self._tell(epoch + 1, 0)

    def _tell(self, epoch: int, batches: int) -> None:
        self._next = time.monotonic() + REFRESH_SECONDS
        epochs, each = int(self.params["epochs"]), self.params.get("steps")
        text = f"{self._what}, epoch {min(epoch + 1, epochs)} of {epochs}"
        done = (epoch - self._first) * (each or 1) + (batches if each else 0)  # of unknown size: whole epochs
        self._progress.step(float(done), float((epochs - self._first) * (each or 1)), text)


def duration(seconds: float) -> str:
    """A time to wait, in the unit one would say it in."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
