"""The extension module: one Cython file over C kernels that are compiled once per instruction set.

In the environment: FASTRNN_OPENMP=0 builds without threads, and 1 fails where the compiler has no
OpenMP, where by default the build goes on without. FASTRNN_SANITIZE=address,undefined instruments
csrc/ (see .ci/sanitize), and FASTRNN_COVERAGE=1 counts its lines (see .ci/coverage). CFLAGS=-g, or
any other of the compiler's -g, keeps debug information and names, for perf and gdb.
"""

import os
import shlex
import sysconfig
import tempfile
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

# Optimised, and with the bits that the source says: no contraction of an a*b + c that is not
# written as fma, no reordering. -fno-math-errno: sqrt and fma need not set errno, no bits depend
# on it. -fno-trapping-math: exceptions are masked, so a blend may compute both sides.
# -fno-fast-math: in case CFLAGS ask for the opposite. -fvisibility=hidden: the files' functions are
# each other's, and have short names. -Werror: a function that is not declared is taken to return an
# int.
COMMON = [
    "-std=c11",
    "-O3",
    "-fno-fast-math",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-Werror=implicit-function-declaration",
]
# Where the compiler has it, which clang has not: no calls of memset for a few elements.
SMALLER = ["-fno-tree-loop-distribute-patterns"]
# Never -march=native: a wheel is built on one machine and runs on another, and cpu.c picks the set.
ISA_FLAGS = {
    # A quarter smaller than with -O3, and 3% slower: in wheels it is for very old processors.
    "generic": ["-O2"],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx2", "-mfma", "-mprefer-vector-width=512"],
    # Scheduling before register allocation hoists the tile's loads and spills an accumulator.
    "neon": ["-fno-schedule-insns"],
}


def target_isas() -> list[str]:
    """The instruction sets of the machine that is compiled for, which may not be this one."""
    machine = sysconfig.get_platform()
    if machine.endswith(("x86_64", "amd64")):
        return ["generic", "avx2", "avx512"]
    if machine.endswith(("aarch64", "arm64")):
        return ["generic", "neon"]
    return ["generic"]


class BuildKernels(build_ext):
    """Compiles each file of csrc/isa with its own flags and links them all into the extension."""

    def links(self, source: str, flags: list[str]) -> bool:
        """Whether a program can be made with these flags beside those that the user asks for."""
        # Those of CFLAGS too: what a sanitizer in them adds to an object has to be linked.
        asked = [
            *shlex.split(os.environ.get("CFLAGS", "")),
            *shlex.split(os.environ.get("LDFLAGS", "")),
        ]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "probe.c")
            path.write_text(source)
            try:
                objects = self.compiler.compile(
                    [str(path)], output_dir=folder, extra_postargs=flags
                )
                self.compiler.link_executable(
                    objects, str(Path(folder, "probe")), extra_postargs=[*asked, *flags]
                )
            except (CompileError, LinkError):
                return False
        return True

    def openmp_flags(self) -> list[str]:
        wanted = os.environ.get("FASTRNN_OPENMP", "")
        if wanted == "0":
            return []
        program = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
        if self.links(program, ["-fopenmp"]):
            return ["-fopenmp"]
        if not self.links("int main(void) { return 0; }\n", []):
            raise CompileError(
                "fastrnn: the compiler makes no program at all, so nothing is known of its OpenMP: "
                "look at the errors above, and at CC, CFLAGS and LDFLAGS"
            )
        if wanted == "1":
            raise CompileError("fastrnn: FASTRNN_OPENMP=1, but the compiler has no OpenMP")
        self.announce("fastrnn: the compiler has no OpenMP, building without threads", level=3)
        return []

    def debug_flags(self) -> list[str]:
        """Without debug information, which is 8 of 9 MB, unless CFLAGS ask for some."""
        # Python's own flags have a -g, and what is given here comes behind those of CFLAGS.
        asked = shlex.split(os.environ.get("CFLAGS", ""))
        return [] if any(flag.startswith("-g") for flag in asked) else ["-g0"]

    def build_extension(self, ext: Extension) -> None:
        openmp = self.openmp_flags()
        debug = self.debug_flags()
        sanitizers = os.environ.get("FASTRNN_SANITIZE", "")
        # What is found ends the process. -fno-wrapv: Python's flags say the opposite, under which
        # less is undefined.
        instrument = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-fno-wrapv"]
        instrument = instrument if sanitizers else []
        # Atomic: threads count in the same place. The first flag is the linker's too.
        if os.environ.get("FASTRNN_COVERAGE", "") not in ("", "0"):
            instrument = ["--coverage", "-fprofile-update=atomic", "-fprofile-abs-path"]
        if instrument:
            debug = ["-g"]
        small = SMALLER if self.links("int main(void) { return 0; }\n", SMALLER) else []
        isa_flags = {isa: ISA_FLAGS[isa] for isa in target_isas()}
        isa_flags["generic"] = [*isa_flags["generic"], *small]
        headers = [str(p) for p in Path("csrc").rglob("*.[hi]*")]
        for source, flags in [
            *[
                (f"csrc/{name}.c", [])
                for name in ("arena", "quota", "schedule", "rates", "count", "company", "flops")
            ],
            *[(f"csrc/{name}.c", openmp) for name in ("team", "policy", "stop", "workers")],
            ("csrc/cpu.c", [f"-DFASTRNN_HAS_{isa.upper()}" for isa in target_isas()]),
            *[(f"csrc/isa/{isa}.c", flags) for isa, flags in isa_flags.items()],
        ]:
            ext.extra_objects += self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                include_dirs=["csrc"],
                extra_postargs=COMMON + debug + flags + instrument,
                depends=headers,
            )
        # With fast-math at the link, gcc adds code that flushes subnormals for the whole process.
        stripped = ["-s"] if debug == ["-g0"] else []
        ext.extra_link_args += [*openmp, "-fno-fast-math", *instrument[:1], *stripped]
        ext.extra_compile_args += debug
        super().build_extension(ext)


core = Extension(
    "fastrnn._core",
    ["fastrnn/_core.pyx"],
    include_dirs=["csrc", numpy.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
    extra_compile_args=["-O2"],
    depends=[str(p) for p in Path("csrc").rglob("*.[chi]*")],
)

setup(ext_modules=cythonize([core]), cmdclass={"build_ext": BuildKernels})
