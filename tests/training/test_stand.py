"""The stand that other tests share stays out of their way."""

from concurrent import futures
import pathlib

import pytest

from tests.training import stand
from vlguard_jax.checkpoints import save
from vlguard_jax.quickstart import model
from vlguard_jax.quickstart import tower


def test_writing_a_model_replaces_nothing_of_the_package(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen = (tower.warm_up, model.VOCABULARY), []
    monkeypatch.setattr(save, "save_llava", lambda *_: seen.append((tower.warm_up, model.VOCABULARY)))
    stand.write_model(tmp_path / "model", seed=0)
    assert seen == [before]


def test_threads_that_ask_at_once_share_one() -> None:
    with futures.ThreadPoolExecutor(4) as pool:
        (found,) = set(pool.map(lambda _: stand.folder(), range(4)))
    assert (found / "chats.json").is_file() and (found / "init" / "config.json").is_file()
