"""Worlds that several files of tests look at, drawn once: large enough for every wording; their pictures are not
painted."""

from __future__ import annotations

import pytest

from tests.quickstart import stand


@pytest.fixture(scope="session", params=[1000, pytest.param(1001, marks=pytest.mark.more)], ids="seed{}".format)
def drawn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> stand.Drawn:
    """A world with test items."""
    return stand.draw(tmp_path_factory.mktemp("drawn") / "world", request.param, "test", stand.MEDIUM)


@pytest.fixture(scope="session")
def tuning(drawn: stand.Drawn, tmp_path_factory: pytest.TempPathFactory) -> stand.Drawn:
    """The same seed's world with tuning items."""
    return stand.draw(tmp_path_factory.mktemp("drawn") / "world", drawn.language.seed, "tuning", stand.MEDIUM)
