// SPDX-License-Identifier: GPL-2.0
/*
 * Bytes of the inner socket: frames as a whole, in both directions.
 *
 * Receiving. A frame stays in TCP's receive queue until all of it is there. Then
 * it is taken as a whole. stcp_inner_expect() looks at the header of the next
 * frame, which stays in the queue, and sets sk_rcvlowat to the length of the frame:
 * TCP calls data_ready, and poll() finds the socket readable, when the frame
 * is whole, and not before. A peer that sends a header and nothing else wakes nobody
 * and gets no memory. When TCP's window is full before the frame is whole,
 * stcp_inner_ready() says so (as tcp_poll() does), and a part is taken.
 *
 * Sending. Whether there is room is asked before a frame is sealed. Then TCP takes all
 * of it, even beyond the send buffer: a part of a frame that waits here would have to
 * be sent by somebody when there is room. Only when TCP finds no memory a rest
 * remains; sock_send.c retries it by time.
 *
 * A kernel thread (the work item of that retry, or who closes files for everybody)
 * gives a frame to TCP without waiting for a lock or for memory of the user.
 */
#include <linux/sched.h>

#include "sock_internal.h"

/*
 * Tell TCP how many bytes the next frame lacks. Call under the inner socket lock, or
 * in a callback. A header that is not allowed is ready at once: it is the end. While
 * there are frames of the agent, TCP's bytes may begin anywhere in a frame.
 */
void stcp_inner_expect(struct stcp_session *e, struct sock *isk)
{
	u32 have = READ_ONCE(e->in_end), need = 1;
	u8 header[STCP_HEADER_LEN];
	bool ends = false;

	memcpy(header, e->header, sizeof(header));
	if (have < sizeof(header) &&
	    !stcp_peek(isk, header + have, sizeof(header) - have)) {
		need = sizeof(header) - have;
	} else {
		ends = stcp_frame_ends(e, header);
		if (stcp_frame_size(e, header) > have)
			need = stcp_frame_size(e, header) - have;
	}
	if (!e->queued)
		WRITE_ONCE(e->ends, ends);
	WRITE_ONCE(isk->sk_rcvlowat, need);
}

/* Is the next frame whole, or will it never be without room? */
bool stcp_inner_ready(const struct sock *isk)
{
	return tcp_epollin_ready(isk, READ_ONCE(isk->sk_rcvlowat));
}

static u32 stcp_inner_want(const struct stcp_session *e)
{
	return e->in_end < STCP_HEADER_LEN ? STCP_HEADER_LEN :
					     stcp_frame_size(e, e->header);
}

/* Copy what the frame lacks of a segment; tcp_read_sock() calls this. */
static int stcp_inner_read_segment(read_descriptor_t *desc, struct sk_buff *skb,
				   unsigned int offset, size_t len)
{
	struct stcp_session *e = desc->arg.data;
	u32 n, taken = 0;

	while (len && (n = min_t(u32, stcp_inner_want(e) - e->in_end, len))) {
		desc->error = stcp_buffer_grow(&e->next->buffer, e->in_end + n, GFP_NOWAIT);
		if (!desc->error)
			desc->error = stcp_buffer_write_skb(&e->next->buffer, e->in_end,
							    skb, offset, n);
		if (desc->error)
			break;
		stcp_session_took(e, n);
		offset += n;
		taken += n;
		len -= n;
	}
	desc->count = desc->error ? 0 : stcp_inner_want(e) - e->in_end;
	return taken;
}

/* tcp_read_sock() stops at an urgent byte; on the wire it is a byte as any other. */
static void stcp_inner_pass_urgent(struct sock *isk)
{
	struct tcp_sock *tp = tcp_sk(isk);

	if (unlikely(tp->urg_data))
		WRITE_ONCE(tp->urg_data, 0);
}

/* Why there is nothing to receive. 0 is the end of the stream. */
static int stcp_inner_end(const struct sock *isk)
{
	if (READ_ONCE(isk->sk_err))
		return -READ_ONCE(isk->sk_err);
	if (isk->sk_state == TCP_CLOSE)
		return sock_flag(isk, SOCK_DONE) ? 0 : -ECONNRESET;
	return isk->sk_shutdown & RCV_SHUTDOWN ? 0 : -EAGAIN;
}

