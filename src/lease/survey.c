/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "survey.h"

#include "control_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define OPEN_DIR (O_RDONLY | O_DIRECTORY | O_NONBLOCK)
#define NSEC_PER_SEC G_GINT64_CONSTANT(1000000000)
#define LOOK_PAUSE_US (100 * G_TIME_SPAN_MILLISECOND)
#define LOOKS_MAX_US (30 * G_TIME_SPAN_SECOND)
/* As the keeper has it: nobody can mount with less or more, and a host without a record is given this long. */
#define TTL_MIN_US (2 * G_TIME_SPAN_SECOND)
#define TTL_MAX_US G_TIME_SPAN_DAY
#define NO_RECORD_TTL_US (60 * G_TIME_SPAN_SECOND)

static gint64 change_us(const struct stat *st)
{
    return (gint64)st->st_ctim.tv_sec * G_USEC_PER_SEC + st->st_ctim.tv_nsec / 1000;
}

static gint64 age_us(const SwSurvey *survey, const struct stat *st)
{
    return survey->now_us < 0 ? -1 : MAX(survey->now_us - change_us(st), 0);
}

static gint64 lease_of(const SwSurveyHost *host)
{
    return host->record.lease_us;
}

/* ---- opening */

/* The change time of a file made just now; -1 where none can be made. */
static gint64 present_us(SwPort *port, int dirfd, const char *name)
{
    struct stat st;
    int fd = dirfd < 0 ? dirfd : port->openat(port, dirfd, name, O_WRONLY | O_CREAT | O_EXCL, 0600);
    int r;

    if (fd < 0)
        return -1;
    r = port->statat(port, fd, "", &st);
    sw_fd_close(port, &fd);
    (void)port->unlinkat(port, dirfd, name, 0);
    return r < 0 ? -1 : change_us(&st);
}

/* Both names are of a kind that daemons clear away when they are old, should we not come to remove them; in salvage
 * everybody may make files. */
static void learn_present(SwSurvey *survey)
{
    guint64 chance;
    char probe[40], entry[SW_HOST_ID_MAX + 40];

    if (survey->port->random(survey->port, &chance, sizeof chance) < 0)
        return;
    (void)snprintf(probe, sizeof probe, "probe.%016" G_GINT64_MODIFIER "x", chance);
    (void)snprintf(entry, sizeof entry, "survey.%016" G_GINT64_MODIFIER "x-0-%08x.tmp", chance, (guint)chance);
    survey->now_us = present_us(survey->port, survey->dir, probe);
    if (survey->now_us < 0)
        survey->now_us = present_us(survey->port, survey->salvage, entry);
}

static void open_parts(SwSurvey *survey)
{
    SwPort *port = survey->port;

    survey->hosts = sw_open_trusted(port, survey->dir, "hosts", survey->owner);
    survey->leases = sw_open_trusted(port, survey->dir, "leases", survey->owner);
    survey->locks = sw_open_trusted(port, survey->dir, "locks", survey->owner);
    survey->salvage = port->openat(port, survey->dir, "salvage", OPEN_DIR, 0); /* everybody may write there */
}

int sw_survey_open(SwPort *port, int source_fd, SwSurvey *ret_survey)
{
    SwSurvey survey = {.port = port, .hosts = -1, .leases = -1, .locks = -1, .salvage = -1, .now_us = -1};
    struct stat st;
    int r;

    survey.dir = port->openat(port, source_fd, SW_CONTROL_DIR, OPEN_DIR, 0);
    if (survey.dir < 0)
        return survey.dir;
    r = port->statat(port, survey.dir, "", &st);
    if (r < 0) {
        sw_fd_close(port, &survey.dir);
        return r;
    }
    survey.owner = st.st_uid;
    sw_read_machine_text(port, "/proc/sys/kernel/random/boot_id", survey.boot_id, sizeof survey.boot_id);
    open_parts(&survey);
    learn_present(&survey);
    *ret_survey = survey;
    return 0;
}

