"""What all tests share: one thread (the same figures beside others as alone), and no trace in the working tree."""

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

settings.register_profile("book", deadline=None, max_examples=20, database=None, derandomize=True)
settings.load_profile("book")


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Each test draws the same random numbers, whatever ran before it."""
    torch.manual_seed(0)
