"""From one job to the files of one target. Jobs that a target cannot run are refused here, before anything is
written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import functools
import pathlib
import shlex
from typing import Any

from launch import quoting
from launch import spec as spec_lib
from launch import steps
from launch import texts
from vlguard_jax import errors
from vlguard_jax.planning import flags

LONGEST_ARGUMENT = 131_000  # bytes; slightly less than Linux takes as one argument
# bytes: the limit is 256 KiB for Compute Engine's startup script and for Kubernetes's annotation of `kubectl apply`
LARGEST_FILE = 250_000
# In YAML words like these are not strings; XPK writes names into its manifest without quotes.
NO_TEXT = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
_LABEL = r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?"
_EMAIL = (r"[A-Za-z0-9][-A-Za-z0-9_.]*@[A-Za-z0-9][-A-Za-z0-9.]*", "the e-mail address of a service account")
# Forms of keys that differ by target.
FORMS = {
    "gke": {"queue": (_LABEL, "the name of a LocalQueue: small letters, digits, '-' and '.'"),
            "account": (_LABEL, "a Kubernetes service account: small letters, digits, '-' and '.'")},
    "gce": {"account": _EMAIL},
    "tpu-vm": {"account": _EMAIL},
    "slurm": {"account": (r"[A-Za-z0-9][-A-Za-z0-9_.]*", "an account: letters, digits, '-', '_' and '.'")},
}  # fmt: skip
TEMPLATES = pathlib.Path(__file__).with_name("templates")
PORT = 8476  # of JAX's coordinator, where the scheduler gives none
# gcsfuse renames a folder object by object, and only up to this number of objects; complete checkpoints are renamed.
RENAME_LIMIT = 200000
EXTRA = {"tpu": "jax[tpu]", "gpu": "jax[cuda13]"}


@dataclasses.dataclass(frozen=True)
class Rendered:
    """Files by name, and the commands that start the job."""

    files: dict[str, str]
    start: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Target:
    """One way to run. `needs` are keys of the spec; `slices`: whether more than one slice is possible."""

    what: str
    needs: tuple[str, ...]
    tpu: bool
    gpu: bool
    slices: bool
    files: Callable[[spec_lib.Job], Rendered]


@functools.cache
def _templates() -> Any:  # jinja2.Environment, which is imported late
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # shell and YAML: quoted by the filters
    )
    environment.filters |= {"q": quoting.yaml, "k8s": quoting.kubernetes, "sh": quoting.shell}
    return environment


def render(template: str, job: spec_lib.Job, **values: Any) -> str:
    """One template as text; a missing name is an error."""
    volume = job.spec.bucket.removeprefix("gs://").rstrip("/") if job.spec.bucket.startswith("gs://") else ""
    return (
        _templates()
        .get_template(template)
        .render(
            job=job,
            environment=variables(job),
            arguments=arguments(job),
            program=shlex.join(["python", "launch/steps.py", *arguments(job)]),
            volume=volume,
            mount=spec_lib.MOUNT,
            rename_limit=RENAME_LIMIT,
            port=PORT,
            **values,
        )
    )


def arguments(job: spec_lib.Job) -> list[str]:
    """The job's commands as arguments of steps.py."""
    found: list[str] = []
    for command in job.commands:
        found += [steps.THEN, *command] if found else command
    return found


def variables(job: spec_lib.Job) -> dict[str, str]:
    """The job's environment: flags of the chip, the cache of compiled programs, and the spec's env, which wins."""
    bucket = spec_lib.seen(job.spec)
    cache = {"JAX_COMPILATION_CACHE_DIR": f"{bucket}/compiled", "VLGUARD_CACHE": f"{bucket}/index"}
    chip = flags.environment(job.accelerator.chip, slices=job.spec.slices, offload=job.spec.offload)
    return {**chip, **cache, **{name: texts.write(value) for name, value in job.spec.env.items()}}


