// SPDX-License-Identifier: GPL-2.0
/*
 * net.stcp.*, for each network namespace: what a program gets that says nothing itself,
 * and the limits of handshakes.
 *
 *   service       name of the service that connect() asks for; empty: the agent's choice
 *   identity      name of the identity to use; empty: the agent's choice
 *   handshake_ms  time for a handshake, from the TCP connection on
 *   max_embryos   most handshakes of the namespace at a time; users share them (sock_share.c)
 */
#include <linux/slab.h>
#include <linux/sysctl.h>

#include "sock_internal.h"

static unsigned int stcp_shortest_ms = 10, stcp_longest_ms = 600000;
static unsigned int stcp_fewest = 1, stcp_most = 65536;

enum { STCP_SYSCTLS = 4 };

int stcp_sysctl_init(struct net *net, struct stcp_agent *agent)
{
	/* One more, empty: the end of the table, where its size is not passed. */
	struct ctl_table table[STCP_SYSCTLS + 1] = {
		{
			.procname	= "service",
			.data		= agent->service,
			.maxlen		= sizeof(agent->service),
			.mode		= 0644,
			.proc_handler	= proc_dostring,
		},
		{
			.procname	= "identity",
			.data		= agent->identity,
			.maxlen		= sizeof(agent->identity),
			.mode		= 0644,
			.proc_handler	= proc_dostring,
		},
		{
			.procname	= "handshake_ms",
			.data		= &agent->handshake_ms,
			.maxlen		= sizeof(agent->handshake_ms),
			.mode		= 0644,
			.proc_handler	= proc_douintvec_minmax,
			.extra1		= &stcp_shortest_ms,
			.extra2		= &stcp_longest_ms,
		},
		{
			.procname	= "max_embryos",
			.data		= &agent->max_embryos,
			.maxlen		= sizeof(agent->max_embryos),
			.mode		= 0644,
			.proc_handler	= proc_douintvec_minmax,
			.extra1		= &stcp_fewest,
			.extra2		= &stcp_most,
		},
	};

	agent->table = kmemdup(table, sizeof(table), GFP_KERNEL_ACCOUNT);
	if (!agent->table)
		return -ENOMEM;
	agent->sysctl = stcp_register_sysctl(net, "net/stcp", agent->table,
					     STCP_SYSCTLS);
	if (agent->sysctl)
		return 0;
	kfree(agent->table);
	return -ENOMEM;
}

void stcp_sysctl_exit(struct stcp_agent *agent)
{
	unregister_net_sysctl_table(agent->sysctl);
	kfree(agent->table);
}
