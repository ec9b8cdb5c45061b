/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * core/verdict: every way in which descriptors are known to end, as a trace of events with the verdict each must get.
 *
 * After a COMMIT the caller has nothing left to commit; the runner does that for it.  Any trace may end early: a stage
 * that is only held back is decided by its last RELEASE.
 */

#include "../../src/core/verdict.h"

#include "unit.h"
#include <errno.h>
#include <signal.h>
#include <string.h>

typedef enum { END, OPENED, WROTE, FAILED, CUT, FLUSHED, ASKED, RELEASED } What;

typedef struct {
    What what;
    pid_t pid;
    gboolean makes_dirty;
    guint64 offset, length;
    gboolean exiting;
    int signal;
    SwEvidence seen;
    SwVerdict verdict;
} Step;

typedef struct {
    const char *name;
    Step steps[14];
} Trace;

/* Processes. */
enum { SHELL = 100, CHILD, OTHER, HELPER, UNKNOWN = 0 };

#define HOLD SW_VERDICT_HOLD
#define COMMIT SW_VERDICT_COMMIT
#define KILLED SW_VERDICT_DISCARD_KILLED
#define LOST SW_VERDICT_DISCARD_FAILED

/* Written once and left alone: clang-format 14 and 18 disagree about braces in a macro. */
/* clang-format off */
#define FIELDS(...) {__VA_ARGS__}
/* clang-format on */

/* Evidence. */
#define NOBODY FIELDS(.complete = TRUE)
#define HELD(n) FIELDS(.complete = TRUE, .n_holders = (n))
#define INHERITED(n) FIELDS(.complete = TRUE, .n_holders = (n), .n_inherited = (n))
#define MIXED FIELDS(.complete = TRUE, .n_holders = 2, .n_inherited = 1)
#define MAPPED FIELDS(.complete = TRUE, .mapped = TRUE)
#define IN_FLIGHT FIELDS(.complete = TRUE, .in_flight = TRUE)
#define BLIND FIELDS(.complete = FALSE)

/* Events. */
#define NEW(who) FIELDS(.what = OPENED, .pid = (who), .makes_dirty = TRUE)
#define EDIT(who) FIELDS(.what = OPENED, .pid = (who))
#define WRITE(who, at, n) FIELDS(.what = WROTE, .pid = (who), .offset = (at), .length = (n))
#define FAIL(who, at) FIELDS(.what = FAILED, .pid = (who), .offset = (at))
#define TRUNCATE(who, to) FIELDS(.what = CUT, .pid = (who), .offset = (to))
#define CLOSE(who, evidence, expected) FIELDS(.what = FLUSHED, .pid = (who), .seen = evidence, .verdict = expected)
#define EXIT(who, evidence, expected)                                                                                  \
    FIELDS(.what = FLUSHED, .pid = (who), .exiting = TRUE, .seen = evidence, .verdict = expected)
#define DIE(who, sig, evidence, expected)                                                                              \
    FIELDS(.what = FLUSHED, .pid = (who), .exiting = TRUE, .signal = (sig), .seen = evidence, .verdict = expected)
#define ASK(evidence, expected) FIELDS(.what = ASKED, .seen = evidence, .verdict = expected)
#define RELEASE(expected) FIELDS(.what = RELEASED, .verdict = expected)
#define RELEASE_OF(who, sig, expected)                                                                                 \
    FIELDS(.what = RELEASED, .pid = (who), .exiting = TRUE, .signal = (sig), .verdict = expected)

