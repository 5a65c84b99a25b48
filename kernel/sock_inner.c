// SPDX-License-Identifier: GPL-2.0
/*
 * The inner socket: the TCP connection under a socket of the protocol.
 *
 * It is made as if the application had asked for it (not as a kernel socket): its
 * memory, its namespace and the rules of security modules and cgroups are those of
 * the application. sk_user_data is claimed at once, so nobody else (a sockmap,
 * KCM) can put callbacks on it, and points to the outer socket.
 *
 * Callbacks run under the inner socket's spinlock, often in softirq. They find the
 * outer socket under sk_callback_lock, which stcp_inner_unhook() takes for writing.
 * A child of a listener inherits the callbacks, but no outer socket (NOCOPY): they do
 * nothing for it, and stcp_inner_child() takes them off when it is accepted.
 *
 * The agent may have set SO_LINGER: it is taken back before the last reference is
 * dropped, for the kernel's only worker for delayed closes may drop it.
 */
#include <linux/file.h>
#include <linux/sched/signal.h>

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

static void stcp_inner_data_ready(struct sock *isk)
{
	struct stcp_session *e;
	struct stcp_sock *s;

	read_lock_bh(&isk->sk_callback_lock);
	s = stcp_outer_of(isk);
	if (!s)
		goto out;
	/* Pairs with stcp_handshake_finish(). */
	e = smp_load_acquire(&s->session);
	if (s->listener) {
		stcp_listener_kick(s);
	} else if (!e) {
		s->inner_data_ready(isk);
	} else {
		stcp_inner_expect(e, isk);
		if (stcp_inner_ready(isk))
			stcp_wake(stcp_outer(s), EPOLLIN | EPOLLRDNORM);
	}
out:
	read_unlock_bh(&isk->sk_callback_lock);
}

static void stcp_inner_write_space(struct sock *isk)
{
	struct stcp_sock *s;

	read_lock_bh(&isk->sk_callback_lock);
	s = stcp_outer_of(isk);
	if (s && sk_stream_is_writeable(isk)) {
		s->inner_write_space(isk);
		if (READ_ONCE(s->session))
			stcp_wake(stcp_outer(s), EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND);
	}
	read_unlock_bh(&isk->sk_callback_lock);
}

