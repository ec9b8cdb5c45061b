# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the mounted tests, and the supervisor around each of them.

A test passes only if its daemons unmount cleanly, end with status 0, leave nothing behind in the control directory and
log nothing suspicious that the test does not announce (`@pytest.mark.expect_log("regex")`).  `@pytest.mark.limit(s)`
changes the time limit; on expiry the kernel stacks of everybody concerned go into the report, and all are killed.
"""

import glob
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: E402

LIMIT = 60


class TimeLimit(Exception):
    pass


class Watchdog:
    """Ends a test that takes too long, wherever it hangs."""

    def __init__(self, lab, seconds):
        self.lab, self.seconds = lab, seconds * harness.SLOWNESS
        self.report = None
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._guard, daemon=True)

    def _guard(self):
        if self.done.wait(self.seconds):
            return
        self.report = "time limit of %g s\n%s" % (self.seconds, self.lab.describe())
        self.lab.kill_everything()
        if not self.done.wait(5):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

    def __enter__(self):
        signal.signal(signal.SIGALRM, self._raise)
        self.thread.start()
        return self

    def _raise(self, *_):
        raise TimeLimit()

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        if self.report:
            pytest.fail(self.report, pytrace=False)


def pytest_configure(config):
    config.addinivalue_line("markers", "expect_log(regex): the daemon may log suspicious lines that match")
    config.addinivalue_line("markers", "limit(seconds): time limit of the test")
    config.addinivalue_line("markers", "options(text): mount options of the hosts of the test")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    lab = pyfuncitem.funcargs.get("lab")
    if lab is None:
        return None
    limit = pyfuncitem.get_closest_marker("limit")
    expected = [mark.args[0] for mark in pyfuncitem.iter_markers("expect_log")]
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    with Watchdog(lab, limit.args[0] if limit else LIMIT):
        pyfuncitem.obj(**arguments)
        lab.finish(expected)
    return True


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.failed and lab is not None and call.when != "teardown":
        report.sections.append(("daemon logs", lab.log_text()))


def built_helpers(directory):
    built = os.path.join(harness.BUILD, "tests", "mount")
    sources = glob.glob(os.path.join(harness.HERE, "helpers", "*.c"))
    for source in sources:
        name = os.path.splitext(os.path.basename(source))[0]
        ready, target = os.path.join(built, name), os.path.join(directory, name)
        if os.path.exists(ready) and os.path.getmtime(ready) >= os.path.getmtime(source):
            shutil.copy(ready, target)
        else:
            command = ["cc", "-O1", "-D_GNU_SOURCE", "-std=gnu11", "-pthread", "-o", target, source]
            subprocess.run(command, check=True)
    shutil.copy(os.path.join(harness.HERE, "worker.py"), directory)  # where other users can read it
    return directory


@pytest.fixture(scope="session")
def helpers():
    directory = tempfile.mkdtemp(prefix="sw-helpers-")
    os.chmod(directory, 0o755)
    yield built_helpers(directory)
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def rig():
    """The virtual machines, where SW_NFS says that the hosts are to be such (tests/nfs/hosts.py has its words)."""
    if not os.environ.get("SW_NFS"):
        yield None
        return
    sys.path.insert(0, os.path.join(os.path.dirname(harness.HERE), "nfs"))
    import hosts as machines

    rig = machines.session()
    yield rig
    rig.end()


@pytest.fixture
def lab(helpers, rig):
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces")
    if not os.path.exists("/dev/fuse"):
        pytest.skip("needs /dev/fuse")
    if not os.path.exists(harness.DAEMON):
        pytest.skip("no daemon at %s" % harness.DAEMON)
    directory = harness.lab_directory()
    lab = rig.lab(helpers, directory, os.environ["SW_NFS"]) if rig else harness.Lab(helpers, directory)
    yield lab
    lab.destroy()


@pytest.fixture
def options(request):
    mark = request.node.get_closest_marker("options")
    return mark.args[0] if mark else ""


@pytest.fixture
def source(lab):
    return lab.source()


@pytest.fixture
def host(lab, source, options):
    """One host."""
    return lab.host(source, "alpha", options)


@pytest.fixture
def hosts(lab, source, options):
    """Two hosts over one source."""
    return lab.pair(source, options)


@pytest.fixture
def mount(lab, source, options):
    """One daemon in the namespaces of the test itself."""
    return lab.host(source, "plain", options, namespaces=False)


@pytest.fixture
def small_source(lab):
    """16 MiB of ext4, to be filled."""
    return lab.loop_source("ext4", 16 << 20)


@pytest.fixture(params=["ext4", "xfs", "btrfs"])
def loop_source(request, lab):
    """File systems that clone, and one that does not."""
    if not shutil.which("mkfs." + request.param):
        pytest.skip("no mkfs.%s" % request.param)
    return lab.loop_source(request.param, 512 << 20)
