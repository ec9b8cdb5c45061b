# SPDX-License-Identifier: GPL-2.0-or-later
"""Mounted tests, taken over into a module here."""
import importlib
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "mount"))


def take(into, module, names):
    """The tests of tests/mount/test_<module>.py with those names, and its fixtures, which may have other modules' names."""
    name = "test_" + module
    pytest.register_assert_rewrite(name)
    tests = importlib.import_module(name)
    for chosen in names.split():
        into["test_%s_%s" % (module, chosen)] = getattr(tests, "test_" + chosen)
    for fixture, value in vars(tests).items():
        if hasattr(value, "_pytestfixturefunction"):
            assert fixture not in into, "two modules have a fixture " + fixture
            into[fixture] = value
