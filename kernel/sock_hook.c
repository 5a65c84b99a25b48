// SPDX-License-Identifier: GPL-2.0
/*
 * Callbacks of TCP on an inner socket: what they tell the outer one.
 *
 * They run under the inner socket's spinlock, often in softirq. sk_user_data points to the
 * outer socket; they find it under sk_callback_lock, which stcp_inner_unhook() takes for
 * writing.
 *
 * A child of a listener inherits the callbacks, but no outer socket (NOCOPY). The first
 * one that is called, when TCP has connected, takes them off (stcp_inner_stray()), for the
 * child may end in the queue of another listener of the port (tcp_migrate_req), whose
 * connections are not ours. stcp_inner_child() does the same when it is accepted.
 */
#include "sock_internal.h"

/* Wake those who wait for the outer socket. Needs no lock. */
void stcp_wake(struct sock *sk, __poll_t events)
{
	struct socket_wq *wq;

	rcu_read_lock();
	wq = rcu_dereference(sk->sk_wq);
	if (skwq_has_sleeper(wq))
		wake_up_interruptible_poll(&wq->wait, events);
	rcu_read_unlock();
	if (events & EPOLLIN)
		sk_wake_async(sk, SOCK_WAKE_WAITD, POLL_IN);
	if (events & EPOLLOUT)
		sk_wake_async(sk, SOCK_WAKE_SPACE, POLL_OUT);
}

/* -- callbacks --------------------------------------------------------------- */

/*
 * Call under sk_callback_lock. A child of a listener has our callbacks, and may have
 * the data of somebody else (a sockmap, with flags of its own).
 */
static struct stcp_sock *stcp_outer_of(struct sock *isk)
{
	uintptr_t data = (uintptr_t)
		rcu_dereference_check(__sk_user_data(isk),
				      lockdep_is_held(&isk->sk_callback_lock));

	if ((data & ~SK_USER_DATA_PTRMASK) != SK_USER_DATA_NOCOPY)
		return NULL;
	return (struct stcp_sock *)(data & SK_USER_DATA_PTRMASK);
}

static void stcp_inner_data_ready(struct sock *isk);
static void stcp_inner_write_space(struct sock *isk);
static void stcp_inner_state_change(struct sock *isk);
static void stcp_inner_error_report(struct sock *isk);

/* TCP's own callbacks, from the first inner socket. */
static struct {
	void (*data_ready)(struct sock *isk);
	void (*write_space)(struct sock *isk);
	void (*state_change)(struct sock *isk);
	void (*error_report)(struct sock *isk);
} stcp_tcp __read_mostly;

void stcp_inner_learn_callbacks(const struct sock *isk)
{
	stcp_tcp.data_ready = isk->sk_data_ready;
	stcp_tcp.write_space = isk->sk_write_space;
	stcp_tcp.state_change = isk->sk_state_change;
	stcp_tcp.error_report = isk->sk_error_report;
}

/* TCP's callbacks, where ours are still on. Call under sk_callback_lock. */
static void stcp_inner_restore(struct sock *isk)
{
	if (isk->sk_data_ready == stcp_inner_data_ready)
		isk->sk_data_ready = stcp_tcp.data_ready;
	if (isk->sk_write_space == stcp_inner_write_space)
		isk->sk_write_space = stcp_tcp.write_space;
	if (isk->sk_state_change == stcp_inner_state_change)
		isk->sk_state_change = stcp_tcp.state_change;
	if (isk->sk_error_report == stcp_inner_error_report)
		isk->sk_error_report = stcp_tcp.error_report;
}

/* Our callbacks are on a connection of which they know nothing. */
static void stcp_inner_stray(struct sock *isk)
{
	write_lock_bh(&isk->sk_callback_lock);
	if (!stcp_outer_of(isk))
		stcp_inner_restore(isk);
	write_unlock_bh(&isk->sk_callback_lock);
}

static void stcp_inner_data_ready(struct sock *isk)
{
	struct stcp_session *e;
	struct stcp_sock *s;

	read_lock_bh(&isk->sk_callback_lock);
	s = stcp_outer_of(isk);
	if (!s) {
		read_unlock_bh(&isk->sk_callback_lock);
		stcp_inner_stray(isk);
		stcp_tcp.data_ready(isk);
		return;
	}
	/* Pairs with stcp_handshake_finish(). */
	e = smp_load_acquire(&s->session);
	if (s->listener) {
		stcp_listener_kick(s);
	} else if (!e) {
		stcp_tcp.data_ready(isk);
	} else {
		stcp_inner_expect(e, isk);
		if (stcp_inner_ready(isk))
			stcp_wake(stcp_outer(s), EPOLLIN | EPOLLRDNORM |
						 (e->ends ? EPOLLRDHUP : 0));
	}
	read_unlock_bh(&isk->sk_callback_lock);
}

