// SPDX-License-Identifier: GPL-2.0-only
//
// Loaded before keepalived's libraries, this is an IPVS that takes everything and does nothing.
// So keepalived's own cost can be measured where the kernel has no ip_vs; what the kernel would
// take comes on top of it.

#include <stddef.h>

struct nl_sock;
struct nl_msg;
typedef int (*callback)(struct nl_msg *message, void *argument);

// Numbers of libnl's enum nl_cb_type and nl_cb_kind (netlink/handlers.h).
enum { FINISH = 1, ACKNOWLEDGED = 4, TYPES = 16, CUSTOM = 3, A_FAMILY = 99 };

static callback callbacks[TYPES];
static void *arguments[TYPES];

int genl_ctrl_resolve(struct nl_sock *sock, const char *name)
{
	return A_FAMILY;
}

int nl_send_auto(struct nl_sock *sock, struct nl_msg *message)
{
	return 1;
}

int nl_socket_modify_cb(struct nl_sock *sock, int type, int kind, callback function, void *argument)
{
	if (kind == CUSTOM && type >= 0 && type < TYPES) {
		callbacks[type] = function;
		arguments[type] = argument;
	}
	return 0;
}

int nl_recvmsgs_default(struct nl_sock *sock)
{
	static const int answers[] = {ACKNOWLEDGED, FINISH};

	for (size_t at = 0; at < sizeof(answers) / sizeof(*answers); at++)
		if (callbacks[answers[at]])
			callbacks[answers[at]](NULL, arguments[answers[at]]);
	return 0;
}
