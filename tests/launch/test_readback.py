"""What was written in a launch file is what the program gets, on every target; or the value is refused by its name."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import hypothesis
from hypothesis import strategies as st
import pytest
import yaml

from launch import targets
from launch import texts
from tests.launch import readers
from vlguard_jax import errors

TARGETS = tuple(targets.TARGETS)
VALUES = (
    *(
        '"',
        "'",
        "\\",
        "C:\\new\\table",
        "\\u0041",
        "\\n",
        "$",
        "$$",
        "$HOME",
        "${HOME}",
        "$(V0)",
        "$$(V0)",
        "$(date)",
        "`date`",
        "\U0001f600",
    ),
    *(
        "\U0001f469\u200d\U0001f52c",
        "é",
        "中文",
        "a,b",
        "#",
        "a #b",
        ": ",
        "a: b",
        " a ",
        "",
        " ",
        "%",
        "%x",
        "!",
        "!!str a",
        "null",
        "true",
    ),
    *(
        "yes",
        "1e3",
        "0x10",
        "017",
        "1:20",
        "2001-01-01",
        "~",
        "~/x",
        "-",
        "--x",
        "-n",
        "@x",
        "*",
        "*x",
        "&x",
        "[a]",
        "{a}",
        "{{ a }}",
        "|",
        ">",
    ),
    *(
        "a=b",
        "=",
        "?",
        ";",
        "&&",
        "a;b",
        "(a)",
        "<a>",
        "\xa0",
        "a\xa0",
        "^:^",
        "\ue000",
        "x" * 20_000,
        "''",
        '"""',
        "'\"'\"'",
        "\\$",
        "$'a'",
    ),
)
LONG = {f"V{i}": value for i, value in enumerate(VALUES)}


@pytest.mark.parametrize("target", TARGETS)
def test_values_come_back(target, tmp_path):
    arguments = [f"--config.model.base={value}" for value in VALUES if len(value) < 1000]
    overrides = {"benchmark.suffix": "".join(VALUES[:-7]), "model_name": "$(V0) \"quoted\" 'x' \\ \U0001f600"}
    made = readers.launch(target, tmp_path, LONG, overrides, arguments)
    got, environment = readers.received(target, made, tmp_path)
    assert got == readers.expected(overrides, arguments)
    assert {key: environment[key] for key in LONG} == LONG


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "value", ["a\nb", "a\tb", "\0", "a\x1b[31m", "\x7f", "\x85", "\u2028", "\u202e", "\ufeff", "\ufffe", "x" * 40_000]
)
def test_values_are_refused_by_name(target, value, tmp_path):
    with pytest.raises(errors.UserError, match=r"env\.V0") as caught:
        readers.launch(target, tmp_path, {"V0": value}, {})
    message = str(caught.value)
    assert message.isprintable() and len(message) < 400


def _printable(text: str) -> bool:
    return text.isprintable() and len(text) <= texts.LONGEST


@pytest.mark.parametrize("target", TARGETS)
@hypothesis.settings(max_examples=10, deadline=None, derandomize=True)
@hypothesis.given(
    values=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=15, max_size=30)
)
def test_any_text_comes_back_or_is_refused(target, values):
    """What is printed is never refused; what comes back is what was written."""
    kept = []
    for value in values:
        try:
            texts.check(value, "value")
            kept.append(value)
        except errors.UserError:
            assert not _printable(value)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        env = {f"V{i}": value for i, value in enumerate(kept)}
        arguments = [f"--config.model_name={value}" for value in kept]
        made = readers.launch(target, path, env, {"benchmark.suffix": "".join(kept)}, arguments)
        got, environment = readers.received(target, made, path)
    assert got == readers.expected({"benchmark.suffix": "".join(kept)}, arguments)
    assert {key: environment[key] for key in env} == env


@pytest.mark.parametrize("secret", ['a"b\\c$d$(V0)', "two\nlines\ttab", "\U0001f600", "'`date`'"])
def test_xpk_gets_a_secret_as_it_is(secret, tmp_path):
    made = readers.launch("xpk", tmp_path, {"V0": "x"}, {}, secrets=["HF_TOKEN"])
    _, environment = readers.received("xpk", made, tmp_path, {"HF_TOKEN": secret})
    assert environment["HF_TOKEN"] == secret


