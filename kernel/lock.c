// SPDX-License-Identifier: GPL-2.0
/*
 * The lock of a socket, tried.
 *
 * Carriers, workers and the agent serve many users, and the owner of a socket can hold
 * its lock for as long as it likes. So they take it only where it is free.
 *
 * A tasklet cannot become the owner of a socket, for it could not take what arrives
 * meanwhile. As TCP's own softirq does, it holds the lock's spinlock while nobody is the
 * owner, so nothing arrives.
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

/*
 * Lock a leg in a turn. Where somebody holds it, stcp_release_cb() kicks the relay.
 * Give it back by stcp_leg_unlock().
 */
bool stcp_leg_trylock(struct stcp_leg *leg)
{
	struct sock *sk = leg->sk;

	if (!in_serving_softirq())
		return stcp_trylock(sk, &leg->wanted);
	bh_lock_sock(sk);
	if (!sock_owned_by_user_nocheck(sk)) {
		__release(&sk->sk_lock.slock);	/* for sparse: stcp_leg_unlock() does */
		return true;
	}
	leg->wanted = true;
	bh_unlock_sock(sk);
	return false;
}

void stcp_leg_unlock(struct stcp_leg *leg)
{
	struct sock *sk = leg->sk;

	if (in_serving_softirq()) {
		__acquire(&sk->sk_lock.slock);	/* for sparse: stcp_leg_trylock() did */
		bh_unlock_sock(sk);
	} else {
		release_sock(sk);
	}
}
