/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SW_SCREEN_H
#define SW_SCREEN_H

/*
 * A full screen of the terminal on standard input and output, by the escape sequences that all of them know.  It is
 * given back at the end, and when the program is ended by a signal.
 */

#include <glib.h>

/* FALSE: standard input or output is no terminal.  Until the end standard error goes nowhere. */
gboolean sw_screen_begin(void);
void sw_screen_end(void);
/* As it is now, for it may be resized at any time; at least 1 each. */
void sw_screen_size(guint *ret_columns, guint *ret_rows);
/* Shows these lines (printable text), from the top; what does not fit is left out.  The first is shown inverted. */
void sw_screen_show(GPtrArray *lines);

/* Waits for a key, at most `ms`: the key; 0: none came, or the size has changed; -1: the end was asked for. */
int sw_screen_key(int ms);

#endif