def _install(job: spec_lib.Job) -> str:
    return render("install.sh.j2", job, extra=EXTRA["tpu" if job.accelerator.tpu else "gpu"])


def _gke(job: spec_lib.Job) -> Rendered:
    accelerator = job.accelerator
    name = f"{job.name}.yaml"
    coordinator = "" if accelerator.tpu or accelerator.hosts == 1 else f"{job.name}-slice-0-0.{job.name}:{PORT}"
    text = render(
        "gke.yaml.j2",
        job,
        resource="google.com/tpu" if accelerator.tpu else "nvidia.com/gpu",
        coordinator=coordinator,
        mount_options=f"implicit-dirs,rename-dir-limit={RENAME_LIMIT}",
    )
    return Rendered({name: text}, (f"kubectl apply -f {name}",))


def _xpk(job: spec_lib.Job) -> Rendered:
    name = f"{job.name}.sh"
    command = quoting.xpk_command("exec " + shlex.join(["python", "launch/steps.py", *arguments(job)]))
    values = {key: quoting.xpk_variable(key, value) for key, value in variables(job).items()}
    for what, text in (("the commands of the job", command), *((f"env.{key}", value) for key, value in values.items())):
        if len(text.encode()) > LONGEST_ARGUMENT:
            raise errors.UserError(
                f"job {job.name}: {what}: too long for one argument of xpk, {LONGEST_ARGUMENT:,} bytes"
            )
    return Rendered({name: render("xpk.sh.j2", job, command=command, values=values)}, (f"bash {name}",))


def _supervised(template: str, job: spec_lib.Job, hosts: int) -> Rendered:
    url = f"{job.spec.bucket.rstrip('/')}/{job.folder.removeprefix(spec_lib.MOUNT).lstrip('/')}/{spec_lib.EXIT_CODES}"
    files = {
        f"{job.name}.sh": render(template, job, hosts=hosts, exits_url=url),
        f"{job.name}-host.sh": render(
            "host.sh.j2", job, exits=f"{job.folder}/{spec_lib.EXIT_CODES}", install=_install(job)
        ),
    }
    return Rendered(files, (f"bash {job.name}.sh",))


def _tpu_vm(job: spec_lib.Job) -> Rendered:
    return _supervised("tpu-vm.sh.j2", job, job.accelerator.api_hosts * job.spec.slices)


def _gce(job: spec_lib.Job) -> Rendered:
    return _supervised("gce.sh.j2", job, job.accelerator.hosts)


def _skypilot(job: spec_lib.Job) -> Rendered:
    accelerator = job.accelerator
    each = (
        f"tpu-{accelerator.api_type}:1"
        if accelerator.tpu
        else f"{accelerator.entry['skypilot']}:{accelerator.chips_per_host}"
    )
    infra = f"gcp/{job.spec.zone.rsplit('-', 1)[0]}/{job.spec.zone}" if job.spec.zone else ""
    nodes = 1 if accelerator.tpu else accelerator.hosts
    name = f"{job.name}.yaml"
    text = render(
        "skypilot.yaml.j2", job, nodes=nodes, accelerators=each, infra=infra, install=_install(job).rstrip("\n")
    )
    secrets = "".join(f" --secret {secret}" for secret in job.spec.secrets)
    return Rendered({name: text}, (f"sky jobs launch --yes --detach-run --name {job.name}{secrets} {name}",))


def _slurm(job: spec_lib.Job) -> Rendered:
    name = f"{job.name}.sbatch"
    return Rendered({name: render("slurm.sbatch.j2", job)}, (f"sbatch {name}",))


