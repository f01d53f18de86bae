"""Questions about the same pictures are asked side by side, and a picture is read once for them."""

import pathlib

import numpy as np

from tests.safety import stand
from vlguard_jax import types
from vlguard_jax.safety import questions
from vlguard_jax.safety import results
from vlguard_jax.safety.benchmarks import benchmark


def _question(key: str, *names: str) -> questions.Question:
    item = benchmark.Item(key, "safes", "What?", tuple(benchmark.Picture(name, pathlib.Path(name)) for name in names))
    shown = tuple(results.Picture(name, f"hash of {name}") for name in names)
    return questions.Question(item, key, np.asarray([1], np.int32), "", "real" if names else "none", shown)


def test_neighbours_share_pictures() -> None:
    asked = [_question("a", "x"), _question("b"), _question("c", "y"), _question("d", "x"), _question("e", "x", "y")]
    asked += [_question("f"), _question("g", "x")]
    assert [q.key for q in questions.neighbours(asked)] == ["a", "d", "g", "b", "c", "e", "f"]


def test_a_picture_is_read_once_for_neighbours(monkeypatch, tmp_path) -> None:
    read = []

    def load(path, *_, origin):
        read.append((str(path), origin))
        return types.Picture({}, types.Extent(1, 1))

    monkeypatch.setattr(questions.images, "load", load)
    asked = [_question("a", "x"), _question("d", "x"), _question("b"), _question("c", "y"), _question("e", "x")]
    made = list(questions.prompts(asked, stand.make_model(tmp_path, str)[0], "pad"))
    assert [len(prompt.pictures) for prompt in made] == [1, 1, 0, 1, 1]
    assert read == [("x", "safes item a"), ("y", "safes item c"), ("x", "safes item e")]
