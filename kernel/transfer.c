// SPDX-License-Identifier: GPL-2.0
/*
 * How a step receives into its direction's buffer, and sends from it.
 *
 * Back-pressure and the memory bound are the same thing. A direction that
 * cannot send keeps its one buffer and does not receive; TCP's window then
 * closes towards the sender. While it is blocked, arriving bytes do not kick
 * it (they could not be received anyway); room in the other socket does.
 */
#include <linux/slab.h>

#include "internal.h"

/* What one turn may receive: one large frame, or some small ones. */
#define STCP_TURN_BYTES		(STCP_MAX_FRAME / 2)

static int stcp_take_queued(struct stcp_direction *d)
{
	u32 n, taken = 0;

	while ((n = min(d->want(d) - d->in_end, d->queued_end - d->queued_at))) {
		if (stcp_buffer_grow(&d->buffer, d->in_end + n, GFP_NOWAIT))
			return taken ?: -ENOBUFS;
		stcp_buffer_write(&d->buffer, d->in_end, d->queued + d->queued_at, n);
		d->in_end += n;
		d->queued_at += n;
		taken += n;
	}
	if (d->queued_at == d->queued_end) {
		kvfree(d->queued);
		d->queued = NULL;
		WRITE_ONCE(d->queued_end, 0);
	}
	return taken;
}

/* What a failed stcp_direction_recv() asks for, where it is no end. */
enum stcp_next stcp_recv_next(int err)
{
	switch (err) {
	case -EAGAIN:
	case -EINPROGRESS:	/* stcp_release_cb() kicks */
		return STCP_NEXT_WAIT;
	case -EINTR:
		return STCP_NEXT_YIELD;
	case -ENOBUFS:
		return STCP_NEXT_RETRY;
	default:
		return STCP_NEXT_SETTLED;
	}
}

/**
 * stcp_direction_recv() - receive what the direction wants into its buffer
 * @d: the direction
 *
 * Return: bytes, 0 at EOF, -EAGAIN when there is nothing, -EINPROGRESS when
 * somebody holds the socket, -EINTR when the turn is over, -ENOBUFS when there is
 * no memory, or another negative errno.
 */
int stcp_direction_recv(struct stcp_direction *d)
{
	int n;

	if (!d->queued && !stcp_leg_readable(d->from))
		return -EAGAIN;
	if (d->turn >= STCP_TURN_BYTES)
		return -EINTR;
	n = d->queued ? stcp_take_queued(d) : stcp_leg_recv(d->from, d);
	if (n == -ENOBUFS)
		stcp_stat_add(sock_net(d->relay->wire->sk),
			      STCP_STAT_BUFFER_FAILURES, 1);
	if (n > 0)
		d->turn += n;
	return n;
}

/**
 * stcp_direction_send() - send what the buffer has to send
 * @d: the direction
 * @error: set to the socket's error, if it has one
 * @more: another send follows at once
 *
 * Return: MORE when all of it is gone, WAIT or RETRY when not, SETTLED with
 * @error set when the leg is broken.
 */
enum stcp_next stcp_direction_send(struct stcp_direction *d, int *error, bool more)
{
	while (d->out < d->out_end) {
		int n = stcp_leg_send(d->to, d, more);

		if (n == -EINPROGRESS)
			return STCP_NEXT_WAIT;
		if (n == -ENOBUFS)
			return STCP_NEXT_RETRY;
		if (n == -EAGAIN) {
			if (!stcp_may_go_beyond(d))
				WRITE_ONCE(d->blocked, true);
			return STCP_NEXT_WAIT;
		}
		if (n < 0) {
			*error = n;
			return STCP_NEXT_SETTLED;
		}
		/* The socket's lock stands between the bytes and the clock. */
		stcp_relay_watch(d->relay);
		stcp_relay_progress(d->relay);
		if (d == &d->relay->open) {
			WRITE_ONCE(d->bytes, d->bytes + n);
			stcp_stat_add(sock_net(d->relay->wire->sk),
				      STCP_STAT_BYTES_TO_PLAIN, n);
		}
	}
	return STCP_NEXT_MORE;
}
