// SPDX-License-Identifier: GPL-2.0
/*
 * The line: directions that have something to do, and who gives them turns.
 *
 * Socket callbacks kick a direction: it joins the line of its owner's directions,
 * unless it stands there already. Whoever serves the line takes the owners in turn,
 * and of each owner the direction at the front of its line, and gives it a turn
 * (pump.c). No wake-up is lost: a direction that is kicked during its turn joins the
 * line again after it, so a step may look at a queue, find it empty and return. It
 * never has two turns at once. The lock of the line passes what one turn wrote on to
 * the next, on whatever CPU.
 *
 * Two kinds serve the line. A direction whose socket has received little is served by
 * a tasklet on the CPU that received it, right after TCP: nobody has to be woken, and
 * the bytes are still in the CPU's cache. The tasklet takes whoever is at the front, as
 * carriers do. Everything else is for carriers, one work item for each CPU: much to do,
 * a kick for another reason, a turn that wants a process, and whatever a tasklet has
 * left when its time or its turns are used up. Carriers run on an unbound queue: the
 * scheduler places them, so the two ends of a bulk transfer run on two CPUs. While all
 * are at work, nobody is woken. A work item for each direction would do the same, but
 * the workqueue wakes a worker for every item.
 *
 * While a direction stands in the line, a carrier is busy, or a tasklet is scheduled
 * or runs. A tasklet starts a carrier before it leaves anybody behind.
 *
 * Fairness. Nobody sleeps in a turn, and a turn ends after the step at hand when
 * another owner waits. So an owner waits for one step of each other owner, however
 * many relays these have. Within one owner's line the order is first come, first
 * served. A tasklet has no order of its own. It may interrupt a carrier in a turn of
 * somebody else. Tasklets come before all processes, so they have at most half of each
 * tick of a CPU; after that carriers do everything until the next tick.
 */
#include <linux/cpumask.h>
#include <linux/interrupt.h>
#include <linux/percpu.h>
#include <linux/sched/clock.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <asm/simd.h>
#include <crypto/internal/simd.h>

#include "internal.h"

/* Turns after which a carrier makes way for other work items. */
#define STCP_CARRIER_TURNS	256
/* After this many turns a tasklet leaves the rest to carriers. */
#define STCP_TASKLET_TURNS	64
/* What tasklets may take of a tick on one CPU: half of it, and not more than this. */
#define STCP_TASKLET_NS		min_t(u64, 2 * NSEC_PER_MSEC, NSEC_PER_SEC / HZ / 2)

/* One for each CPU, and of that CPU alone. */
struct stcp_server {
	struct tasklet_struct tasklet;
	unsigned long tick;		/* in which ... */
	u64 spent;			/* ... this much of the CPU went, in ns */
};

struct stcp_carrier {
	struct work_struct work;
	struct list_head idle;
};

struct workqueue_struct *stcp_queue;
static struct stcp_carrier *stcp_carriers;
static DEFINE_PER_CPU(struct stcp_server, stcp_servers);
/* Taken in softirq; held for a few list operations. */
static DEFINE_SPINLOCK(stcp_line_lock);
/* Owners with a direction in their line, by their turn. */
static LIST_HEAD(stcp_turns);
static LIST_HEAD(stcp_idle_carriers);
static unsigned int stcp_busy_carriers;

