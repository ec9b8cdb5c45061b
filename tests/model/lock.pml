/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lock files of applications, and what is left of them when hosts are taken for dead (L1 to L5, P8, P21, P22).
 *
 * On each host a program makes the lock, commits a file while it has it, and removes it.  Some hosts break others
 * meanwhile, whenever they like.
 */

#include "hosts.inc"

byte object; /* the lock: who made it */
byte record; /* locks/<key> */
byte stood;  /* the object that stood there when the record was made: its change time is before the record's */
byte mark_of_record; /* locks/<key>.break */
bit busy_record[HOSTS];
byte i;

/* L4, UNDO: the lock is taken among the stages, looked at there, and put back if it was another by then. */
inline take_object(h, e)
{
	CALL(h);
	d_step { looked = (object == stood -> 0 : object) }
	if
	:: looked != 0 ->
		CALL(h);
		d_step {
			moved = 0;
			if
			:: stages[BY(h, e)] -> moved = object; object = 0
			:: else -> failed = 1
			fi
		}
		if
		:: moved != 0 && moved != looked ->
			CALL(h);
			d_step {
				if
				:: object == 0 && stages[BY(h, e)] -> object = moved
				:: else -> robbed[moved - 1] = 1
				fi
			}
		:: moved != 0 && moved == looked ->
			d_step {
				assert(!stages[moved - 1]); /* no lock of a host that may still act is broken (C20) */
				robbed[moved - 1] = 1
			}
		:: moved == 0
		fi
	:: looked == 0
	fi;
	looked = 0; moved = 0
}

inline break_record(h, e, judged, from)
{
	hat = from;
	lgot = 0;
	failed = 0;
	do
	:: hat == HOLD_BROKEN -> break
	:: else ->
		d_step { hold_row(hat, hstep, hnext) }
		if
		:: hstep == STEP_MARK ->
			make_mark(h, e, mark_of_record, busy_record[h], lgot);
			failed = !lgot
		:: hstep == STEP_READ_AGAIN ->
			CALL(h);
			failed = (record != judged)
		:: hstep == STEP_UNDO -> take_object(h, e)
		:: hstep == STEP_DROP ->
			CALL(h);
			d_step {
				if
				:: CAN_TAKE(BY(h, e)) && record != 0 ->
					assert(record == judged);
					record = 0;
					stood = 0
				:: CAN_TAKE(BY(h, e)) && record == 0
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
	:: lgot -> drop_own_mark(h, e, mark_of_record, busy_record[h])
	:: else
	fi;
	hat = 0; hstep = 0; hnext = 0; lgot = 0
}

/* L5: its undertaker is alone. */
inline break_locks_of(h, e, x)
{
	CALL(h);
	if
	:: record == x + 1 -> break_record(h, e, x + 1, HOLD_CERTAIN)
	:: record != x + 1
	fi
}

inline drop_leases_of(h, e, x)
{
	skip
}

/* L1, L2: the record, then the lock. */
inline begin(h, e)
{
	do
	:: CALL(h) ->
		d_step {
			if
			:: record == 0 -> record = e + 1; stood = object
			:: else
			fi;
			seen = record
		}
		if
		:: seen == e + 1 -> break
		:: else
		fi;
		record != seen || !there[seen - 1] || !released[e];
		CALL(h);
		if
		:: d_step { !released[e] -> skip } -> break
		:: d_step { released[e] && record == seen && !there[seen - 1] -> skip } ->
			break_record(h, e, seen, HOLD_JUDGED)
		:: d_step { released[e] && !(record == seen && !there[seen - 1]) -> skip }
		fi
	od
}

inline make(h, e)
{
	CALL(h);
	d_step {
		if
		:: object == 0 -> object = e + 1; mine = 1
		:: else
		fi
	}
}

/* What the program guards with its lock. */
inline work(h, e)
{
	CALL(h);
	d_step {
		if
		:: CAN_COMMIT(e) -> staged[e] = 1
		:: else
		fi
	}
	CALL(h);
	d_step {
		if
		:: CAN_COMMIT(e) && staged[e] ->
			assert(object == e + 1 && !robbed[e]); /* no two owners (C18, C21) */
			staged[e] = 0
		:: else
		fi
	}
}

/* L3: the lock, then the record. */
inline end(h, e)
{
	if
	:: mine ->
		CALL(h);
#ifdef MUTANT_UNLINK_LOCK
		if
		:: released[e] -> CALL(h); d_step { assert(object == e + 1 || object == 0); object = 0 }
		:: !released[e]
		fi
#else
		d_step {
			if
			:: stages[e] -> assert(object == e + 1); object = 0
			:: else
			fi
		}
#endif
	:: else
	fi;
	CALL(h);
	d_step {
		if
		:: CAN_TAKE(e) && record != 0 -> assert(record == e + 1); record = 0; stood = 0
		:: else
		fi
	}
}

#define VARIABLES byte at, step, next, got, found, taken, failed, hat, hstep, hnext, lgot, looked, moved

proctype Program(byte h)
{
	byte e, seen;
	bit mine;
	VARIABLES;

	e = epoch[h];
	begin(h, e);
	if
	:: seen == e + 1 ->
		make(h, e);
		if
		:: mine -> work(h, e)
		:: else
		fi;
		end(h, e)
	:: else
	fi
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
ltl freed { [] (dead[0] -> <> (object == 0 && record == 0)) }

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
		/* a host is gone, and one that was breaking its lock as well */
		there[0] = 0; released[0] = 0; stages[0] = 0;
		object = 1;
		record = 1;
		mark_of_record = HOSTS + 1;
		run Program(1);
		run Program(2);
		run Program(3)
#elif defined(FREED)
		/* one died with what it had; one that breaks it may die at any time, or take the third for dead */
		dead[0] = 1;
		object = 1;
		record = 1;
		run Breaker(1, 2, ANYBODY);
		run Death(1);
		run Undertaker(2);
		run Keeper(2)
#elif defined(CHAIN)
		/* 1 buries 0, 2 buries 1, and 0 comes back and buries what it was */
		run Program(0);
		run Program(2);
		run Breaker(1, 1, 0);
		run Breaker(2, 1, 1);
		run Breaker(0, 1, 0);
		run Keeper(0)
#else
		run Program(0);
		run Program(2);
		run Breaker(1, 1, 0);
		run Breaker(2, 2, ANYBODY);
		run Keeper(1)
#endif
	}
}
