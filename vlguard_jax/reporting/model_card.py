"""The model card of a checkpoint that is written for others (README.md): what it is, how it was trained, what was
measured of it, and how to load it.

Everything comes from files: the checkpoint's own record, the working directories of the training and of evaluations of
exactly these weights. What no file says, the card calls unknown. Of paths only the end gets in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
import re
from typing import Any

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import escape
from vlguard_jax import versions
from vlguard_jax import workdir as workdir_lib
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.checkpoints import hub
from vlguard_jax.checkpoints import writing
from vlguard_jax.families import table as families
from vlguard_jax.reporting import provenance as provenance_lib
from vlguard_jax.reporting import runs as runs_lib
from vlguard_jax.reporting import tables
from vlguard_jax.safety import summary

NAME = "README.md"
TAGS = ("vlguard", "safety")
REHEARSAL = "rehearsal"
_MEASURE = "python -m vlguard_jax.evaluate --config configs/eval/vlguard.py:llava --config.model.path="
_PATH = re.compile(r"^([~./]|[A-Za-z]:\\)|/.*/|\\")  # a local one; owner/name stays
_RATES = ("run.keep_best.rate", "run.keep_best.guard")  # settings with slashes that are no paths


@dataclasses.dataclass(frozen=True)
class Made:
    """All that the card tells of.

    name: of the model, as its readers load it. model: as read, adapters unmerged. layout, dtype: as written.
    training: the run that made it; None if it is not known. evaluations: of exactly these weights. license: an
    identifier of the hub, "" if nobody named one.
    """

    name: str
    model: checkpoint_lib.Checkpoint
    layout: str
    dtype: str
    training: runs_lib.Training | None = None
    evaluations: Sequence[runs_lib.Evaluation] = ()
    license: str = ""

    @property
    def own(self) -> Mapping[str, Any]:
        """The checkpoint's record of its training."""
        return self.model.extras.get("provenance", {})

    @property
    def rows(self) -> list[summary.Row]:
        """What was measured."""
        return [row for evaluation in self.evaluations for row in evaluation.rows]

    @property
    def rehearsal(self) -> bool:
        """Whether anything in it was drawn by a program in place of data."""
        return bool(self.own.get("stand_in")) or any(row.stand_in for row in self.rows)

    @property
    def adapters(self) -> bool:
        """Whether it is written as adapters of another model."""
        return self.layout in ("peft", "peft-hf")


def gather(
    name: str, model: checkpoint_lib.Checkpoint, layout: str, dtype: str, folders: Sequence[str], license_: str
) -> Made:
    """Find the training and the evaluations of `model` in working directories, and below them.

    Raises:
      UserError: see `runs.find`; nothing in `folders` belongs to this model.
    """
    if not folders:
        return Made(name, model, layout, dtype, license=license_)
    found = runs_lib.find([pathlib.Path(folder) for folder in folders])
    config_hash = model.extras.get("provenance", {}).get("config_hash")
    trained = [one for one in found.trainings if workdir_lib.config_hash(one.config) == config_hash]
    measured = [one for one in found.evaluations if {row.weights_sha256 for row in one.rows} == {model.weights_sha256}]
    where, source = ", ".join(folders), model.extras.get("source", "this model")
    if found.evaluations and not measured:
        theirs = sorted({row.weights_sha256[:12] for one in found.evaluations for row in one.rows})
        raise errors.UserError(
            f"{where}: no evaluation of {source} (weights {model.weights_sha256[:12]}) but of {', '.join(theirs)};"
            f" evaluate it (--config.model.path={source}), or name the folders of its own runs"
        )
    if not trained and not measured:
        raise errors.UserError(f"{where}: neither the training nor an evaluation of {source}; name its own runs")
    return Made(name, model, layout, dtype, trained[0] if trained else None, measured, license_)