void sw_survey_clear(SwSurvey *survey)
{
    SwPort *port = survey->port;

    sw_fd_close(port, &survey->salvage);
    sw_fd_close(port, &survey->locks);
    sw_fd_close(port, &survey->leases);
    sw_fd_close(port, &survey->hosts);
    sw_fd_close(port, &survey->dir);
}

static gint by_text(gconstpointer a, gconstpointer b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* A part that cannot be opened is the error; one that is not there holds nothing. */
static int names_of(SwSurvey *survey, int dirfd, guint max, GPtrArray **ret_names)
{
    int r = dirfd < 0 ? dirfd : sw_dir_names(survey->port, dirfd, max, FALSE, ret_names);

    if (r == -ENOENT) {
        *ret_names = g_ptr_array_new_with_free_func(g_free);
        r = 0;
    }
    if (r == 0 && (*ret_names)->len >= max)
        survey->cut = TRUE;
    if (r == 0)
        g_ptr_array_sort(*ret_names, by_text);
    return r;
}

/* ---- hosts */

const char *sw_host_state_name(SwHostState state)
{
    static const char *const names[] = {"alive", "late", "silent", "dead", "gone"};

    return names[state];
}

static int read_record(SwSurvey *survey, int dirfd, SwHostRecord *ret_record)
{
    g_autofree char *text = NULL;
    struct stat st;
    int r = sw_port_read_file(survey->port, dirfd, "record", SW_RECORD_MAX, &text, &st);

    if (r == 0 && st.st_uid != survey->owner)
        r = -EPERM;
    return r < 0 ? r : sw_host_record_parse(text, st.st_size, ret_record);
}

/* Takes the lock for a moment.  NFS takes such a lock only with a descriptor for writing. */
static gboolean lock_is_free(SwSurvey *survey, int dirfd)
{
    SwPort *port = survey->port;
    gboolean is_free;
    int fd = port->openat(port, dirfd, "record", O_RDWR | O_NONBLOCK | O_NOCTTY, 0);

    if (fd < 0)
        fd = port->openat(port, dirfd, "record", O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    is_free = fd >= 0 && port->try_flock(port, fd) == 0;
    sw_fd_close(port, &fd);
    return is_free;
}

static SwHostState state_of_age(const SwSurveyHost *host)
{
    if (host->age_us > lease_of(host) / 8 * 9)
        return SW_HOST_SILENT;
    return host->age_us < 0 || host->age_us > lease_of(host) / 2 ? SW_HOST_LATE : SW_HOST_ALIVE;
}

static void count_stages_in(SwSurvey *survey, int stage, const char *worker, SwSurveyHost *host)
{
    SwPort *port = survey->port;
    g_autoptr(GPtrArray) names = NULL;
    struct stat st;
    int fd = port->openat(port, stage, worker, OPEN_DIR, 0);

    if (fd >= 0 && names_of(survey, fd, SW_STAGES_MAX, &names) == 0)
        for (guint i = 0; i < names->len; i++) {
            if (g_str_has_suffix(names->pdata[i], SW_DESCRIPTION) || port->statat(port, fd, names->pdata[i], &st) < 0 ||
                !S_ISREG(st.st_mode))
                continue;
            host->stages++;
            host->stage_bytes += MAX(st.st_size, 0);
        }
    sw_fd_close(port, &fd);
}

static void count_stages(SwSurvey *survey, int dirfd, SwSurveyHost *host)
{
    SwPort *port = survey->port;
    int stage = port->openat(port, dirfd, "stage", OPEN_DIR, 0);

    host->stages_known = stage >= 0 || stage == -ENOENT;
    for (guint i = 0; stage >= 0 && i < SW_STAGE_DIRS; i++) {
        char worker[8];

        (void)snprintf(worker, sizeof worker, "%u", i);
        count_stages_in(survey, stage, worker, host);
    }
    sw_fd_close(port, &stage);
}

/* A record that is none counts as one that is not there yet: then the directory's own age is all that is known. */
static void judge(SwSurvey *survey, int dirfd, SwSurveyHost *host)
{
    SwPort *port = survey->port;
    struct stat st;

    host->has_record = read_record(survey, dirfd, &host->record) == 0 && strcmp(host->record.id, host->id) == 0;
    if (!host->has_record)
        host->record = (SwHostRecord){.lease_us = NO_RECORD_TTL_US};
    host->record.lease_us = CLAMP(host->record.lease_us, TTL_MIN_US, TTL_MAX_US);
    host->here = host->has_record && *survey->boot_id && strcmp(host->record.boot_id, survey->boot_id) == 0;
    host->age_us = port->stat_fresh(port, dirfd, host->has_record ? "record" : "", &st) < 0 ? -1 : age_us(survey, &st);
    host->state = host->here && lock_is_free(survey, dirfd) ? SW_HOST_DEAD : state_of_age(host);
}

static SwSurveyHost *look_at_host(SwSurvey *survey, const char *id)
{
    SwSurveyHost *host;
    int fd = sw_host_id_is_valid(id) ? sw_open_trusted(survey->port, survey->hosts, id, survey->owner) : -EINVAL;

    if (fd < 0)
        return NULL;
    host = g_new0(SwSurveyHost, 1);
    strcpy(host->id, id);
    judge(survey, fd, host);
    count_stages(survey, fd, host);
    sw_fd_close(survey->port, &fd);
    return host;
}

/* ---- stages */

static void stage_free(gpointer data)
{
    SwSurveyStage *stage = data;

    sw_salvage_info_clear(&stage->says);
    g_free(stage->name);
    g_free(stage);
}

static void add_stage(SwSurvey *survey, int dirfd, guint worker, const char *name, GPtrArray *stages)
{
    g_autofree char *note = g_strconcat(name, SW_DESCRIPTION, NULL);
    SwSurveyStage *stage;
    struct stat st;

    if (g_str_has_suffix(name, SW_DESCRIPTION) || survey->port->statat(survey->port, dirfd, name, &st) < 0 ||
        !S_ISREG(st.st_mode))
        return;
    stage = g_new0(SwSurveyStage, 1);
    stage->name = g_strdup_printf("%u/%s", worker, name);
    stage->uid = st.st_uid;
    stage->bytes = (guint64)MAX(st.st_size, 0);
    stage->idle_us = age_us(survey, &st);
    if (!sw_stage_note(survey->port, dirfd, note, st.st_uid, &stage->says))
        stage->says = (SwSalvageInfo){0};
    g_ptr_array_add(stages, stage);
}

static int add_worker(SwSurvey *survey, int dirfd, guint worker, GPtrArray *stages)
{
    g_autoptr(GPtrArray) names = NULL;
    char path[8];
    int fd, r;

    (void)snprintf(path, sizeof path, "%u", worker);
    fd = survey->port->openat(survey->port, dirfd, path, OPEN_DIR, 0);
    r = names_of(survey, fd, SW_STAGES_MAX, &names);
    for (guint i = 0; r == 0 && i < names->len; i++)
        add_stage(survey, fd, worker, names->pdata[i], stages);
    sw_fd_close(survey->port, &fd);
    return r;
}

int sw_survey_stages(SwSurvey *survey, const char *host_id, GPtrArray **ret_stages)
{
    SwPort *port = survey->port;
    GPtrArray *stages = g_ptr_array_new_with_free_func(stage_free);
    int host = sw_open_trusted(port, survey->hosts, host_id, survey->owner);
    int fd = host < 0 ? host : port->openat(port, host, "stage", OPEN_DIR, 0);
    int r = fd == -ENOENT ? 0 : MIN(fd, 0);

    for (guint i = 0; r == 0 && fd >= 0 && i < SW_STAGE_DIRS; i++)
        r = add_worker(survey, fd, i, stages);
    sw_fd_close(port, &fd);
    sw_fd_close(port, &host);
    if (r == 0)
        *ret_stages = stages;
    else
        g_ptr_array_unref(stages);
    return r;
}

gboolean sw_survey_counter(const SwSurvey *survey, const char *id, guint64 *ret_counter)
{
    SwPort *port = survey->port;
    struct stat st;
    int fd = sw_open_trusted(port, survey->hosts, id, survey->owner);
    int r = fd < 0 ? fd : port->stat_fresh(port, fd, "record", &st);

    sw_fd_close(port, &fd);
    if (r == 0)
        *ret_counter = (guint64)st.st_mtim.tv_sec * NSEC_PER_SEC + st.st_mtim.tv_nsec;
    return r == 0;
}

/* One look at those that are not known to be alive; TRUE when there are none left. */
static gboolean look_again(SwSurvey *survey, GPtrArray *hosts, guint64 *counters, gboolean first)
{
    gboolean all = TRUE;

    for (guint i = 0; i < hosts->len; i++) {
        SwSurveyHost *host = hosts->pdata[i];
        guint64 counter;

        if (host->state != SW_HOST_LATE || !sw_survey_counter(survey, host->id, &counter))
            continue;
        if (first)
            counters[i] = counter;
        else if (counter != counters[i])
            host->state = SW_HOST_ALIVE;
        all = all && host->state == SW_HOST_ALIVE;
    }
    return all;
}

static void watch(SwSurvey *survey, GPtrArray *hosts)
{
    SwPort *port = survey->port;
    g_autofree guint64 *counters = g_new0(guint64, hosts->len + 1);
    gint64 longest_us = 0, end_us;

    for (guint i = 0; i < hosts->len; i++)
        longest_us = MAX(longest_us, lease_of(hosts->pdata[i]));
    end_us = port->now_us(port) + MIN(longest_us / 2, LOOKS_MAX_US);
    for (gboolean first = TRUE; !look_again(survey, hosts, counters, first) && port->now_us(port) < end_us;
         first = FALSE)
        port->sleep_us(port, LOOK_PAUSE_US);
}

int sw_survey_hosts(SwSurvey *survey, GPtrArray **ret_hosts)
{
    g_autoptr(GPtrArray) names = NULL;
    GPtrArray *hosts;
    int r = names_of(survey, survey->hosts, SW_HOSTS_MAX, &names);

    if (r < 0)
        return r;
    hosts = g_ptr_array_new_with_free_func(g_free);
    for (guint i = 0; i < names->len; i++) {
        SwSurveyHost *host = look_at_host(survey, names->pdata[i]);

        if (host)
            g_ptr_array_add(hosts, host);
    }
    if (survey->now_us < 0)
        watch(survey, hosts);
    *ret_hosts = hosts;
    return 0;
}

const SwSurveyHost *sw_survey_find(GPtrArray *hosts, const char *host_id)
{
    guint from = 0, to = hosts->len;

    while (from < to) {
        guint middle = from + (to - from) / 2;
        const SwSurveyHost *host = hosts->pdata[middle];
        int order = strcmp(host_id, host->id);

        if (order == 0)
            return host;
        if (order < 0)
            to = middle;
        else
            from = middle + 1;
    }
    return NULL;
}

/* ---- leases and locks, symbolic links; marks, directories with the entry of their maker */

/* Text and age of a link of the owner's; anything else is passed over. */
static gboolean read_ours(SwSurvey *survey, int dirfd, const char *name, char **ret_text, gint64 *ret_age_us)
{
    struct stat st;

    if (survey->port->statat(survey->port, dirfd, name, &st) < 0 || !S_ISLNK(st.st_mode) ||
        st.st_uid != survey->owner || sw_read_link(survey->port, dirfd, name, ret_text) < 0)
        return FALSE;
    *ret_age_us = age_us(survey, &st);
    return TRUE;
}

static void lease_free(gpointer data)
{
    SwSurveyLease *lease = data;

    g_free(lease->name);
    g_free(lease);
}

/* Who made that mark, and when; one that is empty is nobody's any more, and passed over. */
static gboolean read_mark(SwSurvey *survey, int dirfd, const char *name, SwSurveyLease *lease)
{
    g_autoptr(GPtrArray) makers = NULL;
    struct stat st;
    int fd = sw_open_trusted(survey->port, dirfd, name, survey->owner);
    gboolean is_one = fd >= 0 && survey->port->statat(survey->port, fd, "", &st) == 0 &&
                      sw_dir_names(survey->port, fd, 2, FALSE, &makers) == 0 && makers->len == 1 &&
                      sw_host_id_is_valid(makers->pdata[0]);

    sw_fd_close(survey->port, &fd);
    if (!is_one)
        return FALSE;
    strcpy(lease->says.host_id, makers->pdata[0]);
    lease->age_us = age_us(survey, &st);
    return TRUE;
}

static gboolean read_lease(SwSurvey *survey, int dirfd, const char *name, SwSurveyLease *lease)
{
    g_autofree char *text = NULL;

    return read_ours(survey, dirfd, name, &text, &lease->age_us) && sw_lease_text_parse(text, &lease->says) == 0;
}

static void add_lease(SwSurvey *survey, int dirfd, const char *name, GPtrArray *leases)
{
    SwSurveyLease lease = {.is_mark = g_str_has_suffix(name, SW_MARK), .in_locks = dirfd == survey->locks};

    if ((lease.in_locks && !lease.is_mark) ||
        !(lease.is_mark ? read_mark(survey, dirfd, name, &lease) : read_lease(survey, dirfd, name, &lease)))
        return;
    lease.name = g_strdup(name);
    g_ptr_array_add(leases, g_memdup2(&lease, sizeof lease));
}

int sw_survey_leases(SwSurvey *survey, GPtrArray **ret_leases)
{
    g_autoptr(GPtrArray) names = NULL, more = NULL;
    GPtrArray *leases;
    int r = names_of(survey, survey->leases, SW_HOSTS_MAX, &names);

    if (r == 0)
        r = names_of(survey, survey->locks, SW_HOSTS_MAX, &more);
    if (r < 0)
        return r;
    leases = g_ptr_array_new_with_free_func(lease_free);
    for (guint i = 0; i < names->len; i++)
        add_lease(survey, survey->leases, names->pdata[i], leases);
    for (guint i = 0; i < more->len; i++)
        add_lease(survey, survey->locks, more->pdata[i], leases);
    *ret_leases = leases;
    return 0;
}

static void lock_free(gpointer data)
{
    SwSurveyLock *lock = data;

    g_free(lock->name);
    g_free(lock);
}

int sw_survey_locks(SwSurvey *survey, GPtrArray **ret_locks)
{
    g_autoptr(GPtrArray) names = NULL;
    GPtrArray *locks;
    int r = names_of(survey, survey->locks, SW_HOSTS_MAX, &names);

    if (r < 0)
        return r;
    locks = g_ptr_array_new_with_free_func(lock_free);
    for (guint i = 0; i < names->len; i++) {
        SwSurveyLock lock = {0};
        g_autofree char *text = NULL;

        if (g_str_has_suffix(names->pdata[i], SW_MARK) ||
            !read_ours(survey, survey->locks, names->pdata[i], &text, &lock.age_us) ||
            sw_lock_text_parse(text, &lock.says) < 0)
            continue;
        lock.name = g_strdup(names->pdata[i]);
        g_ptr_array_add(locks, g_memdup2(&lock, sizeof lock));
    }
    *ret_locks = locks;
    return 0;
}
