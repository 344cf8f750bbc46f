# SPDX-License-Identifier: Apache-2.0
import os
import pytest


def pytest_configure(config):
    config.addinivalue_line("markers", "soak: too long for every change; only with X0_SOAK=1 (make soak)")


def pytest_collection_modifyitems(config, items):
    if os.environ.get("X0_SOAK") == "1":
        return
    long = [i for i in items if i.get_closest_marker("soak")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [i for i in items if not i.get_closest_marker("soak")]
