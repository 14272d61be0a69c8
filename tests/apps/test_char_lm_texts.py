"""The texts of `fastrnn train` as people have them: read, or refused with what they are."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import pickle
import random
import re
import shutil
import subprocess
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from language_model import OPTIONS, TEXT
from test_char_lm_commands import run_main

import fastrnn
from fastrnn.char_lm import CharLMError, Settings, text
from fastrnn.char_lm.command import _known_words
from fastrnn.char_lm.corpus import Corpus

WESTERN = "le café noir, garçon, über die straße, señor: one two three four five six seven.\n" * 30
QUOTED = WESTERN.replace("one", "“one”")  # what Windows-1252 has and Latin-1 has not
RUSSIAN = "быть или не быть, вот в чём вопрос.\n" * 60
JAPANESE = "吾輩は猫である。名前はまだ無い。\n" * 60


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(data: bytes, name: str = "file") -> tuple[str, str]:
    """The text of these bytes, and what was told of it."""
    Path(name).write_bytes(data)
    corpus = Corpus.read([name])
    assert len(corpus.notes) <= 1
    whole = corpus.text(corpus.ids)
    assert corpus.digest == digest_of(whole)
    return whole, "".join(corpus.notes)


def digest_of(whole: str) -> str:
    return Corpus.of("", [whole]).digest


def refusal(data: bytes, name: str = "file") -> str:
    Path(name).write_bytes(data)
    with pytest.raises(CharLMError) as caught:
        Corpus.read([name])
    message = str(caught.value)
    assert "\n" not in message
    return message


def by_shell(command: str) -> None:
    """Run what a message says; skip where this machine lacks the program."""
    if not shutil.which(command.split()[0]):
        pytest.skip(f"no {command.split()[0]}")
    subprocess.run(command, shell=True, check=True, timeout=60)


# ------------------------------------------------------------------------------ encodings


@pytest.mark.parametrize("whole", [WESTERN, RUSSIAN, JAPANESE, TEXT])
def test_utf_8_is_read_without_a_word(whole: str) -> None:
    assert read(whole.encode()) == (whole, "")


@pytest.mark.parametrize("whole", [WESTERN, RUSSIAN, JAPANESE, "a" * 20])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_it(whole: str, encoding: str) -> None:
    name = "UTF-8" if encoding == "utf-8-sig" else encoding.upper()
    told = f"file: read as {name}, without its byte order mark"
    assert read(whole.encode(encoding)) == (whole, told)
    if encoding != "utf-8-sig":
        mark = getattr(codecs, f"BOM_{encoding.replace('-', '')}_BE".upper())
        assert read(mark + whole.encode(f"{encoding}-be")) == (whole, told)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("whole", [WESTERN, RUSSIAN, TEXT])
def test_utf_16_without_a_mark_is_known_by_its_zeros(whole: str, encoding: str) -> None:
    assert read(whole.encode(encoding)) == (whole, "file: read as UTF-16")


@pytest.mark.parametrize(("encoding", "whole"), [("latin1", WESTERN), ("cp1252", QUOTED)])
def test_western_texts_are_read_and_that_is_told(encoding: str, whole: str) -> None:
    seen, told = read(whole.encode(encoding), "it's")
    assert seen == whole
    assert told.startswith("it's: read as Windows-1252 (Latin-1), as it is not UTF-8; ")
    command = told.partition("convert it: ")[2].replace("ENCODING", encoding)
    by_shell(command)
    assert read(Path("it's.utf8").read_bytes()) == (whole, "")


def test_the_first_letter_beyond_ascii_may_come_late() -> None:
    plain = TEXT * (3 * text.PIECE // len(TEXT))
    assert len(plain) > 2 * text.PIECE
    seen, told = read((plain + WESTERN).encode("latin-1"))
    assert seen == plain + WESTERN
    assert "Windows-1252" in told


@pytest.mark.parametrize("cut", range(1, 12))
def test_characters_on_the_border_of_two_pieces(cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "PIECE", 64 + cut)
    for whole in (JAPANESE, RUSSIAN, "\U0001f600é\r\n" * 99):
        plain = whole.replace("\r\n", "\n")
        assert read(whole.encode())[0] == plain
        assert read(whole.encode("utf-16"))[0] == plain
        assert read(gzip.compress(whole.encode()))[0] == plain


@pytest.mark.parametrize(
    ("whole", "encoding"),
    [(RUSSIAN, "cp1251"), (RUSSIAN, "koi8-r"), (JAPANESE, "shift-jis"), (JAPANESE, "euc-jp")],
)
def test_other_encodings_are_refused(whole: str, encoding: str) -> None:
    message = refusal(whole.encode(encoding), "a b")
    assert message.startswith("cannot read a b: it is not UTF-8, and no Western text")
    by_shell(message.rpartition(": ")[2].replace("ENCODING", encoding))
    assert read(Path("a b.utf8").read_bytes()) == (whole, "")


def test_utf_16_that_cannot_be_told_from_data_is_refused_with_what_to_try() -> None:
    message = refusal(JAPANESE.replace("\n", "").encode("utf-16-be"))
    assert "binary data, or a text in UTF-16 without a byte order mark" in message
    by_shell(message.rpartition(": ")[2])
    assert read(Path("file.utf8").read_bytes()) == (JAPANESE.replace("\n", ""), "")


def test_utf_8_with_a_bad_byte_is_no_western_text() -> None:
    data = WESTERN.encode()
    message = refusal(data + b"\xff" + data)
    assert f"byte {len(data):,} (0xff) is not UTF-8, as what is before it" in message
    if shutil.which("iconv"):  # its status is 1 when it has left something out
        subprocess.run(message.rpartition(": ")[2], shell=True, timeout=60)
        assert read(Path("file.utf8").read_bytes()) == (WESTERN * 2, "")


def test_a_last_character_that_is_cut_off_is_left_out() -> None:
    cut = "file: its last character is cut off and left out"
    assert read((WESTERN + "é").encode()[:-1]) == (WESTERN, cut)
    seen, told = read((WESTERN + "x").encode("utf-16")[:-1])
    assert seen == WESTERN
    assert told.endswith("; its last character is cut off and left out")


def test_line_ends_are_one_character() -> None:
    for end in ("\r\n", "\r"):
        told = f"file: line ends {end!r} read as '\\n'"
        assert read(WESTERN.replace("\n", end).encode()) == (WESTERN, told)
    mixed = "a\r\nb\rc\n" * 20
    told = "file: line ends '\\r\\n' and '\\r' read as '\\n'"
    assert read(mixed.encode()) == ("a\nb\nc\n" * 20, told)


# ------------------------------------------------------------------------------ compressed, binary


@pytest.mark.parametrize(("module", "name"), [(gzip, "gzip"), (bz2, "bzip2"), (lzma, "xz")])
def test_compressed_texts_are_read(module: object, name: str) -> None:
    compressed = module.compress(WESTERN.encode())  # type: ignore[attr-defined]
    told = f"file: decompressed, as {name} does"
    assert read(compressed) == (WESTERN, told)
    assert read(compressed * 2) == (WESTERN * 2, told)
    assert refusal(compressed[: len(compressed) // 2]).startswith("cannot read file: Compressed")
    broken = bytearray(compressed)
    broken[len(broken) // 2] ^= 0xFF
    assert refusal(bytes(broken)).startswith("cannot read file: ")
    assert refusal(module.compress(b"")) == "file is empty"  # type: ignore[attr-defined]
    western = read(module.compress(WESTERN.encode("latin-1")))  # type: ignore[attr-defined]
    assert western[0] == WESTERN
    by_shell(western[1].partition("convert it: ")[2].replace("ENCODING", "latin1"))
    assert read(Path("file.utf8").read_bytes()) == (WESTERN, "")


def archive(name: str, data: bytes = b"content", *others: str) -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as written:
            for one in (name, *others):
                written.writestr(one, data)
        return file.getvalue()


def tar(name: str, data: bytes) -> bytes:
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as written:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            written.addfile(info, io.BytesIO(data))
        return file.getvalue()


def saved_array() -> bytes:
    with io.BytesIO() as file:
        np.save(file, np.arange(999))
        return file.getvalue()


NOISE = random.Random(0).randbytes(9000)
BINARY = [
    (b"\x89PNG\r\n\x1a\n" + NOISE, "an image (PNG), not text"),
    (b"\xff\xd8\xff\xe0" + NOISE, "an image (JPEG), not text"),
    (b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n" + NOISE, "a PDF document: pdftotext file file.txt"),
    (b"%PDF-1.4\n" + TEXT.encode(), "a PDF document: pdftotext"),
    (b"{\\rtf1 " + TEXT.encode(), "a document in RTF: pandoc -t plain file -o file.txt"),
    (archive("a.txt"), "a zip archive: unzip -p file > file.txt"),
    (archive("[Content_Types].xml", b"word/"), "a Word document (.docx): pandoc"),
    (archive("mimetype", b"application/epub+zip"), "a book (.epub): pandoc"),
    (archive("mimetype", b"application/vnd.oasis.opendocument.text"), "an OpenDocument text"),
    (archive("a.npy"), "an archive of NumPy arrays (.npz), not text"),
    (tar("a.txt", TEXT.encode()), "a tar archive: tar -xOf file > file.txt"),
    (b"\x28\xb5\x2f\xfd" + NOISE, "compressed by zstandard: zstd -d -c file > file.txt"),
    (pickle.dumps([1.5] * 999), "a pickle, which may run any code when it is read"),
    (saved_array(), "a NumPy array (.npy), not text"),
    (b"\x7fELF\x02\x01" + NOISE, "a program or library (ELF), not text"),
    (b"SQLite format 3\0" + NOISE, "an SQLite database, not text"),
    (b"version https://git-lfs.github.com/spec/v1\noid 1\n", "a pointer of Git LFS: fetch"),
    (NOISE, "binary data, not text"),
    (np.arange(9000, dtype="<i2").tobytes(), "binary data, not text"),
    (np.linspace(0, 1, 999).tobytes(), "binary data, not text"),
]


@pytest.mark.parametrize(("data", "words"), BINARY, ids=lambda v: v if isinstance(v, str) else "")
def test_binary_files_are_named(data: bytes, words: str) -> None:
    assert f"cannot read file: it seems to be {words}" in refusal(data)


def test_what_unpacks_an_archive_works() -> None:
    for data in (archive("a.txt", WESTERN.encode()), tar("a.txt", WESTERN.encode())):
        command = refusal(data, "a 'b'").rpartition(": ")[2]
        by_shell(command)
        assert read(Path("a 'b'.txt").read_bytes()) == (WESTERN, "")
    message = refusal(gzip.compress(tar("a.txt", WESTERN.encode())), "a.tar.gz")
    by_shell(message.partition("decompressed, by ")[2].partition(",")[0])
    by_shell(message.rpartition(": ")[2])
    assert read(Path("a.tar.gz.decompressed.txt").read_bytes()) == (WESTERN, "")


def test_a_model_is_no_text() -> None:
    fastrnn.save("model", {"rnn": fastrnn.RNN(2, 3)})
    with pytest.raises(CharLMError, match="it seems to be a safetensors file"):
        Corpus.read(["model"])


@pytest.mark.parametrize(
    "begin", ["GGUF is a format. ", "BZh ", "12345678{", "PAR1 ", "RIFF ", "\b"]
)
def test_texts_that_begin_like_other_formats_are_texts(begin: str) -> None:
    assert read((begin + WESTERN).encode()) == (begin + WESTERN, "")


# ------------------------------------------------------------------------------ files and sizes


def test_several_files_are_one_text() -> None:
    Path("a").write_bytes(WESTERN.encode())
    Path("b").write_bytes(RUSSIAN.encode("utf-16"))
    Path("c").write_bytes(QUOTED.encode("cp1252"))
    corpus = Corpus.read(["a", "b", "c"])
    assert corpus.text(corpus.ids) == WESTERN + RUSSIAN + QUOTED
    assert corpus.digest == digest_of(WESTERN + RUSSIAN + QUOTED)
    assert (corpus.name, corpus.files) == ("a, b, c", ("a", "b", "c"))
    assert [note[:10] for note in corpus.notes] == ["b: read as", "c: read as"]
    assert Corpus.read(["a"] * 7).name == "a and 6 more files"


def test_a_pipe_is_read() -> None:
    os.mkfifo("pipe")
    for data in (WESTERN.encode(), gzip.compress(WESTERN.encode())):
        writer = threading.Thread(target=Path("pipe").write_bytes, args=(data,))
        writer.start()
        corpus = Corpus.read(["pipe"])
        writer.join()
        assert corpus.text(corpus.ids) == WESTERN


def test_a_folder_is_refused_with_how_to_name_its_files() -> None:
    Path("it's").mkdir()
    for name in ("a", "b"):
        Path("it's", f"{name}.txt").write_text(WESTERN)
    with pytest.raises(CharLMError, match="Is a directory") as caught:
        Corpus.read(["it's"])
    words = str(caught.value).partition("fastrnn train ")[2]
    shown = subprocess.run(f"echo {words}", shell=True, capture_output=True, text=True).stdout
    assert shown == "it's/a.txt it's/b.txt\n"


def test_the_smallest_type_that_holds_the_numbers() -> None:
    for count, kind in ((256, np.uint8), (257, np.uint16), (70000, np.uint32)):
        codes = [c for c in range(0x20, 0x20000) if not 0xD800 <= c < 0xE000][:count]
        whole = "".join(map(chr, reversed(codes)))
        pieces = [whole[i : i + 1000] for i in range(0, count, 1000)]
        corpus = Corpus.of("", pieces)
        assert corpus.ids.dtype == kind
        assert corpus.characters == "".join(map(chr, codes))
        assert np.array_equal(corpus.ids, np.arange(count)[::-1])


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("size", [*range(11, 40), 100, 500, 2000])
def test_what_a_short_text_suggests_can_be_done(
    size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("short").write_text((TEXT * 2)[:size])
    argv = ["train", "short", "--hidden-size=4", "--epochs=1", "--embedding-dim=2"]
    status, out, err = run_main(argv, capsys)
    assert (status, out) == (2, "")
    assert f"short has {size} characters" in err
    options = err.rpartition("; try ")[2].split()
    assert re.fullmatch(r"--batch-size \d+ --steps \d+", " ".join(options))
    assert int(options[1]) * int(options[3]) * 2 >= size * 9 // 10 - 1  # no smaller than need be
    status, out, err = run_main([*argv, *options], capsys)
    assert (status, err) == (0, "")


def test_texts_too_short_for_anything() -> None:
    for size in range(1, 11):
        corpus = Corpus.of("tiny", ["x" * size])
        with pytest.raises(CharLMError, match=f"tiny has {size} characters: too few .* takes 11"):
            corpus.check(Settings(batch_size=1, steps=1))
    Corpus.of("", ["x" * 11]).check(Settings(batch_size=1, steps=8))


@pytest.mark.usefixtures("one_thread")
def test_what_was_done_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.gz").write_bytes(gzip.compress((TEXT * 2).replace("\n", "\r\n").encode("utf-16")))
    status, out, err = run_main(["train", "text.gz", *OPTIONS], capsys)
    assert (status, err) == (0, "")
    assert out.splitlines()[:2] == [
        "text.gz: decompressed, as gzip does; read as UTF-16, without its byte order mark; "
        "line ends '\\r\\n' read as '\\n'",
        f"text.gz: {2 * len(TEXT):,} characters, {len(set(TEXT))} different",
    ]


def test_words_on_the_border_of_two_pieces_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = "alpha beta gammadelta " * 9 + "x" * 50 + "omega " + "end" * 40
    corpus = Corpus.of("", [whole])
    wanted = {"alpha", "beta", "gammadelta", "gamma", "delta", "omega", "xxxxomega"}
    for size in range(1, 40):
        monkeypatch.setattr("fastrnn.char_lm.corpus.BLOCK", size)
        assert _known_words(corpus, wanted) == {"alpha", "beta", "gammadelta"}