static const Trace traces[] = {
    {"C3 open('w'), write, close", {NEW(SHELL), WRITE(SHELL, 0, 9), CLOSE(SHELL, NOBODY, COMMIT), RELEASE(COMMIT)}},
    {"C3 an empty new file", {NEW(SHELL), CLOSE(SHELL, NOBODY, COMMIT)}},
    {"C8 opened for write, nothing written", {EDIT(SHELL), CLOSE(SHELL, NOBODY, COMMIT), RELEASE(COMMIT)}},
    {"C3 F7 echo hi > f: dup2(3, 1) and close(3) before any write",
     {NEW(SHELL), CLOSE(SHELL, HELD(1), HOLD), WRITE(SHELL, 0, 3), CLOSE(SHELL, NOBODY, COMMIT)}},
    {"C3 F7 cmd > f: three FLUSHes of two processes",
     {NEW(CHILD), CLOSE(CHILD, HELD(1), HOLD), WRITE(CHILD, 0, 3), CLOSE(CHILD, HELD(1), HOLD),
      EXIT(SHELL, NOBODY, COMMIT)}},
    {"C3 F4 (a; b) > f: the end of a is not the end",
     {NEW(SHELL), CLOSE(SHELL, HELD(1), HOLD), WRITE(CHILD, 0, 5), CLOSE(CHILD, HELD(2), HOLD),
      EXIT(CHILD, HELD(1), HOLD), WRITE(OTHER, 5, 5), EXIT(OTHER, HELD(1), HOLD), EXIT(SHELL, NOBODY, COMMIT)}},
    {"C3 F4 { a; b; } > f: the shell keeps fd 1 and goes on living",
     {NEW(SHELL), CLOSE(SHELL, HELD(1), HOLD), WRITE(CHILD, 0, 5), EXIT(CHILD, HELD(1), HOLD),
      CLOSE(SHELL, NOBODY, COMMIT)}},
    {"C3 F4 p = Popen(stdout=f); f.close()",
     {NEW(SHELL), CLOSE(SHELL, HELD(1), HOLD), WRITE(CHILD, 0, 5), EXIT(CHILD, NOBODY, COMMIT)}},
    {"C3 F4 a close-on-exec copy closes, the original stays",
     {NEW(SHELL), WRITE(SHELL, 0, 1), CLOSE(CHILD, HELD(1), HOLD), CLOSE(SHELL, NOBODY, COMMIT)}},
    {"C3 numpy.save: F_DUPFD, both closed",
     {NEW(SHELL), WRITE(SHELL, 0, 128), CLOSE(SHELL, HELD(1), HOLD), WRITE(SHELL, 128, 800),
      CLOSE(SHELL, NOBODY, COMMIT)}},
    {"C3 tar czf: opener, writer and last holder are three processes",
     {NEW(OTHER), CLOSE(OTHER, HELD(1), HOLD), WRITE(CHILD, 0, 10), EXIT(CHILD, HELD(1), HOLD),
      EXIT(SHELL, NOBODY, COMMIT)}},
    {"C3 mmap, close, store, munmap (np.memmap)",
     {NEW(SHELL), TRUNCATE(SHELL, 4096), CLOSE(SHELL, MAPPED, HOLD), ASK(MAPPED, HOLD), WRITE(UNKNOWN, 0, 4096),
      RELEASE(COMMIT)}},
    {"C3 an edit that is only mapped has written nothing yet, and must not be let go",
     {EDIT(SHELL), CLOSE(SHELL, MAPPED, HOLD), WRITE(UNKNOWN, 0, 4096), RELEASE(COMMIT)}},
    {"C3 F22 io_uring direct descriptor: no FLUSH", {NEW(SHELL), WRITE(SHELL, 0, 9), RELEASE(COMMIT)}},
    {"C3 F22 io_uring may hold it", {NEW(SHELL), WRITE(SHELL, 0, 9), CLOSE(SHELL, IN_FLIGHT, HOLD), RELEASE(COMMIT)}},
    {"C3 F22 loop device: FLUSH, writes of a kernel worker, RELEASE",
     {EDIT(SHELL), CLOSE(SHELL, IN_FLIGHT, HOLD), WRITE(UNKNOWN, 0, 512), ASK(NOBODY, HOLD), RELEASE(COMMIT)}},
    {"C3 F22 a fork under way: cannot be told",
     {NEW(SHELL), WRITE(SHELL, 0, 9), CLOSE(SHELL, BLIND, HOLD), RELEASE(COMMIT)}},
    {"C3 F22 two threads close two descriptors at once: each sees none left",
     {NEW(SHELL), WRITE(SHELL, 0, 9), CLOSE(SHELL, NOBODY, COMMIT), CLOSE(SHELL, NOBODY, COMMIT), RELEASE(COMMIT)}},
    {"C3 F6 FLUSH from another pid namespace",
     {NEW(SHELL), WRITE(SHELL, 0, 9), CLOSE(UNKNOWN, NOBODY, HOLD), RELEASE(COMMIT)}},
    {"C3 F6 an unknown process that dies proves nothing",
     {NEW(UNKNOWN), WRITE(UNKNOWN, 0, 9), DIE(UNKNOWN, SIGKILL, NOBODY, HOLD), RELEASE(COMMIT)}},

    {"C3 idle forked children inherited it, the opener closes",
     {NEW(SHELL), WRITE(SHELL, 0, 9), CLOSE(SHELL, INHERITED(3), COMMIT)}},
    {"C3 the opener has closed unseen, an inherited copy closes, others stay",
     {NEW(SHELL), WRITE(SHELL, 0, 9), CLOSE(SHELL, BLIND, HOLD), CLOSE(CHILD, INHERITED(2), COMMIT)}},
    {"C3 inherited, but nothing written yet", {NEW(SHELL), CLOSE(SHELL, INHERITED(1), HOLD), RELEASE(COMMIT)}},
    {"C3 inherited, but what was written has been cut away",
     {NEW(SHELL), WRITE(SHELL, 0, 9), TRUNCATE(SHELL, 0), CLOSE(SHELL, INHERITED(1), HOLD), RELEASE(COMMIT)}},
    {"C3 one inherited, one on fd 1", {NEW(SHELL), WRITE(SHELL, 0, 9), CLOSE(SHELL, MIXED, HOLD), RELEASE(COMMIT)}},
    {"C3 inherited from an opener nobody knows", {NEW(UNKNOWN), WRITE(CHILD, 0, 9), CLOSE(CHILD, INHERITED(1), HOLD)}},
    {"C4 inherited, the opener killed: a copy may yet make it good",
     {NEW(SHELL), WRITE(SHELL, 0, 9), DIE(SHELL, SIGKILL, INHERITED(1), HOLD), WRITE(CHILD, 9, 9),
      EXIT(CHILD, NOBODY, COMMIT)}},
    {"C4 inherited, the opener killed, the copy only closes",
     {NEW(SHELL), WRITE(SHELL, 0, 9), DIE(SHELL, SIGKILL, INHERITED(1), HOLD), EXIT(CHILD, NOBODY, KILLED)}},
    {"C3 inherited, a write failed: held",
     {NEW(SHELL), WRITE(SHELL, 0, 9), FAIL(SHELL, 9), CLOSE(SHELL, INHERITED(1), HOLD), RELEASE(LOST)}},

    {"C4 F2 KILL", {NEW(SHELL), WRITE(SHELL, 0, 9), DIE(SHELL, SIGKILL, NOBODY, KILLED)}},
    {"C4 F2 TERM, before a byte is written", {NEW(SHELL), DIE(SHELL, SIGTERM, NOBODY, KILLED)}},
    {"C4 F2 SEGV, seen by the RELEASE only",
     {NEW(SHELL), WRITE(SHELL, 0, 9), DIE(SHELL, SIGSEGV, BLIND, HOLD), RELEASE(KILLED)}},
    {"C4 F2 exit(3) without close", {NEW(SHELL), WRITE(SHELL, 0, 9), EXIT(SHELL, NOBODY, COMMIT)}},
    {"C4 SIGINT caught, closed by `with`: alive while it closes",
     {NEW(SHELL),
      WRITE(SHELL, 0, 9),
      {.what = FLUSHED, .pid = SHELL, .signal = SIGINT, .seen = NOBODY, .verdict = COMMIT}}},
    {"C4 F22 timeout 1 cmd > f: the writer dies by TERM, then timeout flushes",
     {NEW(HELPER), CLOSE(HELPER, HELD(1), HOLD), WRITE(CHILD, 0, 9), DIE(CHILD, SIGTERM, HELD(1), HOLD),
      EXIT(HELPER, NOBODY, KILLED)}},
    {"C4 F22 the same, asked for between",
     {NEW(HELPER), WRITE(CHILD, 0, 9), DIE(CHILD, SIGTERM, HELD(1), HOLD), ASK(HELD(1), HOLD), ASK(NOBODY, KILLED)}},
    {"C4 a killed child that never wrote takes nothing with it",
     {NEW(SHELL), WRITE(SHELL, 0, 9), DIE(CHILD, SIGKILL, HELD(1), HOLD), CLOSE(SHELL, NOBODY, COMMIT)}},
    {"C4 a killed child that wrote before its parent wrote again",
     {NEW(SHELL), WRITE(CHILD, 0, 9), DIE(CHILD, SIGKILL, HELD(1), HOLD), WRITE(SHELL, 9, 9),
      CLOSE(SHELL, NOBODY, COMMIT)}},
    {"C4 the child wrote last and ended well, then its idle parent is killed",
     {NEW(SHELL), WRITE(SHELL, 0, 9), WRITE(CHILD, 9, 9), EXIT(CHILD, HELD(1), HOLD),
      DIE(SHELL, SIGINT, NOBODY, COMMIT)}},
    {"C4 the opener is killed, but its child has written since",
     {NEW(SHELL), WRITE(CHILD, 0, 9), DIE(SHELL, SIGKILL, HELD(1), HOLD), EXIT(CHILD, NOBODY, COMMIT)}},
    {"C4 the opener is killed before its child writes",
     {NEW(SHELL), DIE(SHELL, SIGKILL, HELD(1), HOLD), WRITE(CHILD, 0, 9), EXIT(CHILD, NOBODY, COMMIT)}},
    {"C4 the mapped pages of a killed writer come after its end",
     {NEW(SHELL), TRUNCATE(SHELL, 4096), DIE(SHELL, SIGKILL, MAPPED, HOLD), WRITE(UNKNOWN, 0, 4096), RELEASE(KILLED)}},
    {"C4 only mapped pages were written: the opener stands for the writer",
     {EDIT(SHELL), WRITE(UNKNOWN, 0, 4096), DIE(SHELL, SIGBUS, NOBODY, KILLED)}},
    {"C4 (a; b) > f, a is killed, b goes on",
     {NEW(SHELL), WRITE(CHILD, 0, 5), DIE(CHILD, SIGPIPE, HELD(1), HOLD), WRITE(OTHER, 5, 5),
      EXIT(OTHER, HELD(1), HOLD), EXIT(SHELL, NOBODY, COMMIT)}},
    {"C4 C15 killed, then one of the family opens with O_TRUNC and writes anew",
     {NEW(SHELL), WRITE(CHILD, 0, 5), DIE(CHILD, SIGKILL, HELD(1), HOLD), NEW(OTHER), CLOSE(OTHER, HELD(1), HOLD),
      CLOSE(SHELL, NOBODY, COMMIT)}},
    {"C4 C15 killed, then one of the family opens and only looks",
     {NEW(SHELL), WRITE(CHILD, 0, 5), DIE(CHILD, SIGKILL, HELD(1), HOLD), EDIT(OTHER), CLOSE(OTHER, HELD(1), HOLD),
      CLOSE(SHELL, NOBODY, KILLED)}},
    {"C4 C15 one that opened with O_TRUNC counts as the last writer",
     {NEW(SHELL), WRITE(SHELL, 0, 5), NEW(OTHER), DIE(OTHER, SIGKILL, HELD(1), HOLD), CLOSE(SHELL, NOBODY, KILLED)}},
    {"C4 C15 killed, then emptied by an O_TRUNC of nobody knows whom",
     {NEW(SHELL), WRITE(SHELL, 0, 5), DIE(SHELL, SIGKILL, HELD(1), HOLD), NEW(UNKNOWN), WRITE(UNKNOWN, 0, 5),
      CLOSE(OTHER, NOBODY, COMMIT)}},
    {"C4 C8 killed, but there was nothing to commit",
     {EDIT(SHELL), DIE(SHELL, SIGKILL, NOBODY, COMMIT), RELEASE(COMMIT)}},

    {"C3 a write failed", {NEW(SHELL), WRITE(SHELL, 0, 9), FAIL(SHELL, 9), CLOSE(SHELL, NOBODY, LOST)}},
    {"C3 a write failed, RELEASE only", {NEW(SHELL), WRITE(SHELL, 0, 9), FAIL(SHELL, 9), RELEASE(LOST)}},
    {"C3 a write failed, another holds it",
     {NEW(SHELL), WRITE(SHELL, 0, 9), FAIL(SHELL, 9), CLOSE(SHELL, HELD(1), HOLD), CLOSE(CHILD, NOBODY, LOST)}},
    {"C3 a failed write made good",
     {NEW(SHELL), FAIL(SHELL, 9), WRITE(SHELL, 0, 9), WRITE(SHELL, 9, 1), CLOSE(SHELL, NOBODY, COMMIT)}},
    {"C3 a write that ends before the failed one makes nothing good",
     {NEW(SHELL), FAIL(SHELL, 9), WRITE(SHELL, 0, 9), WRITE(SHELL, 10, 9), CLOSE(SHELL, NOBODY, LOST)}},
    {"C3 a failed write cut away",
     {NEW(SHELL), WRITE(SHELL, 0, 9), FAIL(SHELL, 9), TRUNCATE(SHELL, 9), CLOSE(SHELL, NOBODY, COMMIT)}},
    {"C3 a failed write that a truncation leaves in",
     {NEW(SHELL), WRITE(SHELL, 0, 9), FAIL(SHELL, 9), TRUNCATE(SHELL, 10), CLOSE(SHELL, NOBODY, LOST)}},
    {"C3 two failures: the lower one counts for a truncation",
     {NEW(SHELL), WRITE(SHELL, 0, 1), FAIL(SHELL, 50), FAIL(SHELL, 9), FAIL(SHELL, 70), TRUNCATE(SHELL, 10),
      CLOSE(SHELL, NOBODY, LOST)}},
    {"C4 killed inside open(2): no descriptor, no FLUSH", {NEW(SHELL), RELEASE_OF(SHELL, SIGKILL, KILLED)}},
    {"C3 exited, and its io_uring closed without FLUSH", {NEW(SHELL), RELEASE_OF(SHELL, 0, COMMIT)}},
    {"C3 killed after another had closed it",
     {NEW(SHELL), CLOSE(CHILD, HELD(1), HOLD), RELEASE_OF(SHELL, SIGKILL, COMMIT)}},
    {"C8 killed inside an open that changes nothing", {EDIT(SHELL), RELEASE_OF(SHELL, SIGKILL, COMMIT)}},
    {"C4 killed and failed: killed",
     {NEW(SHELL), WRITE(SHELL, 0, 9), FAIL(SHELL, 9), DIE(SHELL, SIGXFSZ, NOBODY, KILLED)}},
    {"C8 an edit whose only write failed has changed nothing",
     {EDIT(SHELL), FAIL(SHELL, 0), CLOSE(SHELL, NOBODY, COMMIT)}},

    {"C2 asked for before anybody flushed", {NEW(SHELL), WRITE(SHELL, 0, 9), ASK(NOBODY, HOLD)}},
    {"C2 asked for after a FLUSH that could not be judged",
     {NEW(SHELL), WRITE(SHELL, 0, 9), CLOSE(SHELL, BLIND, HOLD), ASK(BLIND, HOLD), ASK(NOBODY, COMMIT)}},
    {"C2 asked for after a FLUSH, with idle copies only",
     {NEW(SHELL), WRITE(SHELL, 0, 9), CLOSE(SHELL, BLIND, HOLD), ASK(INHERITED(1), COMMIT)}},
    {"C2 asked for after another open",
     {NEW(SHELL), WRITE(SHELL, 0, 9), CLOSE(SHELL, BLIND, HOLD), EDIT(SHELL), ASK(NOBODY, HOLD)}},
    {"C2 asked for after a failed write",
     {NEW(SHELL), WRITE(SHELL, 0, 9), CLOSE(SHELL, BLIND, HOLD), FAIL(CHILD, 9), ASK(NOBODY, HOLD)}},
    {"C2 echo hi > f, asked for between dup2 and the write",
     {NEW(SHELL), CLOSE(SHELL, HELD(1), HOLD), ASK(HELD(1), HOLD)}},
    {"C3 a write of no bytes is none", {EDIT(SHELL), WRITE(SHELL, 5, 0), CLOSE(SHELL, NOBODY, COMMIT)}},
};

