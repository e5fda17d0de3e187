/* SPDX-License-Identifier: GPL-2.0-only */
/* The settings of /proc/sys/net/ipv4/vs that are on or off. */
#ifndef XLVS_SYSCTL_H
#define XLVS_SYSCTL_H

#include "maps.h"

/* Whether a setting is anything but 0. */
static __always_inline int is_set(enum sysctl setting)
{
	return settings.sysctl[setting];
}

#endif