TARGETS = {
    "gke": Target("GKE, JobSet manifest", ("image", "gs"), tpu=True, gpu=True, slices=True, files=_gke),
    "xpk": Target(
        "GKE, XPK command", ("image", "cluster", "project", "zone"), tpu=True, gpu=False, slices=True, files=_xpk
    ),
    "gce": Target(
        "Compute Engine, managed instance group",
        ("git", "gs", "project", "zone"),
        tpu=True,
        gpu=False,
        slices=False,
        files=_gce,
    ),
    "tpu-vm": Target(
        "Cloud TPU API (legacy), queued resource",
        ("git", "gs", "project", "zone"),
        tpu=True,
        gpu=False,
        slices=True,
        files=_tpu_vm,
    ),
    "skypilot": Target("SkyPilot, managed job", ("git", "gs"), tpu=True, gpu=True, slices=False, files=_skypilot),
    "slurm": Target("SLURM, sbatch script", ("checkout", "folder"), tpu=False, gpu=True, slices=False, files=_slurm),
}


def find(name: str) -> Target:
    """The target of that name.

    Raises:
      UserError: no such target; the nearest is named.
    """
    if name not in TARGETS:
        raise errors.UserError(f"--target={name!r} is unknown{errors.nearest(name, TARGETS)}")
    return TARGETS[name]


def check(name: str, job: spec_lib.Job) -> None:
    """Raise UserError where the target lacks something in the spec, or cannot run it."""
    target, spec, accelerator = find(name), job.spec, job.accelerator
    missing = [key for key in target.needs if key not in ("gs", "folder") and not getattr(spec, key)]
    if missing:
        raise errors.UserError(f"job {job.name}: target {name} needs {' and '.join(missing)} in the launch file")
    if "gs" in target.needs and not spec.bucket.startswith("gs://"):
        raise errors.UserError(
            f'job {job.name}: target {name} needs bucket = "gs://NAME", not {errors.short(spec.bucket)}'
        )
    if "folder" in target.needs and not spec.bucket.startswith("/"):
        raise errors.UserError(
            f"job {job.name}: target {name} needs bucket to be a folder that all machines share, not"
            f" {errors.short(spec.bucket)}"
        )
    for key, (pattern, form) in FORMS.get(name, {}).items():
        if value := getattr(spec, key):
            texts.match(pattern, value, f"job {job.name}: {key}", f"{form}, for target {name}")
    if name == "xpk":
        for word in (job.name, *spec.env, *spec.secrets):
            if word.lower() in NO_TEXT:
                raise errors.UserError(
                    f"job {job.name}: xpk writes {word!r} unquoted, where YAML reads no string; rename it"
                )
    if name == "slurm" and ":" in arguments(job):
        raise errors.UserError(
            f"job {job.name}: arguments: srun takes ':' alone for the end of a command; it cannot be given here"
        )
    able = _able("tpu" if accelerator.tpu else "gpu")
    if not (target.tpu if accelerator.tpu else target.gpu):
        raise errors.UserError(
            f"job {job.name}: target {name} cannot run {accelerator.name}; these can: {', '.join(able)}"
        )
    if spec.slices > 1 and not accelerator.tpu:
        raise errors.UserError(
            f"job {job.name}: slices = {spec.slices} is for TPUs; for more GPUs name more, {accelerator.chip}:16"
        )
    if spec.slices > 1 and not target.slices:
        several = [key for key in able if TARGETS[key].slices]
        raise errors.UserError(
            f"job {job.name}: target {name} runs one slice, not {spec.slices}; these run several: {', '.join(several)}"
        )
    if name == "gce" and not accelerator.entry["compute_engine"]:
        raise errors.UserError(
            f"job {job.name}: Compute Engine makes no groups of {accelerator.chip}; take gke, xpk or tpu-vm"
        )
    if name in ("tpu-vm", "skypilot") and accelerator.tpu and not accelerator.entry["api_name"]:
        raise errors.UserError(f"job {job.name}: the Cloud TPU API has no {accelerator.chip}; take gke, xpk or gce")


def _able(kind: str) -> Sequence[str]:
    return [key for key, target in TARGETS.items() if getattr(target, kind)]