def test_xpk_asks_for_a_secret(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    made = readers.launch("xpk", tmp_path, {}, {}, secrets=["HF_TOKEN"])
    with pytest.raises(AssertionError, match="export HF_TOKEN first"):
        readers.received("xpk", made, tmp_path)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["NO", "Y", "null", "True"])
def test_names_that_yaml_takes_for_values(target, name, tmp_path):
    """Quoted where the manifest is ours; XPK writes names without quotes."""
    if target == "xpk":
        with pytest.raises(errors.UserError, match=f"xpk writes '{name}' unquoted"):
            readers.launch(target, tmp_path, {name: "1"}, {})
        return
    made = readers.launch(target, tmp_path, {name: "1"}, {}, name=name.lower())
    got, environment = readers.received(target, made, tmp_path)
    assert environment[name] == "1" and got == readers.expected({}, [], name.lower())


@pytest.mark.parametrize("target", ["slurm", "gce", "tpu-vm"])
def test_variables_of_the_script_are_the_programs_own(target, tmp_path):
    """The launcher's script uses names like these for itself."""
    env = {"code": "a", "attempt": "b", "exit_file": str(tmp_path / "none")}
    made = readers.launch(target, tmp_path, env, {})
    _, environment = readers.received(target, made, tmp_path)
    assert {key: environment[key] for key in env} == env and not (tmp_path / "none").exists()


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_reads_what_python_reads(tmp_path):
    """Go's own reader, without a cluster."""
    overrides = {"benchmark.suffix": "".join(VALUES[:-7])}
    gke = readers.launch("gke", tmp_path, LONG, overrides).files["job.yaml"]
    script = readers.launch("xpk", tmp_path, LONG, overrides).files["job.sh"]
    xpk = readers.xpk_manifest(script, tmp_path, {"PATH": f"{tmp_path / 'tools'}:{os.environ['PATH']}"})
    path = tmp_path / "job.yaml"
    for text in (gke, xpk):
        path.write_text(text, encoding="utf-8")
        done = subprocess.run(
            ["kubectl", "label", "--local", "-f", str(path), "a=b", "-o", "json"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["spec"] == yaml.safe_load(text)["spec"]


def test_kubernetes_expands():
    """The rule itself, by examples of Kubernetes' documentation."""
    assert readers.expand("$(A) $$(A) $(B) $A $$ $", {"A": "x"}) == "x $(A) $(B) $A $ $"


def test_true_false_and_numbers_are_written_as_in_toml():
    assert [texts.write(value) for value in (True, False, 3, -0.5, "True")] == ["true", "false", "3", "-0.5", "True"]


def test_folders_with_odd_names_come_back(tmp_path):
    """SLURM's checkout and shared folder are quoted, so they may be called anything."""
    checkout = tmp_path / 'it\'s "a" $HOME \\ 中'
    checkout.mkdir()
    made = readers.launch("slurm", checkout, {}, {}, bucket="/sha'red $x/é")
    got, environment = readers.received("slurm", made, checkout)
    assert "--workdir=/sha'red $x/é/runs/job/evaluate" in got and environment["VLGUARD_CACHE"] == "/sha'red $x/é/index"


def test_srun_takes_a_colon_for_itself(tmp_path):
    long = '\n[[steps]]\nrun = "report"\narguments = ["--out=r.html", ":"]\n'
    with pytest.raises(errors.UserError, match="srun takes ':' alone"):
        readers.launch("slurm", tmp_path, {}, {}, more=long)
    assert ":" in targets.arguments(readers.launch("gke", tmp_path, {}, {}, more=long).jobs[0])


@pytest.mark.parametrize("target", TARGETS)
def test_labels_of_a_sweep_come_back(target, tmp_path):
    """gather.sh gets the values of the axes as they stand, start.sh starts every job."""
    arms = ("it's $HOME", 'a "b" \\n', "c, `d`", "é \U0001f600 z")
    axis = f"[sweep]\narm = [{', '.join(map(readers.toml, arms))}]\n".replace("{{", "{").replace("}}", "}")
    made = readers.launch(target, tmp_path, {}, {}, more=axis)
    told = readers.words_of("python", made.files["gather.sh"], tmp_path)
    assert told[-4:] == [f"{job.name}={arm}" for job, arm in zip(made.jobs, arms, strict=True)]
    command = made.start[0].split()[0]
    if command != "bash":
        assert readers.words_of(command, made.files["start.sh"], tmp_path) == made.start[-1].split()[1:]
