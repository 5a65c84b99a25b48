// SPDX-License-Identifier: GPL-2.0
/*
 * Sending from a worker, which serves all users and so does not wait for one of them.
 *
 * TCP is called with bottom halves off. It then takes memory without reclaim and
 * charges the memory cgroup without waiting for it.
 */
#include <linux/sched.h>

#include "internal.h"

/*
 * Segments that one call of tcp_sendmsg_locked() may fill: after sixteen it takes
 * what has arrived meanwhile, which may sleep. Options make a segment shorter than the
 * MSS. The least MSS, 48 bytes, leaves 8 beside them.
 */
#define STCP_SEND_SEGMENTS	12

static size_t stcp_send_limit(const struct sock *sk)
{
	int mss = (int)tcp_sk(sk)->mss_cache - MAX_TCP_OPTION_SPACE;

	return STCP_SEND_SEGMENTS * max(mss, 8);
}

/*
 * Call tcp_sendmsg_locked() with the page fragment of the worker. TCP collects small
 * sends in 32 KiB of pages. A fragment of the socket would stay with every leg at rest,
 * charged to no memory cgroup.
 */
static int stcp_send_part(struct sock *sk, struct msghdr *msg, size_t len)
{
	bool own = sk_page_frag(sk) == &sk->sk_frag;
	int n;

	local_bh_disable();
	if (own)
		swap(sk->sk_frag, current->task_frag);
	n = tcp_sendmsg_locked(sk, msg, len);
	if (own)
		swap(sk->sk_frag, current->task_frag);
	local_bh_enable();
	return n;
}

/*
 * Hand bytes to TCP in pieces, without waiting. Call under the socket lock, with an
 * sk_allocation of STCP_SK_ALLOCATION. Return: bytes taken, or a negative errno.
 */
int stcp_send_pieces(struct sock *sk, struct msghdr *msg, size_t len, bool more)
{
	size_t left = len, part;
	int n;

	do {
		part = min(left, stcp_send_limit(sk));
		msg->msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL;
		if (more || part < left)
			msg->msg_flags |= MSG_MORE;
		iov_iter_truncate(&msg->msg_iter, part);
		n = stcp_send_part(sk, msg, part);
		if (n < 0)
			return left < len ? len - left : n;
		left -= n;
		iov_iter_reexpand(&msg->msg_iter, left);
	} while (left && n == part);
	return len - left;
}
