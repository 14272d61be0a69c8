"""Texts as people have them, read piece by piece: encodings, line ends, compression.

What is no text is refused, with what it seems to be and how to make one of it.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import shlex
import stat
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .._formats import not_text

HELP_TOPICS = "Python's help topics"
PIECE = 1 << 18  # bytes that are read at once
STDIN = "/dev/stdin"

# A mark at the beginning that says how the rest is encoded; the longer ones come first.
MARKS = (
    (codecs.BOM_UTF8, "utf8"),
    (codecs.BOM_UTF32_LE, "utf-32le"),
    (codecs.BOM_UTF32_BE, "utf-32be"),
    (codecs.BOM_UTF16_LE, "utf-16le"),
    (codecs.BOM_UTF16_BE, "utf-16be"),
)
NAMES = {
    "utf8": "UTF-8", "utf-16le": "UTF-16", "utf-16be": "UTF-16", "utf-32le": "UTF-32",
    "utf-32be": "UTF-32", "cp1252": "Windows-1252 (Latin-1)",
}  # fmt: skip
COMPRESSED: tuple[tuple[bytes, str, Any], ...] = (
    (b"\x1f\x8b\x08", "gzip", lambda file: gzip.GzipFile(fileobj=file)),
    (b"BZh", "bzip2", bz2.BZ2File),
    (b"\xfd7zXZ\x00", "xz", lzma.LZMAFile),
)
IN_ASCII = (b"%PDF-", b"{\\rtf", b"version https://git-lfs")  # may look like texts, and are none
WHITE = "\t\n\v\f\r\b\x1b"  # control characters that texts have


class CharLMError(Exception):
    """What a user can mend, in one line."""


def help_topics() -> str:
    """The default text."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise CharLMError("this Python has no help topics: name a text file") from None
    return "".join(topics[name] for name in sorted(topics))


def check_files(paths: list[str]) -> None:
    """Raise CharLMError if a file is named twice: what is held out would be trained on."""
    files = [path for path in paths if os.path.isfile(path)]  # a pipe has more to read each time
    for i, path in enumerate(files):
        for other in files[:i]:
            if os.path.samefile(path, other):
                which = path if path == other else f"{other} and {path}"
                raise CharLMError(
                    f"{which}: the same file twice, so that what is held out would be in the text "
                    "that is trained on; name it once"
                )


def read_text(path: str, notes: list[str]) -> Iterator[str]:
    r"""The text of a file, in pieces.

    Parameters
    ----------
    path : str
        A regular file or a pipe. Compressed by gzip, bzip2 or xz or not; UTF-8, UTF-16 or UTF-32.
        What is none of these but has few bytes above 127 is read as Windows-1252, which has all
        printable characters of Latin-1. \r\n and \r are read as \n.
    notes : list of str
        What was done besides reading UTF-8 is added here once all is read, in one line.

    Raises
    ------
    CharLMError
        If there is no such file, or it is no text, or in an encoding that cannot be told.
    """
    source = _Source(path)
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    try:
        with _opened(path) as file:
            for text in _decoded(file, source):
                yield newlines.decode(text)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
        # ValueError: a name with a null. EOFError and the two behind it: damaged compressed files.
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise CharLMError(f"cannot read {path}: {why}") from None
    yield newlines.decode("", final=True)
    ends: Any = newlines.newlines or ()
    ends = (ends,) if isinstance(ends, str) else ends
    if others := [end for end in ("\r\n", "\r") if end in ends]:
        source.done.append(f"line ends {' and '.join(map(repr, others))} read as '\\n'")
    if source.done:
        notes.append(f"{path}: {'; '.join(source.done)}")


class _Source:
    """A file that is read: its name, what was done to read it, and what a shell can do with it."""

    def __init__(self, path: str) -> None:
        self.path, self.done = path, list[str]()
        self.tool = ""  # what decompresses it

    def refused(self, why: str) -> CharLMError:
        return CharLMError(f"cannot read {self.path}: {why}")

    def is_no_text(self, start: bytes, seems: str) -> CharLMError:
        """With what it seems to be; made from how it begins, decompressed."""
        if not self.tool:
            return self.refused(f"it seems to be {seems}")
        inner = f"{self.path}.decompressed"
        unpack = f"{self.tool} -d -c {shlex.quote(self.path)} > {shlex.quote(inner)}"
        return self.refused(f"decompressed, by {unpack}, it seems to be {not_text(start, inner)}")

    def convert(self, options: str) -> str:
        """The command that makes UTF-8 of it."""
        shown = shlex.quote(self.path)
        if self.tool:
            return f"{self.tool} -d -c {shown} | iconv {options} -t utf8 > {shown}.utf8"
        return f"iconv {options} -t utf8 {shown} > {shown}.utf8"


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    if path == "-" and not os.path.lexists(path):
        raise CharLMError(
            f"cannot read -: standard input is {STDIN} here: fastrnn train {STDIN} < book.txt"
        )
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        files = shlex.quote(os.path.join(path, "")) + "*.txt"
        raise CharLMError(
            f"cannot read {path}: Is a directory; name its files: fastrnn train {files}"
        )
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        how = ""
        if path == STDIN:
            how = f"; send a text: fastrnn train {STDIN} < book.txt"
        raise CharLMError(f"cannot read {path}: it is a device, which may have no end{how}")
    with open(path, "rb") as file:
        yield file


