"""Files of other formats: what they seem to be by how they begin, and what makes one of ours."""

from __future__ import annotations

import os
import shlex
import stat
from io import BufferedReader

SAFETENSORS, KERAS = "a safetensors file", "a Keras file (.keras)"
HDF5, ONNX = "an HDF5 file (.h5)", "an ONNX model"
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
GZIP, BZIP2, XZ = "compressed by gzip", "compressed by bzip2", "compressed by xz"
ZSTANDARD, ZIP, TAR = "compressed by zstandard", "a zip archive", "a tar archive"
WORD, OPEN_DOCUMENT, EPUB = "a Word document (.docx)", "an OpenDocument text", "a book (.epub)"
PDF, RTF = "a PDF document", "a document in RTF"
OLD_OFFICE = "a document of an old Office (.doc, .xls)"
WEB_PAGE = "a web page, as a download that failed leaves it"
GIT_LFS = "a pointer of Git LFS: fetch the file with git lfs pull"

# Endings of names that other programs take for these formats, whatever is in the file.
_ENDINGS = {
    ".pt": "PyTorch", ".pth": "PyTorch", ".npz": "NumPy", ".npy": "NumPy", ".h5": "HDF5",
    ".hdf5": "HDF5", ".keras": "Keras", ".onnx": "ONNX", ".pkl": "pickle", ".pickle": "pickle",
}  # fmt: skip

# How a text is made of a file of these formats.
_TO_TEXT = {
    GZIP: "gzip -d -c {} > {}.txt",
    BZIP2: "bzip2 -d -c {} > {}.txt",
    XZ: "xz -d -c {} > {}.txt",
    ZSTANDARD: "zstd -d -c {} > {}.txt",
    ZIP: "unzip -p {} > {}.txt",
    TAR: "tar -xOf {} > {}.txt",
    WORD: "pandoc -t plain {} -o {}.txt",
    OPEN_DOCUMENT: "pandoc -t plain {} -o {}.txt",
    EPUB: "pandoc -t plain {} -o {}.txt",
    RTF: "pandoc -t plain {} -o {}.txt",
    PDF: "pdftotext {} {}.txt",
    OLD_OFFICE: "soffice --convert-to txt:Text {}",
}


def open_regular(path: str) -> BufferedReader | None:
    """The file, open for reading; None where it is no regular one, but a pipe or a device."""
    # Non-blocking, or opening a pipe would wait for its writer.
    file = open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK))  # noqa: SIM115
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    return None


def format_of(path: str) -> str:
    """What a file seems to be by how it begins, in words; "" where that is unknown."""
    if (file := open_regular(path)) is None:
        return ""
    with file:
        start = file.read(4096)
    return SAFETENSORS if start[8:9] == b"{" else _recognised(start, "")[0]


def name_of_other_format(path: str) -> str:
    """What is wrong with a name for a safetensors file that ends as others do; "" if nothing."""
    stem, ending = os.path.splitext(path)
    if (other := _ENDINGS.get(ending.lower())) is None:
        return ""
    return (
        f"this writes a safetensors file, and {ending} is for files of {other}: name it "
        f"{stem + '.safetensors'!r}"
    )


def other_format(file: BufferedReader, path: str) -> str:
    """What a file seems to be that is none of ours, and what to do with it; "" where unknown."""
    file.seek(0)
    start = file.read(4096)
    if len(start) < 9 or start[8:9] == b"{":  # a safetensors file, or too short for any
        return ""
    names = (f"{os.path.splitext(path)[0]}{n or ''}.safetensors" for n in range(100))
    # One that is free: what is written replaces what is there.
    target = repr(next((name for name in names if not os.path.lexists(name)), "new.safetensors"))
    shown = repr(path)
    seems, made = _recognised(start, shown)
    if not seems:
        return ""
    text = f"this seems to be {seems}, not a safetensors file"
    return f"{text}: write {made.replace(chr(0), target)}" if made else text


def not_text(start: bytes, path: str) -> str:
    """What a file that begins so seems to be that is no plain text, and what to do with it.

    "" where it seems to be text, or is unknown.
    """
    header = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and header < 1 << 40:  # eight characters would be a larger number
        return f"{SAFETENSORS}, which has no text in it"
    seems, _ = _recognised(start, "")
    if seems in ("", "text", "JSON", WEB_PAGE):
        return ""
    if seems == GIT_LFS:
        return seems
    shown = shlex.quote(path)
    if made := _TO_TEXT.get(seems):
        return f"{seems}: {made.format(shown, shown)}"
    return seems if ":" in seems else f"{seems}, not text"


