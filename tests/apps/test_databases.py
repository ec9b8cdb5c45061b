# SPDX-License-Identifier: GPL-2.0-or-later
"""SQLite, HDF5, dbm and numpy as their own programs use the file system."""
import pytest

COUNT = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
for i in range(int(sys.argv[2])):
    db.execute("begin immediate")
    n = db.execute("select n from counter").fetchone()[0]
    db.execute("update counter set n = ?", (n + 1,))
    db.execute("insert into log values (?, ?)", (n, sys.argv[3] * 300))
    db.execute("commit")
"""


def run_all(host, commands, timeout=100):
    running = [host.popen(command, stdout=-1, stderr=-1, text=True) for command in commands]
    for process in running:
        out, err = process.communicate(timeout=timeout)
        assert process.returncode == 0, out + err


@pytest.mark.limit(150)
@pytest.mark.parametrize("mode", ["delete", "wal", "truncate", "persist"])
def test_sqlite_processes_of_one_mount(host, mode):
    """Rule C25: a .db and what belongs to it are handed straight to the source; SQLite's own locks do the rest."""
    host.run(
        [
            "sqlite3",
            "data.db",
            f"pragma journal_mode={mode}; create table counter(n); insert into counter values (0);"
            "create table log(n integer primary key, what text);",
        ]
    )
    run_all(host, [["/usr/bin/python3", "-c", COUNT, "data.db", "40", who] for who in "abc"])
    said = host.run(
        ["sqlite3", "data.db", "select n from counter; select count(*), max(n) from log; pragma integrity_check;"]
    )
    assert said.stdout == "120\n120|119\nok\n"
    host.run(["sqlite3", "data.db", ".backup copy.db", "vacuum"])
    assert host.run(["sqlite3", "copy.db", "select count(*) from log"]).stdout == "120\n"


@pytest.mark.limit(60)
def test_sqlite_dump_and_restore(host):
    host.run(["sqlite3", "a.sqlite", "create table t(x); insert into t select value from generate_series(1, 20000);"])
    host.run("sqlite3 a.sqlite .dump > dump.sql && sqlite3 b.sqlite < dump.sql")
    assert (
        host.run(["sqlite3", "b.sqlite", "select count(*), sum(x) from t; pragma quick_check"]).stdout
        == "20000|200010000\nok\n"
    )


WRITE_H5 = """
import h5py, numpy
with h5py.File('data.h5', 'w') as f:
    f['grid'] = numpy.arange(200000.0).reshape(1000, 200)
    g = f.create_dataset('packed', (100000,), dtype='i4', chunks=(1000,), compression='gzip')
    g[...] = numpy.arange(100000)
    f.attrs['version'] = 1
"""
EDIT_H5 = """
import h5py
with h5py.File('data.h5', 'r+') as f:
    f['grid'][0, :] = -1
    f.attrs['version'] = 2
    f['more'] = list(range(1000))
"""
READ_H5 = """
import h5py, sys
with h5py.File('data.h5', 'r') as f:
    assert f['packed'][99999] == 99999 and f['grid'][999, 199] == 199999.0
    print(f.attrs['version'], f['grid'][0, 0], len(f))
"""


@pytest.mark.limit(60)
def test_h5py(hosts):
    """Made on one host, read on the other, changed there, read on the first."""
    a, b = hosts
    python = ["/usr/bin/python3", "-c"]
    a.run([*python, WRITE_H5])
    assert b.run([*python, READ_H5]).stdout == "1 0.0 2\n"
    b.run([*python, EDIT_H5])
    assert a.run([*python, READ_H5]).stdout == "2 -1.0 3\n"


@pytest.mark.limit(60)
def test_h5py_rewritten_under_a_reader(hosts):
    """C1: mode w empties the file first: the reader of the other host never meets that.  Without HDF5's own locks, as
    its users have it over NFS: one that is refused its lock has emptied the file by then, and closes it so, anywhere."""
    a, b = hosts
    a.run(["/usr/bin/python3", "-c", WRITE_H5])
    free = ["env", "HDF5_USE_FILE_LOCKING=FALSE"]
    loop = 'for i in $(seq 12); do /usr/bin/python3 -c "$CODE" || exit; done'
    reader = b.popen([*free, f"CODE={READ_H5}", "bash", "-c", loop], stdout=-1, stderr=-1, text=True)
    while reader.poll() is None:
        a.run([*free, "/usr/bin/python3", "-c", WRITE_H5])
    out, err = reader.communicate()
    assert reader.returncode == 0, err
    assert out == "1 0.0 2\n" * 12


NUMPY = """
import numpy, os
a = numpy.arange(300000.0)
numpy.save('a.npy', a)
numpy.savez('b.npz', first=a, second=a[::-1])
numpy.savez_compressed('c.npz', first=a)
a.tofile('raw'); numpy.savetxt('t.txt', a[:100])
m = numpy.memmap('map', dtype='f8', mode='w+', shape=(1000, 300)); m[:] = 1.5; m[999, 299] = 7; m.flush(); del m
m = numpy.memmap('map', dtype='f8', mode='r+', shape=(1000, 300)); m[0, 0] = -2; del m
n = numpy.lib.format.open_memmap('n.npy', mode='w+', dtype='i4', shape=(5000,)); n[:] = 3; del n
"""
NUMPY_READ = """
import numpy
a = numpy.arange(300000.0)
assert (numpy.load('a.npy') == a).all() and (numpy.load('a.npy', mmap_mode='r') == a).all()
with numpy.load('b.npz') as b: assert (b['first'] == a).all() and (b['second'] == a[::-1]).all()
assert (numpy.load('c.npz')['first'] == a).all() and (numpy.fromfile('raw') == a).all()
assert (numpy.loadtxt('t.txt') == a[:100]).all()
m = numpy.memmap('map', dtype='f8', mode='r', shape=(1000, 300))
assert m[0, 0] == -2 and m[999, 299] == 7 and m.sum() == 1.5 * 299998 + 5
assert (numpy.load('n.npy') == 3).all()
private = numpy.load('a.npy', mmap_mode='c'); private[0] = 9; assert numpy.load('a.npy')[0] == 0
"""


@pytest.mark.limit(60)
def test_numpy_save_and_memmap(hosts):
    a, b = hosts
    a.run(["/usr/bin/python3", "-c", NUMPY])
    for host in (b, a):
        host.run(["/usr/bin/python3", "-c", NUMPY_READ])


DBM = """
import dbm.dumb, shelve, mailbox, sys
with dbm.dumb.open('dumb', 'c') as d:
    for i in range(200): d[str(i)] = str(i * i)
with shelve.open('shelf') as s: s['list'] = list(range(1000))
box = mailbox.mbox('mbox'); box.lock()
for i in range(20): box.add(f'Subject: {i}\\n\\nbody {i}\\n')
box.flush(); box.unlock(); box.close()
d = mailbox.Maildir('maildir'); [d.add(f'Subject: {i}\\n\\nbody\\n') for i in range(20)]
"""
DBM_READ = """
import dbm.dumb, shelve, mailbox
with dbm.dumb.open('dumb', 'r') as d: assert len(d) == 200 and d['199'] == b'39601'
with shelve.open('shelf', 'r') as s: assert s['list'][-1] == 999
assert len(mailbox.mbox('mbox')) == 20 and len(mailbox.Maildir('maildir')) == 20
"""


@pytest.mark.limit(60)
def test_dbm_and_mailboxes(hosts):
    a, b = hosts
    a.run(["/usr/bin/python3", "-c", DBM])
    b.run(["/usr/bin/python3", "-c", DBM_READ])
