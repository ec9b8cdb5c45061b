/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "event.h"

static const struct {
    const char *name, *message_id;
} kinds[SW_EVENT_KINDS] = {
    [SW_EVENT_MOUNTED] = {"mounted", "1d95f6a134ce4fbca470dfa2aada35f4"},
    [SW_EVENT_WRITER_KILLED] = {"writer-killed", "7bf679c88386473caf8a6851c2f0ab6d"},
    [SW_EVENT_SALVAGED] = {"salvaged", "016f6c8ccbd24d328765753f2a8afb94"},
    [SW_EVENT_SALVAGE_FAILED] = {"salvage-failed", "27914d9357b944b0ac2ace1ff88040f1"},
    [SW_EVENT_REBASED] = {"rebased", "ae7b1dc66fba42b4a5ff0a20a40d87be"},
    [SW_EVENT_IN_PLACE] = {"in-place", "2aacb27c28c746da89acd2ae50c95f89"},
    [SW_EVENT_LOCK_RELEASED] = {"lock-released", "f74400ca03834053b43bc0a016af076a"},
    [SW_EVENT_LOCK_BROKEN] = {"lock-broken", "2a42245256514b05933efc1eb6aa28c3"},
    [SW_EVENT_HOST_BROKEN] = {"host-broken", "58911cb716cf4f8985279e8ea1c4bb25"},
    [SW_EVENT_HOST_BURIED] = {"host-buried", "0a2f19ab827f4b7497cfea558660eaec"},
    [SW_EVENT_FENCED] = {"fenced", "4f13e110e7974523a497169f2051578d"},
    [SW_EVENT_REJOINED] = {"rejoined", "55ece287dfb94c3c952bb0f2fbdf55c9"},
    [SW_EVENT_SOURCE_LOST] = {"source-lost", "9872754d7db9403ab067dbb2846c1700"},
    [SW_EVENT_SOURCE_FOUND] = {"source-found", "f731de533b4f4b13b090de8cf9653b20"},
    [SW_EVENT_DAEMON_DIED] = {"daemon-died", "3c7a6b1f382d429d8ca97562280ebf25"},
    [SW_EVENT_GIVEN_UP] = {"given-up", "cbf52359e47943b1a092352ae1c0f692"},
};

const char *sw_event_name(SwEventKind kind)
{
    return kinds[kind].name;
}

const char *sw_event_message_id(SwEventKind kind)
{
    return kinds[kind].message_id;
}

SwKeptEvent *sw_event_keep(SwNoteLevel level, const SwEvent *event, const char *text)
{
    SwKeptEvent *kept = g_new0(SwKeptEvent, 1);

    kept->level = level;
    kept->event = *event;
    kept->event.path = g_strdup(event->path);
    kept->event.command = g_strdup(event->command);
    kept->event.host_id = g_strdup(event->host_id);
    kept->event.reason = g_strdup(event->reason);
    kept->text = g_strdup(text);
    return kept;
}

void sw_event_free(gpointer data)
{
    SwKeptEvent *kept = data;

    g_free((char *)kept->event.path);
    g_free((char *)kept->event.command);
    g_free((char *)kept->event.host_id);
    g_free((char *)kept->event.reason);
    g_free(kept->text);
    g_free(kept);
}
