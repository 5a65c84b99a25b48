// SPDX-License-Identifier: GPL-2.0
/*
 * The lock of a socket, tried.
 *
 * Carriers, workers and the agent serve many users, and the owner of a socket can hold
 * its lock for as long as it likes. So they take it only where it is free.
 */
#include "internal.h"

/*
 * Become the owner of a socket, as lock_sock() does, or say in @wanted, if it is not
 * NULL, that we wanted to; the lock's spinlock protects it. Return: whether the lock is
 * ours. Give it back by release_sock().
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