/* Put @d at the end of its owner's line. */
static void stcp_line_join(struct stcp_direction *d, bool little)
{
	struct stcp_owner *o = d->relay->owner;

	lockdep_assert_held(&stcp_line_lock);
	d->little = little;
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

/* The direction whose turn is next, still in its line. */
static struct stcp_direction *stcp_line_front(void)
{
	struct stcp_owner *o;

	lockdep_assert_held(&stcp_line_lock);
	o = list_first_entry_or_null(&stcp_turns, struct stcp_owner, turn);
	return o ? list_first_entry(&o->line, struct stcp_direction, line) : NULL;
}

/* Take @d, the front, out of its line for a turn; the owner's next turn is the last. */
static void stcp_line_take(struct stcp_direction *d)
{
	list_move_tail(&d->relay->owner->turn, &stcp_turns);
	stcp_line_leave(d);
	d->running = true;
}

/* @d has had its turn. */
static void stcp_line_back(struct stcp_direction *d)
{
	lockdep_assert_held(&stcp_line_lock);
	d->running = false;
	if (d->again)
		stcp_line_join(d, d->little);
	d->again = false;
	if (d->awaited)
		complete(d->awaited);
	d->awaited = NULL;
}

/* Does another owner wait? A look without the lock, good for one step. */
bool stcp_others_wait(const struct stcp_direction *d)
{
	const struct list_head *first = READ_ONCE(stcp_turns.next);

	return first != &stcp_turns && first != &d->relay->owner->turn;
}

static void stcp_carry(struct work_struct *work)
{
	struct stcp_carrier *carrier = container_of(work, struct stcp_carrier, work);
	struct stcp_direction *d;
	int turns = STCP_CARRIER_TURNS;

	spin_lock_bh(&stcp_line_lock);
	while ((d = stcp_line_front())) {
		stcp_line_take(d);
		spin_unlock_bh(&stcp_line_lock);
		stcp_turn(d, false);
		cond_resched();
		spin_lock_bh(&stcp_line_lock);
		stcp_line_back(d);
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

/* Start a carrier, where one is free and not all CPUs have one at work. */
static void stcp_start_carrier(void)
{
	struct stcp_carrier *carrier;

	lockdep_assert_held(&stcp_line_lock);
	if (stcp_busy_carriers >= num_online_cpus())
		return;
	carrier = list_first_entry_or_null(&stcp_idle_carriers,
					   struct stcp_carrier, idle);
	if (carrier) {
		list_del(&carrier->idle);
		stcp_busy_carriers++;
		queue_work(stcp_queue, &carrier->work);
	}
}

/*
 * Has this CPU's tasklet time left in this tick? Relays whose bytes go round in a ring
 * would keep it at work for ever, before all processes and without any of their own.
 */
static bool stcp_has_time(struct stcp_server *server)
{
	if (time_after(jiffies, server->tick)) {
		server->tick = jiffies;
		server->spent = 0;
	}
	return server->spent < STCP_TASKLET_NS;
}

/* The time since @from was spent, in this tick. Return: the time now. */
static u64 stcp_spend(struct stcp_server *server, u64 from)
{
	u64 now = local_clock();

	server->spent += now - from;
	return now;
}

/*
 * The turns of a tasklet. They are brief ones, for directions that have received
 * little; the first of another kind is left to a carrier, with all behind it. One that
 * refuses a brief turn becomes such a one, at the end of its owner's line.
 */
static void stcp_serve(struct tasklet_struct *tasklet)
{
	struct stcp_server *server = container_of(tasklet, struct stcp_server, tasklet);
	bool served, possible = crypto_simd_usable();
	int turns = STCP_TASKLET_TURNS;
	struct stcp_direction *d;
	u64 now = local_clock();

	spin_lock(&stcp_line_lock);
	while ((d = stcp_line_front())) {
		if (!possible || !d->little || !turns-- || !stcp_has_time(server)) {
			stcp_start_carrier();
			break;
		}
		stcp_line_take(d);
		spin_unlock(&stcp_line_lock);
		served = stcp_turn(d, true);
		now = stcp_spend(server, now);
		spin_lock(&stcp_line_lock);
		if (!served) {
			d->again = true;
			d->little = false;
		}
		stcp_line_back(d);
	}
	spin_unlock(&stcp_line_lock);
}

/*
 * Give @d a turn, or once more after the one that it has. @little: there is little to
 * do, so a tasklet will do.
 */
void stcp_line_kick(struct stcp_direction *d, bool little)
{
	struct stcp_server *server;

	spin_lock_bh(&stcp_line_lock);
	server = this_cpu_ptr(&stcp_servers);
	little = little && stcp_has_time(server);
	if (d->running) {
		d->little = little && (d->little || !d->again);
		d->again = true;
	} else if (list_empty(&d->line)) {
		stcp_line_join(d, little);
		if (little)
			tasklet_schedule(&server->tasklet);
		else
			stcp_start_carrier();
	} else if (d->little && !little) {
		d->little = false;
		stcp_start_carrier();
	}
	spin_unlock_bh(&stcp_line_lock);
}

/* What kicked @d during its turn is not to be followed. */
void stcp_direction_forget_kick(struct stcp_direction *d)
{
	spin_lock_bh(&stcp_line_lock);
	d->again = false;
	spin_unlock_bh(&stcp_line_lock);
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

/* From now on it may have turns, the first at once. */
void stcp_direction_start(struct stcp_direction *d)
{
	spin_lock_bh(&stcp_line_lock);
	d->running = false;
	d->again = false;
	spin_unlock_bh(&stcp_line_lock);
	stcp_direction_kick(d);
}

int stcp_line_init(void)
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
	for_each_possible_cpu(i) {
		tasklet_setup(&per_cpu_ptr(&stcp_servers, i)->tasklet, stcp_serve);
		per_cpu_ptr(&stcp_servers, i)->tick = jiffies;
	}
	for (i = 0; i < count; i++) {
		INIT_WORK(&stcp_carriers[i].work, stcp_carry);
		list_add_tail(&stcp_carriers[i].idle, &stcp_idle_carriers);
	}
	return 0;
}

/* No direction is left, so whoever still serves the line finds nobody there. */
void stcp_line_exit(void)
{
	int cpu;

	for_each_possible_cpu(cpu)
		tasklet_kill(&per_cpu_ptr(&stcp_servers, cpu)->tasklet);
	destroy_workqueue(stcp_queue);
	kfree(stcp_carriers);
}
