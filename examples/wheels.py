"""What the examples on other packages' weights share: reading files of packages unimported.

The package is installed, perhaps without its dependencies, or a wheel. Nothing of it runs.
"""

import argparse
import os
import sys
import zipfile
from importlib import metadata
from pathlib import Path


def read(package: str, name: str, wheel: str | None) -> bytes:
    """A file of the package: from the wheel where one is given, else from where it is installed."""
    project = package.replace("_", "-")
    try:
        if wheel is not None:
            with zipfile.ZipFile(wheel) as archive:
                return archive.read(f"{package}/{name}")
        path = metadata.distribution(project).locate_file(f"{package}/{name}")
        return Path(str(path)).read_bytes()
    except metadata.PackageNotFoundError:
        sys.exit(
            f"this example reads the weights of the package {project}: pip install --no-deps "
            f"{project}, or pip download --no-deps {project} and --wheel FILE"
        )
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
