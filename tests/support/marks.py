"""Marks that run a test with the cells or variants of the registry."""

import pytest
from registry import CELLS, FIRST, LAST, VARIANTS

each_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
each_variant = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)

# By the variant's name.
each_name = pytest.mark.parametrize("kind", VARIANTS)
each_first = pytest.mark.parametrize("kind", [variant.name for variant in FIRST.values()])
each_last = pytest.mark.parametrize("kind", [variant.name for variant in LAST.values()])
