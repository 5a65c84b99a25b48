// SPDX-License-Identifier: GPL-2.0
/*
 * The clock of a relay: one delayed work item for every deadline.
 *
 * While bytes flow it ends a relay that is idle, or half-closed and idle, for too
 * long. After a send it also looks every second at what became of the bytes, and
 * ends a leg whose other end does not answer any more. When nothing waits in
 * either leg, it stops looking until the next send. In RESET it ends the wait for
 * the peer. In BREAK it does nothing.
 */
#include "internal.h"

/* Time between two looks at what was sent. */
#define STCP_WATCH		HZ

/* The deadline in force while bytes flow, in jiffies; 0 is none. */
static unsigned long stcp_relay_limit(struct stcp_relay *relay, enum stcp_end *end)
{
	u32 ms = relay->idle_ms;

	*end = STCP_END_IDLE_TIMEOUT;
	if ((READ_ONCE(relay->seal.fin_passed) || READ_ONCE(relay->open.fin_passed)) &&
	    relay->half_close_ms && (!ms || relay->half_close_ms < ms)) {
		ms = relay->half_close_ms;
		*end = STCP_END_HALF_CLOSE_TIMEOUT;
	}
	return msecs_to_jiffies(ms);
}

static void stcp_relay_expire(struct stcp_relay *relay, enum stcp_end end)
{
	bool half = end == STCP_END_HALF_CLOSE_TIMEOUT;
	u32 ms = half ? relay->half_close_ms : relay->idle_ms;
	char text[64];
	int len;

	len = scnprintf(text, sizeof(text), "%sidle for %u.%03u s",
			half ? "half-closed and " : "", ms / 1000, ms % 1000);
	stcp_relay_reset(relay, end, -ETIMEDOUT, STCP_CODE_IDLE_TIMEOUT, text, len);
}

/* Whether bytes wait in either leg; ends what is dead. */
static bool stcp_relay_look(struct stcp_relay *relay)
{
	enum stcp_look plain = stcp_leg_look(relay->plain);
	enum stcp_look wire = stcp_leg_look(relay->wire);

	if (plain == STCP_LOOK_DEAD)
		stcp_relay_reset(relay, STCP_END_PLAIN_RESET, -ETIMEDOUT,
				 STCP_CODE_PLAIN_RESET, NULL, 0);
	else if (wire == STCP_LOOK_DEAD)
		stcp_relay_break(relay, STCP_END_TRUNCATED, -ETIMEDOUT);
	else
		return plain == STCP_LOOK_WAITING || wire == STCP_LOOK_WAITING;
	return false;
}

/* Something was sent: see to it that the clock looks what becomes of it. */
void stcp_relay_watch(struct stcp_relay *relay)
{
	if (READ_ONCE(relay->watching) || READ_ONCE(relay->stop) ||
	    READ_ONCE(relay->mode) != STCP_MODE_RUN)
		return;
	WRITE_ONCE(relay->watching, true);
	/* A deadline that comes sooner looks too. */
	if (delayed_work_pending(&relay->clock) &&
	    time_before(READ_ONCE(relay->clock.timer.expires), jiffies + STCP_WATCH))
		return;
	mod_delayed_work(stcp_queue, &relay->clock, STCP_WATCH);
	/* The mode may have changed meanwhile: its deadline is not to be missed. */
	if (READ_ONCE(relay->mode) != STCP_MODE_RUN)
		mod_delayed_work(stcp_queue, &relay->clock, 0);
}

/* What the clock does while bytes flow. Return: jiffies until its next turn, or 0. */
static unsigned long stcp_clock_run(struct stcp_relay *relay)
{
	unsigned long limit, due, delay = 0;
	enum stcp_end end;

	limit = stcp_relay_limit(relay, &end);
	if (limit) {
		due = READ_ONCE(relay->last) + limit;
		if (time_after_eq(jiffies, due)) {
			stcp_relay_expire(relay, end);
			return 0;
		}
		delay = due - jiffies;
	}
	/*
	 * Pairs with stcp_direction_send(): either this turn sees the bytes,
	 * or whoever sent them sees that nobody watches.
	 */
	smp_store_mb(relay->watching, false);
	if (!stcp_relay_look(relay))
		return delay;
	WRITE_ONCE(relay->watching, true);
	return delay ? min_t(unsigned long, delay, STCP_WATCH) : STCP_WATCH;
}

void stcp_clock(struct work_struct *work)
{
	struct stcp_relay *relay = container_of(to_delayed_work(work),
						struct stcp_relay, clock);
	unsigned long delay = 0;
	enum stcp_mode mode;
	long left;

	/* Pairs with stcp_relay_enter(): the deadline. */
	mode = smp_load_acquire(&relay->mode);
	if (READ_ONCE(relay->stop))
		return;
	if (mode == STCP_MODE_RUN) {
		delay = stcp_clock_run(relay);
	} else if (mode == STCP_MODE_RESET) {
		left = READ_ONCE(relay->deadline) - jiffies;
		if (left <= 0)
			stcp_relay_break(relay, STCP_END_NONE, 0);
		else
			delay = left;
	}
	if (delay)
		queue_delayed_work(stcp_queue, &relay->clock, delay);
}

/* One direction has ended: the other deadline counts from now on. */
void stcp_relay_half_closed(struct stcp_relay *relay)
{
	stcp_relay_progress(relay);
	if (relay->half_close_ms && !READ_ONCE(relay->stop))
		mod_delayed_work(stcp_queue, &relay->clock, 0);
}
