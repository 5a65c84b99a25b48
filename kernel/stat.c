// SPDX-License-Identifier: GPL-2.0
/*
 * /proc/net/stcp_stat, one for each network namespace: a line a counter, sums
 * of per-CPU cells, as /proc/net/tls_stat is made. Adding needs no lock; a
 * reader may see two counters of one event apart.
 */
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <net/netns/generic.h>

#include "internal.h"

struct stcp_cells {
	s64 value[STCP_STAT_COUNT];
};

struct stcp_net {
	struct stcp_cells __percpu *cells;
};

static unsigned int stcp_net_id __read_mostly;

static const char *const stcp_stat_name[STCP_STAT_COUNT] = {
	[STCP_STAT_RELAYS]		= "Relays",
	[STCP_STAT_RELAYS_LIVE]		= "RelaysLive",
	[STCP_STAT_RELAYS_REFUSED]	= "RelaysRefused",
	[STCP_STAT_BYTES_TO_WIRE]	= "BytesToWire",
	[STCP_STAT_BYTES_TO_PLAIN]	= "BytesToPlain",
	[STCP_STAT_FRAMES_SEALED]	= "FramesSealed",
	[STCP_STAT_FRAMES_OPENED]	= "FramesOpened",
	[STCP_STAT_BUFFER_FAILURES]	= "BufferFailures",
	[STCP_STAT_LEGS_GIVEN_BACK]	= "LegsGivenBack",
	[STCP_STAT_SESSIONS]		= "Sessions",
	[STCP_STAT_SESSIONS_LIVE]	= "SessionsLive",
	[STCP_STAT_HANDSHAKES_FAILED]	= "HandshakesFailed",
	[STCP_STAT_END + STCP_END_NONE]			= "EndClosedByOwner",
	[STCP_STAT_END + STCP_END_FINISHED]		= "EndFinished",
	[STCP_STAT_END + STCP_END_PLAIN_RESET]		= "EndPlainReset",
	[STCP_STAT_END + STCP_END_PEER_RESET]		= "EndPeerReset",
	[STCP_STAT_END + STCP_END_TRUNCATED]		= "EndTruncated",
	[STCP_STAT_END + STCP_END_BAD_FRAME]		= "EndBadFrame",
	[STCP_STAT_END + STCP_END_IDLE_TIMEOUT]		= "EndIdleTimeout",
	[STCP_STAT_END + STCP_END_HALF_CLOSE_TIMEOUT]	= "EndHalfCloseTimeout",
	[STCP_STAT_END + STCP_END_ABORTED]		= "EndAborted",
	[STCP_STAT_END + STCP_END_INTERNAL_ERROR]	= "EndInternalError",
};

void stcp_stat_add(struct net *net, enum stcp_stat stat, s64 delta)
{
	struct stcp_net *sn = net_generic(net, stcp_net_id);

	this_cpu_add(sn->cells->value[stat], delta);
}

static int stcp_stat_show(struct seq_file *seq, void *v)
{
	struct net *net = seq->private;
	struct stcp_net *sn = net_generic(net, stcp_net_id);
	int stat, cpu;

	for (stat = 0; stat < STCP_STAT_COUNT; stat++) {
		s64 sum = 0;

		for_each_possible_cpu(cpu)
			sum += per_cpu_ptr(sn->cells, cpu)->value[stat];
		seq_printf(seq, "%-32s %lld\n", stcp_stat_name[stat], sum);
	}
	return 0;
}

static int __net_init stcp_net_init(struct net *net)
{
	struct stcp_net *sn = net_generic(net, stcp_net_id);

	sn->cells = alloc_percpu(struct stcp_cells);
	if (!sn->cells)
		return -ENOMEM;
	if (!proc_create_net_single("stcp_stat", 0444, net->proc_net,
				    stcp_stat_show, NULL)) {
		free_percpu(sn->cells);
		return -ENOMEM;
	}
	return 0;
}

static void __net_exit stcp_net_exit(struct net *net)
{
	struct stcp_net *sn = net_generic(net, stcp_net_id);

	remove_proc_entry("stcp_stat", net->proc_net);
	free_percpu(sn->cells);
}

static struct pernet_operations stcp_net_ops = {
	.init = stcp_net_init,
	.exit = stcp_net_exit,
	.id   = &stcp_net_id,
	.size = sizeof(struct stcp_net),
};

int stcp_stat_init(void)
{
	return register_pernet_subsys(&stcp_net_ops);
}

void stcp_stat_exit(void)
{
	unregister_pernet_subsys(&stcp_net_ops);
}
