/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The lease on a content, commits under it, and what is left of both when hosts are taken for dead (P8, P10 to P14, P21,
 * P22).
 *
 * Each host edits one file: it stages, takes the lease, looks at the version, renames its stage over it, and releases.
 * Some break others meanwhile, whenever they like, for any host can have been silent: frozen, and not dead.
 */

#include "hosts.inc"

byte lease;      /* leases/<key> */
byte lease_mark; /* leases/<key>.break */
byte version;    /* of the file */
byte torn;       /* bytes at its end that are half a record: of whom */
bit busy_lease[HOSTS];
byte i;

/* P14: ends the hold that `judged` tells of, in the order of the code's table. */
inline break_lease(h, e, judged)
{
	hat = HOLD_JUDGED;
	do
	:: hat == HOLD_BROKEN -> break
	:: else ->
		d_step { hold_row(hat, hstep, hnext) }
		if
		:: hstep == STEP_MARK ->
#ifdef MUTANT_NO_LEASE_MARK
			failed = 0;
#else
			make_mark(h, e, lease_mark, busy_lease[h], lgot);
			failed = !lgot
#endif
		:: hstep == STEP_READ_AGAIN ->
			CALL(h);
			failed = (lease != judged)
		:: hstep == STEP_UNDO ->
			CALL(h);
			d_step {
				if
				:: torn == judged -> torn = 0
				:: else
				fi
			}
		:: hstep == STEP_DROP ->
			CALL(h);
			d_step {
				if
				:: CAN_TAKE(BY(h, e)) && lease != 0 ->
					robbed[lease - 1] = 1;
					lease = 0
				:: CAN_TAKE(BY(h, e)) && lease == 0
				:: else -> failed = 1
				fi
			}
		fi;
		if
		:: failed -> break
		:: else -> hat = hnext
		fi
	od;
	if
	:: lgot -> drop_own_mark(h, e, lease_mark, busy_lease[h])
	:: else
	fi;
	failed = (failed && hstep != STEP_READ_AGAIN); /* another hold is no failure: that one has ended */
	hat = 0; hstep = 0; hnext = 0; lgot = 0
}

inline drop_leases_of(h, e, x)
{
	CALL(h);
	if
	:: lease == x + 1 -> break_lease(h, e, x + 1)
	:: lease != x + 1
	fi
}

inline break_locks_of(h, e, x)
{
	skip
}

/* The one who holds it may commit: nobody has committed since it looked. */
inline commit(h, e)
{
	CALL(h);
	d_step {
		if
		:: CAN_COMMIT(e) && staged[e] ->
			assert(!robbed[e]);       /* after a break nothing is committed (C21) */
			assert(lease == e + 1);   /* no two owners (C10) */
			assert(version == base);  /* no edit lost */
			assert(torn == 0);
			version++;
			staged[e] = 0
		:: else
		fi
	}
}

/* An appended record lands in two halves; what is torn is undone before another may append (C11). */
inline append(h, e)
{
	CALL(h);
	d_step {
		if
		:: stages[e] && !robbed[e] -> assert(torn == 0); torn = e + 1
		:: else
		fi
	}
	CALL(h);
	d_step {
		if
		:: torn == e + 1 -> torn = 0
		:: else
		fi
	}
}

/* P13 */
inline release(h, e)
{
	CALL(h);
#ifdef MUTANT_UNLINK
	if
	:: lease == e + 1 -> CALL(h); d_step { assert(lease == 0 || lease == e + 1); lease = 0 }
	:: lease != e + 1
	fi
#else
	d_step {
		if
		:: CAN_TAKE(e) && lease != 0 -> assert(lease == e + 1); lease = 0
		:: else
		fi
	}
#endif
}

inline edit(h, e)
{
	do
	:: CALL(h) ->
		d_step {
			if
			:: lease == 0 -> lease = e + 1
			:: else
			fi;
			seen = lease
		}
		if
		:: seen == e + 1 -> break
		:: else
		fi;
		lease != seen || !there[seen - 1] || !released[e];
		CALL(h);
		if
		:: d_step { !released[e] -> skip } -> break /* -ESTALE */
		:: d_step { released[e] && lease == seen && !there[seen - 1] -> skip } -> break_lease(h, e, seen)
		:: d_step { released[e] && !(lease == seen && !there[seen - 1]) -> skip }
		fi
	od;
	if
	:: seen == e + 1 ->
#ifdef APPEND
		append(h, e);
#else
		CALL(h);
		base = version;
		CALL(h);
		d_step {
			if
			:: CAN_COMMIT(e) -> staged[e] = 1
			:: else
			fi
		}
		commit(h, e);
#endif
		release(h, e)
	:: else
	fi;
	seen = 0; base = 0
}

#define VARIABLES byte at, step, next, got, found, taken, failed, hat, hstep, hnext, lgot

proctype Worker(byte h)
{
	byte e, seen, base;
	VARIABLES;

	e = epoch[h];
	edit(h, e);
#ifdef AGAIN
	epoch[h] != e;
	e = epoch[h];
	edit(h, e)
#endif
}

proctype Breaker(byte h, tries, target)
{
	byte e, x;
	VARIABLES;

	do
	:: tries > 0 ->
		tries--;
		e = epoch[h];
		pick_other(e, target, x);
		break_host(h, e, x);
		x = 0; e = 0
	:: tries == 0 -> break
	od
}

#ifdef FREED
/* C19 */
ltl freed { [] (dead[0] -> <> (lease == 0)) }

/* One that stays, and goes on for as long as there are dead. */
proctype Undertaker(byte h)
{
	byte e, x;
	VARIABLES;

	do
	:: there[0] || (dead[1] && there[1]) ->
		e = epoch[h];
		if
		:: there[x] && dead[x] -> break_host(h, e, x)
		:: else
		fi;
		x = 1 - x;
		e = 0
	od
}

proctype Death(byte h)
{
	dead[h] = 1
}
#endif

init
{
	atomic {
		join_all();
#if defined(LEFT_OVER)
		/* a host is gone, and one that was breaking its lease as well */
		there[0] = 0; released[0] = 0; stages[0] = 0;
		lease = 1;
		torn = 1;
		lease_mark = HOSTS + 1;
		run Worker(1);
		run Worker(2);
		run Worker(3)
#elif defined(FREED)
		/* one died with what it had; one that breaks it may die at any time, or take the third for dead */
		dead[0] = 1;
		lease = 1;
		torn = 1;
		run Breaker(1, 2, ANYBODY);
		run Death(1);
		run Undertaker(2);
		run Keeper(2)
#elif defined(REJOIN)
		/* 0 is silent for ever; 1 is taken for dead while it buries that one, and comes back */
		lease = 1;
		run Worker(2);
		run Breaker(1, 1, 0);
		run Breaker(2, 3, ANYBODY);
		run Keeper(1)
#elif defined(CHAIN)
		/* 1 buries 0, 2 buries 1, and 0 comes back and buries what it was */
		run Worker(0);
		run Worker(2);
		run Breaker(1, 1, 0);
		run Breaker(2, 1, 1);
		run Breaker(0, 1, 0);
		run Keeper(0)
#else
		run Worker(0);
		run Worker(2);
		run Breaker(1, 1, 0);
		run Breaker(2, 2, ANYBODY);
		run Keeper(1)
#endif
	}
}
