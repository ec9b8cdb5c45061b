# SPDX-License-Identifier: GPL-2.0-or-later
"""The same question over real NFS, on the machines of tests/nfs: RPCs and times of an operation, by hand and through a
mount of ours beside it.  The machines are emulated, so their times say little; their ratio says how much is waited for."""

import importlib.machinery
import importlib.util
import json
import os
import statistics
import sys

import report
import systems

ROUNDS = 7
# Both directories in turn, so that what else goes on falls on both: seconds of an operation.  All is prepared first, and
# then given time to be cached: names that have just been written are not.
TIMES = """
import json
HERE, TIMES, rooms, found = sys.argv[1:3], %(times)d, [], {}
for turn in range(%(rounds)d + 1):
    for directory in HERE:
        room = dict(globals(), where=directory + '/%(name)s-%%d' %% turn)
        os.makedirs(room['where'])
        os.chdir(room['where'])
        exec(%(before)r, room)
        rooms.append((directory, room))
time.sleep(3)
for directory, room in rooms:
    os.chdir(room['where'])
    if %(warm)r:
        exec(%(once)r, room)
    began = time.monotonic()
    exec('for i in range(TIMES): ' + %(once)r, room)
    found.setdefault(directory, []).append((time.monotonic() - began) / TIMES)
print(json.dumps([found[directory][1:] for directory in HERE]))
"""


def of_the_tests():
    """tests/nfs/budget as a module: it has the operations, and counts their RPCs."""
    path = os.path.join(systems.ROOT, "tests/nfs/budget")
    loader = importlib.machinery.SourceFileLoader("budget", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("budget", loader))
    loader.exec_module(module)
    return module


def main(given):
    # The daemon is SRC/safewritefs of a build directory, which is what the machines are given.
    os.environ["SW_BUILD"] = os.path.dirname(os.path.dirname(os.path.realpath(given.program)))
    budget = of_the_tests()
    found = []

    def measure(rig, options):
        vm = rig.clients[0]
        rig.server.run("echo 0 > /proc/sys/fs/leases-enable", check=True)
        place = vm.nfs(options)
        vm.run("mkdir -p {0}/raw {0}/ours /mnt/bench && /sw/safewritefs -o lease=1000 {0}/ours /mnt/bench".format(place),
               check=True)
        try:
            for number, (name, before, once) in enumerate(budget.OPERATIONS):
                places = [place + "/raw", "/mnt/bench"]
                rpcs = [budget.counted(vm, directory, before, once) for directory in places]
                words = {"rounds": ROUNDS, "name": number, "times": budget.TIMES, "before": before, "once": once}
                words["warm"] = "cached" in name
                said = vm.run(["python3", "-c", budget.HEAD + TIMES % words, *places], check=True, timeout=300)
                seconds = json.loads(said.stdout)
                ratio = statistics.median(raw / ours for raw, ours in zip(*seconds))
                found.append({"options": options, "operation": name, "rpcs": rpcs, "seconds": seconds, "ratio": ratio})
                print(line(found[-1]), file=sys.stderr, flush=True)
        finally:
            vm.run("cd /; umount /mnt/bench; sleep 1; rm -rf {0}/raw {0}/ours".format(place))

    sys.argv[1:] = given.nfs or ["vers=4.2", "vers=3"]
    try:
        budget.hosts.measure_each(measure)
    finally:
        write(found, given.out)
    return 0


def line(entry):
    by_hand, ours = (1000 * statistics.median(values) for values in entry["seconds"])
    rpcs = ["%.1f" % sum(counts.values()) for counts in entry["rpcs"]]
    times = [report.told(by_hand), report.told(ours), report.told(entry["ratio"])]
    return report.row(entry["operation"], entry["options"], *rpcs, *times)


def write(found, out):
    os.makedirs(out, exist_ok=True)
    text = report.head("operation", "NFS", "RPCs by hand", "RPCs ours", "ms by hand", "ms ours", "times as fast")
    text = "\n".join([*text, *(line(entry) for entry in found)]) + "\n"
    for name, content in (("nfs.json", json.dumps(found, indent=1)), ("nfs.md", text)):
        with open(os.path.join(out, name), "w", encoding="utf-8") as file:
            file.write(content)
    print(text)
