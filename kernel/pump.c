// SPDX-License-Identifier: GPL-2.0
/*
 * The pump: what both directions have in common.
 *
 * Socket callbacks kick a direction: it joins the line of those that have
 * something to do, unless it stands there already. A few carriers, one work
 * item for each CPU, take direction after direction from the front and give
 * each a turn: it receives without waiting into one buffer, works on the bytes
 * in place, sends without waiting, and returns when a step says so. The steps
 * themselves are in seal.c and open.c.
 *
 * A direction as a work item of its own would do the same, but the workqueue
 * wakes a worker for every item, and here nobody is woken while all carriers
 * are at work. They run on an unbound queue: the scheduler places them, so the
 * two ends of a bulk transfer run on two CPUs.
 *
 * No wake-up is lost: a direction that is kicked during its turn joins the line
 * again after it, so a step may look at a queue, find it empty and return. It
 * never has two turns at once. The lock of the line passes what one turn wrote
 * on to the next, on whatever CPU.
 *
 * Fairness. The line is first come, first served; a turn is bounded in bytes
 * and steps, and who has more to do joins at the end.
 *
 * Back-pressure and the memory bound are the same thing. A direction that
 * cannot send keeps its one buffer and does not receive; TCP's window then
 * closes towards the sender. While it is blocked, arriving bytes do not kick
 * it (they could not be received anyway); room in the other socket does.
 *
 * Sending can fail for want of memory with nothing in flight whose
 * acknowledgment would wake us. So -EAGAIN from a socket that has room, and a
 * buffer that cannot be had, ask for a retry by time.
 */
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "internal.h"

/*
 * What one turn may do before other directions get their turn: one large frame,
 * or some small ones.
 */
#define STCP_TURN_STEPS		64
#define STCP_TURN_BYTES		(STCP_MAX_FRAME / 2)
#define STCP_RETRY_DELAY	(HZ / 100 + 1)

/* Turns after which a carrier makes way for other work items. */
#define STCP_CARRIER_TURNS	256

struct stcp_carrier {
	struct work_struct work;
	struct list_head idle;
};

struct workqueue_struct *stcp_queue;
static struct stcp_carrier *stcp_carriers;
/* Taken in softirq; held for a few list operations. */
static DEFINE_SPINLOCK(stcp_line_lock);
static LIST_HEAD(stcp_line);
static LIST_HEAD(stcp_idle_carriers);

/*
 * Come again when there may be memory. TCP has just said, from within the send
 * that failed, that there is room: that kick is not to be followed.
 */
static void stcp_direction_retry(struct stcp_direction *d)
{
	queue_delayed_work(stcp_queue, &d->retry, STCP_RETRY_DELAY);
	spin_lock_bh(&stcp_line_lock);
	d->again = false;
	spin_unlock_bh(&stcp_line_lock);
}

static void stcp_turn(struct stcp_direction *d)
{
	enum stcp_next next = STCP_NEXT_MORE;
	int steps = STCP_TURN_STEPS;

	d->turn = 0;
	/* Pairs with stcp_data_ready(). */
	smp_store_mb(d->blocked, false);
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
		stcp_direction_retry(d);
	else if (next == STCP_NEXT_SETTLED)
		stcp_relay_settle(d);
}

static void stcp_carry(struct work_struct *work)
{
	struct stcp_carrier *carrier = container_of(work, struct stcp_carrier, work);
	struct stcp_direction *d;
	int turns = STCP_CARRIER_TURNS;

	spin_lock_bh(&stcp_line_lock);
	while (!list_empty(&stcp_line)) {
		if (!turns--) {
			spin_unlock_bh(&stcp_line_lock);
			queue_work(stcp_queue, &carrier->work);
			return;
		}
		d = list_first_entry(&stcp_line, struct stcp_direction, line);
		list_del_init(&d->line);
		d->running = true;
		spin_unlock_bh(&stcp_line_lock);
		stcp_turn(d);
		cond_resched();
		spin_lock_bh(&stcp_line_lock);
		d->running = false;
		if (d->again)
			list_add_tail(&d->line, &stcp_line);
		d->again = false;
		if (d->awaited)
			complete(d->awaited);
		d->awaited = NULL;
	}
	list_add(&carrier->idle, &stcp_idle_carriers);
	spin_unlock_bh(&stcp_line_lock);
}

