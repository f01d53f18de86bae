"""`ask` gives the reference's answers: the recorded questions of VLGuard's own evaluation, token for token."""

from __future__ import annotations

import pathlib

import pytest

from tests.golden import reference
from vlguard_jax import config
from vlguard_jax.asking import panel as panel_lib
from vlguard_jax.data import vlguard
from vlguard_jax.safety import presets


def question(item: dict, records: list[vlguard.Item]) -> str:
    if item.get("question") is not None:
        return item["question"]
    record = records[item["vlguard_test_index"]]
    (found,) = [text for kind, text, _ in record.pairs if kind == item["instruction_key"]]
    return found


@pytest.mark.parity
def test_answers_are_the_reference_s(golden: pathlib.Path, metadata: pathlib.Path) -> None:
    records = vlguard.read_items(metadata, "test")
    (tower,) = (golden / "vision_tower").iterdir()
    variant = reference.variants(golden)[0]
    recorded = reference.read(golden / f"generations-{variant}.json")
    items = [item for item in recorded["items"] if item["path"] == "vlguard_eval"]
    assert items, "no recorded evaluation"
    settings = presets.vlguard("released")
    settings.model.path = str(golden / f"liuhaotian-{variant}")
    settings.model.vision_tower = str(tower)
    settings.model.template = items[0]["template"]
    settings.mesh.data, settings.mesh.fsdp = -1, 1  # any sizes: nothing is divided over the devices
    settings.decode.max_new_tokens = recorded["settings"]["max_new_tokens"]
    settings.decode.min_new_tokens = recorded["settings"]["min_new_tokens_vlguard"]
    panel = panel_lib.opened([config.resolve(settings, config.EvalConfig)], lambda line: None)
    for item in items:
        shown = panel.picture(str(golden / "images" / item["image"]))
        answer = list(panel.ask(panel_lib.Question(question(item, records), (shown,))))[-1]
        assert isinstance(answer, panel_lib.Answer)
        assert (list(answer.ids), answer.text) == (item["new_ids"], item["text"])
        assert (answer.verdicts[0].verdict.label == "comply") == item["attack_succeeded"]