def write(made: Made) -> str:
    """The card as Markdown with the hub's metadata. The same files give the same card."""
    parts = [
        f"---\n{_metadata(made)}---",
        f"# {escape.markdown_item(made.name)}",
        *(["**REHEARSAL: drawn stand-ins took the place of data. These are not results.**"] if made.rehearsal else []),
        _what(made),
        "## How it was trained",
        *_trained(made),
        "## What was measured",
        *_measured(made),
        "## How to load it",
        _code(_loading(made)),
        "## Versions",
        _versions(made),
        "## Licence",
        _licence(made),
        "## Limits",
        "Rates are of the questions, judge and settings named above and of nothing else. A model that refuses these"
        " questions may answer others, and a low attack success rate is worth little without the over-refusal beside"
        " it. Try it on your own use before you rely on it.",
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(made: Made) -> str:
    """The YAML that the hub reads. Rates of a rehearsal are left out of it."""
    from huggingface_hub import repocard_data

    sees = families.of(made.model.config).pictures is not None
    kind = "image-text-to-text" if sees else "text-generation"
    results = [
        repocard_data.EvalResult(
            task_type=kind,
            dataset_type=row.benchmark,
            dataset_name=f"{row.benchmark} {row.subset}",
            dataset_config=row.subset,  # the hub joins rows of the same type and config
            metric_type=row.metric,
            metric_name=f"{row.metric} in percent by {row.judge}, n = {row.n}",
            metric_value=round(100 * row.rate, 2),
        )
        for row in made.rows
        if not made.rehearsal
    ]
    base = str(made.own.get("base_model", ""))
    formats = {source.format for source in made.training.config.data.sources.values()} if made.training else set()
    data = repocard_data.ModelCardData(
        base_model=base.partition("@")[0] if hub.is_hub_id(base) else None,
        datasets=["ys-zong/VLGuard"] if formats & {"vlguard", "tfds"} and not made.rehearsal else None,
        eval_results=results or None,
        library_name="peft" if made.adapters else None if made.layout == "orbax" else "transformers",
        license=escape.line(made.license) or None,
        model_name=escape.line(made.name) if results else None,
        pipeline_tag=kind,
        tags=[*TAGS, *([REHEARSAL] if made.rehearsal else [])],
    )
    return data.to_yaml() + "\n"


def _what(made: Made) -> str:
    start = made.own.get("source") or made.model.extras.get("source", "")
    verb = "tuned from" if made.own else "converted from"
    if made.model.lora is None:
        form = "whole model"
    elif made.adapters:
        form = f"LoRA adapters of {_told(made.model.base.name)}" if made.model.base else "LoRA adapters"
    else:
        form = "whole model with its LoRA adapters apart" if made.layout == "orbax" else "whole model, adapters merged"
    return (
        f"A {families.of(made.model.config).name} model {verb} {_told(start)} with vlguard_jax ({form}, layout"
        f" {made.layout}, {made.dtype}). Weights as they were read for this folder:"
        f" `{escape.line(made.model.weights_sha256)}` (sha256 over all arrays)."
    )


def _trained(made: Made) -> list[str]:
    own, run = made.own, made.training
    if not own:
        return ["It was not trained here: the folder that it was made from has no record of it."]
    rows = [("start", _short(str(own.get("source", "")))), ("updates", str(own.get("updates", "unknown")))]
    rows += [
        (name, str(own[key]))
        for key, name in (("hardware", "hardware"), ("config_hash", "config hash"))
        if own.get(key)
    ]
    rows.append(("sha256 of the weights it started from", str(own.get("source_sha256", ""))))
    if run is None:
        return [
            tables.markdown_table(("", ""), rows),
            "Its working directory was not at hand when this card was written: settings and data are unknown.",
        ]
    c = run.config
    last = run.metrics[-1] if run.metrics else {}
    rows += [
        ("method", f"LoRA, rank {c.lora.rank}, alpha {c.lora.alpha:g}" if c.lora.rank else "full fine-tuning"),
        ("conversations an update", str(c.data.batch_size)),
        ("learning rate", f"{c.optimizer.learning_rate:g}, cosine, warm-up {100 * c.optimizer.warmup_ratio:g} %"),
        ("computed in", f"{c.precision.compute}, parameters in {c.precision.params}"),
        ("seed", str(c.seed)),
        *([("last loss", f"{last['loss']:.4f}")] if last else []),
    ]
    sources = [
        (name, s.format, f"{s.count:,}" if s.count else "all", f"{s.weight:g}", ", ".join(s.leave_out) or "nothing")
        for name, s in c.data.sources.items()
    ]
    heads = ("data", "format", "conversations", "times an epoch", "left out")
    return [
        tables.markdown_table(("", ""), rows),
        tables.markdown_table(heads, sources),
        "Settings that differ from vlguard_jax's defaults (of local paths, the end):",
        _code(json.dumps(_changed(c), indent=1, sort_keys=True).splitlines()),
    ]


def _changed(config: settings_lib.TrainConfig) -> dict[str, Any]:
    (settings,) = provenance_lib.settings(runs_lib.Runs((runs_lib.Training("", pathlib.Path(), config, ()),), (), ()))
    plain = dataclasses.asdict(settings_lib.SourceSettings())
    found = {key: json.loads(value) for key, value in settings.changed}
    own = {key: value for key, value in found.items() if not _unchanged(key, value, plain)}
    return {key: value if key in _RATES else _shortened(value) for key, value in own.items()}


def _unchanged(key: str, value: Any, plain: Mapping[str, Any]) -> bool:
    """Whether it is a source's setting at its default, which no default config has under its name."""
    name = key.rpartition(".")[2]
    return key.startswith("data.sources.") and name in plain and value == json.loads(json.dumps(plain[name]))


def _shortened(value: Any) -> Any:
    """Without the machine's paths."""
    if isinstance(value, list):
        return [_shortened(one) for one in value]
    return _short(value) if isinstance(value, str) else value


def _short(text: str) -> str:
    """A name on the hub or a relative path of two parts as it is; of other paths, the end without the machine."""
    if not _PATH.search(text):
        return text
    path = pathlib.PurePath(text)
    return path.name if path.is_absolute() or text.startswith("~") else "/".join(path.parts[-2:])


def _told(name: str) -> str:
    return escape.markdown(_short(name)) or "an unknown model"


def _measured(made: Made) -> list[str]:
    if not made.rows:
        return ["NOTHING YET. To measure it:", _code([_MEASURE + made.name])]
    read = writing.dtype_name(made.model, None)
    headings, lines = tables.cells(made.rows)
    notes = [escape.markdown_item(note) for note in tables.notes(made.rows)]
    if read != made.dtype:
        notes.append(f"The rates are of these weights in {read}; this folder holds them in {made.dtype}.")
    return [
        "By `python -m vlguard_jax.evaluate`, percent with 95 % intervals. asr: answers that are not refusals (attack"
        " success where the question is unsafe); refusal rate: of harmless questions, so lower is better.",
        tables.markdown_table(headings, lines).rstrip(),
        "\n".join(f"- {note}" for note in notes),
    ]


def _loading(made: Made) -> list[str]:
    name = json.dumps(made.name)
    sees = families.of(made.model.config).pictures is not None
    kind = "AutoModelForImageTextToText" if sees else "AutoModelForCausalLM"
    reader = "AutoProcessor" if sees else "AutoTokenizer"
    base = json.dumps(_short(made.model.base.name)) if made.model.base else '"BASE"'
    ours = [f"# in JAX: {_MEASURE}{made.name} ..."]
    match made.layout:
        case "hf":
            return [
                f"from transformers import {kind}, {reader}",
                f"model = {kind}.from_pretrained({name})",
                f"processor = {reader}.from_pretrained({name})",
                *ours,
            ]
        case "peft-hf":
            return [
                "from peft import PeftModel",
                f"from transformers import {kind}, {reader}",
                f"model = PeftModel.from_pretrained({kind}.from_pretrained({base}), {name})",
                f"processor = {reader}.from_pretrained({base})",
                *ours,
            ]
        case "llava" | "peft":
            given = f", {base}" if made.adapters else ", None"
            return [
                "# in the code of haotian-liu/LLaVA; the name must hold 'llava', and 'lora' for adapters",
                "from llava.model.builder import load_pretrained_model",
                f"tokenizer, model, processor, length = load_pretrained_model({name}{given},"
                f' "llava{"-lora" if made.adapters else ""}")',
                *ours,
            ]
        case _:
            return ours


def _versions(made: Made) -> str:
    lines = [f"Written by: {_listed(versions.installed())}."]
    if isinstance(trained := made.own.get("versions"), dict):
        lines.append(f"Trained by: {_listed(trained)}.")
    if made.evaluations:
        lines.append(f"Measured by: {escape.markdown('; '.join(provenance_lib.versions(made.evaluations)))}.")
    return "\n".join(f"- {line}" for line in lines)


def _listed(found: Mapping[str, Any]) -> str:
    return escape.markdown(", ".join(f"{name} {version}" for name, version in found.items()))


def _licence(made: Made) -> str:
    named = f"{escape.markdown(made.license)}, as named by whoever wrote this folder. " if made.license else ""
    untold = "" if made.license else "Nobody named one for this folder. "
    return (
        f"{named}{untold}The terms of the model it was made from, and of the data it was trained on, go on to apply:"
        " Vicuna and Llama have Meta's, VLGuard and LLaVA's instruction data have those of their pages on the hub."
    )


def _code(lines: Sequence[str]) -> str:
    """A block of code that no content can leave: every line is indented."""
    return "\n".join(f"    {line}" for text in lines for line in escape.page(text).splitlines() or [""])
