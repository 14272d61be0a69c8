"""What to do about an argument that does not fit: the end of an error's text.

A cure is Python in the caller's names, to be copied. After "pass" stands what to pass instead, or
``name=value``, which is to be passed as well; after "write" a statement to put before the call.
tests/project/test_cures.py does what they say. None is given where none is known to work.
"""

from .arrays import (
    NO_ROLE,
    Role,
    an,
    for_dtype,
    for_integers,
    for_object,
    for_seed,
    for_sequences,
    for_shape,
    for_state,
    for_types,
    is_one_hot,
    is_tensor,
    kind,
    one_hot_index,
    shown,
    squeezed,
)
from .collections import (
    WEIGHT,
    for_bare,
    for_collection,
    for_elements,
    for_mapping,
    for_names,
    for_nested,
    for_read_only,
    for_saved,
    for_tensors,
    for_writable,
    is_frozen,
)

__all__ = [
    "NO_ROLE", "WEIGHT", "Role", "an", "for_bare", "for_collection", "for_dtype", "for_elements",
    "for_integers", "for_mapping", "for_names", "for_nested", "for_object", "for_read_only",
    "for_saved", "for_seed", "for_sequences", "for_shape", "for_state", "for_tensors", "for_types",
    "for_writable", "is_frozen", "is_one_hot", "is_tensor", "kind", "one_hot_index", "shown",
    "squeezed",
]  # fmt: skip
