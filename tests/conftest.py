"""What all tests share: one thread (the same figures beside others as alone), no order, and no trace in the working
tree.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: kernels and other processes inherit it

import random
from itertools import groupby

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

settings.register_profile("book", deadline=None, max_examples=20, database=None, derandomize=True)
settings.load_profile("book")


@pytest.fixture(autouse=True, scope="module")
def _seed_of_module() -> None:
    """What a file's tests share draws the same random numbers, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Each test draws the same random numbers, whatever ran before it."""
    torch.manual_seed(0)


# Files, and the tests of each, come in an order drawn anew each time; a notebook's cells stay as they are (a general
# plugin would shuffle those too). TEST_ORDER=<the number printed> draws it again, TEST_ORDER=files leaves all as
# written, TEST_TIMES=2 runs everything twice in one session.


def pytest_configure(config) -> None:
    os.environ.setdefault("TEST_ORDER", str(random.SystemRandom().randrange(10**6)))  # the workers of -n read it


def pytest_report_header(config) -> str:
    return f"TEST_ORDER={os.environ['TEST_ORDER']}"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items) -> None:
    order = os.environ["TEST_ORDER"]
    if order != "files":
        chance = random.Random(order)
        files = [list(same) for _, same in groupby(items, key=lambda item: item.path)]
        for same in files:
            if same[0].path.suffix == ".py":
                chance.shuffle(same)
        chance.shuffle(files)
        items[:] = [item for same in files for item in same]
    items *= int(os.environ.get("TEST_TIMES", "1"))
