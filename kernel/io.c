// SPDX-License-Identifier: GPL-2.0
/*
 * What a relay does with its legs: lock, receive, send, end, and bound what waits in
 * a socket.
 *
 * Nothing here sleeps. A carrier serves the relays of all users, and the owner of
 * a socket can hold its lock for as long as it likes: a system call that reads its
 * argument under the lock waits for a page that never comes. So a leg is locked
 * only where it is free (lock.c). Where it is not, the attempt is noted
 * and stcp_release_cb() kicks the relay when the holder lets go.
 *
 * TCP is called with bottom halves off (send.c). It then takes memory without reclaim
 * and charges the memory cgroup without waiting for it.
 */
#include <linux/bvec.h>

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

/* Copy what the direction wants of a segment; tcp_read_sock() calls this. */
static int stcp_read_segment(read_descriptor_t *desc, struct sk_buff *skb,
			     unsigned int offset, size_t len)
{
	struct stcp_direction *d = desc->arg.data;
	u32 n, taken = 0;

	while (len && (n = min_t(u32, d->want(d) - d->in_end, len))) {
		desc->error = stcp_buffer_grow(&d->buffer, d->in_end + n, GFP_NOWAIT);
		if (!desc->error)
			desc->error = stcp_buffer_write_skb(&d->buffer, d->in_end,
							    skb, offset, n);
		if (desc->error)
			break;
		d->in_end += n;
		offset += n;
		taken += n;
		len -= n;
	}
	desc->count = desc->error ? 0 : d->want(d) - d->in_end;
	return taken;
}

/* Is there a whole DATA frame with text at the front of the queue? */
static int stcp_peek_segment(read_descriptor_t *desc, struct sk_buff *skb,
			     unsigned int offset, size_t len)
{
	struct stcp_direction *d = desc->arg.data;
	u8 header[STCP_HEADER_LEN];
	u32 length;

	if (len < sizeof(header) || skb_copy_bits(skb, offset, header, sizeof(header)))
		return 0;
	length = get_unaligned_be16(header + 2);
	d->follows = header[0] == STCP_FRAME_DATA && length > STCP_TAG_LEN &&
		     tcp_inq(d->from->sk) >= STCP_HEADER_LEN + length;
	return 0;
}

static int stcp_skip_segment(read_descriptor_t *desc, struct sk_buff *skb,
			     unsigned int offset, size_t len)
{
	int taken = desc->count;

	desc->count = 0;
	return taken;
}

/*
 * tcp_read_sock() stops at an urgent byte. On the wire it is a byte as any other;
 * on the plain leg it is left out, as recv() does.
 */
static void stcp_leg_pass_urgent(struct stcp_leg *leg)
{
	read_descriptor_t desc = { .count = 1 };
	struct tcp_sock *tp = tcp_sk(leg->sk);

	if (likely(!tp->urg_data) || before(tp->copied_seq, tp->urg_seq))
		return;
	if (!leg->wire && tp->copied_seq == tp->urg_seq &&
	    !sock_flag(leg->sk, SOCK_URGINLINE)) {
		if (skb_queue_empty(&leg->sk->sk_receive_queue))
			return;
		WRITE_ONCE(tp->urg_data, 0);
		tcp_read_sock(leg->sk, &desc, stcp_skip_segment);
	}
	WRITE_ONCE(tp->urg_data, 0);
}

/*
 * Copy the first bytes of the receive queue and leave them there. Return: false when
 * there are fewer. Call under the socket lock, or in a callback.
 */
bool stcp_peek(struct sock *sk, void *to, u32 len)
{
	u32 seq = tcp_sk(sk)->copied_seq, offset, n;
	struct sk_buff *skb;

	skb_queue_walk(&sk->sk_receive_queue, skb) {
		offset = seq - TCP_SKB_CB(skb)->seq;
		if (!len)
			break;
		if (offset >= skb->len)
			continue;
		n = min_t(u32, len, skb->len - offset);
		if (skb_copy_bits(skb, offset, to, n))
			break;
		to += n;
		seq += n;
		len -= n;
	}
	return !len;
}