def _recognised(start: bytes, path: str) -> tuple[str, str]:
    """What a file that begins so seems to be, and the code that makes one of ours of it."""
    torch = (
        f"import fastrnn, torch; state = torch.load({path}, weights_only=True); fastrnn.save(\0, "
        "{'model': {n: (a.float() if a.dtype == torch.bfloat16 else a).detach().numpy() for n, a "
        "in state.items()}})"
    )
    numpy = f"fastrnn.save(\0, {{'array': np.load({path})}})"
    archive = f"fastrnn.save(\0, {{'arrays': dict(np.load({path}))}})"
    layers = "import fastrnn.convert; layers = fastrnn.convert"
    keras, onnx = f"{layers}.from_keras({path})", f"{layers}.from_onnx({path})"
    weights = f"{layers}.from_keras({path}, config=model.to_json())"
    first = start[30 : 30 + int.from_bytes(start[26:28], "little")]  # file in a zip archive
    if start.startswith(b"PK\x03\x04"):
        if first.endswith(b".npy"):
            return "an archive of NumPy arrays (.npz)", archive
        if first.endswith((b"/data.pkl", b"/version", b"/byteorder", b"/.format_version")):
            return "a PyTorch file (.pt), if it has a state_dict", torch
        if first in (b"metadata.json", b"config.json"):
            return KERAS, keras
        if first == b"mimetype" and b"application/epub" in start:
            return EPUB, ""
        if first == b"mimetype" and b"opendocument.text" in start:
            return OPEN_DOCUMENT, ""
        if first == b"[Content_Types].xml" and b"word/" in start:
            return WORD, ""
        return ZIP, ""
    if start.startswith(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."):
        return "a PyTorch file (.pt), if it has a state_dict", torch
    if len(start) > 2 and start[0] == 0x80 and 2 <= start[1] <= 5:
        return "a pickle, which may run any code when it is read: have its maker save arrays", ""
    for magic, seems, made in (
        (b"\x93NUMPY", "a NumPy array (.npy)", numpy),
        (HDF5_SIGNATURE, HDF5, weights),
        (b"\x1f\x8b\x08", GZIP, ""),
        (b"BZh", BZIP2, ""),
        (b"\xfd7zXZ\x00", XZ, ""),
        (b"\x28\xb5\x2f\xfd", ZSTANDARD, ""),
        (b"GGUF", "a GGUF file", ""),
        (b"MATLAB 5.0", "a MATLAB file (.mat)", ""),
        (b"version https://git-lfs", GIT_LFS, ""),
        (b"<!DOCTYPE", WEB_PAGE, ""),
        (b"<html", WEB_PAGE, ""),
        (b"%PDF-", PDF, ""),
        (b"{\\rtf", RTF, ""),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", OLD_OFFICE, ""),
        (b"\x89PNG\r\n", "an image (PNG)", ""),
        (b"\xff\xd8\xff", "an image (JPEG)", ""),
        (b"GIF8", "an image (GIF)", ""),
        (b"RIFF", "a picture or sound (WebP, WAV)", ""),
        (b"OggS", "sound (Ogg)", ""),
        (b"ID3", "sound (MP3)", ""),
        (b"\x7fELF", "a program or library (ELF)", ""),
        (b"SQLite format 3\x00", "an SQLite database", ""),
        (b"PAR1", "a Parquet file", ""),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive", ""),
        (b"Rar!\x1a\x07", "a RAR archive", ""),
    ):
        if start.startswith(magic):
            return seems, made
    if start[257:262] == b"ustar":
        return TAR, ""
    if start[4:8] == b"TFL3":
        return "a TensorFlow Lite model", ""
    # ir_version, and another field: names and versions of the producer, a text, the graph, sets.
    if start[:1] == b"\x08" and start[2:3] in (b"\x12", b"\x1a", b'"', b"(", b"2", b":", b"B"):
        return ONNX, onnx
    text = "".join(start.decode(errors="replace").split())
    if text.isprintable() and "�" not in text[:-1]:
        return ("JSON" if text.startswith(("{", "[")) else "text"), ""
    return "", ""
