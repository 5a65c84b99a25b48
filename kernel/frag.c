// SPDX-License-Identifier: GPL-2.0
/*
 * Fragments: where TCP takes the memory of a relay's sends from.
 *
 * TCP puts small sends side by side into a fragment of 32 KiB: that of the current
 * task, or one that the socket has for itself. In a softirq the current task is another
 * one, perhaps in the middle of its own send. A fragment for each leg would be memory
 * that is held at rest and charged to nobody. So each CPU has one, and lends it to the
 * socket for a call of tcp_sendmsg_locked(). Bottom halves are off meanwhile, so nobody
 * else on this CPU sends for a relay.
 */
#include <linux/percpu.h>

#include "internal.h"

static DEFINE_PER_CPU(struct page_frag, stcp_frags);

/* A CPU of PREEMPT_RT may do something else even now: there a leg has its own. */
static void stcp_frag_swap(struct sock *sk)
{
	if (!IS_ENABLED(CONFIG_PREEMPT_RT))
		swap(sk->sk_frag, *this_cpu_ptr(&stcp_frags));
}

/* tcp_sendmsg_locked() with the CPU's fragment. Call it under the socket lock. */
int stcp_frag_sendmsg(struct sock *sk, struct msghdr *msg, size_t len)
{
	int n;

	local_bh_disable();
	stcp_frag_swap(sk);
	n = tcp_sendmsg_locked(sk, msg, len);
	stcp_frag_swap(sk);
	local_bh_enable();
	return n;
}

/* Nobody sends any more. */
void stcp_frag_exit(void)
{
	struct page_frag *frag;
	int cpu;

	for_each_possible_cpu(cpu) {
		frag = per_cpu_ptr(&stcp_frags, cpu);
		if (frag->page)
			put_page(frag->page);
	}
}
