"""A launch file can neither write a command of its own, nor leave its place, nor cost more than it is long."""

from __future__ import annotations

import pathlib
import re

import pytest

from launch import configs
from launch import jobs
from launch import spec as spec_lib
from launch import targets
from tests.launch import manifests
from tests.launch import readers
from tests.launch import renderings
from vlguard_jax import errors
from vlguard_jax import limits

KEYS = ("accelerator", "project", "zone", "cluster", "queue", "account", "image", "checkout", "bucket")
SPEC = {
    "name": "job",
    "accelerator": "v6e-4",
    "bucket": "gs://bucket",
    "image": "registry/vlguard:1",
    "project": "project",
    "zone": "us-east5-a",
    "cluster": "cluster",
    "git.url": "https://example.org/vlguard",
    "git.ref": "main",
}
STEP = (
    '\n[[steps]]\nrun = "evaluate"\nconfig = "configs/eval/vlguard.py:llava"\n'
    'overrides = { "model.path" = "/m", "benchmark.path" = "/b" }\n'
)


def prepare(
    folder: pathlib.Path, target: str, changes: dict[str, str] | None = None, *, step: str = "", after: str = ""
) -> jobs.Launch:
    """A launch for `target` with some keys changed, more keys in its step, and more tables behind."""
    on_slurm = (
        {"accelerator": "h100:8", "bucket": "/shared", "checkout": "/shared/vlguard_jax"} if target == "slurm" else {}
    )
    base = {**SPEC, **on_slurm}
    lines = [f"{key} = {readers.toml(value)}" for key, value in {**base, **(changes or {})}.items()]
    path = folder / "spec.toml"
    path.write_text("\n".join(lines) + STEP + step + after, encoding="utf-8")
    return manifests.prepare(path, target)


def refused(folder: pathlib.Path, *arguments, **keywords) -> str:
    """The one line with which `prepare` refuses."""
    with pytest.raises(errors.UserError) as caught:
        prepare(folder, *arguments, **keywords)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 1000, message
    return message


@pytest.mark.parametrize("target", targets.TARGETS)
def test_the_spec_itself_passes(target, tmp_path):
    prepare(tmp_path, target, {"queue": "q", **({"account": "a"} if target in ("gke", "slurm") else {})})


@pytest.mark.parametrize("key", [*KEYS, "git.url", "git.ref"])
def test_values_that_are_not_quoted_have_a_form(key, tmp_path):
    for value in (
        "a\n#SBATCH --wrap=id",
        "$(id)",
        "`id`",
        "a b",
        "a'b",
        'a"b',
        "-x",
        "a;id",
        "a\x1bb",
        "a: b",
        "a #b",
        "^:^a",
        "a\\b",
    ):
        for target in ("slurm", "gke", "tpu-vm"):
            assert key in refused(tmp_path, target, {key: f"gs://{value}" if key == "bucket" else value})


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("image", ["vlguard", "1:20", "true", "null", "r/x:y z", "r/x\\n", "r//x", "https://r/x"]),
        ("git.url", ["--upload-pack=id", "ext::sh -c id", "-u@h:x", "../x"]),
        ("git.ref", ["--help", "-b", "a b"]),
        ("checkout", ["-", "~/x", "x"]),
        ("bucket", ["gs://", "gs://a/b", "s3://a", "x"]),
    ],
)
def test_forms_of_single_keys(key, values, tmp_path):
    for value in values:
        assert key in refused(tmp_path, "tpu-vm", {key: value})


@pytest.mark.parametrize(
    ("target", "key", "value"),
    [
        ("gke", "queue", "Gpu_Queue"),
        ("gke", "queue", "a,b"),
        ("gke", "account", "me@project.iam.gserviceaccount.com"),
        ("gce", "account", "me"),
        ("tpu-vm", "account", "me,you@x"),
        ("slurm", "account", "me@x"),
    ],
)
def test_forms_of_single_targets(target, key, value, tmp_path):
    assert f"{key}: '{value}' must be" in refused(tmp_path, target, {key: value})


