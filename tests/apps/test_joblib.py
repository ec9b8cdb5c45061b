# SPDX-License-Identifier: GPL-2.0-or-later
"""joblib's own code, unmodified, from two hosts whose pids and thread ids are equal (C1, C9, C16)."""
import json
import os

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3"
EQUAL = {
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "LC_ALL": "C",
    "PATH": os.environ["PATH"],
}
PID = 4242


def both(lab, hosts, directories, count):
    """Runs the job on both hosts at once; what each says, and the state of the cache as each sees it."""
    pace = os.path.join(lab.directory, f"pace-{count}")
    jobs = []
    for side, (host, directory) in enumerate(zip(hosts, directories)):
        argv = [PYTHON, os.path.join(HERE, "joblib_job.py"), str(side), pace, str(count)]
        jobs.append(host.popen(argv, cwd=directory, pid=PID, flags=["-R"], env=EQUAL, stdout=-1, stderr=-1, text=True))
    reports = []
    for job in jobs:
        out, err = job.communicate(timeout=300)
        assert job.returncode == 0, err
        reports.append(json.loads(out))
        assert not err
    check = [PYTHON, os.path.join(HERE, "joblib_check.py"), str(count)]
    states = [json.loads(h.run(check, cwd=d, timeout=120).stdout) for h, d in zip(hosts, directories)]
    assert reports[0]["thread"] == reports[1]["thread"] and reports[0]["pid"] == reports[1]["pid"] == PID
    return reports, states


def broken(reports, states):
    trouble = sum(r["errors"] + r["warnings"] + r["wrong"] for r in reports)
    return trouble + sum(states[0][k] for k in ("mixed", "torn", "missing", "metadata"))


@pytest.mark.limit(300)
def test_thousands_of_stores_from_two_hosts(lab, hosts):
    """Rule C16: no error, no warning, no mixed or torn entry."""
    reports, states = both(lab, hosts, [h.mnt for h in hosts], 1500)
    print(reports, states)
    assert broken(reports, states) == 0
    assert states[0] == states[1]
    assert states[0]["whole"] == 1500 and states[0]["temporary"] == 0


@pytest.mark.limit(120)
def test_the_same_without_the_mount_breaks(lab):
    """What the rule is for: the same two programs on the bare directory."""
    source = lab.source()
    hosts = [lab.host(source, name, mount=False) for name in ("alpha", "beta")]
    reports, states = both(lab, hosts, [source, source], 400)
    print(reports, states)
    assert broken(reports, states) > 0
    assert states[0]["mixed"] + states[0]["torn"] + sum(r["errors"] for r in reports) > 0


LOADER = """
import joblib, time
end, seen = time.monotonic() + {seconds}, dict(whole=0, broken=0)
while time.monotonic() < end:
    try:
        value = joblib.load('model.pkl')
        same = value['size'] == len(value['data']) and value['data'].min() == value['data'].max()
        seen['whole' if same else 'broken'] += 1
    except FileNotFoundError:
        pass
    except Exception as e:
        seen['broken'] += 1
        seen.setdefault('first', repr(e)[:200])
print(seen['whole'], seen['broken'], seen.get('first', ''))
"""
DUMPER = """
import joblib, numpy, time
end, n = time.monotonic() + {seconds}, 0
while time.monotonic() < end:
    n += 1
    size = 20000 + n % 7 * 5000
    joblib.dump(dict(size=size, data=numpy.full(size, n), more=['x' * 50] * 2000), 'model.pkl')
print(n)
"""


def dump_and_load(hosts, directories, seconds):
    """joblib.dump in place on one host while the other loads: (dumps, whole loads, broken loads, what was wrong)."""
    programs = [DUMPER.format(seconds=seconds), LOADER.format(seconds=seconds)]
    running = [
        host.popen([PYTHON, "-c", code], cwd=directory, env=EQUAL, stdout=-1, stderr=-1, text=True)
        for host, directory, code in zip(hosts, directories, programs)
    ]
    said = []
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        said += out.strip().split(" ", 2)
    return int(said[0]), int(said[1]), int(said[2]), said[3:]


@pytest.mark.limit(90)
def test_dump_in_place_is_never_read_torn(lab, hosts):
    """Rule C1: a load on the other host gets the whole former or the whole new file."""
    dumps, whole, bad, what = dump_and_load(hosts, [h.mnt for h in hosts], 6)
    print(dumps, whole, bad)
    assert bad == 0, what
    assert dumps > 20 and whole > 20


@pytest.mark.limit(60)
def test_dump_in_place_without_the_mount_is_read_torn(lab):
    source = lab.source()
    hosts = [lab.host(source, name, mount=False) for name in ("alpha", "beta")]
    dumps, whole, bad, what = dump_and_load(hosts, [source, source], 3)
    print(dumps, whole, bad, what)
    assert bad > 0
