// SPDX-License-Identifier: GPL-2.0
/*
 * What a relay does with its legs: receive, send, tell an end from a break,
 * bound what waits in a socket and see what became of it.
 *
 * Nothing here waits for the network. Receiving and sending go to TCP's own
 * functions, past those that leg.c has put in front of user space.
 */
#include "internal.h"

/* -- bytes ----------------------------------------------------------------- */

/*
 * Is there anything to receive: bytes, EOF or an error? Asking first saves the
 * call that would only say EAGAIN. Bytes that come a moment later kick again.
 */
bool stcp_leg_readable(const struct stcp_leg *leg)
{
	const struct sock *sk = leg->sk;

	return !skb_queue_empty_lockless(&sk->sk_receive_queue) ||
	       (READ_ONCE(sk->sk_shutdown) & RCV_SHUTDOWN) ||
	       READ_ONCE(sk->sk_err) ||
	       inet_sk_state_load(sk) == TCP_CLOSE;
}

/*
 * Did the connection break, rather than end? The first call that meets an
 * error consumes it, and the next one sees a clean EOF; only SOCK_DONE tells
 * that a FIN really came.
 */
bool stcp_leg_broken(const struct stcp_leg *leg)
{
	const struct sock *sk = leg->sk;

	return READ_ONCE(sk->sk_err) ||
	       (inet_sk_state_load(sk) == TCP_CLOSE &&
		!sock_flag(sk, SOCK_DONE));
}

/* Return: bytes, 0 at EOF, or a negative errno; -EAGAIN when there are none. */
int stcp_leg_recv(struct stcp_leg *leg, void *to, size_t len)
{
	struct kvec vec = { .iov_base = to, .iov_len = len };
	struct msghdr msg = { };
	int n;

	iov_iter_kvec(&msg.msg_iter, ITER_DEST, &vec, 1, len);
	n = stcp_proto_recvmsg(leg->base, leg->sk, &msg, len, MSG_DONTWAIT);
	if (n == 0 && !sock_flag(leg->sk, SOCK_DONE))
		return -ECONNRESET;
	return n;
}

/* Return: bytes taken, or a negative errno. */
int stcp_leg_send(struct stcp_leg *leg, void *from, size_t len, bool more)
{
	struct kvec vec = { .iov_base = from, .iov_len = len };
	struct msghdr msg = {
		.msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0),
	};

	iov_iter_kvec(&msg.msg_iter, ITER_SOURCE, &vec, 1, len);
	return leg->base->sendmsg(leg->sk, &msg, len);
}

/* FIN behind everything sent so far. */
void stcp_leg_shutdown(struct stcp_leg *leg)
{
	kernel_sock_shutdown(leg->sk->sk_socket, SHUT_WR);
}

/* -- what waits in a socket ------------------------------------------------ */

/* A plain leg's application is near: this much, and no more, waits in its socket. */
#define STCP_PLAIN_RCVBUF	(1024 * 1024)
/* Of what waits to be sent, this much may be behind TCP's window. */
#define STCP_NOTSENT		(1024 * 1024)
/* Window probes without an answer after which the other end is dead. */
#define STCP_DEAD_AFTER_PROBES	4

/*
 * Small writes leave at once, and what waits in the sockets is bounded: the
 * unsent part of a send queue, and the receive queue of a plain leg, which has
 * no long way to fill. The wire's windows are left to TCP, which needs them for
 * its way. A socket whose owner has set a receive buffer keeps it. One whose
 * owner wants to be woken for many bytes only does not: nobody would come for the
 * last ones.
 */
void stcp_leg_tune(struct stcp_leg *leg, bool plain)
{
	struct sock *sk = leg->sk;
	struct tcp_sock *tp = tcp_sk(sk);

	tcp_sock_set_nodelay(sk);
	lock_sock(sk);
	WRITE_ONCE(sk->sk_rcvlowat, 1);
	WRITE_ONCE(tp->notsent_lowat, STCP_NOTSENT);
	if (plain && !(sk->sk_userlocks & SOCK_RCVBUF_LOCK)) {
		sk->sk_userlocks |= SOCK_RCVBUF_LOCK;
		WRITE_ONCE(sk->sk_rcvbuf, STCP_PLAIN_RCVBUF);
		WRITE_ONCE(tp->window_clamp,
			   tcp_win_from_space(sk, STCP_PLAIN_RCVBUF));
	}
	release_sock(sk);
}

static void stcp_leg_ease(struct stcp_leg *leg, bool ease)
{
	struct inet_connection_sock *icsk = inet_csk(leg->sk);

	if (leg->eased == ease)
		return;
	if (ease)
		leg->user_timeout = icsk->icsk_user_timeout;
	WRITE_ONCE(icsk->icsk_user_timeout, ease ? 0 : leg->user_timeout);
	leg->eased = ease;
}

/*
 * Something was sent a while ago: see what became of it.
 *
 * TCP_USER_TIMEOUT would end a leg even when its other end lives and only does
 * not read: a closed window that answers every probe counts as unacknowledged.
 * So where bytes wait, none is under way and nothing moves, the option is
 * lifted, and probes without an answer are counted here instead. In all other
 * cases it stands as it was, and decides. The Python engine does the same.
 */
enum stcp_look stcp_leg_look(struct stcp_leg *leg)
{
	const struct tcp_sock *tp = tcp_sk(leg->sk);
	enum stcp_look look = STCP_LOOK_WAITING;

	lock_sock(leg->sk);
	if (tp->write_seq == tp->snd_una) {
		stcp_leg_ease(leg, false);
		look = STCP_LOOK_AT_REST;
	} else if (tp->packets_out || leg->acknowledged != tp->snd_una) {
		stcp_leg_ease(leg, false);
	} else if (!leg->eased) {
		stcp_leg_ease(leg, true);
	} else if (inet_csk(leg->sk)->icsk_probes_out >= STCP_DEAD_AFTER_PROBES) {
		look = STCP_LOOK_DEAD;
	}
	leg->acknowledged = tp->snd_una;
	release_sock(leg->sk);
	return look;
}