/* Applies one step; the verdict, or -1 where the step gives none. */
static int apply(SwTrial *trial, const Step *step)
{
    const SwFlusher flusher = {step->pid, step->exiting, step->signal};

    switch (step->what) {
    case OPENED:
        sw_trial_open(trial, step->pid, step->makes_dirty);
        return -1;
    case WROTE:
        sw_trial_write(trial, step->pid, step->offset, step->length);
        return -1;
    case FAILED:
        sw_trial_write_failed(trial, step->pid, step->offset, ENOSPC);
        return -1;
    case CUT:
        sw_trial_truncate(trial, step->pid, step->offset);
        return -1;
    case FLUSHED:
        return sw_trial_flush(trial, &flusher, &step->seen);
    case ASKED:
        return sw_trial_ask(trial, &step->seen);
    case RELEASED:
        return sw_trial_last_release(trial, &flusher);
    case END:
        break;
    }
    return -1;
}

static void run(const Trace *trace)
{
    SwTrial trial = {0};

    for (guint i = 0; i < G_N_ELEMENTS(trace->steps) && trace->steps[i].what != END; i++) {
        int verdict = apply(&trial, &trace->steps[i]);

        if (verdict >= 0 && verdict != (int)trace->steps[i].verdict)
            fail_msg("%s: step %u: verdict %d, not %d", trace->name, i + 1, verdict, (int)trace->steps[i].verdict);
        if (verdict == SW_VERDICT_COMMIT)
            trial.dirty = trial.has_bytes = FALSE;
    }
}

