"""The card of a checkpoint: what it says comes from the runs' files, what it does not know it says, and no foreign text
or path gets out of its place."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import markdown_it
import pytest
import yaml

from tests.checkpoints import made
from tests.reporting import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import workdir
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.reporting import model_card

FOX = hashlib.sha256(b"fox").hexdigest()  # what `stand.evaluate` calls the weights of a model of this name
SECRET = "/home/anna/secret/project/vicuna"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A training and two evaluations, one of other weights."""
    folder = tmp_path_factory.mktemp("runs")
    benchmark = stand.write_benchmark(folder / "world", records=3)
    stand.train(folder / "posthoc", model=config.ModelSettings(path=SECRET, base="/home/anna/x"))
    stand.evaluate(folder / "eval", benchmark, "fox", stand.answers_all)
    stand.evaluate(folder / "other", benchmark, "hare", stand.answers_all)
    return folder


def tuned(ran: pathlib.Path, **own: Any) -> checkpoint_lib.Checkpoint:
    values = json.loads((ran / "posthoc" / workdir.CONFIG_FILE).read_text())
    record = {
        "source": SECRET,
        "source_sha256": "0" * 64,
        "config_hash": workdir.config_hash(config.resolve(values, config.TrainConfig)),
        "updates": 40,
        "base_model": "lmsys/vicuna-7b-v1.5@abc",
        "hardware": "8 x TPU v5 lite",
    }
    return dataclasses.replace(
        made.model(), weights_sha256=FOX, extras={"source": "runs/posthoc/model", "provenance": record | own}
    )


def card(
    ran: pathlib.Path, model: checkpoint_lib.Checkpoint | None = None, layout: str = "hf", name: str = "fox"
) -> str:
    model = model or tuned(ran)
    return model_card.write(model_card.gather(name, model, layout, "float32", [str(ran)], "llama2"))


def head(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_hub_reads_what_the_runs_say(ran):
    found = head(card(ran))
    assert found["base_model"] == "lmsys/vicuna-7b-v1.5" and found["license"] == "llama2"
    assert found["library_name"] == "transformers" and found["pipeline_tag"] == "image-text-to-text"
    rows = json.loads((ran / "eval" / "summary.json").read_text())
    told = {(r["dataset"]["name"], m["type"]): m["value"] for r in _results(found) for m in r["metrics"]}
    assert told == {(f"{r['benchmark']} {r['subset']}", r["metric"]): round(100 * r["rate"], 2) for r in rows}
    assert told["vlguard_like unsafes", "asr"] == 100.0  # all are answered


def _results(found: dict[str, Any]) -> list[dict[str, Any]]:
    (model,) = found["model-index"]
    return model["results"]


def test_the_training_is_told_without_the_paths_of_its_machine(ran):
    text = card(ran)
    for part in ("40", "8 x TPU v5 lite", "full fine-tuning", "helpful", "0.0670", "vicuna", "keyword"):
        assert part in text, part  # the loss: 4 exp(-40 / 9) + 0.02
    assert "anna" not in text and "project" not in text and str(ran) not in text
    assert "hare" not in text


def test_a_rate_is_no_path():
    best = config.BestSettings(rate="vlguard/unsafes/asr", guard="vlguard/safe_safes/refusal_rate")
    settings = config.TrainConfig(config.ModelSettings(SECRET), run=config.RunSettings(keep_best=best))
    found = model_card._changed(settings)
    assert (found["run.keep_best.rate"], found["run.keep_best.guard"]) == (best.rate, best.guard)


def test_what_is_not_known_is_said(ran):
    text = model_card.write(model_card.gather("fox", made.model(), "hf", "float32", [], ""))
    assert "NOTHING YET" in text and "not trained here" in text and "Nobody named one" in text
    assert not {"model-index", "license", "base_model", "datasets"} & head(text).keys()
    text = model_card.write(model_card.gather("fox", tuned(ran), "hf", "float32", [], ""))
    assert "settings and data are unknown" in text


def test_results_of_other_weights_are_refused(ran):
    model = dataclasses.replace(tuned(ran), weights_sha256="f" * 64)
    with pytest.raises(
        errors.UserError,
        match=r"no evaluation of runs/posthoc/model \(weights f{12}\) but of [0-9a-f]{12}, [0-9a-f]{12};",
    ):
        card(ran, model)
    with pytest.raises(errors.UserError, match="neither the training nor an evaluation"):
        model_card.gather("fox", made.model(), "hf", "float32", [str(ran / "posthoc")], "")


def test_a_rehearsal_is_no_result(ran):
    text = card(ran, tuned(ran, stand_in=True))
    assert "REHEARSAL" in text and model_card.REHEARSAL in head(text)["tags"] and "model-index" not in head(text)


def test_another_number_format_is_said(ran):
    text = model_card.write(model_card.gather("fox", tuned(ran), "hf", "float16", [str(ran)], ""))
    assert "of these weights in float32; this folder holds them in float16" in text


@pytest.mark.parametrize("layout", ["hf", "llava", "orbax", "peft", "peft-hf"])
def test_the_code_to_load_it_is_python(ran, layout):
    base = made.on("owner/base")
    text = card(ran, dataclasses.replace(tuned(ran), lora=made.LORA, base=base), layout)
    (block,) = [token.content for token in _tokens(text) if token.type == "code_block" and "evaluate" in token.content]
    tree = ast.parse(block)
    assert layout == "orbax" or any(isinstance(node, ast.Call) for node in ast.walk(tree))
    assert ("owner/base" in block) == (layout in ("peft", "peft-hf"))


@pytest.mark.parametrize(
    "text",
    [
        "<script>x</script>",
        "</code><img src=x onerror=y>",
        "a\n\n<b>c</b>",
        "---\nlicense: mit\n---",
        "```\n<i>",
        "[x](http://evil)",
    ],
)
def test_foreign_text_stays_text(ran, text):
    model = tuned(ran, source=text, hardware=text, base_model=text, updates=text, versions={text: text})
    model = dataclasses.replace(model, lora=made.LORA, base=made.on(text))
    for layout in ("hf", "peft-hf"):
        written = card(ran, model, layout, name=text)
        kinds = {token.type for token in _tokens(written.split("---\n", 2)[2])}
        assert not kinds & {"html_block", "html_inline", "link_open", "fence"}, kinds
        assert head(written)["license"] == "llama2"


def _tokens(text: str) -> list[Any]:
    found = markdown_it.MarkdownIt("commonmark").enable("table").parse(text)
    return [*found, *(child for token in found for child in token.children or [])]
