// SPDX-License-Identifier: GPL-2.0
/*
 * The lock of a socket, tried.
 *
 * Carriers, workers and the agent serve many users, and the owner of a socket can hold
 * its lock for as long as it likes. So they take it only where it is free.
 */
#include <linux/sched.h>
#include <linux/skbuff.h>

#include "internal.h"

/*
 * Become the owner of a socket, as lock_sock() does, or say in @wanted, if it is not
 * NULL, that we wanted to; the lock's spinlock protects it. Return: whether the lock is
 * ours. Give it back by stcp_unlock().
 */
bool stcp_trylock(struct sock *sk, bool *wanted)
{
	bool free;

	spin_lock_bh(&sk->sk_lock.slock);
	free = !sk->sk_lock.owned;
	if (free)
		sk->sk_lock.owned = 1;
	else if (wanted)
		*wanted = true;
	spin_unlock_bh(&sk->sk_lock.slock);
#ifdef CONFIG_LOCKDEP
	if (free)
		lock_acquire(&sk->sk_lock.dep_map, 0, 1, 0, 1, NULL, _RET_IP_);
#endif
	return free;
}

/* sk_backlog_rcv() calls functions by a name that modules do not have. */
static int stcp_backlog_rcv(struct sock *sk, struct sk_buff *skb)
{
	if (sk_memalloc_socks() && skb_pfmemalloc(skb))
		return __sk_backlog_rcv(sk, skb);
	return sk->sk_backlog_rcv(sk, skb);
}

/*
 * Give a lock back, as release_sock() does. What arrived meanwhile goes through TCP with
 * bottom halves off, as where it arrives. With them on, TCP would charge it to the
 * memory cgroup of the socket's owner and wait there for memory: a full cgroup would
 * keep carriers from everybody else. One segment at a time, so others get the CPU.
 */
void stcp_unlock(struct sock *sk)
{
	struct sk_buff *skb, *next;

	spin_lock_bh(&sk->sk_lock.slock);
	while ((skb = sk->sk_backlog.head)) {
		sk->sk_backlog.head = NULL;
		sk->sk_backlog.tail = NULL;
		spin_unlock_bh(&sk->sk_lock.slock);
		for (; skb; skb = next) {
			next = skb->next;
			skb_mark_not_on_list(skb);
			local_bh_disable();
			stcp_backlog_rcv(sk, skb);
			local_bh_enable();
			cond_resched();
		}
		spin_lock_bh(&sk->sk_lock.slock);
	}
	/* Not earlier: the length bounds what may arrive meanwhile. */
	sk->sk_backlog.len = 0;
	if (sk->sk_prot->release_cb)
		sk->sk_prot->release_cb(sk);
	sock_release_ownership(sk);
	/* Who waits has joined the queue under the spinlock. */
	if (waitqueue_active(&sk->sk_lock.wq))
		wake_up(&sk->sk_lock.wq);
	spin_unlock_bh(&sk->sk_lock.slock);
}