static void test_traces(void **state)
{
    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(traces); i++)
        run(&traces[i]);
}

/* A fork at any step: a copy seen by the scan turns every verdict before the RELEASE into HOLD. */
static void test_fork_at_each_step(void **state)
{
    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(traces); i++) {
        SwTrial trial = {0};

        for (guint j = 0; j < G_N_ELEMENTS(traces[i].steps) && traces[i].steps[j].what != END; j++) {
            Step step = traces[i].steps[j];
            int verdict;

            step.seen.n_holders++;
            verdict = apply(&trial, &step);
            if (verdict >= 0 && step.what != RELEASED && verdict != SW_VERDICT_HOLD)
                fail_msg("%s: step %u: verdict %d with another holder", traces[i].name, j + 1, verdict);
        }
    }
}

/* Evidence that lacks anything never lets go of a stage, whatever happened to it before. */
static void test_in_doubt_hold(void **state)
{
    static const SwEvidence doubts[] = {
        {.complete = FALSE},
        {.complete = TRUE, .in_flight = TRUE},
        {.complete = TRUE, .mapped = TRUE},
        {.complete = TRUE, .in_flight = TRUE, .n_holders = 1, .n_inherited = 1},
        {.complete = FALSE, .n_holders = 1, .n_inherited = 1},
    };

    (void)state;
    for (guint bits = 0; bits < 64 * G_N_ELEMENTS(doubts); bits++) {
        SwTrial trial = {.opener = SHELL,
                         .writer = bits & 1 ? CHILD : 0,
                         .dirty = bits & 2,
                         .has_bytes = bits & 4,
                         .killed = bits & 8,
                         .failure = bits & 16 ? EIO : 0,
                         .flushed = TRUE};
        SwFlusher flusher = {SHELL, bits & 32, bits & 32 ? SIGKILL : 0};

        assert_int_equal(sw_trial_ask(&trial, &doubts[bits / 64]), SW_VERDICT_HOLD);
        assert_int_equal(sw_trial_flush(&trial, &flusher, &doubts[bits / 64]), SW_VERDICT_HOLD);
    }
}

