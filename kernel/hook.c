// SPDX-License-Identifier: GPL-2.0
/*
 * Hooks: what makes a leg's TCP call the relay, from the handover to its end.
 *
 * The callbacks of TCP (data_ready, write_space, state_change, error_report,
 * release_cb) run under the socket's spinlock, often in softirq. They only kick
 * the directions of the relay, and do so under read_lock(sk_callback_lock).
 * Unhooking takes the write lock, so that once stcp_leg_unhook() has returned, no
 * callback can kick anything any more, and the relay may be freed.
 */
#include "internal.h"

static void stcp_data_ready(struct sock *sk)
{
	struct stcp_leg *leg;

	read_lock_bh(&sk->sk_callback_lock);
	leg = stcp_leg_of(sk);
	if (leg && leg->relay) {
		struct stcp_direction *d = leg->wire ? &leg->relay->open :
						       &leg->relay->seal;

		/* Pairs with stcp_turn(): either it sees the bytes, or we see this. */
		smp_mb();
		if (!READ_ONCE(d->blocked))
			stcp_direction_kick(d);
	}
	read_unlock_bh(&sk->sk_callback_lock);
}

static void stcp_write_space(struct sock *sk)
{
	struct stcp_leg *leg;

	if (!sk_stream_is_writeable(sk))
		return;
	read_lock_bh(&sk->sk_callback_lock);
	leg = stcp_leg_of(sk);
	if (leg && leg->relay) {
		struct stcp_direction *d = leg->wire ? &leg->relay->seal :
						       &leg->relay->open;

		if (sk->sk_socket)
			clear_bit(SOCK_NOSPACE, &sk->sk_socket->flags);
		stcp_direction_kick(d);
	}
	read_unlock_bh(&sk->sk_callback_lock);
}

/* A FIN, an RST or an error concerns both directions. */
static void stcp_state_change(struct sock *sk)
{
	struct stcp_leg *leg;

	read_lock_bh(&sk->sk_callback_lock);
	leg = stcp_leg_of(sk);
	if (leg && leg->relay)
		stcp_relay_kick(leg->relay);
	read_unlock_bh(&sk->sk_callback_lock);
}

static void stcp_error_report(struct sock *sk)
{
	if (!stcp_in_hard_interrupt())
		stcp_state_change(sk);
}

/* Whoever held the socket lets go of it, and a carrier wanted it meanwhile. */
void stcp_release_cb(struct sock *sk)
{
	struct stcp_leg *leg;

	tcp_prot.release_cb(sk);
	read_lock_bh(&sk->sk_callback_lock);
	leg = stcp_leg_of(sk);
	if (leg && leg->wanted) {
		leg->wanted = false;
		if (leg->relay)
			stcp_relay_kick(leg->relay);
	}
	read_unlock_bh(&sk->sk_callback_lock);
}

/* Put our callbacks on a claimed leg: from here on it kicks the relay. */
void stcp_leg_hook(struct stcp_leg *leg, struct stcp_relay *relay)
{
	struct sock *sk = leg->sk;

	lock_sock(sk);
	/* A recv() that has begun would take bytes from the relay, and a send() mix in its own. */
	stcp_end_sleepers(sk);
	leg->role = STCP_ROLE_RELAYING;
	leg->wire = leg == relay->wire;
	stcp_leg_tune(leg, !leg->wire);
	stcp_ask_for_socket_options(sk->sk_socket);
	/* Whoever finds the operations of a relay finds the leg's role. */
	smp_store_release(&sk->sk_prot, &stcp_relay_prots[leg->family]);
	/* And so for these. */
	smp_store_release(&sk->sk_socket->ops, &stcp_relay_ops[leg->family]);

	write_lock_bh(&sk->sk_callback_lock);
	leg->relay = relay;
	leg->data_ready = sk->sk_data_ready;
	leg->write_space = sk->sk_write_space;
	leg->state_change = sk->sk_state_change;
	leg->error_report = sk->sk_error_report;
	sk->sk_data_ready = stcp_data_ready;
	sk->sk_write_space = stcp_write_space;
	sk->sk_state_change = stcp_state_change;
	sk->sk_error_report = stcp_error_report;
	write_unlock_bh(&sk->sk_callback_lock);
	release_sock(sk);
	/* Whoever waits for the socket looks again, or fails. */
	leg->state_change(sk);
}

/*
 * The reverse. The leg stays refused to user space until stcp_leg_give_back(): what
 * is left in its queue was the relay's. The socket lock is not needed:
 * sk_callback_lock decides which relay a callback sees, and ours do nothing without
 * one.
 */
void stcp_leg_unhook(struct stcp_leg *leg)
{
	struct sock *sk = leg->sk;

	write_lock_bh(&sk->sk_callback_lock);
	leg->relay = NULL;
	WRITE_ONCE(leg->over, true);
	if (sk->sk_data_ready == stcp_data_ready)
		sk->sk_data_ready = leg->data_ready;
	if (sk->sk_write_space == stcp_write_space)
		sk->sk_write_space = leg->write_space;
	if (sk->sk_state_change == stcp_state_change)
		sk->sk_state_change = leg->state_change;
	if (sk->sk_error_report == stcp_error_report)
		sk->sk_error_report = leg->error_report;
	write_unlock_bh(&sk->sk_callback_lock);
	/* Whoever waits for the socket looks again. */
	leg->state_change(sk);
}

/*
 * Make a wire leg that is unhooked user space's again, as it was before the handover:
 * the protocol is on and has no effect. The socket is locked by a caller that may
 * sleep. What is not ours any more is left alone.
 */
void stcp_leg_give_back(struct stcp_leg *leg)
{
	struct sock *sk = leg->sk;

	stcp_leg_untune(leg);
	leg->wanted = false;
	WRITE_ONCE(leg->over, false);
	if (sk->sk_prot == &stcp_relay_prots[leg->family])
		WRITE_ONCE(sk->sk_prot, &stcp_bare_prots[leg->family]);
	if (sk->sk_socket->ops == &stcp_relay_ops[leg->family])
		WRITE_ONCE(sk->sk_socket->ops, &stcp_bare_ops[leg->family]);
	stcp_leave_socket_options(sk->sk_socket);
	leg->role = STCP_ROLE_BARE;
}
