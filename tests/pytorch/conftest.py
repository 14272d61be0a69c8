"""Settings of torch go back after each test; calls are small, and threads under test in few."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def torch_settings_restored(one_thread: None) -> Iterator[None]:
    torch = pytest.importorskip("torch")
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
