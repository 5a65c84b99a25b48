// SPDX-License-Identifier: GPL-2.0
/*
 * The pump: what both directions have in common.
 *
 * A direction is a work item. Socket callbacks queue it; it receives without
 * waiting into one buffer, works on the bytes in place, sends without waiting,
 * and returns when a step says so. The steps themselves are in seal.c and
 * open.c.
 *
 * No wake-up is lost: a callback that comes while the item runs queues it
 * again, so a step may look at a queue, find it empty and return.
 *
 * Back-pressure and the memory bound are the same thing. A direction that
 * cannot send keeps its one buffer and does not receive; TCP's window then
 * closes towards the sender. While it is blocked, arriving bytes do not queue
 * it (they could not be received anyway); room in the other socket does.
 *
 * Sending can fail for want of memory with nothing in flight whose
 * acknowledgment would wake us. So -EAGAIN from a socket that has room, and a
 * buffer that cannot be had, ask for a retry by time.
 *
 * The items run on an unbound queue: the scheduler places the worker, and the
 * two ends of a bulk transfer run on two CPUs. There are few workers, so that
 * under load one takes item after item without a change of context; twice as
 * many as CPUs, for an item may have to wait for a socket lock or for memory.
 */
#include <linux/mm.h>

#include "internal.h"

/*
 * What one run may do before other directions get their turn: one large frame,
 * or some small ones.
 */
#define STCP_TURN_STEPS		64
#define STCP_TURN_BYTES		(STCP_MAX_FRAME / 2)
#define STCP_RETRY_DELAY	(HZ / 100 + 1)

struct workqueue_struct *stcp_queue;

static void stcp_pump(struct work_struct *work)
{
	struct stcp_direction *d = container_of(to_delayed_work(work),
						struct stcp_direction, work);
	enum stcp_next next = STCP_NEXT_MORE;
	int steps = STCP_TURN_STEPS;

	d->turn = 0;
	WRITE_ONCE(d->blocked, false);
	while (next == STCP_NEXT_MORE && steps--) {
		if (READ_ONCE(d->relay->stop))
			return;
		/* Pairs with stcp_relay_enter(): the cause. */
		d->mode = smp_load_acquire(&d->relay->mode);
		next = d->step(d);
	}
	if (d->buffer && d->out == d->out_end && d->in == d->in_end) {
		stcp_buffer_put(d->buffer);
		WRITE_ONCE(d->buffer, NULL);
	}
	if (next == STCP_NEXT_MORE || next == STCP_NEXT_YIELD)
		stcp_direction_kick(d);
	else if (next == STCP_NEXT_RETRY)
		queue_delayed_work(stcp_queue, &d->work, STCP_RETRY_DELAY);
	else if (next == STCP_NEXT_SETTLED)
		stcp_relay_settle(d);
}

void stcp_direction_init(struct stcp_direction *d, struct stcp_relay *relay,
			 struct stcp_leg *from, struct stcp_leg *to,
			 enum stcp_next (*step)(struct stcp_direction *d))
{
	INIT_DELAYED_WORK(&d->work, stcp_pump);
	d->relay = relay;
	d->from = from;
	d->to = to;
	d->step = step;
}

/* Gives up keys and buffers. The work item must not run any more. */
void stcp_direction_free(struct stcp_direction *d)
{
	stcp_cipher_destroy(&d->cipher);
	if (d->buffer)
		stcp_buffer_put(d->buffer);
	WRITE_ONCE(d->buffer, NULL);
	kvfree(d->queued);
	d->queued = NULL;
}

void stcp_direction_kick(struct stcp_direction *d)
{
	queue_delayed_work(stcp_queue, &d->work, 0);
}

static int stcp_take_queued(struct stcp_direction *d, u8 *to, u32 room)
{
	u32 n = min(room, d->queued_end - d->queued_at);

	memcpy(to, d->queued + d->queued_at, n);
	d->queued_at += n;
	if (d->queued_at == d->queued_end) {
		kvfree(d->queued);
		d->queued = NULL;
		WRITE_ONCE(d->queued_end, 0);
	}
	return n;
}

/* What a failed stcp_direction_recv() asks for, where it is no end. */
enum stcp_next stcp_recv_next(int err)
{
	switch (err) {
	case -EAGAIN:
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
 * stcp_direction_recv() - receive into the buffer, getting one if need be
 * @d: the direction
 * @at: where in the buffer
 * @room: at most this many bytes
 *
 * Return: bytes, 0 at EOF, -EAGAIN when there is nothing, -EINTR when the turn
 * is over, -ENOBUFS when there is no buffer, or another negative errno.
 */
int stcp_direction_recv(struct stcp_direction *d, u32 at, u32 room)
{
	int n;

	if (!d->queued && !stcp_leg_readable(d->from))
		return -EAGAIN;
	if (d->turn >= STCP_TURN_BYTES)
		return -EINTR;
	if (!d->buffer) {
		WRITE_ONCE(d->buffer, stcp_buffer_get());
		if (!d->buffer) {
			stcp_stat_add(sock_net(d->relay->wire->sk),
				      STCP_STAT_BUFFER_FAILURES, 1);
			return -ENOBUFS;
		}
	}
	n = d->queued ? stcp_take_queued(d, d->buffer + at, room) :
			stcp_leg_recv(d->from, d->buffer + at, room);
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
		int n = stcp_leg_send(d->to, d->buffer + d->out,
				      d->out_end - d->out, more);

		if (n == -EAGAIN) {
			if (sk_stream_is_writeable(d->to->sk))
				return STCP_NEXT_RETRY;
			WRITE_ONCE(d->blocked, true);
			return STCP_NEXT_WAIT;
		}
		if (n < 0) {
			*error = n;
			return STCP_NEXT_SETTLED;
		}
		d->out += n;
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

int stcp_pump_init(void)
{
	stcp_queue = alloc_workqueue("stcp", WQ_UNBOUND, 2 * num_online_cpus());
	return stcp_queue ? 0 : -ENOMEM;
}

void stcp_pump_exit(void)
{
	destroy_workqueue(stcp_queue);
}