def test_control_characters_are_refused_wherever_they_stand(tmp_path):
    for after in (
        '[env]\n"A\\nB" = 1',
        '[env]\nA = "x\\ny"',
        '[sweep]\na = ["x\\u001b"]',
        '[sweep]\n"a\\tb" = [1]',
        '[[when]]\na = "\\u0007"',
    ):
        assert "U+00" in refused(tmp_path, "gke", after=after)
    for step in ('arguments = ["--grid\\n"]\n', 'workdir = "a\\nb"\n'):
        assert "U+000A" in refused(tmp_path, "gke", step=step)
    assert "U+000A" in refused(tmp_path, "gke", {"name": "a\nb"})


@pytest.mark.parametrize(
    "folder",
    ["../../../etc", "/etc", "a/../../b", "..", ".", "a//b", "a/", "~", "~root", "$HOME", "a b", ".hidden", "-x"],
)
def test_a_step_stays_below_its_job(folder, tmp_path):
    assert "steps[0].workdir" in refused(tmp_path, "gke", step=f"workdir = {readers.toml(folder)}\n")


def test_folders_of_a_job_are_its_own(tmp_path):
    """The launcher deletes exit_codes; a step claims its folder."""
    assert "'exit_codes/x' is taken by the launcher" in refused(tmp_path, "gce", step='workdir = "exit_codes/x"\n')
    assert "'evaluate' is taken by an earlier step" in refused(tmp_path, "gke", step=STEP)
    made = prepare(tmp_path, "gke", step='workdir = "tuned/a_1"\n')
    assert "--workdir=/bucket/runs/job/tuned/a_1" in made.jobs[0].commands[0]


@pytest.mark.parametrize(
    "where", ["{folder}/evil.py", "../../../../../../../../../..{folder}/evil.py", "{folder}/evil.py:x", "link/evil.py"]
)
def test_no_config_outside_the_checkout_is_run(where, tmp_path, monkeypatch):
    """Reading a config runs it."""
    outside, inside = tmp_path / "outside", tmp_path / "checkout"
    outside.mkdir()
    inside.mkdir()
    (outside / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (inside / "link").symlink_to(outside)
    monkeypatch.setattr(configs, "ROOT", inside)
    monkeypatch.setattr(configs, "_command", lambda name: configs._Command(True, ()))
    named = where.replace("{folder}", str(outside))
    path = tmp_path / "spec.toml"
    lines = [f"{key} = {readers.toml(value)}" for key, value in SPEC.items()]
    path.write_text("\n".join(lines) + STEP.replace("configs/eval/vlguard.py:llava", named))
    with pytest.raises(errors.UserError, match="is not in the checkout"):
        jobs.prepare(path, "gke")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "where", ["data/set/evil.py", ".venv/evil.py:x", "configs/../data/set/evil.py", "configs/link.py"]
)
def test_no_code_that_lies_in_the_checkout_by_chance_is_run(where, tmp_path, monkeypatch):
    for folder in ("data/set", ".venv", "configs"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (tmp_path / "configs/link.py").symlink_to(tmp_path / "data/set/evil.py")
    monkeypatch.setattr(configs, "ROOT", tmp_path)
    with pytest.raises(errors.UserError, match="is not below configs/"):
        configs._load(where, "evaluate")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "argument",
    [
        "--config=/tmp/evil.py",
        "-config=/tmp/evil.py",
        "--config",
        "--flagfile=/tmp/f",
        "--flagfile",
        "--then",
        "--workdir=/etc",
        "-workdir",
    ],
)
def test_arguments_name_no_config_and_no_command(argument, tmp_path):
    assert "cannot be given here" in refused(tmp_path, "gke", step=f"arguments = [{readers.toml(argument)}]\n")


@pytest.mark.parametrize(
    "text",
    [
        "{name:>30000000}",
        "{name!r}",
        "{name.__class__}",
        "{name[0]}",
        "{}",
        "{0}",
        "{name",
        "name}",
        "{{name}",
        "{ name }",
    ],
)
def test_placeholders_are_names_and_nothing_else(text, tmp_path):
    message = refused(tmp_path, "gke", after=f'[env]\nA = "{text}"')
    assert "env.A" in message and "written twice" in message


def test_placeholders_are_filled(tmp_path):
    made = prepare(tmp_path, "gke", after='[env]\nA = "{name}{{name}}{{{job}}}"\n')
    assert targets.variables(made.jobs[0])["A"] == "job{name}{/bucket/runs/job}"


