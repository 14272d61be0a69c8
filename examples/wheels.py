"""What the examples on other packages' files share: reading them without importing the package.

The package is installed, perhaps without its dependencies, or a wheel. Nothing of it runs.
"""

import argparse
import os
import sys
import zipfile
from importlib import metadata
from pathlib import Path


def read(
    package: str,
    name: str,
    wheel: str | None = None,
    *,
    what: str = "weights",
    cure: str = "pip install --no-deps {0}, or pip download --no-deps {0} and --wheel FILE",
) -> bytes:
    """A file of the package: from the wheel where one is given, else from where it is installed.

    Where there is none, one line says what of the package is read, and the cure.
    """
    project = package.replace("_", "-")
    try:
        if wheel is not None:
            with zipfile.ZipFile(wheel) as archive:
                return archive.read(f"{package}/{name}")
        path = metadata.distribution(project).locate_file(f"{package}/{name}")
        return Path(str(path)).read_bytes()
    except metadata.PackageNotFoundError:
        sys.exit(f"this example reads the {what} of the package {project}: {cure.format(project)}")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        sys.exit(f"cannot read {name} of {wheel or project}: {error}")


def add_option(parser: argparse.ArgumentParser, package: str) -> None:
    """--wheel, or the variable that stands in for it, such as G2P_EN_WHEEL."""
    variable = f"{package.upper()}_WHEEL"
    parser.add_argument(
        "--wheel",
        metavar="FILE",
        default=os.environ.get(variable),
        help=f"read the weights from it; or name it in {variable} (default: what is installed)",
    )
