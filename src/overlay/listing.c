/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Listings: what the kernel may keep of one, and whether their readers will want attributes.
 *
 * The kernel fills a cache of its own from the READDIR replies of handles that are opened so (FOPEN_CACHE_DIR), and
 * serves later handles from it if OPENDIR says that it is still right (FOPEN_KEEP_CACHE).  That is said when the
 * directory has the times that it had when the listing began, and these were so old by then that no later change can
 * have been given the same (C2).  How old they are is told by how long they have been seen, or by the source's own time
 * at the last heartbeat; no other clock is compared with the source's (C23).  A listing that shows one caller's own new
 * files is nobody else's (C15).
 */
#include "carry.h"

/* Of any file system's times; ext3 and NFS servers over it have whole seconds. */
#define TICK_US (2 * G_USEC_PER_SEC)
/* So often is a reader that wants attributes asked again whether it still does. */
#define BELIEVED 256

struct SwListing {
    SwStamp stamp;   /* of the directory when it was opened last */
    guint64 dev;     /* its file system: there may be others within the source */
    gint64 since_us; /* port clock: that is what it has looked like at least since then */
    guint n_open;    /* handles that the kernel may fill its cache from */
    gboolean right;  /* what the kernel has cached was read when the directory had that stamp, and no later */
};

SwListing *sw_listing_open(SwOverlay *ov, SwNode *dir, const struct stat *st, gboolean *ret_right)
{
    SwStamp stamp = sw_stamp_of(st);
    gint64 now_us = ov->port->now_us(ov->port);
    SW_HOLD(&ov->lock);
    *ret_right = FALSE;
    if (sw_pending_below_locked(ov, dir, FALSE))
        return NULL;
    if (!dir->listing)
        dir->listing = g_new0(SwListing, 1);
    SwListing *listing = dir->listing;
    if (!sw_stamp_equal(&listing->stamp, &stamp)) {
        listing->stamp = stamp;
        listing->since_us = now_us;
        listing->right = FALSE;
    }
    listing->dev = st->st_dev;
    listing->n_open++;
    *ret_right = listing->right;
    return listing;
}

static gboolean has_settled(const SwOverlay *ov, const SwListing *listing)
{
    const struct timespec *changed = &listing->stamp.ctime;
    gint64 changed_us = (gint64)changed->tv_sec * G_USEC_PER_SEC + changed->tv_nsec / 1000;
    return ov->port->now_us(ov->port) - listing->since_us > TICK_US ||
           sw_control_source_us(ov->control, listing->dev) - changed_us > TICK_US;
}

void sw_listing_begins(SwOverlay *ov, SwListing *listing)
{
    SW_HOLD(&ov->lock);
    /* What another handle has read before may still go into the cache. */
    listing->right = listing->n_open == 1 && has_settled(ov, listing);
}

void sw_listing_spoilt(SwOverlay *ov, SwListing *listing)
{
    SW_HOLD(&ov->lock);
    listing->right = FALSE;
}

void sw_listing_close(SwOverlay *ov, SwListing *listing)
{
    SW_HOLD(&ov->lock);
    listing->n_open--;
}

/* ---- who wants attributes */

/* Which thread is at a place is not exact, and need not be: it costs time only. */
static SwReader *reader_locked(SwOverlay *ov, pid_t tid)
{
    SwReader *reader = &ov->readers[(guint)tid % G_N_ELEMENTS(ov->readers)];
    if (reader->tid != tid)
        *reader = (SwReader){.tid = tid};
    return reader;
}

SwWish sw_reader_opens(SwOverlay *ov, pid_t tid, SwNode *dir)
{
    SW_HOLD(&ov->lock);
    SwReader *reader = reader_locked(ov, tid);
    if (reader->wish == SW_WISH_UNKNOWN && reader->dir)
        reader->wish = SW_WISH_NAMES; /* it has not looked at anything that it has listed */
    else if (reader->wish == SW_WISH_ATTRIBUTES && ++reader->n_believed == BELIEVED)
        *reader = (SwReader){.tid = tid};
    reader->dir = dir;
    return reader->wish;
}

void sw_reader_looks_up(SwOverlay *ov, pid_t tid, SwNode *dir, mode_t type)
{
    if (S_ISDIR(type)) /* anybody does, who goes on into it */
        return;
    SW_HOLD(&ov->lock);
    SwReader *reader = reader_locked(ov, tid);
    if (reader->dir == dir)
        reader->wish = SW_WISH_ATTRIBUTES;
}

/* ---- for the daemon that follows */

void sw_listing_carry(SwBundle *bundle, SwListing **listing)
{
    gboolean is_there = *listing != NULL;
    SW_BUNDLE(bundle, is_there);
    if (!is_there)
        return;
    if (!*listing)
        *listing = g_new0(SwListing, 1);
    SW_BUNDLE(bundle, (*listing)->stamp);
    SW_BUNDLE(bundle, (*listing)->dev);
    SW_BUNDLE(bundle, (*listing)->since_us);
    SW_BUNDLE(bundle, (*listing)->n_open);
    SW_BUNDLE(bundle, (*listing)->right);
}
