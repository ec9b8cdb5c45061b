# SPDX-License-Identifier: GPL-2.0-or-later
"""Four hosts, all kinds of programs, kills and freezes: every history has an explanation (C1 to C4, C8 to C13, C18 to
C22).  `tests/history/run` does it for longer."""
import random

import pytest
import rounds

SEEDS = (20, 21, 22)
SECONDS = 10


def play(lab, seed):
    print("seed", seed)
    print(rounds.play(lab, seed, SECONDS))


@pytest.mark.limit(240)
@pytest.mark.expect_log("|".join(rounds.EXPECTED_LOG))
@pytest.mark.parametrize("seed", SEEDS)
def test_fixed_seed(lab, seed):
    play(lab, seed)


@pytest.mark.limit(240)
@pytest.mark.expect_log("|".join(rounds.EXPECTED_LOG))
def test_fresh_seed(lab):
    play(lab, random.randrange(1 << 30))
