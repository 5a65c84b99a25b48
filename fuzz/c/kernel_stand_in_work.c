/* Work items and tasklets of kernel_stand_in.h: they wait in one array until the harness runs them, in any order. */
#include "kernel_harness.h"

#define MAX_WORKS 16
static struct work_struct *works[MAX_WORKS];
int stand_in_works;

static void add_work(struct work_struct *work, unsigned long delay)
{
	CHECK(stand_in_works < MAX_WORKS);
	work->queued = true;
	work->at = jiffies + delay;
	works[stand_in_works++] = work;
}

static bool remove_work(struct work_struct *work)
{
	if (!work->queued)
		return false;
	for (int i = 0; i < stand_in_works; i++) {
		if (works[i] == work) {
			works[i] = works[--stand_in_works];
			break;
		}
	}
	work->queued = false;
	return true;
}

/* Run one work item that is due; `which` chooses among them. False if none is. */
bool run_a_work_item(unsigned int which)
{
	struct work_struct *due[MAX_WORKS], *work;
	int n = 0;

	for (int i = 0; i < stand_in_works; i++) {
		if (time_after_eq(jiffies, works[i]->at))
			due[n++] = works[i];
	}
	if (!n)
		return false;
	work = due[which % (unsigned int)n];
	remove_work(work);
	work->func(work);
	return true;
}

/* Let time pass until the next work item is due. False if none waits. */
bool skip_to_the_next_work_item(void)
{
	unsigned long next = ULONG_MAX;

	for (int i = 0; i < stand_in_works; i++)
		next = works[i]->at < next ? works[i]->at : next;
	if (!stand_in_works)
		return false;
	if (time_before(jiffies, next))
		jiffies = next;
	return true;
}

bool queue_work(struct workqueue_struct *queue, struct work_struct *work)
{
	(void)queue;
	if (work->queued)
		return false;
	add_work(work, 0);
	return true;
}

bool queue_delayed_work(struct workqueue_struct *queue, struct delayed_work *work, unsigned long delay)
{
	(void)queue;
	if (work->work.queued)
		return false;
	add_work(&work->work, delay);
	work->timer.expires = work->work.at;
	return true;
}

bool mod_delayed_work(struct workqueue_struct *queue, struct delayed_work *work, unsigned long delay)
{
	bool was = remove_work(&work->work);

	queue_delayed_work(queue, work, delay);
	return was;
}

bool cancel_delayed_work_sync(struct delayed_work *work)
{
	return remove_work(&work->work);
}

bool flush_delayed_work(struct delayed_work *work)
{
	bool was = remove_work(&work->work);

	if (was)
		work->work.func(&work->work);
	return was;
}

struct workqueue_struct *alloc_workqueue(const char *name, unsigned int flags, int max_active)
{
	static struct workqueue_struct queue;

	(void)name, (void)flags, (void)max_active;
	return &queue;
}

void destroy_workqueue(struct workqueue_struct *queue)
{
	(void)queue;
}

/* -- tasklets ---- */
u64 local_clock(void)
{
	static u64 now;

	return now += NSEC_PER_SEC / HZ / 20;
}

bool stand_in_softirq;

static void run_tasklet(struct work_struct *work)
{
	struct tasklet_struct *tasklet = container_of(work, struct tasklet_struct, work);

	stand_in_softirq = true;
	tasklet->callback(tasklet);
	stand_in_softirq = false;
}

void tasklet_setup(struct tasklet_struct *tasklet, void (*callback)(struct tasklet_struct *tasklet))
{
	INIT_WORK(&tasklet->work, run_tasklet);
	tasklet->callback = callback;
}

void tasklet_schedule(struct tasklet_struct *tasklet)
{
	queue_work(NULL, &tasklet->work);
}

void tasklet_kill(struct tasklet_struct *tasklet)
{
	remove_work(&tasklet->work);
}
