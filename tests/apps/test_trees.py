# SPDX-License-Identifier: GPL-2.0-or-later
"""cp -a, rsync -a, tar x, mv and rm of a tree with everything in it: content, mode, owner, times, xattrs, ACLs."""
import ast
import os

import pytest
import trees

TREES = os.path.abspath(trees.__file__)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """The tree outside the mount, its manifest, and archives of it."""
    top = tmp_path_factory.mktemp("original")
    trees.make_tree(f"{top}/tree")
    return f"{top}/tree", trees.manifest(f"{top}/tree")


def seen_by(host, path):
    """The manifest of a tree as a fresh process of that host sees it."""
    return ast.literal_eval(host.run(["/usr/bin/python3", TREES, path], timeout=120).stdout)


def check(hosts, source, wanted, name="tree"):
    """Equal through both mounts, and in the source itself."""
    for view in (seen_by(hosts[0], name), seen_by(hosts[1], name), trees.manifest(f"{source}/{name}")):
        assert not trees.differences(wanted, view)


COPIES = {
    "cp": "cp -a '{tree}' tree",
    "rsync": "rsync -aAXH '{tree}/' tree/",
    "rsync in place": "rsync -aAXH --inplace '{tree}/' tree/",
    "tar": "tar -C '{top}' --format=posix --xattrs --acls -cf - tree | tar --xattrs --acls --xattrs-include='*' -xpf -",
}


@pytest.mark.limit(150)
@pytest.mark.parametrize("program", COPIES)
def test_copy_is_faithful(hosts, source, original, program):
    tree, wanted = original
    hosts[0].run(COPIES[program].format(tree=tree, top=os.path.dirname(tree)), timeout=120)
    check(hosts, source, wanted)


@pytest.mark.limit(200)
def test_copies_out_of_over_and_within_the_mount(hosts, source, original, lab):
    """From the mount to outside, a second time over itself, renamed, and removed by the other host."""
    tree, wanted = original
    a, b = hosts
    a.run(f"cp -a '{tree}' first && cp -a first tree && rm -rf first", timeout=120)
    b.run(f"cp -a tree '{lab.directory}/out'", timeout=120)
    assert not trees.differences(wanted, trees.manifest(f"{lab.directory}/out"))
    again = a.run(f"rsync -aAXHi --delete '{tree}/' tree/", timeout=120)
    assert again.stdout == ""
    a.run("mv tree moved")
    check((a, b), source, wanted, "moved")
    b.run("rm -rf moved", timeout=60)
    assert a.list() == [] and [n for n in os.listdir(source) if n != ".safewritefs"] == []


@pytest.mark.limit(150)
def test_tar_archive_written_into_the_mount(hosts, original, lab):
    """tar czf: opener, writer and last holder of the archive are three processes."""
    tree, wanted = original
    a, b = hosts
    top = os.path.dirname(tree)
    a.run(f"tar -C '{top}' --format=posix --xattrs --acls -czf tree.tgz tree", timeout=120)
    a.run(f"tar -C '{top}' --format=posix --xattrs --acls -cf - tree | gzip -1 > piped.tgz", timeout=120)
    for name in ("tree.tgz", "piped.tgz"):
        b.run(
            f"mkdir '{lab.directory}/{name}.d'; tar --xattrs --acls -xpzf {name} -C '{lab.directory}/{name}.d'",
            timeout=120,
        )
        assert not trees.differences(wanted, trees.manifest(f"{lab.directory}/{name}.d/tree"))


@pytest.mark.limit(150)
def test_real_tree(hosts, source):
    """/usr/include, whatever is in it."""
    hosts[0].run("cp -a /usr/include copy && diff -r --no-dereference /usr/include copy", timeout=140)
    hosts[1].run("diff -r --no-dereference /usr/include copy", timeout=100)
