/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_BASE_H
#define SW_BASE_H

/*
 * Small things that every layer uses.
 *
 * Locks are pthread mutexes and not glib's, because the thread sanitizer does not see the latter.
 */

#include <glib.h>
#include <pthread.h>
#include <time.h>

typedef pthread_mutex_t SwMutex;

static inline void sw_mutex_init(SwMutex *mutex)
{
    pthread_mutex_init(mutex, NULL);
}

static inline void sw_mutex_clear(SwMutex *mutex)
{
    pthread_mutex_destroy(mutex);
}

static inline void sw_mutex_lock(SwMutex *mutex)
{
    pthread_mutex_lock(mutex);
}

static inline void sw_mutex_unlock(SwMutex *mutex)
{
    pthread_mutex_unlock(mutex);
}

static inline gboolean sw_mutex_trylock(SwMutex *mutex)
{
    return pthread_mutex_trylock(mutex) == 0;
}

/* Could it be had just now?  It is not taken. */
static inline gboolean sw_mutex_is_free(SwMutex *mutex)
{
    if (!sw_mutex_trylock(mutex))
        return FALSE;
    sw_mutex_unlock(mutex);
    return TRUE;
}

static inline void sw_mutex_release_(SwMutex **mutex)
{
    pthread_mutex_unlock(*mutex);
}

static inline SwMutex *sw_mutex_hold_(SwMutex *mutex)
{
    pthread_mutex_lock(mutex);
    return mutex;
}

/* Waits at most `us` for a signal; may return early. */
static inline void sw_cond_wait_us(pthread_cond_t *cond, SwMutex *mutex, gint64 us)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    gint64 nsec = until.tv_nsec + us % G_USEC_PER_SEC * 1000;
    until.tv_sec += us / G_USEC_PER_SEC + nsec / 1000000000;
    until.tv_nsec = nsec % 1000000000;
    pthread_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, &until);
}

/* FALSE: it could not be had until then (CLOCK_MONOTONIC).  It is tried now and then: the thread sanitizer does not
 * know pthread_mutex_clocklock(3). */
static inline gboolean sw_mutex_lock_until(SwMutex *mutex, gint64 until_us)
{
    gboolean locked = sw_mutex_trylock(mutex);

    while (!locked && g_get_monotonic_time() < until_us) {
        g_usleep(500);
        locked = sw_mutex_trylock(mutex);
    }
    return locked;
}

/* Holds the mutex until the end of the block. */
#define SW_HOLD(mutex) __attribute__((cleanup(sw_mutex_release_), unused)) SwMutex *sw_held_ = sw_mutex_hold_(mutex)

/* For a result that does not matter; say why beside it. */
#define sw_ignore(expression)                                                                                          \
    do {                                                                                                               \
        __typeof__(expression) ignored_ = (expression);                                                                \
        (void)ignored_;                                                                                                \
    } while (0)

#endif
