/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "place.h"

#include "say.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

int sw_place_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);

    return fd < 0 ? -errno : fd;
}

/* A real path; where that cannot be told, a tidy one (g_free). */
static char *tidy(const char *path)
{
    char *real = realpath(path, NULL);
    char *copy = real ? g_strdup(real) : g_canonicalize_filename(path, NULL);

    free(real); /* NOLINT: it is malloc's */
    return copy;
}

/* The same for a name that need not exist. */
static char *tidy_name(const char *path)
{
    g_autofree char *whole = g_canonicalize_filename(path, NULL);
    g_autofree char *parent = g_path_get_dirname(whole);
    g_autofree char *name = g_path_get_basename(whole);
    g_autofree char *real = tidy(parent);

    return strcmp(whole, "/") == 0 ? g_strdup(whole) : g_build_filename(real, name, NULL);
}

/* ---- beneath a mount */

typedef struct {
    const char *path;
    guint layers;
    int fd; /* or -errno */
} Beneath;

static gpointer look_beneath(gpointer data)
{
    Beneath *beneath = data;

    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        beneath->fd = -errno;
        return NULL;
    }
    for (guint i = 0; i < beneath->layers; i++)
        if (umount2(beneath->path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0) {
            beneath->fd = -errno;
            return NULL;
        }
    beneath->fd = sw_place_directory(beneath->path);
    return NULL;
}

static int open_covered(const SwPlace *place, const char *path)
{
    Beneath beneath = {.path = path, .fd = -EPERM};

    for (guint i = 0; i < place->mounts->len; i++)
        beneath.layers += strcmp(((SwMount *)place->mounts->pdata[i])->mountpoint, path) == 0;
    g_thread_join(g_thread_new("beneath", look_beneath, &beneath));
    return beneath.fd;
}

/* ---- opening */

int sw_place_open(SwPlace *place, const char *path)
{
    g_autofree char *real = tidy(path);
    const SwMount *mount;

    *place = (SwPlace){.port = sw_port_posix_new(), .source = -1, .mounts = sw_mounts_list()};
    if (!place->mounts)
        return sw_fail("cannot read /proc/self/mountinfo");
    mount = sw_mounts_at(place->mounts, real);
    place->path = mount ? tidy(mount->source) : g_steal_pointer(&real);
    if (!sw_mounts_at(place->mounts, place->path)) {
        place->source = sw_place_directory(place->path);
    } else {
        place->source = open_covered(place, place->path);
        if (place->source == -EPERM)
            return sw_fail("%s is covered by a mount of safewritefs, which hides its control directory; only root can "
                           "look beneath: run this as root, unmount it first, or give a path that leads to the source "
                           "itself",
                           place->path);
    }
    if (place->source < 0)
        return sw_fail("cannot open %s: %s", place->path, g_strerror(-place->source));
    return 0;
}

void sw_place_clear(SwPlace *place)
{
    if (place->source >= 0)
        (void)close(place->source);
    if (place->mounts)
        g_ptr_array_unref(place->mounts);
    g_free(place->path);
    sw_port_free(place->port);
}

int sw_place_survey(SwPlace *place, SwSurvey *ret_survey)
{
    int r = sw_survey_open(place->port, place->source, ret_survey);

    if (r < 0)
        return sw_fail("there is no control directory in %s: %s", place->path, g_strerror(-r));
    return 0;
}

/* ---- paths */

gboolean sw_place_has_mount(const SwPlace *place, const SwMount *mount)
{
    g_autofree char *source = tidy(mount->source);

    return strcmp(source, place->path) == 0;
}

/* What is below `top`, or NULL if `path` is elsewhere. */
static const char *below(const char *path, const char *top)
{
    gsize length = strlen(top);

    if (!g_str_has_prefix(path, top) || (length > 1 && path[length] && path[length] != '/'))
        return NULL;
    return path + length + strspn(path + length, "/");
}

static char *relative_to_any(const SwPlace *place, const char *path)
{
    const char *rest = NULL;
    const SwMount *mount = sw_mounts_over(place->mounts, path, &rest);

    if (!mount || !sw_place_has_mount(place, mount))
        rest = below(path, place->path);
    return rest ? g_strdup(rest) : NULL;
}

char *sw_place_relative(const SwPlace *place, const char *path)
{
    g_autofree char *whole = NULL, *real = NULL;
    char *rest;

    if (!g_path_is_absolute(path)) {
        whole = g_canonicalize_filename(path, "/");
        return g_strdup(whole + 1);
    }
    whole = g_canonicalize_filename(path, NULL);
    rest = relative_to_any(place, whole);
    if (rest)
        return rest;
    real = tidy_name(path);
    return relative_to_any(place, real);
}

/* A source that is mounted nowhere here: the nearest directory above with a control directory. */
static gboolean find_bare(const char *path, char **ret_place, char **ret_relative)
{
    g_autofree char *top = g_strdup(path);

    while (strcmp(top, "/") != 0) {
        g_autofree char *control = g_build_filename(top, SW_CONTROL_DIR, NULL);

        if (g_file_test(control, G_FILE_TEST_IS_DIR)) {
            *ret_relative = g_strdup(below(path, top));
            *ret_place = g_steal_pointer(&top);
            return TRUE;
        }
        control = (g_free(control), g_path_get_dirname(top));
        g_free(top);
        top = g_steal_pointer(&control);
    }
    return FALSE;
}

gboolean sw_place_find(const char *path, char **ret_place, char **ret_relative)
{
    g_autoptr(GPtrArray) mounts = sw_mounts_list();
    g_autofree char *whole = g_canonicalize_filename(path, NULL);
    const char *rest = NULL;
    const SwMount *mount = mounts ? sw_mounts_over(mounts, whole, &rest) : NULL;

    if (mounts && !mount) {
        char *real = tidy_name(path);

        g_free(whole);
        whole = real;
        mount = sw_mounts_over(mounts, whole, &rest);
    }
    if (!mount)
        return find_bare(whole, ret_place, ret_relative);
    *ret_place = g_strdup(mount->mountpoint);
    *ret_relative = g_strdup(rest);
    return TRUE;
}

/* ---- hosts */

static gboolean is_hostname_of(const char *word, const char *host_id)
{
    gsize length = strlen(word);

    return strncmp(host_id, word, length) == 0 && strrchr(host_id, '.') == host_id + length;
}

/* How many are meant, if hostnames (or else beginnings) are compared; *ret_host is the last. */
static guint count_meant(GPtrArray *hosts, const char *word, gboolean hostnames, const SwSurveyHost **ret_host)
{
    guint n = 0;

    for (guint i = 0; i < hosts->len; i++) {
        const SwSurveyHost *host = hosts->pdata[i];

        if (hostnames ? !is_hostname_of(word, host->id) : !g_str_has_prefix(host->id, word))
            continue;
        *ret_host = host;
        n++;
    }
    return n;
}

int sw_place_find_host(const SwPlace *place, GPtrArray *hosts, const char *word, const SwSurveyHost **ret_host)
{
    const SwSurveyHost *host = *word ? sw_survey_find(hosts, word) : NULL;
    guint n = host ? 1 : 0;

    if (n == 0 && *word)
        n = count_meant(hosts, word, TRUE, &host);
    if (n == 0 && *word)
        n = count_meant(hosts, word, FALSE, &host);
    if (n > 1) {
        g_autofree char *shown = sw_printable(word, FALSE);

        return sw_fail("%u hosts of %s are meant by %s: write more of the host id, which safewritectl status shows", n,
                       place->path, shown);
    }
    *ret_host = host;
    return 0;
}
