# SPDX-License-Identifier: GPL-2.0-or-later
"""Rounds of the history checker (tests/history) on the rig's machines: C1 to C4, C8 to C13, C18 to C22 over real NFS, with
programs and daemons killed and frozen, and machines cut off from the server.  SW_ROUNDS tells how many."""
import os
import random
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "history"))
import rounds  # noqa: E402

ROUNDS = int(os.environ.get("SW_ROUNDS", "1"))
SECONDS = 40
LEASE = 10  # machines in software emulation stand still for seconds at times
READINGS = 30


class VmRound(rounds.Round):
    NAMES = rounds.HOSTS[:2]
    PACE = 10  # those machines are that much slower, and more
    EXPECTED = [*rounds.EXPECTED_LOG, "cannot|not responding|silent|renew"]
    FAULTS = {**rounds.Round.FAULTS, "cut_short": 3, "cut_long": 1}
    WAYS = {
        **rounds.Round.WAYS,
        "cut": (
            lambda self, host: self.lab.rig.cut(host.vm.name),
            lambda self, host: self.lab.rig.heal(host.vm.name),
        ),
    }

    def __init__(self, lab, seed, seconds):
        super().__init__(lab, seed, seconds, LEASE)
        for host in self.hosts:
            host.vm.run(["mkdir", "-p", self.place_of(host)], check=True)

    def find_worker(self):
        return "/sw/worker"

    def place_of(self, host):
        return host.scratch + "/journals"

    def clocks(self):
        """From readings that were asked for and came back at times of ours."""
        found = {}
        for host in self.hosts:
            least, most = [], []
            for _ in range(READINGS):
                before = rounds.now()
                reading = host("time.clock_gettime_ns(time.CLOCK_BOOTTIME)")
                least.append(before - reading)
                most.append(rounds.now() - reading)
            found[host.hostname] = [max(least) / 1e9, min(most) / 1e9]
        return found

    def collect(self):
        for host in self.hosts:
            packed = host.vm.run(["tar", "-c", "-C", self.place_of(host), "."], check=True, text=False).stdout
            subprocess.run(["tar", "-x", "-C", self.directory], input=packed, check=True)

    def cut_short(self):
        self.freeze_short("cut")

    def cut_long(self):
        return self.freeze_long("cut")


@pytest.mark.limit(240)
@pytest.mark.expect_log("|".join(VmRound.EXPECTED))
@pytest.mark.parametrize("number", range(ROUNDS))
def test_history(lab, number):
    seed = random.randrange(1 << 30)
    print("seed", seed)
    print(rounds.play(lab, seed, SECONDS, VmRound))
