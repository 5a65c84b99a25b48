// SPDX-License-Identifier: GPL-2.0
/*
 * Memory of one user, taken by a thread that serves all of them: the agent's process in
 * generic netlink, and the worker of a listener.
 *
 * Such a thread must not reclaim memory for one user. Where that user's memory cgroup is
 * full, this takes long and ends in the OOM killer, while generic netlink holds a lock of
 * the whole machine, or a worker is missing on a queue of the whole kernel. Yet the
 * functions of the kernel that make sockets, files and ciphers take no gfp flags.
 *
 * So as many pages as they need are asked for first, without waiting, charged to the
 * user, and given back. Without them the caller gives up, or tries again later. With them
 * PF_MEMALLOC keeps the kernel from reclaiming: what the user's other threads take at
 * the same moment exceeds the limit for once, by some KiB. Without the first step a user
 * could use up the reserves of the machine. The agent's table of descriptors is the
 * exception (sock_netlink.c): it can be longer than what was asked for, by as much as the
 * limit of descriptors allows, once for each doubling.
 *
 * A carrier that needs the next key has no first step: it cannot give up (cipher.c).
 */
#include <linux/memcontrol.h>
#include <linux/sched/mm.h>

#include "internal.h"

/*
 * From now on this thread allocates for @memcg without reclaim. With @beyond the limit of
 * @memcg does not count, only the memory of the machine does. Return: false without doing
 * so when there is no memory for @size bytes, at most STCP_MAX_FRAME.
 */
bool stcp_pay_begin(struct stcp_payment *p, struct mem_cgroup *memcg, u32 size, bool beyond)
{
	atomic_t allowance = ATOMIC_INIT(0);
	struct stcp_buffer asked = { .allowance = beyond ? &allowance : NULL };
	bool there;

	p->memcg = set_active_memcg(memcg);
	there = !stcp_buffer_grow(&asked, size, GFP_NOWAIT);
	stcp_buffer_free(&asked);
	if (there)
		p->flags = memalloc_noreclaim_save();
	else
		set_active_memcg(p->memcg);
	return there;
}

void stcp_pay_end(const struct stcp_payment *p)
{
	memalloc_noreclaim_restore(p->flags);
	set_active_memcg(p->memcg);
}