def test_sizes_are_limited(tmp_path):
    axis = ", ".join(map(str, range(1000)))
    assert "1,000,000,000 cells" in refused(tmp_path, "gke", after=f"[sweep]\na = [{axis}]\nb = [{axis}]\nc = [{axis}]")
    assert "env.A: 60,000 characters" in refused(tmp_path, "gke", after='[env]\nA = "' + "{job}" * 3750 + '"')
    assert "env.A: 30,001 characters" in refused(tmp_path, "gke", after=f'[env]\nA = "{"x" * 30_001}"')
    many = "\n".join(f'V{i} = "{"x" * 29_000}"' for i in range(9))
    assert "would have" in refused(tmp_path, "gke", after=f"[env]\n{many}")
    assert "at most 1,048,576 bytes" in refused(tmp_path, "gke", after="#" * limits.LAUNCH_BYTES)
    long = (
        f'\n[[steps]]\nrun = "report"\narguments = ["--out=/r.html", {", ".join([readers.toml("$" * 29_000)] * 3)}]\n'
    )
    assert "too long for one argument of xpk" in refused(tmp_path, "xpk", after=long)
    prepare(tmp_path, "gke", after=long)


@pytest.mark.parametrize(
    "after",
    [
        "x = " + "[" * 5000,
        "x = 0x" + "f" * 5000,
        "x = " + "1" * 5000,
        "x = 99999999999999999999",
        'x = "\\ud83d"',
        "x = {a=" * 500,
        "x = 1e",
        "x",
    ],
)
def test_broken_toml_gets_one_line(after, tmp_path):
    refused(tmp_path, "gke", after=after)


def test_files_that_are_none(tmp_path):
    (tmp_path / "bytes.toml").write_bytes(b"name = '\xff'")
    for path in (
        tmp_path,
        pathlib.Path("/dev/zero"),
        tmp_path / "no.toml",
        tmp_path / ("x" * 300),
        tmp_path / "bytes.toml",
    ):
        with pytest.raises(errors.UserError, match="not readable as TOML"):
            spec_lib.read(path)


@pytest.mark.parametrize(
    "name", ["PATH", "HOME", "IFS", "UID", "RANDOM", "BASH_ENV", "SHELLOPTS", "JAX_PROCESS_ID", "_"]
)
def test_variables_that_the_shell_sets_are_refused(name, tmp_path):
    assert f"the variable {name} is set by" in refused(tmp_path, "gke", after=f'[env]\n{name} = "1"')


def test_variables_that_only_look_so_pass(tmp_path):
    made = prepare(tmp_path, "gke", after='[env]\nENV = "1"\nEPOCHS = "1"\nMY_PATH = "1"\n')
    assert {"ENV", "EPOCHS", "MY_PATH"} <= set(targets.variables(made.jobs[0]))


@pytest.mark.parametrize("names", ['["hf_token"]', '["A", "A"]', '["A B"]', '["PATH"]', '["A;id"]'])
def test_secrets_are_names_in_capitals(names, tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text(
        f"secrets = {names}\n" + "\n".join(f"{key} = {readers.toml(value)}" for key, value in SPEC.items()) + STEP
    )
    with pytest.raises(errors.UserError):
        jobs.prepare(path, "gke")


@pytest.mark.parametrize("key", ["slices", "hours", "max_restarts", "grace_seconds"])
@pytest.mark.parametrize("number", [-1, 10**6])
def test_numbers_have_bounds_also_in_rules(key, number, tmp_path):
    path = tmp_path / "spec.toml"
    text = (renderings.SPECS / "gpus.toml").read_text()
    path.write_text(f"{key} = {number}\n{text}")
    with pytest.raises(errors.UserError, match=re.escape(f"{key}={number} must be a whole number from ")):
        jobs.prepare(path, "gke")
    if key in spec_lib.CHANGEABLE:
        path.write_text(f"{text}\n[sweep]\na = [1]\n[[when]]\na = 1\n{key} = {number}\n")
        with pytest.raises(errors.UserError, match=re.escape(f"{key}={number} must be a whole number from ")):
            jobs.prepare(path, "gke")
