"""The example says in one line what is wrong, ends with exit code 2, and overwrites nothing."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("mnist_search", EXAMPLES / "mnist_search.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def images(count=20, size=28):
    return np.zeros((count, size, size), np.uint8), np.zeros(count, np.uint8)


def write_npz(path, **changes):
    x, y = images()
    np.savez(path, **{"x_train": x, "y_train": y, "x_test": x, "y_test": y, **changes})
    return path


def one_line_error(example, capsys, *arguments):
    assert example.main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("mnist_search: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_wrong_path(example, capsys, tmp_path):
    assert "no such file" in one_line_error(example, capsys, "--data", tmp_path / "none.npz", "--out", tmp_path / "o")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"not an archive"])
def test_a_broken_npz(example, capsys, tmp_path, content):
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    assert "not a readable npz" in one_line_error(example, capsys, "--data", path, "--out", tmp_path / "o")


def test_missing_keys_and_wrong_shapes(example, capsys, tmp_path):
    x, y = images()
    np.savez(tmp_path / "keys.npz", x_train=x, y_train=y)
    assert "x_test, y_test" in one_line_error(example, capsys, "--data", tmp_path / "keys.npz")
    for changes, named in [
        ({"x_train": x.reshape(20, -1)}, "x_train"),
        ({"x_train": x.astype("float32")}, "x_train"),
        ({"y_test": y[:-1]}, "y_test"),
        ({"y_train": y.astype("float32")}, "y_train"),
        ({"x_test": images(size=14)[0]}, "one shape"),
    ]:
        assert named in one_line_error(example, capsys, "--data", write_npz(tmp_path / "wrong.npz", **changes))


def test_a_folder_that_holds_something_is_left_alone(example, capsys, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    assert "not empty" in one_line_error(example, capsys, "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert "no search to resume" in one_line_error(example, capsys, "--resume", "--out", tmp_path)
    assert "needs --out" in one_line_error(example, capsys, "--resume")


def test_another_search_is_not_resumed(example, capsys, tmp_path):
    settings = {"data": "sample", "tuner": "grid", "trials": 5, "epochs": 8, "executions": 1, "seed": 0}
    (tmp_path / "settings.json").write_text(json.dumps({**settings, "batch_size": 64}))
    assert "--tuner grid" in one_line_error(example, capsys, "--resume", "--out", tmp_path)
    (tmp_path / "settings.json").write_text("{")
    assert "cannot be read" in one_line_error(example, capsys, "--resume", "--out", tmp_path)


def test_what_is_said_after_ctrl_c_works_as_it_stands(example, capsys, tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as loading:
        loading.setattr(example, "load_data", interrupted)
        assert example.main([]) == 130
    assert capsys.readouterr().err == "\nInterrupted\n"  # nothing had begun
    monkeypatch.setattr(example, "search", interrupted)
    assert example.main(["--epochs", "2", "--tuner", "grid"]) == 130
    command = shlex.split(capsys.readouterr().err.partition("To go on: ")[2])[2:]
    assert command == ["--epochs", "2", "--tuner", "grid", "--out", str(Path("runs", "mnist-1")), "--resume"]
    assert example.main(command) == 130
    assert shlex.split(capsys.readouterr().err.partition("To go on: ")[2])[2:] == command


def test_the_bundled_sample_is_what_it_says(example):
    assert example.SAMPLE.stat().st_size < 2.5e6
    data = example.load_data("sample")
    assert data["x_train"].shape == (10_000, 28, 28, 1)
    assert data["x_test"].shape == (2_000, 28, 28, 1)
    shares = np.bincount(data["y_train"]) / 10_000
    # MNIST's own class shares; a stratified sample keeps them to an image or so.
    whole = np.array([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]) / 6e4
    np.testing.assert_allclose(shares, whole, atol=2e-4)
    assert hashlib.sha256(data["x_train"].tobytes()).hexdigest()  # readable to the last byte


@pytest.mark.slow
@pytest.mark.parametrize("tuner", ["random", "bayesian", "hyperband", "grid"])
def test_the_whole_job_for_every_tuner_and_again_with_resume(example, capsys, tmp_path, tuner):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (200, 14, 14), dtype=np.uint8)
    y = (x.mean(axis=(1, 2)) > 127).astype(np.uint8)
    data = write_npz(tmp_path / "tiny.npz", x_train=x, y_train=y, x_test=x[:50], y_test=y[:50])
    arguments = ["--data", data, "--tuner", tuner, "--trials", 2, "--epochs", 2, "--out", tmp_path / "out"]
    assert example.main([str(a) for a in arguments]) == 0
    first = capsys.readouterr().out
    assert "Test error of the winner" in first
    assert re.search(r"Test error of the best [23] trials' ensemble, as the search left them: \d+\.\d\d %", first)
    assert (tmp_path / "out" / "ensemble.keras").exists()
    assert (tmp_path / "out" / "winner.png").stat().st_size > 10_000
    assert list((tmp_path / "out").glob("range_test_*.png"))
    assert example.main([str(a) for a in [*arguments, "--resume"]]) == 0
    assert "range test" not in capsys.readouterr().out.split("Training the winner")[0]  # nothing is run again


def test_a_winner_of_a_later_rung_has_the_range_test_of_the_trial_it_goes_on_from(example, tmp_path):
    for name, test, parent in (("0", {"lrs": []}, None), ("1", None, "0"), ("2", None, "1")):
        folder = tmp_path / "search" / f"trial_{name}"
        folder.mkdir(parents=True)
        content = {"range_test": test, "values": {"tuner/trial_id": parent} if parent else {}}
        (folder / "autolr.json").write_text(json.dumps(content))
    assert example.tested_record("2", tmp_path)["range_test"] == {"lrs": []}


@pytest.mark.skipif(shutil.which("ps") is None, reason="looks for processes by `ps`")
def test_a_worker_that_fails_ends_the_search_on_many_machines(tmp_path):
    python = tmp_path / "python"  # plays the interpreter: the worker fails, the others would go on for a minute
    python.write_text(
        '#!/bin/sh\ncase "$1" in -c) echo 1;; *) echo $$ >> "$2/pids"\n'
        '[ "$KERASTUNER_TUNER_ID" = worker0 ] && sleep 1 && exit 1; exec sleep 60;; esac\n'
    )
    python.chmod(0o755)
    script = EXAMPLES / "distributed_search.sh"
    done = subprocess.run([script, tmp_path], env={**os.environ, "PYTHON": str(python)}, timeout=30, check=False)
    assert done.returncode == 1
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) >= 2, "the chief and the worker that failed at least had begun"

    def runs(pid):
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return state.stdout.strip()[:1] not in ("", "Z")

    deadline = time.monotonic() + 10
    while any(map(runs, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(runs, pids))
