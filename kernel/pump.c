// SPDX-License-Identifier: GPL-2.0
/*
 * The pump: what both directions have in common.
 *
 * A direction that has something to do stands in the line (line.c) and is given turns
 * from there. In its turn it receives without waiting into one buffer, works on the
 * bytes in place, sends without waiting, and returns when a step says so. The steps
 * are in seal.c and open.c; both receive and send through transfer.c.
 *
 * A turn is bounded in bytes and steps, and ends after the step at hand when another
 * owner waits. Nothing in it sleeps (io.c, buffer.c, cipher.c), so most turns may be
 * had in a softirq too. A brief turn is one there: it has few steps and bytes, and is
 * refused or ends before a step that needs a process (stcp_may_be_brief()).
 *
 * Sending can fail for want of memory with nothing in flight whose
 * acknowledgment would wake us. So -EAGAIN from a socket that has room, and a
 * buffer that cannot be had, ask for a retry by time. The time doubles while
 * memory stays short.
 */
#include <linux/memcontrol.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "internal.h"

/* What one turn may do before other directions get theirs. */
#define STCP_TURN_STEPS		64
#define STCP_BRIEF_STEPS	16
/* What it may receive: one large frame, or some small ones. */
#define STCP_TURN_BYTES		(STCP_MAX_FRAME / 2)
/* Bytes that are few: some microseconds of the cipher. */
#define STCP_LITTLE		2048
#define STCP_RETRY_DELAY	(HZ / 100 + 1)
#define STCP_RETRY_MAX		(HZ / 4)

/*
 * Come again when there may be memory. TCP has just said, from within the send
 * that failed, that there is room: that kick is not to be followed.
 */
static void stcp_direction_retry(struct stcp_direction *d)
{
	queue_delayed_work(stcp_queue, &d->retry, d->retry_delay);
	d->retry_delay = min_t(u32, 2 * d->retry_delay, STCP_RETRY_MAX);
	stcp_direction_forget_kick(d);
}

/* @interrupted: a brief turn with little left to do ended for another owner. */
static void stcp_turn_end(struct stcp_direction *d, enum stcp_next next,
			  bool interrupted)
{
	if (d->out == d->out_end && !d->in_end)
		stcp_buffer_free(&d->buffer);
	if (next != STCP_NEXT_RETRY)
		d->retry_delay = STCP_RETRY_DELAY;
	if (next == STCP_NEXT_MORE || next == STCP_NEXT_YIELD)
		stcp_line_kick(d, interrupted);
	else if (next == STCP_NEXT_RETRY)
		stcp_direction_retry(d);
	else if (next == STCP_NEXT_SETTLED)
		stcp_relay_settle(d);
}

/*
 * May @d have its turn in a softirq? Only with little to do, and while bytes flow:
 * giving up a leg, and what came with the handover, are for a process. The cipher must
 * not sleep, not even for its next key.
 */
static bool stcp_may_be_brief(const struct stcp_direction *d)
{
	return READ_ONCE(d->relay->mode) == STCP_MODE_RUN && !d->queued &&
	       d->in_end <= STCP_LITTLE && d->out_end - d->out <= STCP_LITTLE &&
	       stcp_leg_waiting(d->from) <= STCP_LITTLE &&
	       stcp_cipher_brief(&d->cipher, STCP_BRIEF_STEPS);
}

/* Give @d a turn, a @brief one or not. Return: false when it wants a process for it. */
bool stcp_turn(struct stcp_direction *d, bool brief)
{
	int steps = brief ? STCP_BRIEF_STEPS : STCP_TURN_STEPS;
	enum stcp_next next = STCP_NEXT_MORE;
	bool interrupted = false;
	struct mem_cgroup *old;

	if (brief && !stcp_may_be_brief(d))
		return false;

	if (brief)
		stcp_stat_add(sock_net(d->relay->wire->sk), STCP_STAT_BRIEF_TURNS, 1);
	d->turn = 0;
	d->turn_limit = brief ? STCP_LITTLE : STCP_TURN_BYTES;
	/* Pairs with stcp_data_ready(). */
	smp_store_mb(d->blocked, false);
	/* The owner of the relay pays for buffers. */
	old = set_active_memcg(d->relay->owner->memcg);
	while (next == STCP_NEXT_MORE && steps--) {
		/* Both directions have settled, or the owner closes. */
		if (READ_ONCE(d->relay->stop) || READ_ONCE(d->relay->finishing))
			goto out;
		/* Pairs with stcp_relay_enter(): the cause. */
		d->mode = smp_load_acquire(&d->relay->mode);
		/* Much may have arrived meanwhile. */
		if (brief && !stcp_may_be_brief(d))
			break;
		next = d->step(d);
		interrupted = steps && stcp_others_wait(d);
		if (interrupted)
			steps = 0;
	}
	stcp_turn_end(d, next, brief && interrupted && next == STCP_NEXT_MORE);
out:
	set_active_memcg(old);
	return true;
}

/* Give @d a turn: soon, or once more after the one that it has. */
void stcp_direction_kick(struct stcp_direction *d)
{
	stcp_line_kick(d, false);
}

/*
 * The same in the callback of a socket that has received bytes. Where they are few,
 * the turn comes right after TCP. Where somebody owns the socket, and takes now what has
 * arrived meanwhile, a tasklet could not lock it. Tasklets of PREEMPT_RT are threads:
 * carriers do.
 */
void stcp_direction_received(struct stcp_direction *d)
{
	bool little = !IS_ENABLED(CONFIG_PREEMPT_RT) &&
		      !sock_owned_by_user_nocheck(d->from->sk) &&
		      stcp_leg_waiting(d->from) <= STCP_LITTLE;

	stcp_line_kick(d, little);
}

static void stcp_retry(struct work_struct *work)
{
	stcp_direction_kick(container_of(to_delayed_work(work),
					 struct stcp_direction, retry));
}

void stcp_direction_init(struct stcp_direction *d, struct stcp_relay *relay,
			 struct stcp_leg *from, struct stcp_leg *to,
			 enum stcp_next (*step)(struct stcp_direction *d),
			 u32 (*want)(const struct stcp_direction *d))
{
	INIT_LIST_HEAD(&d->line);
	INIT_DELAYED_WORK(&d->retry, stcp_retry);
	/* Kicks are kept until stcp_direction_start(). */
	d->running = true;
	d->relay = relay;
	d->from = from;
	d->to = to;
	d->step = step;
	d->want = want;
	d->retry_delay = STCP_RETRY_DELAY;
}

/* Gives up keys and buffers. It must not have a turn any more. */
void stcp_direction_free(struct stcp_direction *d)
{
	stcp_cipher_destroy(&d->cipher);
	stcp_buffer_free(&d->buffer);
	kvfree(d->queued);
	d->queued = NULL;
}
