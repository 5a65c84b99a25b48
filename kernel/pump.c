// SPDX-License-Identifier: GPL-2.0
/*
 * The pump: what both directions have in common.
 *
 * Socket callbacks kick a direction: it joins the line of its owner's directions
 * that have something to do, unless it stands there already. A few carriers, one
 * work item for each CPU, serve the owners in turn: each takes the direction at the
 * front of the owner's line and gives it a turn. The direction receives without
 * waiting into one buffer, works on the bytes in place, sends without waiting, and
 * returns when a step says so. The steps are in seal.c and open.c; both receive and
 * send through transfer.c.
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
 * Fairness. A carrier never sleeps in a turn (io.c, buffer.c, cipher.c). A turn is
 * bounded in bytes and steps, and ends after the step at hand when another owner
 * waits. So an owner waits for one step of each other owner, however many relays
 * these have. Within one owner's line the order is first come, first served.
 *
 * Sending can fail for want of memory with nothing in flight whose
 * acknowledgment would wake us. So -EAGAIN from a socket that has room, and a
 * buffer that cannot be had, ask for a retry by time. The time doubles while
 * memory stays short.
 */
#include <linux/cpumask.h>
#include <linux/memcontrol.h>
#include <linux/sched/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "internal.h"

/* What one turn may do before other directions get theirs; transfer.c bounds the bytes. */
#define STCP_TURN_STEPS		64
#define STCP_RETRY_DELAY	(HZ / 100 + 1)
#define STCP_RETRY_MAX		(HZ / 4)

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
/* Owners with a direction in their line, by their turn. */
static LIST_HEAD(stcp_turns);
static LIST_HEAD(stcp_idle_carriers);
static unsigned int stcp_busy_carriers;

/* Put @d at the end of its owner's line. */
static void stcp_line_join(struct stcp_direction *d)
{
	struct stcp_owner *o = d->relay->owner;

	lockdep_assert_held(&stcp_line_lock);
	list_add_tail(&d->line, &o->line);
	if (list_empty(&o->turn))
		list_add_tail(&o->turn, &stcp_turns);
}

static void stcp_line_leave(struct stcp_direction *d)
{
	struct stcp_owner *o = d->relay->owner;

	lockdep_assert_held(&stcp_line_lock);
	list_del_init(&d->line);
	if (list_empty(&o->line))
		list_del_init(&o->turn);
}

/* The next direction, out of its line; the owner's next turn is the last. */
static struct stcp_direction *stcp_line_next(void)
{
	struct stcp_owner *o;
	struct stcp_direction *d;

	lockdep_assert_held(&stcp_line_lock);
	o = list_first_entry_or_null(&stcp_turns, struct stcp_owner, turn);
	if (!o)
		return NULL;
	d = list_first_entry(&o->line, struct stcp_direction, line);
	list_move_tail(&o->turn, &stcp_turns);
	stcp_line_leave(d);
	return d;
}

/* Does another owner wait? A look without the lock, good for one step. */
static bool stcp_others_wait(const struct stcp_direction *d)
{
	const struct list_head *first = READ_ONCE(stcp_turns.next);

	return first != &stcp_turns && first != &d->relay->owner->turn;
}

/*
 * Come again when there may be memory. TCP has just said, from within the send
 * that failed, that there is room: that kick is not to be followed.
 */
static void stcp_direction_retry(struct stcp_direction *d)
{
	queue_delayed_work(stcp_queue, &d->retry, d->retry_delay);
	d->retry_delay = min_t(u32, 2 * d->retry_delay, STCP_RETRY_MAX);
	spin_lock_bh(&stcp_line_lock);
	d->again = false;
	spin_unlock_bh(&stcp_line_lock);
}