/* Why there is nothing to receive. */
static int stcp_leg_recv_end(const struct sock *sk)
{
	if (sock_flag(sk, SOCK_DONE))
		return 0;
	if (READ_ONCE(sk->sk_err))
		return -READ_ONCE(sk->sk_err);
	if ((sk->sk_shutdown & RCV_SHUTDOWN) || sk->sk_state == TCP_CLOSE)
		return -ECONNRESET;
	return -EAGAIN;
}

/*
 * Receive into the direction's buffer, from in_end on, what it wants.
 *
 * Return: bytes, 0 at EOF, or a negative errno: -EAGAIN when there are none,
 * -EINPROGRESS when somebody holds the socket, -ENOBUFS without memory.
 */
int stcp_leg_recv(struct stcp_leg *leg, struct stcp_direction *d)
{
	read_descriptor_t desc = { .arg.data = d, .count = 1 };
	int n;

	if (!stcp_leg_trylock(leg))
		return -EINPROGRESS;
	local_bh_disable();
	stcp_leg_pass_urgent(leg);
	n = tcp_read_sock(leg->sk, &desc, stcp_read_segment);
	d->follows = false;
	if (leg->wire && n > 0 && !skb_queue_empty(&leg->sk->sk_receive_queue)) {
		desc.count = 1;
		tcp_read_sock(leg->sk, &desc, stcp_peek_segment);
	}
	local_bh_enable();
	if (!n)
		n = desc.error ?: stcp_leg_recv_end(leg->sk);
	stcp_unlock(leg->sk);
	return n;
}

/*
 * Send what the direction's buffer has to send. Return: bytes taken, or a negative
 * errno; -EINPROGRESS when somebody holds the socket, -ENOBUFS when there is room
 * but no memory.
 *
 * d->out moves under the lock: a later owner of the lock that finds an answer to our
 * bytes knows that they had left (stcp_wire_over()). d->beyond asks for room that
 * the send buffer does not have.
 */
int stcp_leg_send(struct stcp_leg *leg, struct stcp_direction *d, bool more)
{
	u32 len = d->out_end - d->out, notsent;
	struct bio_vec vec[STCP_BUFFER_PAGES];
	struct msghdr msg = { };
	int n, sndbuf;

	if (!stcp_leg_trylock(leg))
		return -EINPROGRESS;
	sndbuf = leg->sk->sk_sndbuf;
	notsent = tcp_sk(leg->sk)->notsent_lowat;
	if (d->beyond) {
		WRITE_ONCE(leg->sk->sk_sndbuf, INT_MAX);
		WRITE_ONCE(tcp_sk(leg->sk)->notsent_lowat, U32_MAX);
	}
	n = stcp_buffer_bvec(&d->buffer, vec, d->out, len);
	iov_iter_bvec(&msg.msg_iter, ITER_SOURCE, vec, n, len);
	n = stcp_send_pieces(leg->sk, &msg, len, more);
	if (d->beyond) {
		WRITE_ONCE(leg->sk->sk_sndbuf, sndbuf);
		WRITE_ONCE(tcp_sk(leg->sk)->notsent_lowat, notsent);
	}
	if (n > 0)
		WRITE_ONCE(d->out, d->out + n);
	/* Under the lock: room that comes when it is given back kicks the direction. */
	if (n == -EAGAIN && sk_stream_is_writeable(leg->sk))
		n = -ENOBUFS;
	stcp_unlock(leg->sk);
	return n;
}

/*
 * FIN behind everything sent so far. Return: false when somebody holds the socket.
 * A FIN that finds no memory is lost for ever, so it may use the reserves.
 */
bool stcp_leg_shutdown(struct stcp_leg *leg)
{
	struct sock *sk = leg->sk;

	if (!stcp_leg_trylock(leg))
		return false;
	local_bh_disable();
	if (sk->sk_state != TCP_CLOSE && !(sk->sk_shutdown & SEND_SHUTDOWN)) {
		WRITE_ONCE(sk->sk_shutdown, sk->sk_shutdown | SEND_SHUTDOWN);
		sk->sk_allocation = GFP_ATOMIC;
		leg->base->shutdown(sk, SEND_SHUTDOWN);
		sk->sk_allocation = STCP_SK_ALLOCATION;
	}
	local_bh_enable();
	stcp_unlock(leg->sk);
	return true;
}

