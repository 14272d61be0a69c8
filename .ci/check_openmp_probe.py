"""Whether setup.py finds OpenMP and leaves out debug information as it says.

Needs what the build needs, and gcc's sanitizers.

usage: check_openmp_probe.py, in the folder of setup.py. Builds nothing but the probe.
"""

import os
import runpy
import stat
import tempfile
from pathlib import Path
from unittest import mock

import setuptools  # before distutils, which it provides
from setuptools.dist import Distribution
from setuptools.errors import CompileError

from distutils.ccompiler import new_compiler  # isort: skip
from distutils.sysconfig import customize_compiler  # isort: skip

with mock.patch.object(setuptools, "setup"), mock.patch("Cython.Build.cythonize"):
    BuildKernels = runpy.run_path("setup.py")["BuildKernels"]


def found(**environment: str) -> list[str] | str:
    """The flags, or the error's text."""
    asked = {"CFLAGS", "LDFLAGS", "CC", "FASTRNN_OPENMP"}
    kept = {name: value for name, value in os.environ.items() if name not in asked}
    with mock.patch.dict(os.environ, {**kept, **environment}, clear=True):
        command = BuildKernels(Distribution())
        command.compiler = new_compiler()
        customize_compiler(command.compiler)
        try:
            return command.openmp_flags()
        except CompileError as error:
            return str(error)


with tempfile.TemporaryDirectory() as folder:
    without = Path(folder, "without")  # a compiler that has no OpenMP
    without.write_text('#!/bin/sh\nfor a; do [ "$a" != -fopenmp ] || exit 1; done\nexec gcc "$@"\n')
    without.chmod(without.stat().st_mode | stat.S_IXUSR)
    for flags in ("", "-fsanitize=address", "-fsanitize=undefined", "-fsanitize=address,undefined"):
        assert found(CFLAGS=flags) == ["-fopenmp"], flags
        assert found(CFLAGS=flags, FASTRNN_OPENMP="1") == ["-fopenmp"], flags
        assert found(CFLAGS=flags, FASTRNN_OPENMP="0") == []
    assert found(CC=str(without)) == []
    assert "has no OpenMP" in found(CC=str(without), FASTRNN_OPENMP="1")
    for broken in ({"CC": "false"}, {"LDFLAGS": "-lnot_there"}, {"CFLAGS": "--not-a-flag"}):
        assert "no program at all" in found(**broken), broken
for flags, debug in {"": ["-g0"], "-O1": ["-g0"], "-g": [], "-O1 -ggdb3": []}.items():
    with mock.patch.dict(os.environ, {"CFLAGS": flags}):
        assert BuildKernels(Distribution()).debug_flags() == debug, flags
print("OpenMP is found, or missed, and debug information left out as setup.py says")
