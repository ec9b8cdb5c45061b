# SPDX-License-Identifier: GPL-2.0-or-later
"""git, on the mount and between two hosts: every object whole, fsck clean, no commit lost."""
import pytest

IDENTITY = "git config user.name tester; git config user.email tester@example.org; git config gc.auto 0"
MAKE = f"""
set -e
git init -q -b main repo; cd repo; {IDENTITY}
for i in $(seq 40); do
    mkdir -p dir$((i % 5)); seq $i $((i * 50)) > dir$((i % 5))/file$i; echo "line $i" >> journal
    git add -A; git commit -q -m "commit $i"
done
git tag v1; git checkout -q -b side HEAD~10; echo side > side; git add side; git commit -q -m side
git checkout -q main; git merge -q -m merge side
"""
CLEAN = "git fsck --full --strict --no-dangling 2>&1; git status --porcelain"


@pytest.mark.limit(150)
def test_repository_made_and_used_on_the_mount(hosts):
    a, b = hosts
    a.run(MAKE, timeout=120)
    for host in hosts:
        assert host.run(f"cd repo && {CLEAN}", timeout=60).stdout == ""
        assert host.run("cd repo && git rev-list --count main").stdout == "42\n"
    a.run("cd repo && git gc -q --prune=now && git repack -adfq && git pack-refs --all", timeout=60)
    assert b.run(f"cd repo && {CLEAN}", timeout=60).stdout == ""
    b.run(f"cd repo && {IDENTITY}; sed -i s/line/LINE/ journal && git commit -qam edited && git stash list", timeout=60)
    assert a.run("cd repo && git log -1 --format=%s && git status --porcelain").stdout == "edited\n"


@pytest.mark.limit(150)
def test_clones_into_out_of_and_within_the_mount(hosts, lab):
    a, b = hosts
    outside = f"{lab.directory}/outside"
    a.run(f"mkdir '{outside}' && cd '{outside}'\n{MAKE}", timeout=120)
    a.run(f"git clone -q 'file://{outside}/repo' inside && git clone -q --no-local inside second", timeout=60)
    b.run(f"git clone -q --local inside third && git clone -q inside '{lab.directory}/back'", timeout=60)
    b.run(
        f"git worktree list; git clone -q --bare inside bare.git && git -C inside worktree add -q ../work side",
        timeout=60,
    )
    for name in ("inside", "second", "third", f"{lab.directory}/back", "work"):
        assert a.run(f"cd '{name}' && {CLEAN} && git diff --stat v1 v1", timeout=60).stdout == ""


PUSHER = f"""
set -e
git clone -q shared.git {{me}}; cd {{me}}; {IDENTITY}
for i in $(seq 12); do
    echo $i > {{me}}-$i; git add -A; git commit -q -m "{{me}} $i"
    n=0; until git push -q origin HEAD:main 2>> ../../push-{{me}}; do
        n=$((n + 1)); test $n -lt 200; git pull -q --rebase origin main; done
done
"""


@pytest.mark.limit(200)
def test_two_hosts_push_to_one_repository(hosts):
    """The refs' lock files and their renames: every push is accepted or refused, none is lost."""
    a, b = hosts
    a.run(
        f"git init -q -b main seed && cd seed && {IDENTITY}; git commit -q --allow-empty -m first && cd .. &&"
        " git clone -q --bare seed shared.git"
    )
    running = [
        host.popen(PUSHER.format(me=me).replace("../../push", host.scratch + "/push"), stdout=-1, stderr=-1)
        for host, me in zip(hosts, ("ann", "bob"))
    ]
    for process in running:
        _, err = process.communicate(timeout=180)
        assert process.returncode == 0, err.decode()
    assert b.run("git -C shared.git rev-list --count main").stdout == "25\n"
    names = a.run("git -C shared.git ls-tree --name-only main").stdout.split()
    assert sorted(names) == sorted(f"{who}-{i}" for who in ("ann", "bob") for i in range(1, 13))
    assert a.run("git -C shared.git fsck --full --strict --no-dangling --no-dangling 2>&1", timeout=60).stdout == ""