static void test_fields(void **state)
{
    const SwEvidence nobody = NOBODY;
    const SwFlusher closer = {SHELL, FALSE, 0};
    SwTrial trial = {0};

    (void)state;
    sw_trial_open(&trial, SHELL, FALSE);
    assert_true(trial.opener == SHELL && trial.writer == 0 && !trial.dirty && !trial.has_bytes);
    sw_trial_write_failed(&trial, SHELL, 7, -ENOSPC);
    assert_true(trial.failure == ENOSPC && trial.failed_at == 7 && !trial.dirty);
    sw_trial_write(&trial, CHILD, 0, G_MAXUINT64); /* the sum of both would wrap */
    assert_true(trial.failure == 0 && trial.writer == CHILD && trial.dirty && trial.has_bytes);
    sw_trial_write(&trial, UNKNOWN, 0, 1);
    assert_int_equal(trial.writer, CHILD);
    sw_trial_open(&trial, OTHER, FALSE);
    assert_int_equal(trial.opener, SHELL);
    assert_int_equal(sw_trial_flush(&trial, &closer, &nobody), SW_VERDICT_COMMIT);
    assert_true(trial.flushed);
    sw_trial_write(&trial, OTHER, 0, 1);
    assert_false(trial.flushed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_traces),
        cmocka_unit_test(test_fork_at_each_step),
        cmocka_unit_test(test_in_doubt_hold),
        cmocka_unit_test(test_fields),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
