"""Where the curves of a run are drawn and answers are shown besides its own files: TensorBoard's event files, and
Weights & Biases, offline too (the extra `track`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import importlib.util
import pathlib
from typing import Any, Protocol, runtime_checkable
import uuid

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import versions

WANDB_ID = "wandb_id.txt"  # a resumed run goes on under its id


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer of a probe, as it is shown. response: its sha256 where it was withheld; verdicts: label by judge."""

    evaluation: str
    subset: str
    item_id: str
    response: str
    verdicts: str


@runtime_checkable
class Tracker(Protocol):
    """What draws curves."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Values of update `step`."""
        ...

    def answers(self, step: int, shown: Sequence[Answer]) -> None:
        """Answers of the probe after update `step`."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


def check(settings: config.RunSettings) -> None:
    """Raise UserError where a package is missing that `settings` needs."""
    if settings.wandb != "off" and importlib.util.find_spec("wandb") is None:
        raise errors.UserError(
            f"config.run.wandb={settings.wandb!r} needs the package wandb: {versions.install('track')}, or set"
            " --config.run.wandb=off"
        )


def opened(settings: config.TrainConfig, workdir: pathlib.Path, start_step: int) -> list[Tracker]:
    """The trackers that `config.run` names, of a run that goes on after update `start_step`.

    Raises:
      UserError: as `check`; or Weights & Biases refuses the run, as without a login.
    """
    found: list[Tracker] = []
    if settings.run.tensorboard:
        found.append(TensorBoard(workdir, start_step))
    if settings.run.wandb != "off":
        found.append(WeightsAndBiases(settings, workdir))
    return found


class TensorBoard:
    """Event files in WORKDIR/tensorboard."""

    def __init__(self, workdir: pathlib.Path, start_step: int):
        import tensorboardX  # late: it is slow to import

        # TensorBoard hides events of earlier files from this step on, which a resumed run writes again.
        self._board = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), purge_step=start_step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See Tracker."""
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def answers(self, step: int, shown: Sequence[Answer]) -> None:
        """See Tracker; a text by evaluation and subset."""
        for name in dict.fromkeys(f"{one.evaluation}/{one.subset}" for one in shown):
            texts = [
                f"**{one.item_id}** ({one.verdicts})\n\n"
                + "\n".join(f"    {line}" for line in one.response.split("\n"))
                for one in shown
                if f"{one.evaluation}/{one.subset}" == name
            ]
            self._board.add_text(f"probe/{name}", "\n\n".join(texts), step)

    def close(self) -> None:
        """See Tracker."""
        self._board.close()


class WeightsAndBiases:
    """A run of Weights & Biases, in WORKDIR/wandb; offline runs are sent later by `wandb sync`.

    The update is a value of each line ("update"), not the service's own step: that only grows, and a resumed run writes
    some updates again.
    """

    def __init__(self, settings: config.TrainConfig, workdir: pathlib.Path):
        import wandb  # late: it is slow to import, and an extra

        self._wandb = wandb
        path = workdir / WANDB_ID
        if not path.exists():
            files.write_text(path, uuid.uuid4().hex[:16] + "\n")
        try:
            self._run = wandb.init(
                project=settings.run.wandb_project,
                id=files.read_text(path).strip(),
                name=workdir.resolve().name,
                dir=str(workdir),
                mode=settings.run.wandb,
                resume="allow" if settings.run.wandb == "online" else None,
                config=dataclasses.asdict(settings),
                settings=wandb.Settings(console="off", silent=True),
            )
        except (wandb.Error, TimeoutError) as e:
            said = errors.short(str(e).splitlines()[0] if str(e) else type(e).__name__)
            raise errors.UserError(
                f"config.run.wandb={settings.run.wandb!r}: Weights & Biases refuses the run ({said}); log in with"
                " `wandb login`, or set --config.run.wandb=offline"
            ) from e
        self._run.define_metric("update")
        self._run.define_metric("*", step_metric="update")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See Tracker."""
        self._run.log({"update": step, **values})

    def answers(self, step: int, shown: Sequence[Answer]) -> None:
        """See Tracker; a table."""
        columns = [field.name for field in dataclasses.fields(Answer)]
        rows: list[Any] = [list(dataclasses.astuple(one)) for one in shown]
        self._run.log({"update": step, "probe/answers": self._wandb.Table(columns=columns, data=rows)})

    def close(self) -> None:
        """See Tracker."""
        with contextlib.suppress(self._wandb.Error):  # not reachable: what was logged is in WORKDIR/wandb
            self._run.finish()
