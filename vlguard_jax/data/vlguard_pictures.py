"""VLGuard's pictures of one split, in a folder or in the zip file that they are published as, without unpacking it."""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
import functools
import pathlib
import zipfile

from vlguard_jax import errors


@dataclasses.dataclass(frozen=True)
class SplitPictures:
    """Pictures by the path that a record names. `place` is the folder, or the zip file."""

    place: pathlib.Path
    split: str

    @functools.cached_property
    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.place)
        except (zipfile.BadZipFile, OSError) as e:
            raise errors.UserError(f"{self.place}: not a readable zip file: {e}; download it again") from e

    @functools.cached_property
    def _members(self) -> dict[str, str]:
        """Members of the zip file by record path; train.zip holds its files below train/, or bare."""
        names = [info.filename for info in self._archive.infolist() if not info.is_dir()]
        return {name.removeprefix(f"{self.split}/"): name for name in names}

    @property
    def _packed(self) -> bool:
        return self.place.suffix == ".zip"

    def missing(self, names: Iterable[str]) -> list[str]:
        """Which of `names` are not there, sorted, each once."""
        wanted = set(names)
        held = self._members.keys() if self._packed else {name for name in wanted if (self.place / name).is_file()}
        return sorted(wanted - held)

    def read(self, name: str) -> bytes:
        """The bytes of one picture.

        Raises:
          UserError: it is not there, or the zip file is damaged.
        """
        try:
            return self._archive.read(self._members[name]) if self._packed else (self.place / name).read_bytes()
        except (KeyError, FileNotFoundError) as e:
            raise errors.UserError(f"{self.place}: has no picture {name}; download the pictures again") from e
        except (zipfile.BadZipFile, OSError) as e:
            raise errors.UserError(f"{self.place}: picture {name} is unreadable: {e}; download the pictures again") from e

    def lay_out(self, names: Iterable[str], folder: pathlib.Path) -> None:
        """Make `folder` hold the pictures `names`: a link to where they lie, or unpacked, nothing but them.

        Raises:
          UserError: as `read`.
        """
        if not self._packed:
            folder.symlink_to(self.place, target_is_directory=True)
            return
        for name in sorted(names):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(self.read(name))


def open_split(folder: pathlib.Path, split: str) -> SplitPictures:
    """The pictures of `split` below `folder`: the folder `split`, else `split`.zip."""
    unpacked, packed = folder / split, folder / f"{split}.zip"
    return SplitPictures(packed if packed.is_file() and not unpacked.is_dir() else unpacked, split)