/*
 * Take what there is of the next frame, if that is worth while. The caller may sleep
 * and has the outer socket lock.
 *
 * Return: bytes, 0 at the end of TCP's stream, or a negative errno: -EAGAIN when
 * the frame is not whole, -ENOMEM.
 */
int stcp_inner_recv(struct stcp_session *e, struct sock *isk)
{
	read_descriptor_t desc = { .arg.data = e, .count = 1 };
	u32 need;
	int n;

	stcp_inner_lock(e, isk);
	stcp_inner_expect(e, isk);
	n = stcp_inner_ready(isk) ? 1 : stcp_inner_end(isk);
	need = min_t(u32, isk->sk_rcvlowat, tcp_inq(isk));
	stcp_inner_unlock(e, isk);
	if (n <= 0)
		return n;
	/* What is taken under the lock needs memory without waiting: have it before. */
	n = stcp_session_grow(e, e->in_end + need);
	if (n)
		return n;
	stcp_inner_lock(e, isk);
	stcp_inner_pass_urgent(isk);
	n = tcp_read_sock(isk, &desc, stcp_inner_read_segment);
	stcp_inner_expect(e, isk);
	stcp_inner_unlock(e, isk);
	return n > 0 ? n : desc.error ? -ENOMEM : -EAGAIN;
}

static int stcp_inner_drain_segment(read_descriptor_t *desc, struct sk_buff *skb,
				    unsigned int offset, size_t len)
{
	return len;
}

/* Throw away what was received. Call under the inner socket lock. */
void stcp_inner_drain(struct sock *isk)
{
	read_descriptor_t desc = { .count = 1 };

	stcp_inner_pass_urgent(isk);
	tcp_read_sock(isk, &desc, stcp_inner_drain_segment);
}

/* As stcp_send_pieces(), for the rest of the frame. */
static int stcp_inner_push_now(struct sock *isk, struct msghdr *msg, u32 len, bool more)
{
	gfp_t allocation = isk->sk_allocation;
	int n;

	isk->sk_allocation = STCP_SK_ALLOCATION;
	n = stcp_send_pieces(isk, msg, len, more);
	isk->sk_allocation = allocation;
	return n;
}

static int stcp_inner_push(struct stcp_session *e, struct sock *isk, bool more)
{
	u32 len = e->out_end - e->out_at, count;
	struct bio_vec vec[STCP_BUFFER_PAGES];
	struct msghdr msg = { .msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL };

	if (more)
		msg.msg_flags |= MSG_MORE;
	count = stcp_buffer_bvec(&e->out, vec, e->out_at, len);
	iov_iter_bvec(&msg.msg_iter, ITER_SOURCE, vec, count, len);
	if (current->flags & PF_KTHREAD)
		return stcp_inner_push_now(isk, &msg, len, more);
	return tcp_sendmsg_locked(isk, &msg, len);
}

static int stcp_inner_send_locked(struct stcp_session *e, struct sock *isk, bool more)
{
	struct tcp_sock *tp = tcp_sk(isk);
	int sndbuf = isk->sk_sndbuf, n = 0;
	u32 notsent = tp->notsent_lowat;

	WRITE_ONCE(isk->sk_sndbuf, INT_MAX);
	WRITE_ONCE(tp->notsent_lowat, U32_MAX);
	while (e->out_at < e->out_end) {
		n = stcp_inner_push(e, isk, more);
		if (n <= 0)
			break;
		e->out_at += n;
	}
	WRITE_ONCE(isk->sk_sndbuf, sndbuf);
	WRITE_ONCE(tp->notsent_lowat, notsent);
	return min(n, 0);
}

/*
 * Hand the frame in @out to TCP, beyond the send buffer if need be. Return: 0; -EAGAIN
 * when TCP has no memory for all of it, or a kernel thread would have to wait for the
 * inner socket lock; another negative errno when TCP takes nothing any more.
 */
int stcp_inner_send(struct stcp_session *e, struct sock *isk, bool more)
{
	int err;

	if (!(current->flags & PF_KTHREAD))
		stcp_inner_lock(e, isk);
	else if (!e->locked && !stcp_trylock(isk, NULL))
		return -EAGAIN;
	err = stcp_inner_send_locked(e, isk, more);
	if (!e->locked)
		stcp_unlock(isk);
	return err;
}