static void stcp_inner_write_space(struct sock *isk)
{
	struct stcp_sock *s;

	read_lock_bh(&isk->sk_callback_lock);
	s = stcp_outer_of(isk);
	if (s && sk_stream_is_writeable(isk)) {
		stcp_tcp.write_space(isk);
		if (READ_ONCE(s->session))
			stcp_wake(stcp_outer(s), EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND);
	}
	read_unlock_bh(&isk->sk_callback_lock);
	if (!s) {
		stcp_inner_stray(isk);
		stcp_tcp.write_space(isk);
	}
}

static void stcp_inner_state_change(struct sock *isk)
{
	__poll_t events = EPOLLIN | EPOLLRDNORM | EPOLLRDHUP | EPOLLOUT | EPOLLWRNORM;
	struct stcp_sock *s;

	read_lock_bh(&isk->sk_callback_lock);
	s = stcp_outer_of(isk);
	if (s && !s->listener) {
		stcp_tcp.state_change(isk);
		if (isk->sk_state == TCP_ESTABLISHED)
			stcp_handshake_connected(s);
		else if (isk->sk_state == TCP_CLOSE)
			stcp_handshake_fail(s, READ_ONCE(isk->sk_err) ?: ECONNRESET);
		if (isk->sk_state == TCP_CLOSE)
			events |= EPOLLHUP;
		if (READ_ONCE(s->session))
			stcp_wake(stcp_outer(s), events);
	}
	read_unlock_bh(&isk->sk_callback_lock);
	if (!s) {
		stcp_inner_stray(isk);
		stcp_tcp.state_change(isk);
	}
}

/* SO_ERROR is of the outer socket, so TCP's error is copied; readers find it themselves. */
static void stcp_inner_error_report(struct sock *isk)
{
	struct stcp_session *e;
	struct stcp_sock *s;
	int err;

	if (stcp_in_hard_interrupt())
		return;
	read_lock_bh(&isk->sk_callback_lock);
	s = stcp_outer_of(isk);
	if (s && !s->listener) {
		stcp_tcp.error_report(isk);
		err = READ_ONCE(isk->sk_err);
		/* Pairs with stcp_handshake_finish(). */
		e = smp_load_acquire(&s->session);
		if (e) {
			if (err)
				stcp_session_report(e, stcp_outer(s), err);
			stcp_wake(stcp_outer(s), EPOLLIN | EPOLLOUT | EPOLLERR);
		}
	}
	read_unlock_bh(&isk->sk_callback_lock);
	if (!s) {
		stcp_inner_stray(isk);
		stcp_tcp.error_report(isk);
	}
}

/* Return: -EBUSY when somebody else's callbacks are on. */
int stcp_inner_hook(struct stcp_sock *s)
{
	struct sock *isk = s->inner->sk;
	int err = 0;

	write_lock_bh(&isk->sk_callback_lock);
	if (isk->sk_user_data) {
		err = -EBUSY;
	} else {
		isk->sk_data_ready = stcp_inner_data_ready;
		isk->sk_write_space = stcp_inner_write_space;
		isk->sk_state_change = stcp_inner_state_change;
		isk->sk_error_report = stcp_inner_error_report;
		__rcu_assign_sk_user_data_with_flags(isk, s, SK_USER_DATA_NOCOPY);
	}
	write_unlock_bh(&isk->sk_callback_lock);
	return err;
}

/* Once this has returned, no callback sees the outer socket. */
void stcp_inner_unhook(struct stcp_sock *s)
{
	struct sock *isk = s->inner->sk;

	write_lock_bh(&isk->sk_callback_lock);
	if (stcp_outer_of(isk) == s)
		rcu_assign_sk_user_data(isk, NULL);
	stcp_inner_restore(isk);
	write_unlock_bh(&isk->sk_callback_lock);
}

/* TCP has accepted @inner: make it a connection as any other. */
void stcp_inner_child(struct socket *inner)
{
	write_lock_bh(&inner->sk->sk_callback_lock);
	stcp_inner_restore(inner->sk);
	write_unlock_bh(&inner->sk->sk_callback_lock);
}
