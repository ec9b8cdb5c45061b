# SPDX-License-Identifier: GPL-2.0-or-later
"""The fixtures and the supervisor of the mounted tests, with the rig's machines for hosts, on v4.2 and v3.

SW_NFS="vers=4.2;vers=3,squash" chooses other flavours (hosts.py has their words), SW_RIG a rig that is up already, SW_KERNEL
and SW_SERVICE what one of its own is made with (`rig up`)."""
import importlib.util
import os
import shutil
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
# A machine in software emulation is so much slower than this one.
os.environ.setdefault("SW_SLOWNESS", "5")

sys.path.insert(0, HERE)
_spec = importlib.util.spec_from_file_location("mount_conftest", os.path.join(os.path.dirname(HERE), "mount", "conftest.py"))
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
globals().update({name: value for name, value in vars(_module).items() if not name.startswith("_")})
machines = importlib.import_module("hosts")  # the name is a fixture's as well


@pytest.fixture(scope="session")
def rig():
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86_64 is not installed")
    made = machines.session()
    yield made
    try:
        made.retire()
    finally:
        made.end()


def stands(item):
    """A test of two plain hosts takes those of the test before."""
    return "hosts" in item.fixturenames and not item.get_closest_marker("options")


@pytest.fixture(params=machines.FLAVOURS)
def lab(request, rig):
    if stands(request.node):
        yield rig.standing_lab("/sw", request.param)
        return
    lab = rig.lab("/sw", _module.harness.lab_directory(), request.param)
    yield lab
    lab.destroy()


# What a mount of an ordinary user cannot do (docs/nfs.md), and the reason.
NOT_FOR_USERS = {
    "killed_owner": "a kernel before 6.6 does not tell an ordinary user's daemon how processes end",
    "script_inherits": "a kernel before 6.6 does not tell an ordinary user's daemon how processes end",
    "dead_winner": "the kernel shows an ordinary user's daemon too little to be sure that a close is the last",
    "right_after_waking": "the kernel shows an ordinary user's daemon too little to be sure that a close is the last",
    "leave_no_gap": "the kernel lets no ordinary user's daemon mount the export a second time",
    "delegation_of": "the kernel lets no ordinary user's daemon mount the export a second time",
}


def flavour_of(item):
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return params.get("lab") or params.get("flavour")


def pytest_collection_modifyitems(items):
    """One flavour after the other, and first what shares its hosts."""
    for item in items:
        if machines.Flavour(flavour_of(item) or "").uid:
            for name, reason in NOT_FOR_USERS.items():
                if name in item.name:
                    item.add_marker(pytest.mark.skip(reason=reason))

    def place(item):
        flavour = flavour_of(item)
        return machines.FLAVOURS.index(flavour) if flavour else -1, not stands(item)

    items.sort(key=place)