static void stcp_inner_state_change(struct sock *isk)
{
	__poll_t events = EPOLLIN | EPOLLRDNORM | EPOLLRDHUP | EPOLLOUT | EPOLLWRNORM;
	struct stcp_sock *s;

	read_lock_bh(&isk->sk_callback_lock);
	s = stcp_outer_of(isk);
	if (s && !s->listener) {
		s->inner_state_change(isk);
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
		s->inner_error_report(isk);
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
}

static int stcp_inner_hook(struct stcp_sock *s)
{
	struct sock *isk = s->inner->sk;
	int err = 0;

	write_lock_bh(&isk->sk_callback_lock);
	if (isk->sk_user_data) {
		err = -EBUSY;
	} else {
		s->inner_data_ready = isk->sk_data_ready;
		s->inner_write_space = isk->sk_write_space;
		s->inner_state_change = isk->sk_state_change;
		s->inner_error_report = isk->sk_error_report;
		isk->sk_data_ready = stcp_inner_data_ready;
		isk->sk_write_space = stcp_inner_write_space;
		isk->sk_state_change = stcp_inner_state_change;
		isk->sk_error_report = stcp_inner_error_report;
		__rcu_assign_sk_user_data_with_flags(isk, s, SK_USER_DATA_NOCOPY);
	}
	write_unlock_bh(&isk->sk_callback_lock);
	return err;
}

/* The callbacks that @s has found, where ours are still on. Call under sk_callback_lock. */
static void stcp_inner_restore(struct sock *isk, const struct stcp_sock *s)
{
	if (isk->sk_data_ready == stcp_inner_data_ready)
		isk->sk_data_ready = s->inner_data_ready;
	if (isk->sk_write_space == stcp_inner_write_space)
		isk->sk_write_space = s->inner_write_space;
	if (isk->sk_state_change == stcp_inner_state_change)
		isk->sk_state_change = s->inner_state_change;
	if (isk->sk_error_report == stcp_inner_error_report)
		isk->sk_error_report = s->inner_error_report;
}

/* Once this has returned, no callback sees the outer socket. */
void stcp_inner_unhook(struct stcp_sock *s)
{
	struct sock *isk = s->inner->sk;

	write_lock_bh(&isk->sk_callback_lock);
	if (stcp_outer_of(isk) == s)
		rcu_assign_sk_user_data(isk, NULL);
	stcp_inner_restore(isk, s);
	write_unlock_bh(&isk->sk_callback_lock);
}

/* TCP has accepted @inner from @listener: make it a connection as any other. */
void stcp_inner_child(struct socket *inner, const struct stcp_sock *listener)
{
	write_lock_bh(&inner->sk->sk_callback_lock);
	stcp_inner_restore(inner->sk, listener);
	write_unlock_bh(&inner->sk->sk_callback_lock);
}

/* -- making and closing ------------------------------------------------------ */

/* Make @inner the inner socket of @s. An error has released it. */
int stcp_inner_own(struct stcp_sock *s, struct socket *inner)
{
	struct file *file = sock_alloc_file(inner, 0, NULL);
	int err;

	/* It has released the socket then. */
	if (IS_ERR(file))
		return PTR_ERR(file);
	s->inner = inner;
	s->file = file;
	err = stcp_inner_hook(s);
	if (err) {
		s->inner = NULL;
		fput(file);
	}
	return err;
}

int stcp_inner_create(struct stcp_sock *s)
{
	struct sock *sk = stcp_outer(s);
	struct socket *inner;
	int err = __sock_create(sock_net(sk), sk->sk_family, SOCK_STREAM, IPPROTO_TCP,
				&inner, 0);

	if (err)
		return err;
	stcp_inner_learn_ops(inner);
	return stcp_inner_own(s, inner);
}

/* From now on, or no more, the inner socket's data_ready is for a listener. */
void stcp_inner_listener(struct stcp_sock *s, struct stcp_listener *listener)
{
	struct sock *isk = s->inner->sk;

	write_lock_bh(&isk->sk_callback_lock);
	s->listener = listener;
	write_unlock_bh(&isk->sk_callback_lock);
}

/*
 * Charge the crypto objects, which the crypto API charges to nobody, to the inner
 * socket, in a call of their user. Without memory the next call tries again.
 */
void stcp_inner_charge(struct stcp_sock *s)
{
	struct sock *isk = s->inner->sk;

	lock_sock(isk);
	if (sk_wmem_schedule(isk, STCP_CIPHERS_SIZE)) {
		sk_mem_charge(isk, STCP_CIPHERS_SIZE);
		s->session->charged = true;
	}
	release_sock(isk);
}

static bool stcp_inner_closing(const struct sock *isk)
{
	return (1 << READ_ONCE(isk->sk_state)) &
	       (TCPF_FIN_WAIT1 | TCPF_CLOSING | TCPF_LAST_ACK);
}

/*
 * Wait until the FIN is acknowledged, or a signal comes, for at most @timeout. Unlike
 * sk_stream_wait_close() this takes no lock that the agent could hold.
 */
static void stcp_inner_wait_closed(struct sock *isk, long timeout)
{
	DEFINE_WAIT_FUNC(wait, woken_wake_function);

	add_wait_queue(sk_sleep(isk), &wait);
	while (timeout && !signal_pending(current) && stcp_inner_closing(isk))
		timeout = wait_woken(&wait, TASK_INTERRUPTIBLE, timeout);
	remove_wait_queue(sk_sleep(isk), &wait);
}

/*
 * Bottom halves are off, here and below: TCP then does not wait for memory, neither of
 * the machine nor of the user's memory cgroup. The caller may be a worker for everybody.
 */
static void stcp_inner_reset(struct sock *isk)
{
	local_bh_disable();
	isk->sk_prot->disconnect(isk, 0);
	WRITE_ONCE(isk->sk_shutdown, SHUTDOWN_MASK);
	local_bh_enable();
}

/*
 * FIN. It may use the reserves of memory, for without memory it is lost for good. An
 * agent that has a handshake sees the end of the connection, for nobody wants the
 * handshake any more: its place is free for others.
 */
static void stcp_inner_send_fin(struct stcp_sock *s)
{
	struct sock *isk = s->inner->sk;
	bool held = s->handshake.taken && !s->session;
	gfp_t allocation = isk->sk_allocation;

	local_bh_disable();
	WRITE_ONCE(isk->sk_shutdown,
		   isk->sk_shutdown | (held ? SHUTDOWN_MASK : SEND_SHUTDOWN));
	isk->sk_allocation = GFP_ATOMIC;
	isk->sk_prot->shutdown(isk, SEND_SHUTDOWN);
	isk->sk_allocation = allocation;
	local_bh_enable();
	if (held)
		isk->sk_state_change(isk);
}

/*
 * The application gives up a handshake that the agent has, and keeps its socket. Where
 * somebody holds the lock, FIN waits for close(). The agent is told all the same: the
 * handshake counts no more, so the application must not be able to keep its place by
 * calls that take the lock.
 */
void stcp_inner_hang_up(struct stcp_sock *s)
{
	struct sock *isk = s->inner->sk;

	if (!stcp_trylock(isk, NULL)) {
		WRITE_ONCE(isk->sk_shutdown, SHUTDOWN_MASK);
		isk->sk_state_change(isk);
		return;
	}
	if ((1 << isk->sk_state) & (TCPF_ESTABLISHED | TCPF_CLOSE_WAIT))
		stcp_inner_send_fin(s);
	stcp_unlock(isk);
}

/*
 * Let go of the inner socket: FIN behind what was sent, wait for it to be
 * acknowledged for at most @timeout. What is still in the receive queue would
 * make an RST of the FIN, so it is thrown away. The caller has the inner socket lock,
 * and this gives it back.
 */
void stcp_inner_close(struct stcp_sock *s, long timeout)
{
	struct sock *isk = s->inner->sk;

	stcp_inner_unhook(s);
	sock_reset_flag(isk, SOCK_LINGER);
	if (s->session && s->session->charged)
		sk_mem_uncharge(isk, STCP_CIPHERS_SIZE);
	if ((1 << isk->sk_state) & (TCPF_ESTABLISHED | TCPF_CLOSE_WAIT)) {
		stcp_inner_drain(isk);
		stcp_inner_send_fin(s);
	} else if (isk->sk_state == TCP_LISTEN) {
		/* Connections that nobody has accepted have our callbacks. */
		isk->sk_prot->disconnect(isk, 0);
	}
	stcp_unlock(isk);
	stcp_inner_wait_closed(isk, timeout);
	s->inner = NULL;
	fput(s->file);
}

/*
 * The same from a work item, without waiting. A session that nobody has ended by a
 * frame ends with an RST. Return: false when the agent holds the inner socket.
 */
bool stcp_inner_close_later(struct stcp_sock *s)
{
	struct sock *isk = s->inner->sk;

	if (!stcp_trylock(isk, NULL))
		return false;
	if (s->session)
		stcp_inner_reset(isk);
	stcp_inner_close(s, 0);
	return true;
}

/* An RST to the peer: there is nothing left to say to it. */
void stcp_inner_abort(struct stcp_sock *s)
{
	struct sock *isk = s->inner->sk;

	stcp_inner_lock(s->session, isk);
	if (isk->sk_state != TCP_CLOSE)
		stcp_inner_reset(isk);
	stcp_inner_unlock(s->session, isk);
}
