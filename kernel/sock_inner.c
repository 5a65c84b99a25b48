// SPDX-License-Identifier: GPL-2.0
/*
 * The inner socket: the TCP connection under a socket of the protocol.
 *
 * It is made as if the application had asked for it (not as a kernel socket): its
 * memory, its namespace and the rules of security modules and cgroups are those of
 * the application. sk_user_data is claimed at once (sock_hook.c), so nobody else (a
 * sockmap, KCM) can put callbacks on it.
 *
 * The agent may have set SO_LINGER: it is taken back before the last reference is
 * dropped, for the kernel's only worker for delayed closes may drop it.
 */
#include <linux/file.h>
#include <linux/sched/signal.h>
#include <net/sock_reuseport.h>

#include "sock_internal.h"

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

/*
 * A listener leaves the group of its port (SO_REUSEPORT), so TCP gives its queue to no
 * other listener. Call with the inner socket locked: TCP takes a listener out of its group
 * under this lock too, and does not expect that it has left meanwhile
 * (reuseport_stop_listen_sock()).
 */
void stcp_inner_leave_group(struct sock *isk)
{
	/* First out of TCP's table: a new listener would make a group with this one. */
	isk->sk_prot->unhash(isk);
	if (rcu_access_pointer(isk->sk_reuseport_cb))
		reuseport_detach_sock(isk);
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
		/* Connections that nobody has accepted may have our callbacks. */
		stcp_inner_leave_group(isk);
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