/*
 * An RST to the other end. Return: false when somebody holds the socket.
 * tcp_abort() would wait for the lock, and newer kernels export no tcp_disconnect();
 * TCP's operations have it. Nobody can use the socket for anything else afterwards.
 */
bool stcp_leg_abort(struct stcp_leg *leg, int err)
{
	struct sock *sk = leg->sk;

	if (inet_sk_state_load(sk) == TCP_CLOSE)
		return true;
	if (!stcp_leg_trylock(leg))
		return false;
	local_bh_disable();
	if (sk->sk_state != TCP_CLOSE) {
		leg->base->disconnect(sk, 0);
		WRITE_ONCE(sk->sk_shutdown, SHUTDOWN_MASK);
		WRITE_ONCE(sk->sk_err, err);
	}
	local_bh_enable();
	stcp_unlock(leg->sk);
	return true;
}

/* -- what waits in a socket ------------------------------------------------ */

/* A plain leg's application is near: this much, and no more, waits in its socket. */
#define STCP_PLAIN_RCVBUF	(1024 * 1024)
/* Of what waits to be sent, this much may be behind TCP's window. */
#define STCP_NOTSENT		(1024 * 1024)

static int stcp_plain_rcvbuf(const struct sock *sk)
{
	int limit = READ_ONCE(sock_net(sk)->ipv4.sysctl_tcp_rmem[2]);

	/* SO_RCVBUF allows twice rmem_max too. */
	limit = min_t(s64, limit, 2LL * READ_ONCE(sysctl_rmem_max));
	return clamp_t(int, limit, SOCK_MIN_RCVBUF, STCP_PLAIN_RCVBUF);
}

/*
 * Take back what user space has set and a relay cannot live with. The socket is
 * locked by a caller that may sleep.
 *
 * What waits in the sockets is bounded: the unsent
 * part of a send queue, and the receive queue of a plain leg, whose application
 * is near. The wire's windows are left to TCP, which needs them for its way. An
 * owner that has set a receive buffer keeps it. SO_RCVLOWAT would leave the last
 * bytes of a message unread. Timestamps would fill the error queue, which nobody
 * reads. SO_LINGER would make close() sleep, also in the kernel's workers.
 */
void stcp_leg_tune(struct stcp_leg *leg, bool plain)
{
	struct sock *sk = leg->sk;
	struct tcp_sock *tp = tcp_sk(sk);

	leg->allocation = sk->sk_allocation;
	leg->notsent_lowat = tp->notsent_lowat;
	sock_reset_flag(sk, SOCK_LINGER);
	sk->sk_allocation = STCP_SK_ALLOCATION;
	WRITE_ONCE(sk->sk_tsflags, 0);
	skb_queue_purge(&sk->sk_error_queue);
	WRITE_ONCE(sk->sk_rcvlowat, 1);
	WRITE_ONCE(tp->notsent_lowat, STCP_NOTSENT);
	if (plain && !(sk->sk_userlocks & SOCK_RCVBUF_LOCK)) {
		int rcvbuf = stcp_plain_rcvbuf(sk);

		sk->sk_userlocks |= SOCK_RCVBUF_LOCK;
		WRITE_ONCE(sk->sk_rcvbuf, rcvbuf);
		WRITE_ONCE(tp->window_clamp, tcp_win_from_space(sk, rcvbuf));
	}
}

/* For user space again; the options that the handover has taken back stay so. */
void stcp_leg_untune(struct stcp_leg *leg)
{
	leg->sk->sk_allocation = leg->allocation;
	WRITE_ONCE(tcp_sk(leg->sk)->notsent_lowat, leg->notsent_lowat);
	stcp_leg_ease(leg, false);
}

/*
 * Charge memory that the kernel has allocated without an account to the socket,
 * and by it to its memory cgroup. The socket is locked by a caller that may sleep.
 */
int stcp_leg_charge(struct stcp_leg *leg, u32 size)
{
	if (!sk_wmem_schedule(leg->sk, size))
		return -ENOMEM;
	sk_mem_charge(leg->sk, size);
	return 0;
}

void stcp_leg_uncharge(struct stcp_leg *leg, u32 size)
{
	sk_mem_uncharge(leg->sk, size);
}