static void stcp_turn_end(struct stcp_direction *d, enum stcp_next next)
{
	if (d->out == d->out_end && !d->in_end)
		stcp_buffer_free(&d->buffer);
	if (next != STCP_NEXT_RETRY)
		d->retry_delay = STCP_RETRY_DELAY;
	if (next == STCP_NEXT_MORE || next == STCP_NEXT_YIELD)
		stcp_direction_kick(d);
	else if (next == STCP_NEXT_RETRY)
		stcp_direction_retry(d);
	else if (next == STCP_NEXT_SETTLED)
		stcp_relay_settle(d);
}

static void stcp_turn(struct stcp_direction *d)
{
	enum stcp_next next = STCP_NEXT_MORE;
	struct mem_cgroup *old;
	int steps = STCP_TURN_STEPS;

	d->turn = 0;
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
		next = d->step(d);
		if (stcp_others_wait(d))
			steps = 0;
	}
	stcp_turn_end(d, next);
out:
	set_active_memcg(old);
}

static void stcp_carry(struct work_struct *work)
{
	struct stcp_carrier *carrier = container_of(work, struct stcp_carrier, work);
	struct stcp_direction *d;
	int turns = STCP_CARRIER_TURNS;

	spin_lock_bh(&stcp_line_lock);
	while ((d = stcp_line_next())) {
		d->running = true;
		spin_unlock_bh(&stcp_line_lock);
		stcp_turn(d);
		cond_resched();
		spin_lock_bh(&stcp_line_lock);
		d->running = false;
		if (d->again)
			stcp_line_join(d);
		d->again = false;
		if (d->awaited)
			complete(d->awaited);
		d->awaited = NULL;
		if (!--turns) {
			spin_unlock_bh(&stcp_line_lock);
			queue_work(stcp_queue, &carrier->work);
			return;
		}
	}
	stcp_busy_carriers--;
	list_add(&carrier->idle, &stcp_idle_carriers);
	spin_unlock_bh(&stcp_line_lock);
}

/* A carrier that is free, where not all CPUs have one at work; NULL else. */
static struct stcp_carrier *stcp_free_carrier(void)
{
	struct stcp_carrier *carrier;

	lockdep_assert_held(&stcp_line_lock);
	if (stcp_busy_carriers >= num_online_cpus())
		return NULL;
	carrier = list_first_entry_or_null(&stcp_idle_carriers,
					   struct stcp_carrier, idle);
	if (carrier) {
		list_del(&carrier->idle);
		stcp_busy_carriers++;
	}
	return carrier;
}

/* Give @d a turn: soon, or once more after the one that it has. */
void stcp_direction_kick(struct stcp_direction *d)
{
	struct stcp_carrier *carrier = NULL;

	spin_lock_bh(&stcp_line_lock);
	if (d->running) {
		d->again = true;
	} else if (list_empty(&d->line)) {
		stcp_line_join(d);
		carrier = stcp_free_carrier();
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
		if (!list_empty(&d->line))
			stcp_line_leave(d);
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
	d->buffer.allowance = &relay->owner->beyond;
	d->retry_delay = STCP_RETRY_DELAY;
}

/*
 * From now on it may have turns, the first at once. With the second direction the relay
 * may have ended, and been given back and freed, as soon as the lock of the line is free.
 */
void stcp_direction_start(struct stcp_direction *d)
{
	struct stcp_carrier *carrier;

	spin_lock_bh(&stcp_line_lock);
	d->running = false;
	d->again = false;
	stcp_line_join(d);
	carrier = stcp_free_carrier();
	spin_unlock_bh(&stcp_line_lock);
	if (carrier)
		queue_work(stcp_queue, &carrier->work);
}

/* Gives up keys and buffers. It must not have a turn any more. */
void stcp_direction_free(struct stcp_direction *d)
{
	stcp_cipher_destroy(&d->cipher);
	stcp_buffer_free(&d->buffer);
	kvfree(d->queued);
	d->queued = NULL;
}

int stcp_pump_init(void)
{
	unsigned int i, count = num_possible_cpus();

	stcp_carriers = kcalloc(count, sizeof(*stcp_carriers), GFP_KERNEL);
	if (!stcp_carriers)
		return -ENOMEM;
	stcp_queue = alloc_workqueue("stcp", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
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
