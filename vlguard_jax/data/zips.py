"""Random access to the members of large zip files, from many threads at once.

When the standard library's zipfile opens an archive, it takes 9 microseconds and half a kilobyte per member, in every
process, and its reads share one lock. Picture archives have 100,000 members and more: here the archive's directory is
kept as bytes, with a table of the offset of each member's entry, and every read gives its own offset in the file.

Format: PKWARE's APPNOTE.TXT 6.3, sections 4.3.7 (local header), 4.3.12 (directory), 4.3.14-16 (its end), 4.5.3 (Zip64),
4.6.9 (Unicode path).

Members are named like the files that Info-ZIP's `unzip` makes of them: `\\` of Windows tools is `/`; `./`, `../` and a
leading `/` are dropped; of two members with one name the later one counts. Names are UTF-8 if they can be, else code
page 437.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
import dataclasses
import re
import struct
import zlib

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits

Read = Callable[[int, int], bytes]  # (first byte, number of bytes) -> fewer bytes only at the end of the file

_ENTRY = struct.Struct("<4s4xHH4xLLLHHH8xL")  # signature, flags, method, crc, stored size, size, three lengths, place
_END = struct.Struct("<4s6xHLLH")  # signature, members, directory's size and place, length of the comment
_LOCATOR = struct.Struct("<4s4xQ4x")
_END64 = struct.Struct("<4s28xQQQ")
_LOCAL = struct.Struct("<4s22xHH")
_SLACK = 256  # bytes for a local header's extra field that need no second read
_STORED, _DEFLATED = 0, 8
_HOST = 5  # offset in an entry of the system that its name is from
_FAT = 0
_NOWHERE = ("", ".", "..")
_UNICODE_PATH = re.compile(rb"\x75\x70..\x01", re.DOTALL)  # starts an extra field with another spelling of the name


@dataclasses.dataclass(frozen=True)
class Member:
    """One file in an archive. `stamp` changes with its content."""

    name: str
    place: int  # of its local header
    stored: int  # bytes in the archive
    length: int
    crc: int
    method: int
    encrypted: bool
    header: int  # bytes that the local header may take

    @property
    def stamp(self) -> str:
        return f"{self.length} {self.crc:08x}"


class Archive:
    """An opened zip file; `label` names it in messages.

    Raises:
      UserError: it is not a complete zip file.
      OSError: from `read`.
    """

    def __init__(self, label: str, size: int, read: Read):
        self.label = label
        self._size, self._read = size, read
        try:
            self._directory, self._shift, members = _find_directory(size, read)
            self._entries = _index(self._directory)
        except (struct.error, ValueError) as e:
            head = read(0, files.HEAD)
            if not head.startswith(b"PK") and (guess := files.looks_like(head)):
                raise errors.UserError(f"{label}: not a zip file: {guess}, or move it away") from e
            raise errors.UserError(f"{label}: not a whole zip file ({e}); download it again, or move it away") from e
        if (self._entries.pop("") - members) % (1 << 16):  # some writers count modulo 65,536
            raise errors.UserError(
                f"{label}: not a whole zip file (members are missing from its directory); download it again, or"
                " move it away"
            )

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    @property
    def names(self) -> Iterable[str]:
        """The names of all members."""
        return self._entries.keys()

    def member(self, name: str) -> Member:
        """The directory's entry of an existing member.

        Raises:
          UserError: its entry is damaged.
        """
        at = self._entries[name]
        _, flags, method, crc, stored, length, name_len, extra_len, _, place = _ENTRY.unpack_from(self._directory, at)
        if 0xFFFFFFFF in (stored, length, place):
            begin = at + _ENTRY.size + name_len
            try:
                length, stored, place = _widen(self._directory[begin : begin + extra_len], (length, stored, place))
            except (struct.error, ValueError) as e:
                raise errors.UserError(
                    f"{self.label}: member {name} is damaged ({e}); download the archive again"
                ) from e
        header = _LOCAL.size + name_len + _SLACK
        return Member(name, place + self._shift, stored, length, crc, method, bool(flags & 1), header)

    def read(self, name: str) -> bytes:
        """A member's content, checked against its checksum.

        Raises:
          UserError: encrypted, compressed in an uncommon way, or damaged.
        """
        where = f"{self.label}: member {name}"
        member = self.member(name)
        if member.encrypted or member.method not in (_STORED, _DEFLATED):
            how = "is encrypted" if member.encrypted else f"is compressed by method {member.method}"
            raise errors.UserError(f"{where} {how}; pack the archive again with plain zip")
        if member.length > limits.PICTURE_BYTES or (
            member.length > limits.PICTURES_RATIO_FROM and member.length > limits.PICTURES_RATIO * member.stored
        ):
            raise errors.UserError(
                f"{where} would be {member.length:,} bytes, packed in {member.stored:,}; at most"
                f" {limits.PICTURE_BYTES:,} and, of big"
                f" ones, {limits.PICTURES_RATIO} times the packed size are read: is it a picture?"
            )
        try:
            content = self._content(member)
        except (struct.error, zlib.error, ValueError) as e:
            raise errors.UserError(f"{where} is damaged ({e}); download the archive again") from e
        if len(content) != member.length or zlib.crc32(content) != member.crc:
            raise errors.UserError(f"{where} is damaged (its checksum differs); download the archive again")
        return content

    def _content(self, member: Member) -> bytes:
        if member.place < 0 or member.place + member.stored > self._size:
            raise ValueError("it is beyond the archive's end")
        if member.stored > limits.PICTURE_BYTES:
            raise ValueError(f"it would take {member.stored:,} packed bytes, at most {limits.PICTURE_BYTES:,} are read")
        found = self._read(member.place, member.header + member.stored)
        signature, name_len, extra_len = _LOCAL.unpack_from(found)
        if signature != b"PK\3\4":
            raise ValueError("no file begins where the directory says")
        begin = _LOCAL.size + name_len + extra_len
        if begin + member.stored > len(found):
            found, begin = self._read(member.place + begin, member.stored), 0
        stored = memoryview(found)[begin : begin + member.stored]
        if member.method == _STORED:
            return bytes(stored)
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, member.length + 1)  # never more than declared


def _find_directory(size: int, read: Read) -> tuple[bytes, int, int]:
    """(the archive's directory, what to add to its offsets, number of members)."""
    tail_at = max(0, size - (1 << 16) - _END.size)
    tail = read(tail_at, size - tail_at)
    at = tail.rfind(b"PK\5\6")
    if at < 0:
        raise ValueError("it has no end record")
    _, members, length, place, _ = _END.unpack_from(tail, at)
    end = tail_at + at
    locator = read(end - _LOCATOR.size, _LOCATOR.size) if end >= _LOCATOR.size else b""
    if locator[:4] == b"PK\6\7":
        _, end64 = _LOCATOR.unpack(locator)
        found = read(end64, _END64.size) if end64 < size else b""
        if found[:4] != b"PK\6\6":
            raise ValueError("its Zip64 end record is missing")
        _, members, length, place = _END64.unpack(found)
        shift = 0
    else:
        shift = end - length - place  # something may precede the archive in the file
    if shift < 0 or place + shift + length > size:
        raise ValueError("its directory is cut off")
    if length > limits.PICTURES_DIRECTORY_BYTES:
        raise ValueError(f"its directory has {length:,} bytes, at most {limits.PICTURES_DIRECTORY_BYTES:,} are read")
    return read(place + shift, length), shift, members


def _index(directory: bytes) -> dict[str, int]:
    """The offset of each member's entry; under "" the number of entries, with folders and duplicates."""
    entries: dict[str, int] = {}
    loose: dict[str, int] = {}  # names with a \\ that `unzip` does not change; they have no other spelling
    respelled = _UNICODE_PATH.search(directory) is not None
    at, end, count, header = 0, len(directory), 0, _ENTRY.size
    unpack = _ENTRY.unpack_from
    while at < end:
        signature, _, _, _, _, _, name_len, extra_len, comment_len, _ = unpack(directory, at)
        if signature != b"PK\1\2":
            raise ValueError("its directory is damaged")
        name = directory[at + header : at + header + name_len]
        text = _text(name)
        if respelled and extra_len:
            begin = at + header + name_len
            text = _unicode_path(name, directory[begin : begin + extra_len]) or text
        if "\\" in text or "/." in text or "//" in text or "\0" in text or text[:1] in (".", "/"):
            kept = "\\" in text and (directory[at + _HOST] != _FAT or "/" in text)
            if straight := _straight(text):
                (loose if kept else entries)[straight] = at
        elif text and text[-1] != "/":
            entries[text] = at
        at += header + name_len + extra_len + comment_len
        count += 1
    for text, at in loose.items():
        entries.setdefault(text, at)
    entries[""] = count
    return entries


def _straight(name: str) -> str:
    """The path of the file that a member becomes; "" for a folder."""
    parts = name.split("\0")[0].replace("\\", "/").split("/")
    return "" if parts[-1] in _NOWHERE else "/".join(part for part in parts if part not in _NOWHERE)


def _unicode_path(name: bytes, extra: bytes) -> str:
    """The name in the extra field for Unicode paths; "" if there is none, or none for this name."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if (
            kind == 0x7075
            and len(field) > 5
            and field[0] == 1
            and int.from_bytes(field[1:5], "little") == zlib.crc32(name)
        ):
            return field[5:].decode(errors="ignore")
    return ""


def _text(name: bytes) -> str:
    try:
        return name.decode()  # even if the flag for it is not set: Linux tools forget it
    except UnicodeDecodeError:
        return name.decode("cp437")


def _widen(extra: bytes, values: tuple[int, ...]) -> list[int]:
    """`values`, with those that did not fit replaced by the 64-bit ones in the extra field."""
    wide: list[int] = []
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == 1:
            wide = list(struct.unpack_from(f"<{length // 8}Q", extra, 4))
        extra = extra[4 + length :]
    if len(wide) < values.count(0xFFFFFFFF):
        raise ValueError("a Zip64 field is missing")
    return [wide.pop(0) if value == 0xFFFFFFFF else value for value in values]