/* Give @d a turn: soon, or once more after the one that it has. */
void stcp_direction_kick(struct stcp_direction *d)
{
	struct stcp_carrier *carrier = NULL;

	spin_lock_bh(&stcp_line_lock);
	if (d->running) {
		d->again = true;
	} else if (list_empty(&d->line)) {
		list_add_tail(&d->line, &stcp_line);
		carrier = list_first_entry_or_null(&stcp_idle_carriers,
						   struct stcp_carrier, idle);
		if (carrier)
			list_del(&carrier->idle);
	}
	spin_unlock_bh(&stcp_line_lock);
	if (carrier)
		queue_work(stcp_queue, &carrier->work);
}

static void stcp_retry(struct work_struct *work)
{
	stcp_direction_kick(container_of(to_delayed_work(work),
					 struct stcp_direction, retry));
}

/*
 * Take @d out of the line and wait for the end of its turn. Who may still kick
 * it, callbacks or the other direction, has to be dealt with by the caller.
 */
void stcp_direction_cancel(struct stcp_direction *d)
{
	DECLARE_COMPLETION_ONSTACK(ended);
	bool running;

	do {
		cancel_delayed_work_sync(&d->retry);
		spin_lock_bh(&stcp_line_lock);
		list_del_init(&d->line);
		d->again = false;
		running = d->running;
		if (running)
			d->awaited = &ended;
		spin_unlock_bh(&stcp_line_lock);
		if (running)
			wait_for_completion(&ended);
	} while (running);
}

void stcp_direction_init(struct stcp_direction *d, struct stcp_relay *relay,
			 struct stcp_leg *from, struct stcp_leg *to,
			 enum stcp_next (*step)(struct stcp_direction *d))
{
	INIT_LIST_HEAD(&d->line);
	INIT_DELAYED_WORK(&d->retry, stcp_retry);
	/* Kicks are kept until stcp_direction_start(). */
	d->running = true;
	d->relay = relay;
	d->from = from;
	d->to = to;
	d->step = step;
}

/* From now on it may have turns, the first at once. */
void stcp_direction_start(struct stcp_direction *d)
{
	spin_lock_bh(&stcp_line_lock);
	d->running = false;
	d->again = false;
	spin_unlock_bh(&stcp_line_lock);
	stcp_direction_kick(d);
}

/* Gives up keys and buffers. It must not have a turn any more. */
void stcp_direction_free(struct stcp_direction *d)
{
	stcp_cipher_destroy(&d->cipher);
	if (d->buffer)
		stcp_buffer_put(d->buffer);
	WRITE_ONCE(d->buffer, NULL);
	kvfree(d->queued);
	d->queued = NULL;
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
	unsigned int i, count = num_online_cpus();

	stcp_carriers = kcalloc(count, sizeof(*stcp_carriers), GFP_KERNEL);
	if (!stcp_carriers)
		return -ENOMEM;
	stcp_queue = alloc_workqueue("stcp", WQ_UNBOUND, 0);
	if (!stcp_queue) {
		kfree(stcp_carriers);
		return -ENOMEM;
	}
	for (i = 0; i < count; i++) {
		INIT_WORK(&stcp_carriers[i].work, stcp_carry);
		list_add_tail(&stcp_carriers[i].idle, &stcp_idle_carriers);
	}
	return 0;
}

/* No direction is left, so a carrier that still runs finds nobody in the line. */
void stcp_pump_exit(void)
{
	destroy_workqueue(stcp_queue);
	kfree(stcp_carriers);
}
