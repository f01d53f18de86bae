"""Reads the commands of a job as the machine will, before the machine is paid for: flags, config file, every overridden
setting."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import importlib.util
import pathlib
import pickle
import re
import subprocess
import sys
from typing import Any

from absl import flags
from ml_collections import config_dict
from ml_collections import config_flags

from launch import spec as spec_lib
from vlguard_jax import cli
from vlguard_jax import config as settings_lib
from vlguard_jax import config_flag
from vlguard_jax import errors
from vlguard_jax import shipped
from vlguard_jax.planning import chips

Settings = settings_lib.TrainConfig | settings_lib.EvalConfig

ROOT = pathlib.Path(__file__).resolve().parent.parent
KINDS = {"train": settings_lib.TrainConfig, "evaluate": settings_lib.EvalConfig, "prepare": settings_lib.TrainConfig}
WITHOUT_POSITIONAL = ("train", "evaluate", "convert", "quickstart")
# Flags with their own key, which is checked; and the flag that reads more flags from a file.
_KEYS = re.compile(r"--?(no)?(flagfile|config|workdir)($|=)")

# Commands define flags of the same names, so each is asked in its own process. Flags cannot be pickled; their parts
# can.
_TELL = """
import importlib, pickle, sys
from absl import flags
importlib.import_module(sys.argv[1])
known = {flag.name: flag for flag in (flags.FLAGS[name] for name in flags.FLAGS)}
told = [(f.name, f.parser, f.default, f.boolean) for f in known.values() if f.name != "config"]
sys.stdout.buffer.write(pickle.dumps(("config" in known, told)))
"""


@dataclasses.dataclass(frozen=True)
class _Command:
    """What a command takes: if it has a config, and its flags as (name, parser, default, whether boolean)."""

    config: bool
    flags: tuple[tuple[str, flags.ArgumentParser[Any], Any, bool], ...]


def check(job: spec_lib.Job) -> None:
    """Read every command of the job as the machine that runs it will.

    Raises:
      UserError: a config that does not exist or is not in the checkout, an unknown flag or setting, a wrong value,
        an unknown name (judge, subset, template, loss), or a mesh or attention that the job's accelerator does not
        have.
    """
    for step, (name, *arguments) in zip(job.spec.steps, job.commands, strict=True):
        try:
            found = settings(name, step, arguments)
            if found is not None:
                _check_devices(found, dataclasses.replace(job.accelerator.slice, slices=job.spec.slices))
        except errors.UserError as e:
            raise errors.UserError(f"job {job.name}, {step.run}: {e}") from e


def settings(name: str, step: spec_lib.Step, arguments: Sequence[str]) -> Settings | None:
    """The settings of a command that computes on the accelerator, None of others.

    Raises:
      UserError: as `check`, but for the devices.
    """
    for argument in step.arguments:
        if _KEYS.match(argument):
            raise errors.UserError(
                f"arguments: {errors.short(argument)} cannot be given here; config and workdir are keys of the step"
            )
    if name in ("train", "evaluate") and not step.config:
        raise errors.UserError("no config is named")
    command = _command(name)
    argv = [name, *(argument for argument in arguments if not argument.startswith("--config="))]
    known = flags.FlagValues()
    for flag, parser, default, boolean in command.flags:
        flags.DEFINE_flag(flags.Flag(parser, None, flag, default, "", boolean=boolean), known)
    config = None
    if step.config:
        if not command.config:
            raise errors.UserError(f"takes no config, but {errors.short(step.config)} is given")
        config = _load(step.config, name)
        config_flag.make_room_for(config, argv)
        try:
            config_flags.DEFINE_config_dict("config", config, flag_values=known, sys_argv=argv)
        except cli.FLAG_ERRORS as e:
            raise errors.UserError(cli.flag_message(e)) from e
    positional = cli.parse_flags(argv, known)
    if positional and name in WITHOUT_POSITIONAL:
        raise errors.UserError(f"unexpected argument {errors.short(positional[0])}; {name} takes flags only")
    if name == "prepare":
        _check_prepare(positional, known)
    if config is None:
        return None
    found: Settings = settings_lib.resolve(config, KINDS[name])
    _check_names(found)
    return None if name == "prepare" else found


@functools.cache
def _command(name: str) -> _Command:
    module = f"vlguard_jax.{name}.__main__" if name == "quickstart" else f"vlguard_jax.{name}"
    done = subprocess.run([sys.executable, "-c", _TELL, module], cwd=ROOT, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{module} cannot be imported: {done.stderr.decode(errors='replace')[-1000:]}")
    config, told = pickle.loads(done.stdout)  # from the process above, which runs this checkout
    return _Command(config, tuple(told))


def _load(name: str, command: str) -> config_dict.ConfigDict:
    """The config of NAME, FILE or either with an :argument, which must be in this checkout's configs/: reading it runs
    it."""
    path, _, argument = name.partition(":")
    try:
        file = (ROOT / path).resolve()
        found = file.is_file()
    except (OSError, RuntimeError):  # a name that is too long, links in a circle
        file, found = ROOT / "-", False
    if pathlib.PurePath(path).is_absolute() or not file.is_relative_to(ROOT):
        raise errors.UserError(
            f"{errors.short(path)} is not in the checkout: name a config by its path in there, configs/train/NAME.py"
        )
    if not found:
        try:
            file = shipped.named(path, "configs", ".py", shipped.FOLDERS[command], ROOT).resolve()
        except errors.UserError as e:
            raise errors.UserError(f"{errors.short(path)[1:-1]}: {e}") from e
    module_spec = importlib.util.spec_from_file_location(f"launch_config_{file.stem}", file)
    if not file.is_relative_to(ROOT / "configs"):  # data and environments are often in the checkout, too
        raise errors.UserError(
            f"{errors.short(path)} is not below configs/, where a launch file's configs are: move it there"
        )
    if file.suffix != ".py" or module_spec is None or module_spec.loader is None:
        raise errors.UserError(f"{path}: a config is a Python file, NAME.py")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        config = module.get_config(argument) if ":" in name else module.get_config()
    except errors.UserError as e:
        raise errors.UserError(f"{errors.short(name)}: {e}") from e
    except Exception as e:  # whatever the user's file raises
        first = (str(e).splitlines() or [""])[0]
        raise errors.UserError(f"{errors.short(name)}: get_config() failed: {type(e).__name__}: {first[:200]}") from e
    if not isinstance(config, config_dict.ConfigDict):
        raise errors.UserError(f"{path}: get_config() gives a {type(config).__name__}, not a ConfigDict")
    return config


def _check_prepare(positional: list[str], known: flags.FlagValues) -> None:
    from vlguard_jax.preparing import commands

    if not positional:
        raise errors.UserError(f"name what to prepare in arguments: {', '.join(commands.COMMANDS)}")
    values = {flag: known[flag].value if flag in known else None for flag in commands.FLAGS}
    commands.check(positional, {flag for flag in commands.FLAGS if flag in known and known[flag].present}, values)


def _check_devices(settings: Settings, topology: chips.Topology) -> None:
    """What a command checks about its devices when it starts."""
    if settings.mesh != settings_lib.MeshSettings():
        from vlguard_jax.planning import traffic  # late: it loads jax

        traffic.mesh(settings.mesh, topology)
    if isinstance(settings, settings_lib.TrainConfig) and settings.run.attention not in ("auto", "xla"):
        from vlguard_jax.parallel import attention  # late, likewise

        attention.backend(settings.run.attention, topology.chip.kind, settings.precision.compute)


def _check_names(settings: Settings) -> None:
    """The names that a command looks up before it reads any data."""
    if isinstance(settings, settings_lib.EvalConfig):
        _check_evaluation(settings)
        return
    from vlguard_jax.data import paths
    from vlguard_jax.families import table
    from vlguard_jax.families.chat import templates

    paths.check_named(settings)
    if not settings.model.path:
        raise errors.UserError("config.model.path is empty: name the model's folder or hub id")
    if settings.model.template != table.AUTO:  # the family's, which the model's folder tells
        templates.get_template(settings.model.template)
    # a user's own module is not imported here
    if settings.loss != settings_lib.TrainConfig.loss and ":" not in settings.loss:
        from vlguard_jax.training import losses  # late: it loads jax

        losses.get(settings.loss)


def _check_evaluation(settings: settings_lib.EvalConfig) -> None:
    from vlguard_jax import own_code
    from vlguard_jax.safety import run

    # the user's own modules are not imported here
    judges = tuple(name for name in settings.judges if own_code.BETWEEN not in name)
    known = dataclasses.replace(settings, judges=judges or (settings.judges and settings_lib.EvalConfig().judges))
    own = own_code.BETWEEN in settings.benchmark.name
    run.check_names(dataclasses.replace(known, benchmark=settings_lib.BenchmarkSettings()) if own else known)
    if not own and not settings.benchmark.path:
        raise errors.UserError("config.benchmark.path is empty: name the benchmark's file or folder on the machine")