class _Rest:
    """A file whose beginning was read already; a pipe cannot go back."""

    def __init__(self, start: bytes, file: Any) -> None:
        self.start, self.file = start, file

    def read(self, size: int) -> bytes:
        start, self.start = self.start[:size], self.start[size:]
        return start or self.file.read(size)


def _decoded(file: Any, source: _Source) -> Iterator[str]:
    start = file.read(PIECE)
    for magic, tool, opened in COMPRESSED:
        if start.startswith(magic) and not _is_plain(start):
            file, source.tool = opened(_Rest(start, file)), tool
            source.done.append(f"decompressed, as {tool} does")
            start = file.read(PIECE)
            break
    if not start:
        raise CharLMError(f"{source.path} is empty")
    mark, encoding = _encoding(start, source)
    if mark or encoding != "utf8":
        source.done.append(f"read as {NAMES[encoding]}")
    if mark:
        source.done[-1] += ", without its byte order mark"
    decoder = codecs.getincrementaldecoder(encoding)()
    ascii_alone = encoding == "utf8" and not mark
    chunk, read = start[len(mark) :], len(start)
    while True:
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            data, begin = error.object, error.start  # with what was left over of the chunk before
            if ascii_alone and data[:begin].isascii():
                _check_western(data, source)
                source.done.append(
                    f"read as {NAMES['cp1252']}, as it is not UTF-8; if it is neither, convert it: "
                    + source.convert("-f ENCODING")
                )
                encoding, ascii_alone = "cp1252", False
                decoder = codecs.getincrementaldecoder(encoding)()
                text = decoder.decode(data)
            elif not chunk and error.reason in ("unexpected end of data", "truncated data"):
                source.done.append("its last character is cut off and left out")
                text = data[:begin].decode(encoding)
            else:
                raise source.refused(
                    f"byte {read - len(data) + begin:,} (0x{data[begin]:02x}) is not "
                    f"{NAMES[encoding]}, as what is before it; to leave such bytes out: "
                    + source.convert(f"-c -f {encoding}")
                ) from None
        ascii_alone = ascii_alone and text.isascii()
        yield text
        if not chunk:
            return
        chunk = file.read(PIECE)
        read += len(chunk)


def _encoding(start: bytes, source: _Source) -> tuple[bytes, str]:
    """The byte order mark and the encoding by how a file begins; CharLMError if it is no text."""
    for mark, encoding in MARKS:
        if start.startswith(mark):
            _check_clean(start[len(mark) :].decode(encoding, "ignore"), source, start)
            return mark, encoding
    seems = not_text(start, source.path)
    if seems and (start.startswith(IN_ASCII) or not _is_plain(start)):
        raise source.is_no_text(start, seems)
    # Where a code unit has two bytes, one of them is zero in all Latin letters, in all spaces.
    zeros = start[::2].count(0), start[1::2].count(0)
    if len(start) > 3 and max(zeros) > 0.05 * len(start) / 2 and min(zeros) < 0.05 * max(zeros):
        encoding = "utf-16be" if zeros[0] > zeros[1] else "utf-16le"
        _check_clean(start.decode(encoding, "ignore"), source, start)
        return b"", encoding
    _check_clean(start.decode("utf8", "ignore"), source, start)
    return b"", "utf8"


def _is_plain(start: bytes) -> bool:
    """Whether these bytes, which may end inside a character, are UTF-8 without odd characters."""
    try:
        return _odd(codecs.getincrementaldecoder("utf8")().decode(start)) == 0
    except UnicodeDecodeError:
        return False


def _odd(text: str) -> float:
    """The share of control characters and of those that no standard has."""
    kinds = Counter(text)
    odd = (n for c, n in kinds.items() if unicodedata.category(c) in ("Cc", "Cn", "Co"))
    return (sum(odd) - sum(kinds[c] for c in WHITE)) / max(len(text), 1)


def _check_clean(text: str, source: _Source, start: bytes) -> None:
    if _odd(text) <= 0.02:  # bytes at random have a share of 12%, and texts next to none
        return
    # Of the two bytes of a code unit the higher one has fewer values.
    encoding = "utf-16le" if len({*start[::2]}) > len({*start[1::2]}) else "utf-16be"
    with suppress(UnicodeDecodeError):
        if _odd(codecs.getincrementaldecoder(encoding)().decode(start)) == 0:
            raise source.refused(
                "it seems to be binary data, or a text in UTF-16 without a byte order mark; if so: "
                + source.convert(f"-f {encoding}")
            )
    shown = shlex.quote(source.path)
    raise source.refused(
        f"it seems to be binary data, not text (what it is, `file -z {shown}` may know)"
    )


def _check_western(data: bytes, source: _Source) -> None:
    """Refuse what is hardly Windows-1252: of its letters few have codes above 127."""
    high = sum(1 for b in data if b > 127)
    letters = sum(1 for b in data if b > 64)
    try:
        data.decode("cp1252")
        if high <= 0.25 * letters or letters < 8:
            return
    except UnicodeDecodeError:  # a code without a character
        pass
    raise source.refused(
        "it is not UTF-8, and no Western text in Windows-1252; convert it with its encoding "
        f"(cp1251, koi8-r, shift-jis, gbk, ...): {source.convert('-f ENCODING')}"
    )
